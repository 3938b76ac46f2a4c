//! The blobs that the record of a build names.

use std::collections::BTreeMap;

use lapstrake_build::{BuildRecord, Journal, Part};
use lapstrake_diag::Outcome;
use lapstrake_oci::Digest;
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_store::Store;
use prost::Message as _;

use super::spans;
use crate::records;

const LOGS: &str = "application/vnd.buildkit.status.v0";
const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";
/// As BuildKit spells it.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// A blob of a record.
pub(crate) struct Blob {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// When the build ended, in seconds since the Unix epoch.
    pub(crate) created: i64,
}

/// The values of a record that are computed from its journal and its parts.
pub(super) struct Facts {
    /// The generation of the record that this is about.
    pub(super) generation: u32,
    logs: api::Descriptor,
    trace: api::Descriptor,
    /// The error without its details, and the blob with them.
    error: Option<(rpc::Status, api::Descriptor)>,
    total: usize,
    cached: usize,
    completed: usize,
    warnings: usize,
}

impl Facts {
    /// Reads the journal and the parts of `record`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn of(store: &Store, record: &BuildRecord) -> Outcome<Facts> {
        let journal = journal(store, record)?;
        let trace = descriptor(TRACE, &trace(store, record, &journal)?);
        let messages = records::messages(record, journal);
        let mut steps: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        for vertex in messages.iter().flat_map(|message| &message.vertexes) {
            let (cached, completed) = steps.entry(&vertex.digest).or_default();
            *cached |= vertex.cached;
            *completed |= vertex.completed.is_some();
        }
        let error = error(store, record)?.map(|bytes| {
            let told = rpc::Status::decode(bytes.as_slice()).unwrap_or_default();
            (rpc::Status { details: Vec::new(), ..told }, descriptor(ERROR, &bytes))
        });
        Ok(Facts {
            generation: record.generation,
            logs: descriptor(LOGS, &logs(&messages)),
            trace,
            error,
            total: steps.len(),
            cached: steps.values().filter(|(cached, _)| *cached).count(),
            completed: steps.values().filter(|(_, completed)| *completed).count(),
            warnings: messages.iter().map(|message| message.warnings.len()).sum(),
        })
    }

    /// Adds all of this to `record`. A trace that is not complete yet is left out.
    pub(super) fn describe(&self, record: &mut api::BuildHistoryRecord, has_trace: bool) {
        let count = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        record.logs = Some(self.logs.clone());
        record.trace = has_trace.then(|| self.trace.clone());
        record.error = self.error.as_ref().map(|(error, _)| error.clone());
        record.external_error = self.error.as_ref().map(|(_, blob)| blob.clone());
        record.num_total_steps = count(self.total);
        record.num_cached_steps = count(self.cached);
        record.num_completed_steps = count(self.completed);
        record.num_warnings = count(self.warnings);
    }

    /// The blob with the digest `digest`, if it belongs to `record`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn blob(&self, store: &Store, record: &BuildRecord, digest: &str) -> Outcome<Option<Blob>> {
        let bytes = if self.logs.digest == digest {
            Some(logs(&records::messages(record, journal(store, record)?)))
        } else if self.trace.digest == digest {
            Some(trace(store, record, &journal(store, record)?)?)
        } else if self.error.as_ref().is_some_and(|(_, blob)| blob.digest == digest) {
            error(store, record)?
        } else {
            documents(record).remove(digest)
        };
        // Another process may have changed the record meanwhile.
        let bytes = bytes.filter(|bytes| Digest::sha256(bytes).to_string() == digest);
        Ok(bytes.map(|bytes| Blob { bytes, created: ended(record) }))
    }

    /// All blobs of `record`: their digests, sizes, and the time of the end of the build.
    pub(super) fn list(&self, record: &BuildRecord) -> Vec<(String, (u64, i64))> {
        let own = [Some(&self.logs), Some(&self.trace), self.error.as_ref().map(|(_, blob)| blob)];
        let size = |blob: &api::Descriptor| u64::try_from(blob.size).unwrap_or(0);
        let own = own.into_iter().flatten().map(|blob| (blob.digest.clone(), size(blob)));
        let of_images = documents(record).into_iter();
        let of_images = of_images.map(|(digest, bytes)| (digest, bytes.len() as u64));
        own.chain(of_images).map(|(digest, size)| (digest, (size, ended(record)))).collect()
    }
}

fn ended(record: &BuildRecord) -> i64 {
    record.started.saturating_add(i64::try_from(record.took).unwrap_or(i64::MAX)).div_euclid(1000)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> api::Descriptor {
    api::Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::sha256(bytes).to_string(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        annotations: BTreeMap::new(),
    }
}

fn journal(store: &Store, record: &BuildRecord) -> Outcome<Journal> {
    Ok(Journal::decode(&store.build_log(&record.id)?)?)
}

/// Messages one after the other, each behind its length: 32 bits, little endian.
fn logs(messages: &[api::StatusResponse]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(message.encode_to_vec());
    }
    bytes
}

/// The spans of the build, and those that its client has sent.
fn trace(store: &Store, record: &BuildRecord, journal: &Journal) -> Outcome<Vec<u8>> {
    let mut lines = spans::of_build(record, journal);
    lines.extend(BuildRecord::part(store, &record.id, Part::Spans)?.unwrap_or_default());
    Ok(lines)
}

/// The error with its details. Builds from the command line have none.
fn error(store: &Store, record: &BuildRecord) -> Outcome<Option<Vec<u8>>> {
    let Some(message) = &record.error else { return Ok(None) };
    let kept = BuildRecord::part(store, &record.id, Part::Error)?;
    let plain = || {
        let code = records::code(record.status).into();
        rpc::Status { code, message: message.clone(), details: Vec::new() }.encode_to_vec()
    };
    Ok(Some(kept.unwrap_or_else(plain)))
}

/// The indexes, manifests and configs of the images that the build has made, by their digests. Layers are not given to clients:
/// they may be of private images.
fn documents(record: &BuildRecord) -> BTreeMap<String, Vec<u8>> {
    let one = |text: &String| (Digest::sha256(text.as_bytes()).to_string(), text.clone().into_bytes());
    record.documents.iter().map(one).collect()
}
