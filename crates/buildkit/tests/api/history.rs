//! Records of builds: lists, filters, pins, errors, and the blobs with logs, errors and traces.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_oci::Digest;
use lapstrake_proto::containerd::services::content::v1 as content;
use lapstrake_proto::containerd::services::content::v1::content_client::ContentClient;
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::opentelemetry::proto::collector::trace::v1 as collector;
use lapstrake_proto::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use lapstrake_proto::opentelemetry::proto::common::v1 as common;
use lapstrake_proto::opentelemetry::proto::trace::v1 as trace;
use lapstrake_testkit::buildkit::{control, entry, session, shelf, solve};
use prost::Message as _;
use tonic::{Code, Request, Status};

use crate::place::Place;

/// The records that fit `request`, without later ones.
async fn list(
    place: &Place,
    request: api::BuildHistoryRequest,
) -> Result<Vec<api::BuildHistoryRecord>, Status> {
    let request = api::BuildHistoryRequest { early_exit: true, ..request };
    let mut events = control(&place.channel).listen_build_history(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(event) = events.message().await? {
        records.extend(event.record);
    }
    Ok(records)
}

async fn one(place: &Place, id: &str) -> api::BuildHistoryRecord {
    let request = api::BuildHistoryRequest { r#ref: id.to_owned(), ..api::BuildHistoryRequest::default() };
    list(place, request).await.unwrap().remove(0)
}

fn ids(records: &[api::BuildHistoryRecord]) -> Vec<&str> {
    records.iter().map(|record| record.r#ref.as_str()).collect()
}

async fn read(place: &Place, digest: &str) -> Result<Vec<u8>, Status> {
    let request = content::ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
    let mut pieces = ContentClient::new(place.channel.clone()).read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        assert_eq!(usize::try_from(piece.offset).unwrap(), bytes.len());
        bytes.extend(piece.data);
    }
    assert_eq!(Digest::sha256(&bytes).to_string(), digest);
    Ok(bytes)
}

async fn build(place: &Place, id: &str, dockerfile: &str) -> Result<(), Status> {
    let shelf = Arc::new(shelf(dockerfile, vec![entry("a", "text")]));
    let _open = session(&place.channel, &format!("session-{id}"), &shelf).await;
    control(&place.channel).solve(solve(id, &["oci"])).await.map(drop)
}

/// The log of a record is a blob: messages of the status, each behind its length.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_blobs() {
    let place = Place::new().await;
    build(&place, "one", "FROM scratch\nCOPY a /\n").await.unwrap();
    let record = one(&place, "one").await;
    let logs = record.logs.clone().unwrap();
    assert_eq!(logs.media_type, "application/vnd.buildkit.status.v0");
    let bytes = read(&place, &logs.digest).await.unwrap();
    assert_eq!(i64::try_from(bytes.len()).unwrap(), logs.size);
    let (mut rest, mut steps) = (bytes.as_slice(), BTreeMap::new());
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let message = api::StatusResponse::decode(&more[..length]).unwrap();
        steps.extend(message.vertexes.into_iter().map(|vertex| (vertex.digest, vertex.name)));
        rest = &more[length..];
    }
    assert!(steps.values().any(|name| name == "[1/1] COPY a /"), "{steps:?}");
    assert_eq!(i32::try_from(steps.len()).unwrap(), record.num_total_steps);
    // The same answer to those who ask for the list and for a part.
    let mut client = ContentClient::new(place.channel.clone());
    let info = content::InfoRequest { digest: logs.digest.clone() };
    assert_eq!(client.info(info).await.unwrap().into_inner().info.unwrap().size, logs.size);
    let wanted = content::ListContentRequest { filters: vec![format!("digest=={}", logs.digest)] };
    let listed = client.list(wanted).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(listed.info.len(), 1);
    let nothing = read(&place, &Digest::sha256(b"nosuch").to_string()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound);
    assert_eq!(read(&place, "../../etc/passwd").await.unwrap_err().code(), Code::NotFound);
}

