//! The records that a client wants to see: filters and times.

use lapstrake_build::without_secrets;
use lapstrake_diag::{Outcome, Usage};
use lapstrake_go::{csv, duration};
use lapstrake_proto::moby::buildkit::v1::BuildHistoryRecord;
use prost_types::Timestamp;
use tonic::Code;

use crate::filter::Filter;

/// Filters, of which one has to fit. Without a filter, all records are wanted.
pub(crate) struct Wanted(Vec<All>);

/// The conditions of one filter. A record has to fit all of them.
struct All {
    times: Vec<Time>,
    rest: Filter,
}

/// A comparison of a time or a duration.
struct Time {
    of: Of,
    order: Order,
    /// Seconds since the Unix epoch; for a duration, nanoseconds.
    limit: i128,
}

#[derive(Clone, Copy)]
enum Of {
    Started,
    Completed,
    Duration,
}

#[derive(Clone, Copy)]
enum Order {
    AtLeast,
    AtMost,
    More,
    Less,
}

impl Wanted {
    /// Reads filters as BuildKit's clients write them: `status==error`, `repository==URL`, `ref~=PATTERN`, `startedAt>1h`,
    /// `duration>=5m`. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// A text that is no filter, no time or no duration.
    pub(crate) fn parse(texts: &[String], now: i64) -> Outcome<Wanted> {
        texts.iter().map(|text| All::parse(text, now)).collect::<Outcome<Vec<_>>>().map(Wanted)
    }

