//! Spans of traces: those of clients, and those of builds.
//!
//! A trace is text: an object of JSON a span, one after the other, with the fields of the stubs of OpenTelemetry's library for Go.
//! That is the form of the traces in BuildKit's records.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapstrake_build::{BuildRecord, Journal};
use lapstrake_engine::{Event, Secrets};
use lapstrake_oci::{Digest, rfc3339};
use lapstrake_proto::opentelemetry::proto::collector::trace::v1 as api;
use lapstrake_proto::opentelemetry::proto::collector::trace::v1::trace_service_server::TraceService;
use lapstrake_proto::opentelemetry::proto::common::v1::any_value::Value as Any;
use lapstrake_proto::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use lapstrake_proto::opentelemetry::proto::trace::v1::{Resource, Span};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

/// The bytes of spans that are kept for one trace.
const MOST_OF_TRACE: usize = 4 << 20;
/// The bytes of spans that are kept for all traces.
const MOST_BYTES: usize = 16 << 20;
/// The traces that are kept at once.
const MOST_TRACES: usize = 64;
/// The time for which a trace is kept that no build asks for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Zeros for "no span".
const NO_SPAN: &str = "0000000000000000";

/// The spans that clients have sent and that no build has taken yet, by the ids of the traces in hex digits.
#[derive(Default)]
pub(crate) struct Spans(Mutex<BTreeMap<String, Sent>>);

struct Sent {
    lines: Vec<u8>,
    last: Instant,
}

impl Spans {
    /// Takes the spans of a trace out, one JSON object a line.
    pub(crate) fn take(&self, trace: &str) -> Vec<u8> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(trace).map(|sent| sent.lines).unwrap_or_default()
    }

    /// Keeps a span. Spans beyond the limits are left out.
    fn add(&self, trace: String, line: &Value) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !all.contains_key(&trace) {
            all.retain(|_, sent| now.duration_since(sent.last) < PATIENCE);
            if all.len() >= MOST_TRACES {
                return;
            }
        }
        let line = line.to_string();
        let known: usize = all.values().map(|sent| sent.lines.len()).sum();
        let sent = all.entry(trace).or_insert_with(|| Sent { lines: Vec::new(), last: now });
        if sent.lines.len() + line.len() < MOST_OF_TRACE && known + line.len() < MOST_BYTES {
            sent.lines.extend(line.into_bytes());
            sent.lines.push(b'\n');
        }
        sent.last = now;
    }
}

/// The service that takes the spans of clients.
pub(crate) struct Collector(pub(crate) std::sync::Arc<Spans>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<api::ExportTraceServiceRequest>,
    ) -> Result<Response<api::ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            for of_scope in of_resource.scope_spans {
                let scope = of_scope.scope.unwrap_or_default();
                for span in of_scope.spans {
                    if span.trace_id.len() == 16 && span.span_id.len() == 8 {
                        self.0.add(hex(&span.trace_id), &stub(&span, &scope, &resource));
                    }
                }
            }
        }
        Ok(Response::new(api::ExportTraceServiceResponse::default()))
    }
}

/// A span of a client.
fn stub(span: &Span, scope: &InstrumentationScope, resource: &Resource) -> Value {
    let trace = hex(&span.trace_id);
    let parent = if span.parent_span_id.len() == 8 { hex(&span.parent_span_id) } else { NO_SPAN.to_owned() };
    let events = span.events.iter().map(|event| {
        json!({
            "Name": event.name,
            "Attributes": attributes(&event.attributes),
            "DroppedAttributeCount": event.dropped_attributes_count,
            "Time": time(event.time_unix_nano),
        })
    });
    let links = span.links.iter().map(|link| {
        json!({
            "SpanContext": context(&hex(&link.trace_id), &hex(&link.span_id), false),
            "Attributes": attributes(&link.attributes),
            "DroppedAttributeCount": link.dropped_attributes_count,
        })
    });
    let status = span.status.clone().unwrap_or_default();
    let code = match status.code {
        1 => "Ok",
        2 => "Error",
        _ => "Unset",
    };
    json!({
        "Name": span.name,
        "SpanContext": context(&trace, &hex(&span.span_id), false),
        "Parent": context(&trace, &parent, false),
        "SpanKind": span.kind,
        "StartTime": time(span.start_time_unix_nano),
        "EndTime": time(span.end_time_unix_nano),
        "Attributes": attributes(&span.attributes),
        "Events": events.collect::<Vec<_>>(),
        "Links": links.collect::<Vec<_>>(),
        "Status": { "Code": code, "Description": status.message },
        "DroppedAttributes": span.dropped_attributes_count,
        "DroppedEvents": span.dropped_events_count,
        "DroppedLinks": span.dropped_links_count,
        "ChildSpanCount": 0,
        "Resource": attributes(&resource.attributes),
        "InstrumentationLibrary": { "Name": scope.name, "Version": scope.version, "SchemaURL": "" },
    })
}

