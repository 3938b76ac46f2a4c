//! Records of builds through the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lapstrake_build::{BuildRecord, Call, Journal, Status as Ended};
use lapstrake_diag::{Outcome, Report};
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_store::{BuildRow, Store};
use prost_types::Timestamp;
use tonic::Code;

use crate::jobs::Job;
use crate::status::Messages;

/// An event about a build that runs.
pub(crate) fn started(job: &Job) -> api::BuildHistoryEvent {
    let secrets = job.secrets();
    let attrs = job.request.frontend_attrs.iter();
    let record = api::BuildHistoryRecord {
        r#ref: job.id.clone(),
        frontend: job.request.frontend.clone(),
        frontend_attrs: attrs.map(|(key, value)| (key.clone(), secrets.hide(value))).collect(),
        created_at: Some(Timestamp::from(job.begun)),
        ..api::BuildHistoryRecord::default()
    };
    event(api::BuildHistoryEventType::Started, record)
}

/// An event about a record that was removed.
pub(crate) fn deleted(id: &str) -> api::BuildHistoryEvent {
    let record = api::BuildHistoryRecord { r#ref: id.to_owned(), ..api::BuildHistoryRecord::default() };
    event(api::BuildHistoryEventType::Deleted, record)
}

/// An event about `record`.
pub(crate) fn event(
    kind: api::BuildHistoryEventType,
    record: api::BuildHistoryRecord,
) -> api::BuildHistoryEvent {
    api::BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

/// The stored part of the record of a build that is over.
pub(crate) fn described(record: &BuildRecord) -> api::BuildHistoryRecord {
    let mut attrs = BTreeMap::new();
    attrs.insert("filename".to_owned(), record.subject.dockerfile.clone());
    attrs.insert("vcs:localdir:context".to_owned(), record.subject.context.clone());
    let more = [("target", &record.subject.target), ("platform", &record.subject.platform)];
    attrs.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
    let mut response = BTreeMap::new();
    if !record.names.is_empty() {
        response.insert("image.name".to_owned(), record.names.join(","));
    }
    if let Some(image) = &record.image {
        response.insert("containerimage.digest".to_owned(), image.clone());
    }
    let took = i64::try_from(record.took).unwrap_or(i64::MAX);
    let of_here = || Call { frontend: "dockerfile.v0".to_owned(), attrs, response, ..Call::default() };
    let Call { frontend, attrs, exporters, response, traceparent: _ } =
        record.call.clone().unwrap_or_else(of_here);
    api::BuildHistoryRecord {
        r#ref: record.id.clone(),
        frontend,
        frontend_attrs: attrs,
        exporters: exporters.into_iter().map(|(kind, attrs)| api::Exporter { r#type: kind, attrs }).collect(),
        created_at: Some(time(record.started)),
        completed_at: Some(time(record.started.saturating_add(took))),
        exporter_response: response,
        result: Some(results(record)),
        pinned: record.pinned,
        generation: i32::try_from(record.generation).unwrap_or(i32::MAX),
        ..api::BuildHistoryRecord::default()
    }
}

/// The images that a build has made.
fn results(record: &BuildRecord) -> api::BuildResultInfo {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let one = |descriptor: &serde_json::Value| api::Descriptor {
        media_type: text(&descriptor["mediaType"]),
        digest: text(&descriptor["digest"]),
        size: descriptor["size"].as_i64().unwrap_or_default(),
        annotations: BTreeMap::new(),
    };
    let number = |number: &usize| i64::try_from(*number).unwrap_or(i64::MAX);
    api::BuildResultInfo {
        result_deprecated: record.results.values().next().map(one),
        attestations: Vec::new(),
        results: record.results.iter().map(|(at, descriptor)| (number(at), one(descriptor))).collect(),
    }
}

/// The call of `job`, for its record.
pub(crate) fn call(job: &Job, response: BTreeMap<String, String>) -> Call {
    let exporters = job.request.exporters.iter();
    Call {
        frontend: job.request.frontend.clone(),
        attrs: job.request.frontend_attrs.clone(),
        exporters: exporters.map(|one| (one.r#type.clone(), one.attrs.clone())).collect(),
        response,
        traceparent: job.traceparent.clone(),
    }
}

/// Milliseconds since the Unix epoch as a time.
fn time(milliseconds: i64) -> Timestamp {
    let nanos = i32::try_from(milliseconds.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    Timestamp { seconds: milliseconds.div_euclid(1000), nanos }
}

/// The row of the build with exactly the id `id`.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn row(store: &Store, id: &str) -> Outcome<Option<BuildRow>> {
    if id.is_empty() {
        return Ok(None);
    }
    Ok(store.builds_named(id)?.into_iter().find(|row| row.id == id))
}

/// The messages of a build that is over, as clients saw them while it ran.
pub(crate) fn messages(record: &BuildRecord, journal: Journal) -> Vec<api::StatusResponse> {
    let began = u64::try_from(record.started).unwrap_or(0);
    let mut messages = Messages::since(SystemTime::UNIX_EPOCH + Duration::from_millis(began));
    journal.into_events().into_iter().filter_map(|event| messages.of(event)).collect()
}

/// The messages of the build `row`.
///
/// # Errors
/// The journal cannot be read.
pub(crate) fn replay(store: &Arc<Store>, row: &BuildRow) -> Outcome<Vec<api::StatusResponse>> {
    let journal =
        Journal::decode(&store.build_log(&row.id)?).map_err(|error| Report::new(error.to_string()))?;
    Ok(messages(&BuildRecord::decode(row)?, journal))
}

/// The code of the error of a build that ended with `status`.
pub(crate) fn code(status: Ended) -> Code {
    match status {
        Ended::Completed => Code::Ok,
        Ended::Failed => Code::Unknown,
        Ended::Canceled => Code::Cancelled,
    }
}
