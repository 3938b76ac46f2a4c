//! Options of the Dockerfile frontend, and of outputs and calls that stand around a build.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::place::{Place, files};
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_testkit::buildkit::{Shelf, control, entry, session, shelf, solve};
use lapstrake_testkit::{Response, WebServer};

/// A build of `id` with options of the frontend.
fn with(id: &str, exporters: &[&str], options: &[(&str, &str)]) -> api::SolveRequest {
    let mut request = solve(id, exporters);
    request
        .frontend_attrs
        .extend(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    request
}

/// The texts of the warnings that the build `id` sent.
async fn warnings(place: &Place, id: &str) -> Vec<String> {
    let request = api::StatusRequest { r#ref: id.to_owned() };
    let mut status = control(&place.channel).status(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(message) = status.message().await.unwrap() {
        found.extend(
            message.warnings.iter().map(|warning| String::from_utf8_lossy(&warning.short).into_owned()),
        );
    }
    found
}

/// An archive with these files.
fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_202);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_ignored_copies() {
    let place = Place::new().await;
    let tree = vec![entry(".dockerignore", "*\n"), entry("a", "x")];
    let shelf = Arc::new(shelf("FROM scratch\nCOPY . /\n", tree));
    session(&place.channel, "session-i", &shelf).await;
    control(&place.channel).solve(solve("i", &["tar"])).await.unwrap();
    let found = warnings(&place, "i").await;
    assert!(found.iter().any(|text| text.starts_with("CopyIgnoredFile")), "{found:?}");
    assert!(files(&shelf.outputs.lock().unwrap()["0"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_in_front_of_an_error() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM --platform=$BULIDPLATFORM scratch\n", Vec::new()));
    session(&place.channel, "session-w", &shelf).await;
    let failed = control(&place.channel).solve(solve("w", &["tar"])).await.unwrap_err();
    assert!(failed.message().contains("empty platform value"), "{failed:?}");
    let found = warnings(&place, "w").await;
    assert!(found.iter().any(|text| text.starts_with("UndefinedArgInFrom")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_another_session() {
    let place = Place::new().await;
    let shelf_of = |pairs: Vec<(&str, Vec<_>)>| {
        let directories = pairs.into_iter().map(|(name, tree)| (name.to_owned(), tree)).collect();
        Arc::new(Shelf { directories, ..Shelf::default() })
    };
    let text = "FROM scratch AS base\nFROM scratch\nCOPY a /\nCOPY --from=base b /\n";
    let other = shelf_of(vec![
        ("dockerfile", vec![entry("Dockerfile", text)]),
        ("context", vec![entry("a", "1")]),
        ("more", vec![entry("b", "2")]),
    ]);
    let own = shelf_of(Vec::new());
    session(&place.channel, "session-other", &other).await;
    session(&place.channel, "session-own", &own).await;
    let sessions =
        ["dockerfile", "context", "more"].map(|name| (format!("local-sessionid:{name}"), "session-other"));
    let mut options: Vec<(&str, &str)> = sessions.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    options.push(("context:base", "local:more"));
    control(&place.channel).solve(with("own", &["tar"], &options)).await.unwrap();
    let expected = [("a", "1"), ("b", "2")].map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(files(&own.outputs.lock().unwrap()["0"]), BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_of_the_client_for_a_part_of_an_archive() {
    let place = Place::new().await;
    let body = archive(&[("Dockerfile", "FROM nothing"), ("sub/dir/foo", "contents"), ("foo", "another")]);
    let web = WebServer::start(move |_| Response::new(200, body.clone())).unwrap();
    let shelf = Arc::new(shelf("FROM scratch\nCOPY foo bar\n", Vec::new()));
    session(&place.channel, "session-d", &shelf).await;
    let url = format!("http://127.0.0.1:{}/c.tar", web.port);
    let options = [("context", url.as_str()), ("dockerfilekey", "dockerfile"), ("contextsubdir", "sub/dir")];
    control(&place.channel).solve(with("d", &["tar"], &options)).await.unwrap();
    assert_eq!(files(&shelf.outputs.lock().unwrap()["0"])["bar"], "contents");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_sources_and_outputs() {
    let place = Place::new().await;
    let body = archive(&[("Dockerfile", "FROM scratch\nCOPY foo /\n"), ("foo", "x")]);
    let dated = move |_: &_| {
        Response::new(200, body.clone()).with("Last-Modified", "Tuesday, 14-Nov-23 22:16:41 UTC")
    };
    let web = WebServer::start(dated).unwrap();
    let url = format!("http://127.0.0.1:{}/c.tar", web.port);
    let shelf = Arc::new(shelf("FROM scratch\nCOPY foo /\n", vec![entry("foo", "x")]));
    session(&place.channel, "session-t1", &shelf).await;
    let options = [("context", url.as_str()), ("build-arg:SOURCE_DATE_EPOCH", "context")];
    control(&place.channel).solve(with("t1", &["oci"], &options)).await.unwrap();
    let created = |archive: &[u8]| {
        let blobs = files(archive).into_values().filter_map(|text| serde_json::from_str(&text).ok());
        let times = blobs.filter_map(|blob: serde_json::Value| blob["created"].as_str().map(str::to_owned));
        times.collect::<Vec<_>>()
    };
    assert_eq!(created(&shelf.outputs.lock().unwrap()["0"]), ["2023-11-14T22:16:41Z"]);
    // An output without an epoch of its own keeps the times that the Dockerfile has made.
    session(&place.channel, "session-t2", &shelf).await;
    let mut request = with("t2", &["oci"], &[("build-arg:SOURCE_DATE_EPOCH", "1700000001")]);
    request.exporters[0].attrs.insert("source-date-epoch".to_owned(), String::new());
    control(&place.channel).solve(request).await.unwrap();
    assert_eq!(created(&shelf.outputs.lock().unwrap()["0"]), ["2023-11-14T22:13:21Z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_takes_what_a_registry_has() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\nCOPY a /\n", vec![entry("a", "text")]));
    session(&place.channel, "session-p", &shelf).await;
    let mut request = solve("p", &["image"]);
    request.exporters[0].attrs.insert("name".to_owned(), "built".to_owned());
    let answer = control(&place.channel).solve(request).await.unwrap().into_inner();
    let left = async || {
        let all = api::PruneRequest { all: true, ..api::PruneRequest::default() };
        let mut removed = control(&place.channel).prune(all).await.unwrap().into_inner();
        while removed.message().await.unwrap().is_some() {}
        let usage = control(&place.channel).disk_usage(api::DiskUsageRequest::default()).await.unwrap();
        usage.into_inner().record.len()
    };
    assert_ne!(left().await, 0, "a built image stays");
    let image = answer.exporter_response["containerimage.config.digest"].parse().unwrap();
    let manifest = &answer.exporter_response["containerimage.digest"];
    place.store.set_digest(&format!("docker.io/library/built@{manifest}").parse().unwrap(), &image).unwrap();
    assert_eq!(left().await, 0);
}