/// Spans without secrets.
pub(super) fn hidden(spans: &[u8], secrets: &Secrets) -> Vec<u8> {
    if secrets.is_empty() {
        return spans.to_vec();
    }
    let mut lines = Vec::new();
    for mut span in serde_json::Deserializer::from_slice(spans).into_iter::<Value>().map_while(Result::ok) {
        secrets.hide_json(&mut span);
        lines.extend(span.to_string().into_bytes());
        lines.push(b'\n');
    }
    lines
}

/// The spans of a build itself: the call, and in it the steps. They belong to the trace of the client, if it has one.
pub(crate) fn of_build(record: &BuildRecord, journal: &Journal) -> Vec<u8> {
    let parent = record.call.as_ref().and_then(|call| call.traceparent.as_deref()).and_then(Parent::parse);
    let own = |what: &str| Digest::sha256(format!("{}/{what}", record.id).as_bytes()).hex().to_owned();
    let trace = parent.as_ref().map_or_else(|| own("trace")[..32].to_owned(), |parent| parent.trace.clone());
    let root = own("call")[..16].to_owned();
    let begun = u128::try_from(record.started).unwrap_or(0) * 1_000_000;
    let at = |since: u128| time(u64::try_from(begun + since).unwrap_or(u64::MAX));
    let step = |digest: &str| json!([attribute("vertex", &json!({ "Type": "STRING", "Value": digest }))]);
    let mut lines = Vec::new();
    let mut add = |span: &Value| {
        lines.extend(span.to_string().into_bytes());
        lines.push(b'\n');
    };
    let mut open: BTreeMap<&str, (&str, u128)> = BTreeMap::new();
    for event in journal.events() {
        match event {
            Event::Started { step, name, at } => {
                open.insert(&step.0, (name, at.as_nanos()));
            }
            Event::Completed { step: id, at: end, error, .. } => {
                let Some((name, begin)) = open.remove(id.0.as_str()) else { continue };
                let span = own(&format!("step/{}/{begin}", id.0))[..16].to_owned();
                let places = (context(&trace, &span, false), context(&trace, &root, false));
                add(&own_span(
                    name,
                    places,
                    (at(begin), at(end.as_nanos())),
                    (step(&id.0), error.as_deref()),
                ));
            }
            _ => {}
        }
    }
    let above = parent.map_or_else(|| NO_SPAN.to_owned(), |parent| parent.span);
    let places = (context(&trace, &root, false), context(&trace, &above, above != NO_SPAN));
    let name = json!([attribute("build", &json!({ "Type": "STRING", "Value": record.id }))]);
    let times = (at(0), at(u128::from(record.took) * 1_000_000));
    add(&own_span("moby.buildkit.v1.Control/Solve", places, times, (name, record.error.as_deref())));
    lines
}

