//! The record of a build, for `builds`, `explain` and pictures.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use lapstrake_diag::{Context as _, Fault, Outcome, Report, Usage};
use lapstrake_engine::{Secrets, StepOutcome};
use lapstrake_oci::Digest;
use lapstrake_ops::StackReport;
use lapstrake_request::BuildRequest;
use lapstrake_store::{BuildRow, Store};
use serde::{Deserialize, Serialize};

use crate::attrs;
use crate::context_source::Place;
use crate::deliver::Delivered;
use crate::journal::Journal;
use crate::resolved::Resolved;

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The build succeeded.
    Completed,
    /// With an error.
    Failed,
    /// By Ctrl-C.
    Canceled,
}

impl Status {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Completed => "Completed",
            Status::Failed => "Failed",
            Status::Canceled => "Canceled",
        }
    }
}

/// The subject of a build. Builds of one subject are compared with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The context: an absolute path, or an address without user and password.
    pub context: String,
    /// The Dockerfile, as it was named.
    pub dockerfile: String,
    /// The stage that was asked for.
    pub target: Option<String>,
    /// The platforms that were asked for.
    pub platform: Option<String>,
}

impl Subject {
    /// The subject of `request`, whose values are in `resolved`.
    ///
    /// # Errors
    /// The working directory is not known.
    pub fn of(request: &BuildRequest, resolved: &Resolved) -> Result<Subject, Usage> {
        let context = match &resolved.place {
            Place::Directory => attrs::absolute(&request.context)?.to_string_lossy().into_owned(),
            Place::Later | Place::Remote(_) | Place::Stdin => {
                without_secrets(&request.context.to_string_lossy())
            }
        };
        let file = request.dockerfile.as_ref().map_or("Dockerfile".into(), |file| file.to_string_lossy());
        let (target, platform) = (request.target.clone(), request.platforms.clone());
        Ok(Subject { context, dockerfile: without_secrets(&file), target, platform })
    }

    fn line(&self) -> String {
        Digest::sha256(&lapstrake_go::to_json(self)).hex()[..32].to_owned()
    }
}

/// A build that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its name.
    pub id: String,
    /// When it began, milliseconds since the Unix epoch.
    pub started: i64,
    /// How long it took, in milliseconds.
    pub took: u64,
    /// How it ended.
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// The report of the failure as an object: `code`, `message`, `causes`, `hint`, `fault`, `file`, `line`. Builds before
    /// reports have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<serde_json::Value>,
    /// The subject.
    pub subject: Subject,
    /// The names of the image.
    pub names: Vec<String>,
    /// Its id.
    pub image: Option<String>,
    /// The report of each step.
    pub steps: Vec<StackReport>,
    /// The call of a client of the API; nothing for builds of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// The descriptors of the images that outputs have made, as JSON, by the numbers of the outputs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<usize, serde_json::Value>,
    /// The indexes, manifests and configs of these images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// Whether the record is kept whatever its age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// How often the record has changed since the build ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
}