/// The documents of a build's image are blobs of its record, and the layers are not.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_given_and_layers_are_not() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\nCOPY a /\n", vec![entry("a", "text")]));
    let _open = session(&place.channel, "session-i", &shelf).await;
    control(&place.channel).solve(solve("i", &["image"])).await.unwrap();
    let result = one(&place, "i").await.result.unwrap();
    let manifest = read(&place, &result.results[&0].digest).await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert!(read(&place, manifest["config"]["digest"].as_str().unwrap()).await.is_ok());
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(read(&place, layer).await.unwrap_err().code(), Code::NotFound);
}

/// The error of a record is short; the blob has its details.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_kept_with_their_details() {
    let place = Place::new().await;
    let failed = build(&place, "bad", "FROM scratch\nCOPY nothing /\n").await.unwrap_err();
    let record = one(&place, "bad").await;
    let (error, blob) = (record.error.unwrap(), record.external_error.unwrap());
    assert_eq!((error.message.as_str(), error.details.len()), (failed.message(), 0));
    assert_eq!(blob.media_type, "application/vnd.googeapis.google.rpc.status+proto");
    let whole = rpc::Status::decode(read(&place, &blob.digest).await.unwrap().as_slice()).unwrap();
    assert_eq!((whole.code, &whole.message), (error.code, &error.message));
    let names: Vec<&str> = whole.details.iter().map(|detail| detail.type_url.as_str()).collect();
    for name in ["stack.Stack+json", "errdefs.Vertex+json", "errdefs.Source+json"] {
        assert!(names.iter().any(|found| found.ends_with(name)), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_chosen_pinned_and_removed() {
    let place = Place::new().await;
    build(&place, "good", "FROM scratch\nCOPY a /\n").await.unwrap();
    build(&place, "bad", "FROM scratch\nCOPY nothing /\n").await.unwrap_err();
    let filtered = |texts: &[&str], limit: i32| {
        let filter = texts.iter().map(|&text| text.to_owned()).collect();
        list(&place, api::BuildHistoryRequest { filter, limit, ..api::BuildHistoryRequest::default() })
    };
    assert_eq!(ids(&filtered(&[], 0).await.unwrap()), ["bad", "good"]);
    assert_eq!(ids(&filtered(&[], 1).await.unwrap()), ["bad"]);
    assert_eq!(ids(&filtered(&["status==completed"], 0).await.unwrap()), ["good"]);
    assert_eq!(
        ids(&filtered(&["ref~=^b", "startedAt>1h,status==completed"], 0).await.unwrap()),
        ["bad", "good"]
    );
    assert_eq!(ids(&filtered(&["duration>1h"], 0).await.unwrap()), Vec::<&str>::new());
    for (texts, limit) in [(&["ref+x"][..], 0), (&["startedAt>soon"], 0), (&[], -1)] {
        assert_eq!(filtered(texts, limit).await.unwrap_err().code(), Code::InvalidArgument, "{texts:?}");
    }
    // A pin is a change of the record, and listeners hear of the change.
    let mut control = control(&place.channel);
    let later =
        control.listen_build_history(api::BuildHistoryRequest { active_only: true, ..Default::default() });
    let mut later = later.await.unwrap().into_inner();
    let update = api::UpdateBuildHistoryRequest { r#ref: "good".to_owned(), ..Default::default() };
    control
        .update_build_history(api::UpdateBuildHistoryRequest { pinned: true, ..update.clone() })
        .await
        .unwrap();
    let told = later.message().await.unwrap().unwrap().record.unwrap();
    assert_eq!((told.r#ref.as_str(), told.pinned, told.generation), ("good", true, 1));
    assert!(one(&place, "good").await.pinned);
    control.update_build_history(update.clone()).await.unwrap();
    assert!(!one(&place, "good").await.pinned);
    let nosuch = api::UpdateBuildHistoryRequest { r#ref: "nosuch".to_owned(), ..update.clone() };
    assert_eq!(control.update_build_history(nosuch).await.unwrap_err().code(), Code::NotFound);
    // The blobs go with the record.
    let logs = one(&place, "good").await.logs.unwrap().digest;
    assert!(read(&place, &logs).await.is_ok());
    control.update_build_history(api::UpdateBuildHistoryRequest { delete: true, ..update }).await.unwrap();
    assert_eq!(read(&place, &logs).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ids(&filtered(&[], 0).await.unwrap()), ["bad"]);
}

fn attribute(key: &str, value: &str) -> common::KeyValue {
    let value = common::any_value::Value::StringValue(value.to_owned());
    common::KeyValue { key: key.to_owned(), value: Some(common::AnyValue { value: Some(value) }) }
}

/// A build has a trace of its own. A client that has a trace adds its spans to that.
#[tokio::test(flavor = "multi_thread")]
async fn traces_are_blobs() {
    let place = Place::new().await;
    build(&place, "plain", "FROM scratch\nCOPY a /\n").await.unwrap();
    let trace = one(&place, "plain").await.trace.unwrap();
    assert_eq!(trace.media_type, "application/vnd.buildkit.otlp.json.v0");
    let spans = |bytes: Vec<u8>| -> Vec<serde_json::Value> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    };
    let own = spans(read(&place, &trace.digest).await.unwrap());
    let call = own.iter().find(|span| span["Name"] == "moby.buildkit.v1.Control/Solve").unwrap();
    let step = own.iter().find(|span| span["Name"] == "[1/1] COPY a /").unwrap();
    assert_eq!(step["Parent"]["SpanID"], call["SpanContext"]["SpanID"]);

    let (trace_id, span_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let shelf = Arc::new(shelf("FROM scratch\nCOPY a /\n", vec![entry("a", "text")]));
    let _open = session(&place.channel, "session-traced", &shelf).await;
    let mut whole = solve("traced", &["oci"]);
    whole.frontend_attrs.insert("build-arg:API_TOKEN".to_owned(), "hush-\"hush".to_owned());
    let mut request = Request::new(whole);
    request.metadata_mut().insert("traceparent", format!("00-{trace_id}-{span_id}-01").parse().unwrap());
    control(&place.channel).solve(request).await.unwrap();
    assert_eq!(one(&place, "traced").await.trace, None, "the client's spans may still come");
    let bytes = |text: &str| {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let span = |id: Vec<u8>| trace::Span {
        trace_id: bytes(trace_id),
        span_id: id,
        name: "of the client".to_owned(),
        attributes: vec![attribute("command", "--opt build-arg:API_TOKEN=hush-\"hush")],
        start_time_unix_nano: 1_700_000_000_500_000_000,
        ..trace::Span::default()
    };
    let scope_spans = vec![trace::ScopeSpans {
        // The second one is no span.
        spans: vec![span(bytes(span_id)), span(vec![1])],
        ..trace::ScopeSpans::default()
    }];
    let resource_spans = vec![trace::ResourceSpans { scope_spans, ..trace::ResourceSpans::default() }];
    let sent = collector::ExportTraceServiceRequest { resource_spans };
    TraceServiceClient::new(place.channel.clone()).export(sent).await.unwrap();
    let finalize =
        api::UpdateBuildHistoryRequest { r#ref: "traced".to_owned(), finalize: true, ..Default::default() };
    control(&place.channel).update_build_history(finalize).await.unwrap();
    let record = one(&place, "traced").await;
    assert_eq!(record.generation, 1);
    let all = spans(read(&place, &record.trace.unwrap().digest).await.unwrap());
    let of_client: Vec<_> = all.iter().filter(|span| span["Name"] == "of the client").collect();
    assert_eq!(of_client.len(), 1);
    assert_eq!(of_client[0]["StartTime"], "2023-11-14T22:13:20.5Z");
    let command = of_client[0].to_string();
    assert!(command.contains("API_TOKEN=(hidden, ") && !command.contains("hush"), "{command}");
    let call = all.iter().find(|span| span["Name"] == "moby.buildkit.v1.Control/Solve").unwrap();
    assert_eq!(call["SpanContext"]["TraceID"], trace_id);
    assert_eq!(call["Parent"]["SpanID"], span_id);
}