fn own_span(
    name: &str,
    (place, parent): (Value, Value),
    (start, end): (String, String),
    (attributes, error): (Value, Option<&str>),
) -> Value {
    json!({
        "Name": name,
        "SpanContext": place,
        "Parent": parent,
        "SpanKind": 1,
        "StartTime": start,
        "EndTime": end,
        "Attributes": attributes,
        "Events": null,
        "Links": null,
        "Status": { "Code": if error.is_some() { "Error" } else { "Unset" }, "Description": error.unwrap_or("") },
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "Resource": [attribute("service.name", &json!({ "Type": "STRING", "Value": "lapstrake" }))],
        "InstrumentationLibrary": { "Name": "lapstrake", "Version": "", "SchemaURL": "" },
    })
}

/// The span that a call belongs to: the header `traceparent` of the W3C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// 32 hex digits.
    pub(crate) trace: String,
    /// 16 hex digits.
    pub(crate) span: String,
}

impl Parent {
    /// Reads the header; nothing if it is not one, or names no trace.
    pub(crate) fn parse(header: &str) -> Option<Parent> {
        let mut parts = header.split('-');
        let (_, trace, span, _) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
                && part.bytes().any(|byte| byte != b'0')
        };
        (is(trace, 32) && is(span, 16)).then(|| Parent { trace: trace.to_owned(), span: span.to_owned() })
    }
}

fn context(trace: &str, span: &str, remote: bool) -> Value {
    json!({ "TraceID": trace, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": remote })
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({ "Key": key, "Value": value })
}

fn attributes(all: &[KeyValue]) -> Value {
    let one = |pair: &KeyValue| attribute(&pair.key, &value(pair.value.as_ref()));
    Value::Array(all.iter().map(one).collect())
}

/// A value with its type in the words of Go's library. Lists become texts of JSON.
fn value(value: Option<&AnyValue>) -> Value {
    let (kind, value) = match value.and_then(|value| value.value.as_ref()) {
        None => ("STRING", json!("")),
        Some(Any::StringValue(text)) => ("STRING", json!(text)),
        Some(Any::BoolValue(value)) => ("BOOL", json!(value)),
        Some(Any::IntValue(value)) => ("INT64", json!(value)),
        Some(Any::DoubleValue(value)) => ("FLOAT64", json!(value)),
        Some(other) => ("STRING", json!(plain(other, 0).to_string())),
    };
    json!({ "Type": kind, "Value": value })
}

/// A value as plain JSON. Values that are nested very deep become `null`.
fn plain(value: &Any, depth: usize) -> Value {
    let below = |value: &AnyValue| match &value.value {
        Some(value) if depth < 16 => plain(value, depth + 1),
        _ => Value::Null,
    };
    match value {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(value) => json!(value),
        Any::IntValue(value) => json!(value),
        Any::DoubleValue(value) => json!(value),
        Any::BytesValue(bytes) => json!(hex(bytes)),
        Any::ArrayValue(all) => Value::Array(all.values.iter().map(below).collect()),
        Any::KvlistValue(all) => {
            let one = |pair: &KeyValue| (pair.key.clone(), pair.value.as_ref().map_or(Value::Null, below));
            Value::Object(all.values.iter().map(one).collect())
        }
    }
}

/// Nanoseconds since the Unix epoch as a time.
fn time(nanoseconds: u64) -> String {
    let seconds = i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX);
    rfc3339(seconds, u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(Parent::parse(header).unwrap().span, "00f067aa0ba902b7");
        for bad in [
            "",
            "00-x-y-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn traces_of_clients_are_limited() {
        let spans = Spans::default();
        let line = json!("x".repeat(1 << 20));
        (0..10).for_each(|_| spans.add("a".to_owned(), &line));
        assert!(spans.take("a").len() < MOST_OF_TRACE);
        assert!(spans.take("a").is_empty());
        (0..100).for_each(|number| spans.add(format!("t{number}"), &line));
        let bytes: usize = spans.0.lock().unwrap().values().map(|sent| sent.lines.len()).sum();
        assert!(bytes < MOST_BYTES);
        (0..2 * MOST_TRACES).for_each(|number| spans.add(number.to_string(), &json!(1)));
        assert_eq!(spans.0.lock().unwrap().len(), MOST_TRACES);
    }
}