/// A part of a record besides its journal. The store has each part under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The error of a client's build with its details: an encoded `google.rpc.Status`.
    Error,
    /// The spans that the client has sent of its own trace, one JSON object a line.
    Spans,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Error => "error",
            Part::Spans => "spans",
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The call of a client of the API, as its records of builds show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The name of the frontend; empty for a definition.
    pub frontend: String,
    /// The options of the frontend.
    pub attrs: BTreeMap<String, String>,
    /// The outputs: their types and their options.
    pub exporters: Vec<(String, BTreeMap<String, String>)>,
    /// The answer of the outputs.
    pub response: BTreeMap<String, String>,
    /// The span of the client that the build is a part of, as the header `traceparent` of the W3C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl BuildRecord {
    /// Of a build that begins now.
    pub fn begin(subject: Subject) -> BuildRecord {
        BuildRecord {
            id: new_id(),
            started: now(),
            took: 0,
            status: Status::Completed,
            error: None,
            report: None,
            subject,
            names: Vec::new(),
            image: None,
            steps: Vec::new(),
            call: None,
            results: BTreeMap::new(),
            documents: Vec::new(),
            pinned: false,
            generation: 0,
        }
    }

    /// The build is over, with what it delivered or with the report of its failure.
    pub fn end(&mut self, result: Result<Option<&Delivered>, &Report>) {
        self.took = u64::try_from(now() - self.started).unwrap_or(0);
        match result {
            Ok(delivered) => {
                let id = delivered.and_then(|delivered| delivered.id.as_ref());
                self.image = id.map(ToString::to_string);
                self.results = delivered.map(|delivered| delivered.descriptors.clone()).unwrap_or_default();
                self.documents = delivered.map(|delivered| delivered.documents.clone()).unwrap_or_default();
            }
            Err(report) => {
                let canceled = matches!(report.fault(), Fault::Canceled(_));
                self.status = if canceled { Status::Canceled } else { Status::Failed };
                self.error = Some(report.to_string());
                self.report = serde_json::to_value(report).ok();
            }
        }
    }

    /// Removes secrets from the record of the build. The solver has already removed them from the steps.
    pub fn hide(&mut self, secrets: &Secrets) {
        let texts = [&mut self.subject.context, &mut self.subject.dockerfile].into_iter();
        let texts = texts.chain(&mut self.error).chain(&mut self.names);
        texts.for_each(|text| *text = secrets.hide(text));
        self.report.iter_mut().for_each(|report| secrets.hide_json(report));
        // A document without its secrets would be another one.
        self.documents.retain(|text| secrets.hide(text) == *text);
        if let Some(call) = &mut self.call {
            let exported = call.exporters.iter_mut().flat_map(|(_, attrs)| attrs.values_mut());
            let values = call.attrs.values_mut().chain(call.response.values_mut()).chain(exported);
            values.for_each(|value| *value = secrets.hide(value));
        }
    }

    /// Keeps the record with the journal.
    pub fn keep(self, store: &Store, journal: &Journal) -> Outcome<()> {
        Ok(store.put_build(&self.row()?, &journal.encode()?)?)
    }

    /// Changes the record of a build that is kept. Says whether the build is there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn change(&self, store: &Store) -> Outcome<bool> {
        Ok(store.update_build(&self.row()?, self.pinned)?)
    }

    fn row(&self) -> Outcome<BuildRow> {
        let record = zstd::bulk::compress(&lapstrake_go::to_json(self), 1)?;
        Ok(BuildRow { line: self.subject.line(), id: self.id.clone(), started: self.started, record })
    }

    /// Keeps `bytes` with the record `id`, which is in the store.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_part(store: &Store, id: &str, part: Part, bytes: &[u8]) -> Outcome<()> {
        store.put_build_part(id, part.name(), &zstd::bulk::compress(bytes, 1)?)?;
        Ok(())
    }

    /// The value that [`BuildRecord::put_part`] has kept.
    ///
    /// # Errors
    /// The store cannot be read, or the bytes are damaged.
    pub fn part(store: &Store, id: &str, part: Part) -> Outcome<Option<Vec<u8>>> {
        match store.build_part(id, part.name())? {
            Some(bytes) => Ok(Some(zstd::decode_all(bytes.as_slice())?)),
            None => Ok(None),
        }
    }

    /// From what was kept.
    pub fn decode(row: &BuildRow) -> Outcome<BuildRecord> {
        let unreadable = || format!("the record of build {} cannot be read", row.id);
        let bytes = zstd::decode_all(row.record.as_slice()).with_context(unreadable)?;
        serde_json::from_slice(&bytes).with_context(unreadable)
    }

    /// A name for people: the image's, else the last part of the context's.
    pub fn title(&self) -> String {
        let context =
            || self.subject.context.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
        self.names.first().cloned().unwrap_or_else(context)
    }

    /// How many steps were cached, and how many there are.
    pub fn cached(&self) -> (usize, usize) {
        let counted = |step: &&StackReport| step.lines.is_some();
        let cached = self.steps.iter().filter(counted).filter(|step| step.outcome == StepOutcome::Cached);
        (cached.count(), self.steps.iter().filter(counted).count())
    }
}

/// The build that a person means: the beginning of an id, `^2` for the last but two, or without a name the last one.
pub fn find_build(store: &Store, name: Option<&str>) -> Outcome<BuildRow> {
    let Some(name) = name else {
        return store.last_build()?.context("no build is remembered here yet");
    };
    if let Some(back) = name.strip_prefix('^') {
        let back: usize = back
            .parse()
            .map_err(|_| Usage(format!("`{name}` is not a build: try `^1` for the last but one")))?;
        return store
            .builds()?
            .into_iter()
            .nth(back)
            .with_context(|| format!("there are not so many builds: {name}"));
    }
    let mut found = store.builds_named(name)?.into_iter();
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => {
            Err(Usage(format!("`{name}` is the beginning of more than one build's id")).into())
        }
        (None, _) => Err(Report::new(format!("no such build: {name}"))),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// 25 letters and digits, as buildx names its builds.
fn new_id() -> String {
    let mut bytes = [0; 25];
    let mut filled = 0;
    // Asking for so few bytes only fails before the system has any: then it is tried again.
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    let letters = b"0123456789abcdefghijklmnopqrstuv";
    bytes.iter().map(|byte| char::from(letters[usize::from(byte % 32)])).collect()
}

/// An address without the user and password that may be in it.
pub fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses() {
        assert_ne!(new_id(), new_id());
        assert_eq!(new_id().len(), 25);
        assert_eq!(without_secrets("https://me:pw@host/repo.git#a@b"), "https://host/repo.git#a@b");
        assert_eq!(without_secrets("/a/b@c"), "/a/b@c");
    }
}
