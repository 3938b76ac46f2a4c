//! Disk usage and garbage collection through the API.

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_images::{ImageFilter, PruneScope};
use lapstrake_proto::moby::buildkit::v1::{PruneRequest, UsageRecord};
use lapstrake_store::{Filter, Item, ItemKind, Limits, Rule, Store};
use prost_types::Timestamp;

/// What takes room and fits `filters`. `unused_for` is in nanoseconds.
///
/// # Errors
/// A filter that is not known, or the store cannot be read.
pub(crate) fn list(store: &Store, filters: &[String], unused_for: i64) -> Outcome<Vec<UsageRecord>> {
    let filter = filter(filters, unused_for)?;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Ok(store.items()?.iter().filter(|item| filter.takes(item, now)).map(record).collect())
}

/// Removes what `request` says, and gives what was removed.
///
/// # Errors
/// A filter that is not known, or the store cannot be written.
pub(crate) fn prune(store: &Store, request: &PruneRequest) -> Outcome<Vec<UsageRecord>> {
    let bytes = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let limits = Limits {
        reserved: bytes(request.reserved_space),
        max_used: bytes(request.max_used_space),
        min_free: bytes(request.min_free_space),
    };
    let rule = Rule { filter: filter(&request.filter, request.keep_duration)?, limits };
    if request.all && rule == Rule::default() {
        // Base images of builds are cache here. What was built and is nowhere else stays.
        lapstrake_images::prune(store, PruneScope::Fetchable, &ImageFilter::default())?;
    }
    let removed = store.collect(std::slice::from_ref(&rule))?;
    store.reclaim()?;
    Ok(removed.iter().map(record).collect())
}

/// The filter that texts in containerd's syntax make. `unused_for` is in nanoseconds.
///
/// # Errors
/// A filter that is not known.
pub fn filter(texts: &[String], unused_for: i64) -> Result<Filter, Report> {
    let mut filter = Filter { unused_for: unused_for / 1_000_000_000, ..Filter::default() };
    let mut absent = false;
    for part in texts.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()) {
        let unknown = || {
            Report::from(Usage(format!(
                "filter `{part}` is not supported: there are `type==`, `id==` and `description~=`"
            )))
        };
        let plain = |value: &str| value.trim_matches('"').to_owned();
        match part.split_once("==").map(|(key, value)| (key, plain(value))) {
            Some(("type", value)) => {
                let kind = ItemKind::ALL.into_iter().find(|kind| kind.name() == value);
                // BuildKit has further types, of which nothing is here.
                filter.kinds.extend(kind);
                absent |= kind.is_none();
            }
            Some(("id", value)) => filter.ids.push(value),
            _ => match part.split_once("~=") {
                Some(("description", value)) => filter.descriptions.push(plain(value)),
                _ => return Err(unknown()),
            },
        }
    }
    if absent && filter.kinds.is_empty() {
        filter.ids.push("no such thing".to_owned());
    }
    Ok(filter)
}

fn record(item: &Item) -> UsageRecord {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    UsageRecord {
        id: item.id.clone(),
        mutable: item.kind == ItemKind::CacheMount,
        in_use: false,
        size: i64::try_from(item.size).unwrap_or(i64::MAX),
        created_at: time(item.created),
        last_used_at: time(item.used),
        usage_count: i64::try_from(item.uses).unwrap_or(i64::MAX),
        description: item.description.clone(),
        record_type: item.kind.name().to_owned(),
        shared: item.shared,
        ..UsageRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let read = |text: &str| filter(&[text.to_owned()], 2_000_000_000);
        let one = read("type==regular,id==abc").unwrap();
        assert_eq!((one.kinds, one.ids, one.unused_for), (vec![ItemKind::Layer], vec!["abc".to_owned()], 2));
        assert_eq!(read("description~=\"RUN x\"").unwrap().descriptions, ["RUN x"]);
        assert_eq!(read("type==internal").unwrap().ids.len(), 1);
        let some = read("type==source.git.checkout,type==exec.cachemount").unwrap();
        assert_eq!((some.kinds, some.ids.len()), (vec![ItemKind::CacheMount], 0));
        for bad in ["mutable", "type=regular", "inuse==true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