    /// Whether `record` is wanted.
    pub(crate) fn fits(&self, record: &BuildHistoryRecord) -> bool {
        let fits = |all: &All| {
            all.times.iter().all(|time| time.fits(record)) && all.rest.fits(|path| field(record, path))
        };
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

impl All {
    fn parse(text: &str, now: i64) -> Outcome<All> {
        let fields = csv::fields(text).map_err(|error| Usage(format!("filter `{text}`: {error}")))?;
        let (mut times, mut rest) = (Vec::new(), Vec::new());
        for field in fields {
            match Time::parse(&field, now)? {
                Some(time) => times.push(time),
                None => rest.push(field),
            }
        }
        Ok(All { times, rest: Filter::parse(&rest.join(","))? })
    }
}

impl Time {
    fn parse(text: &str, now: i64) -> Outcome<Option<Time>> {
        let orders = [(">=", Order::AtLeast), ("<=", Order::AtMost), (">", Order::More), ("<", Order::Less)];
        let cut = orders.into_iter().find_map(|(sign, order)| {
            let (key, value) = text.split_once(sign)?;
            Some((key, order, value))
        });
        let Some((key, order, value)) = cut else { return Ok(None) };
        let since = |value: &str| match duration::parse(value) {
            Ok(nanoseconds) => Some(i128::from(now) - i128::from(nanoseconds / 1_000_000_000)),
            Err(_) => lapstrake_oci::seconds_of(value).map(i128::from),
        };
        let (of, limit) = match key {
            "startedAt" | "completedAt" => {
                let limit = since(value).ok_or_else(|| Usage(format!("invalid time {value}")))?;
                (if key == "startedAt" { Of::Started } else { Of::Completed }, limit)
            }
            "duration" => {
                let limit = duration::parse(value).map_err(|_| Usage(format!("invalid duration {value}")))?;
                (Of::Duration, i128::from(limit))
            }
            _ => return Ok(None),
        };
        Ok(Some(Time { of, order, limit }))
    }

    fn fits(&self, record: &BuildHistoryRecord) -> bool {
        let seconds = |time: &Option<Timestamp>| time.as_ref().map_or(0, |time| i128::from(time.seconds));
        let nanoseconds =
            |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let value = match (self.of, &record.created_at, &record.completed_at) {
            (Of::Started, ..) => seconds(&record.created_at),
            (Of::Completed, ..) => seconds(&record.completed_at),
            (Of::Duration, Some(from), Some(to)) => nanoseconds(to) - nanoseconds(from),
            (Of::Duration, ..) => 0,
        };
        match self.order {
            Order::AtLeast => value >= self.limit,
            Order::AtMost => value <= self.limit,
            Order::More => value > self.limit,
            Order::Less => value < self.limit,
        }
    }
}

/// The field of a record that a filter names.
fn field(record: &BuildHistoryRecord, path: &[String]) -> Option<String> {
    match path.first()?.as_str() {
        "ref" => Some(record.r#ref.clone()).filter(|id| !id.is_empty()),
        "status" => Some(status(record).to_owned()),
        "repository" => {
            let own = record.frontend_attrs.get("vcs:source").cloned();
            own.or_else(|| repository(record.frontend_attrs.get("context")?))
        }
        _ => None,
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error))
            if error.code == i32::from(Code::Cancelled) || error.message.contains("context canceled") =>
        {
            "canceled"
        }
        (Some(_), Some(_)) => "error",
    }
}

/// The repository of a git context, without the part behind `#`.
fn repository(context: &str) -> Option<String> {
    let address = context.split(['#', '?']).next().unwrap_or(context);
    let of_git = ["git://", "ssh://", "git@"].iter().any(|begin| address.starts_with(begin));
    let of_web = ["http://", "https://"].iter().any(|begin| address.starts_with(begin));
    (of_git || of_web && address.ends_with(".git")).then(|| without_secrets(address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapstrake_proto::google::rpc;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn record(id: &str, hours_ago: i64, minutes: Option<i64>, attrs: &[(&str, &str)]) -> BuildHistoryRecord {
        let begun = NOW - hours_ago * 3_600;
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BuildHistoryRecord {
            r#ref: id.to_owned(),
            created_at: Some(time(begun)),
            completed_at: minutes.map(|minutes| time(begun + minutes * 60)),
            frontend_attrs: attrs.collect::<BTreeMap<_, _>>(),
            ..BuildHistoryRecord::default()
        }
    }

    fn chosen(filters: &[&str]) -> Vec<String> {
        let failed = |mut record: BuildHistoryRecord, code: Code| {
            record.error = Some(rpc::Status { code: code.into(), ..rpc::Status::default() });
            record
        };
        let all = [
            record("foo123", 24, Some(1), &[]),
            record("bar456", 23, None, &[("context", "https://u:p@github.com/user/repo.git#abc")]),
            record("foo789", 22, Some(10), &[("vcs:source", "testrepo")]),
            failed(record("bad", 20, Some(1), &[]), Code::Unknown),
            failed(record("cut", 20, Some(1), &[]), Code::Cancelled),
        ];
        let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
        let wanted = Wanted::parse(&texts, NOW).unwrap();
        all.into_iter().filter(|record| wanted.fits(record)).map(|record| record.r#ref).collect()
    }

    #[test]
    fn records_are_chosen_as_by_buildkit() {
        for (filters, expected) in [
            (&[][..], &["foo123", "bar456", "foo789", "bad", "cut"][..]),
            (&["ref==foo"], &[]),
            (&["ref~=foo"], &["foo123", "foo789"]),
            (&["repository!=testrepo,ref~=foo"], &["foo123"]),
            (&["repository==https://github.com/user/repo.git"], &["bar456"]),
            (&["repository"], &["bar456", "foo789"]),
            (&["status==running"], &["bar456"]),
            (&["status==error"], &["bad"]),
            (&["status==canceled"], &["cut"]),
            (&["status==completed", "status==error"], &["foo123", "foo789", "bad"]),
            (&["startedAt<23h"], &["foo123"]),
            (&["startedAt<=23h"], &["foo123", "bar456"]),
            (&["startedAt>2023-11-14T01:00:00Z"], &["bad", "cut"]),
            (&["duration>5m"], &["foo789"]),
            (&["startedAt>24h,ref~=foo"], &["foo789"]),
        ] {
            assert_eq!(chosen(filters), expected, "{filters:?}");
        }
        for bad in ["ref+foo", "startedAt>soon", "duration>5", "\"a"] {
            assert!(Wanted::parse(&[bad.to_owned()], NOW).is_err(), "{bad}");
        }
    }
}
