//! The API as clients use it: a server in this process, and a client of our own.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod history;
mod options;
mod place;

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_testkit::buildkit::{bridge, connect, control, entry, of_build, session, shelf, solve};
use place::{Place, files};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_versions() {
    let place = Place::new().await;
    let mut control = control(&place.channel);
    let workers = control.list_workers(api::ListWorkersRequest::default()).await.unwrap().into_inner().record;
    assert_eq!((workers.len(), workers[0].labels["a"].as_str()), (1, "b"));
    assert_eq!(workers[0].platforms[0].os, "linux");
    let info = control.info(api::InfoRequest {}).await.unwrap().into_inner();
    assert!(info.buildkit_version.unwrap().version.starts_with('v'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_by_one_call() {
    let place = Place::new().await;
    let tree = vec![entry("d/", ""), entry("d/data", "text"), entry("e", "")];
    let shelf = Arc::new(shelf("FROM scratch\nCOPY d e /\n", tree));
    let open = session(&place.channel, "session-one", &shelf).await;
    let answer = control(&place.channel).solve(solve("one", &["image", "tar"])).await.unwrap().into_inner();
    assert!(answer.exporter_response["containerimage.digest"].starts_with("sha256:"));
    let archive = shelf.outputs.lock().unwrap()["1"].clone();
    assert_eq!(files(&archive)["data"], "text");
    // The record has the client's id.
    assert_eq!(place.store.last_build().unwrap().unwrap().id, "one");
    // The messages are there for a little while.
    let status =
        control(&place.channel).status(api::StatusRequest { r#ref: "one".to_owned() }).await.unwrap();
    let mut status = status.into_inner();
    let mut names = Vec::new();
    while let Some(message) = status.message().await.unwrap() {
        names.extend(message.vertexes.into_iter().filter(|v| v.completed.is_some()).map(|v| v.name));
    }
    assert!(names.contains(&"[1/1] COPY d e /".to_owned()), "{names:?}");
    open.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_are_sent_again() {
    let place = Place::new().await;
    let text = "FROM scratch\nCOPY . /\n";
    let first =
        Arc::new(shelf(text, vec![entry("a", "1"), entry("b", "2"), entry("c/", ""), entry("c/d", "3")]));
    session(&place.channel, "session-x1", &first).await;
    control(&place.channel).solve(solve("x1", &["tar"])).await.unwrap();
    assert_eq!(*first.asked.lock().unwrap(), ["Dockerfile", "a", "b", "c/d"]);
    let mut changed = entry("b", "two");
    changed.0.mod_time += 1;
    let second = Arc::new(shelf(text, vec![entry("a", "1"), changed, entry("c", "file")]));
    session(&place.channel, "session-x2", &second).await;
    control(&place.channel).solve(solve("x2", &["tar"])).await.unwrap();
    assert_eq!(*second.asked.lock().unwrap(), ["b", "c"]);
    let expected =
        [("a", "1"), ("b", "two"), ("c", "file")].map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(files(&second.outputs.lock().unwrap()["0"]), BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_the_client_drives() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch AS one\nLABEL a=b\n", Vec::new()));
    session(&place.channel, "session-g", &shelf).await;
    let mut whole = control(&place.channel);
    let request = api::SolveRequest { frontend: String::new(), ..solve("g", &["oci"]) };
    let whole = tokio::spawn(async move { whole.solve(request).await });
    let mut bridge = bridge(&place.channel);
    let pong = bridge.ping(of_build("g", frontend::PingRequest {})).await.unwrap().into_inner();
    assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "solve.base" && cap.enabled));
    let request = frontend::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        evaluate: true,
        ..frontend::SolveRequest::default()
    };
    let outline = frontend::SolveRequest {
        frontend_opt: BTreeMap::from([("requestid".to_owned(), "frontend.targets".to_owned())]),
        ..request.clone()
    };
    let told = bridge.solve(of_build("g", outline)).await.unwrap().into_inner().result.unwrap();
    assert!(String::from_utf8_lossy(&told.metadata["result.json"]).contains("\"one\""));
    let result = bridge.solve(of_build("g", request)).await.unwrap().into_inner().result.unwrap();
    assert!(String::from_utf8_lossy(&result.metadata["containerimage.config"]).contains("\"a\":\"b\""));
    assert!(matches!(result.result, Some(Value::Ref(_))));
    let back = frontend::ReturnRequest { result: Some(result), error: None };
    bridge.r#return(of_build("g", back.clone())).await.unwrap();
    assert!(bridge.r#return(of_build("g", back)).await.is_err(), "a build returns once");
    whole.await.unwrap().unwrap();
    assert!(files(&shelf.outputs.lock().unwrap()["0"]).contains_key("index.json"));
}

/// A client returns the empty tree, and its output is an archive without files.
#[tokio::test(flavor = "multi_thread")]
async fn the_empty_tree_is_exported() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\n", Vec::new()));
    session(&place.channel, "session-e", &shelf).await;
    let mut whole = control(&place.channel);
    let request = api::SolveRequest { frontend: String::new(), ..solve("e", &["tar"]) };
    let whole = tokio::spawn(async move { whole.solve(request).await });
    let mut bridge = bridge(&place.channel);
    let result =
        bridge.solve(of_build("e", frontend::SolveRequest::default())).await.unwrap().into_inner().result;
    let back = frontend::ReturnRequest { result, error: None };
    bridge.r#return(of_build("e", back)).await.unwrap();
    whole.await.unwrap().unwrap();
    assert!(files(&shelf.outputs.lock().unwrap()["0"]).is_empty());
    // By one call, too: a definition without ops.
    session(&place.channel, "session-f", &shelf).await;
    let definition = Some(lapstrake_proto::pb::Definition::default());
    let request = api::SolveRequest { frontend: String::new(), definition, ..solve("f", &["tar"]) };
    control(&place.channel).solve(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_usage() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\nCOPY a /\n", vec![entry("a", "text")]));
    let _open = session(&place.channel, "session-r1", &shelf).await;
    let mut control = control(&place.channel);
    let mut later =
        control.listen_build_history(api::BuildHistoryRequest::default()).await.unwrap().into_inner();
    control.solve(solve("r1", &["tar"])).await.unwrap();
    let kinds = [later.message().await, later.message().await].map(|event| event.unwrap().unwrap().r#type());
    assert_eq!(kinds, [api::BuildHistoryEventType::Started, api::BuildHistoryEventType::Complete]);
    let ask = api::BuildHistoryRequest { early_exit: true, limit: 5, ..api::BuildHistoryRequest::default() };
    let mut known = control.listen_build_history(ask.clone()).await.unwrap().into_inner();
    let record = known.message().await.unwrap().unwrap().record.unwrap();
    assert_eq!((record.r#ref.as_str(), &record.error), ("r1", &None));
    assert!(
        record.num_total_steps >= 2 && record.num_completed_steps == record.num_total_steps,
        "{record:?}"
    );
    assert!(record.completed_at.unwrap().seconds >= record.created_at.unwrap().seconds);
    assert!(known.message().await.unwrap().is_none(), "the stream ends");
    // Disk usage, and its removal.
    let usage = control.disk_usage(api::DiskUsageRequest::default()).await.unwrap().into_inner().record;
    assert!(usage.iter().any(|record| record.record_type == "regular" && record.size > 0), "{usage:?}");
    let wrong =
        api::DiskUsageRequest { filter: vec!["nosuch".to_owned()], ..api::DiskUsageRequest::default() };
    assert_eq!(control.disk_usage(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let mut removed = control
        .prune(api::PruneRequest { all: true, ..api::PruneRequest::default() })
        .await
        .unwrap()
        .into_inner();
    assert!(removed.message().await.unwrap().is_some());
    while removed.message().await.unwrap().is_some() {}
    let usage = control.disk_usage(api::DiskUsageRequest::default()).await.unwrap().into_inner().record;
    assert!(usage.is_empty(), "{usage:?}");
    // The record goes, too.
    let delete = api::UpdateBuildHistoryRequest {
        r#ref: "r1".to_owned(),
        delete: true,
        ..api::UpdateBuildHistoryRequest::default()
    };
    control.update_build_history(delete.clone()).await.unwrap();
    assert_eq!(later.message().await.unwrap().unwrap().r#type(), api::BuildHistoryEventType::Deleted);
    assert_eq!(control.update_build_history(delete).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_that_nobody_needs() {
    let place = Place::new().await;
    let mut shelf = shelf("FROM scratch\nLABEL a=b\n", Vec::new());
    shelf.directories.remove("context");
    let shelf = Arc::new(shelf);
    let _open = session(&place.channel, "session-n", &shelf).await;
    control(&place.channel).solve(solve("n", &["tar"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_come_as_far_as_they_are_read() {
    let place = Place::new().await;
    let tree =
        vec![entry("a/", ""), entry("a/x", "1"), entry("b/", ""), entry("b/y", "22"), entry("z.tar", "333")];
    let text = "FROM scratch AS part\nCOPY a/ /a\nCOPY --from=named /n /\nFROM scratch AS more\nADD z.tar /\n\
                FROM scratch AS all\nCOPY . /\nFROM named AS base\n";
    let mut shelf = shelf(text, tree);
    shelf.directories.insert("named".to_owned(), vec![entry("m", "4"), entry("n", "5")]);
    shelf.directories.insert("unread".to_owned(), vec![entry("u", "6")]);
    let shelf = Arc::new(shelf);
    let _open = session(&place.channel, "session-part", &shelf).await;
    let mut sent = BTreeMap::new();
    for (target, expected) in [
        ("part", vec!["Dockerfile", "a/x", "n"]),
        ("more", vec!["z.tar"]),
        ("all", vec!["a/x", "b/y", "z.tar"]),
        ("base", vec!["m", "n"]),
        // The copies of the parts stay, each for itself.
        ("part", vec![]),
        ("all", vec![]),
    ] {
        let id = format!("{target}-{}", sent.len());
        let mut request = solve("part", &["tar"]);
        request.r#ref.clone_from(&id);
        let opt = [("target", target), ("context:named", "local:named"), ("context:unread", "local:unread")];
        request.frontend_attrs = opt.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        control(&place.channel).solve(request).await.unwrap();
        let mut asked = std::mem::take(&mut *shelf.asked.lock().unwrap());
        asked.sort();
        assert_eq!(asked, expected, "{target}");
        // The transfer is a part of the step that loads the context.
        let asked = api::StatusRequest { r#ref: id.clone() };
        let mut status = control(&place.channel).status(asked).await.unwrap().into_inner();
        let (mut names, mut bytes) = (BTreeMap::new(), 0);
        while let Some(message) = status.message().await.unwrap() {
            names.extend(message.vertexes.into_iter().map(|vertex| (vertex.digest, vertex.name)));
            for one in message.statuses.into_iter().filter(|one| one.name == "transferring") {
                if names[&one.vertex] == "[internal] load build context" {
                    assert_eq!(one.id, "transferring context:");
                    bytes = one.current;
                }
            }
        }
        sent.insert(id, bytes);
    }
    assert!(sent["part-0"] < sent["all-2"] && sent["part-0"] > 0 && sent["base-3"] == 0, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_place() {
    let place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\nCOPY nothing /\n", Vec::new()));
    session(&place.channel, "session-e", &shelf).await;
    let failed = control(&place.channel).solve(solve("e", &["tar"])).await.unwrap_err();
    assert!(failed.message().contains("\"/nothing\": not found"), "{failed:?}");
    assert!(String::from_utf8_lossy(failed.details()).contains("\"line\":2"), "{failed:?}");
    assert!(shelf.outputs.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_cannot_be() {
    let place = Place::new().await;
    let mut control = control(&place.channel);
    let code =
        |result: Result<tonic::Response<api::SolveResponse>, tonic::Status>| result.unwrap_err().code();
    assert_eq!(code(control.solve(api::SolveRequest::default()).await), Code::InvalidArgument);
    let long = api::SolveRequest { r#ref: "x".repeat(1000), ..api::SolveRequest::default() };
    assert_eq!(code(control.solve(long).await), Code::InvalidArgument);
    assert_eq!(code(control.solve(solve("nobody", &[])).await), Code::NotFound);
    let shelf = Arc::new(shelf("FROM scratch\n", Vec::new()));
    for (id, change) in [
        ("f1", api::SolveRequest { frontend: "nosuch.v0".to_owned(), ..solve("f1", &[]) }),
        ("f2", api::SolveRequest { entitlements: vec!["security.insecure".to_owned()], ..solve("f2", &[]) }),
        ("f3", solve("f3", &["nosuch"])),
        (
            "f4",
            api::SolveRequest {
                definition: Some(lapstrake_proto::pb::Definition {
                    def: vec![vec![1]],
                    ..Default::default()
                }),
                ..solve("f4", &[])
            },
        ),
    ] {
        session(&place.channel, &format!("session-{id}"), &shelf).await;
        assert_ne!(code(control.solve(change).await), Code::Internal, "{id}");
    }
    let lost = bridge(&place.channel).ping(frontend::PingRequest {}).await.unwrap_err();
    assert_eq!(lost.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_directories() {
    let place = Place::new().await;
    let outside = place.top.path().join("outside");
    std::fs::write(&outside, "kept").unwrap();
    let link = |path: &str, to: &str| {
        let mut link = entry(path, "");
        (link.0.mode, link.0.linkname) = (1 << 27 | 0o777, to.to_owned());
        link
    };
    let hard = |path: &str, to: &str| {
        let mut hard = entry(path, "");
        hard.0.linkname = to.to_owned();
        hard
    };
    let up = place.top.path().display().to_string();
    for (number, tree) in [
        vec![entry("../outside", "x")],
        vec![entry("/etc/x", "x")],
        vec![entry("a/../../outside", "x")],
        vec![entry("b", "x"), entry("a", "x")],
        vec![entry("a", "x"), entry("a", "x")],
        vec![entry("a/b", "x")],
        vec![link("a", &up), entry("a/outside", "x")],
        vec![entry("a", "x"), entry("a/b", "x")],
        vec![hard("a", "../outside")],
        vec![hard("a", "nothing")],
        vec![link("l", &up), hard("m", "l/outside")],
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("h{number}");
        let shelf = Arc::new(shelf("FROM scratch\nCOPY . /\n", tree));
        session(&place.channel, &format!("session-{id}"), &shelf).await;
        let failed = control(&place.channel).solve(solve(&id, &["tar"])).await.unwrap_err();
        assert!(failed.message().starts_with("failed to load `context`"), "{id}: {failed:?}");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "kept", "{id}");
    }
    // A Dockerfile that is a link leads nowhere else.
    let mut linked = shelf("", Vec::new());
    linked
        .directories
        .insert("dockerfile".to_owned(), vec![link("Dockerfile", &outside.display().to_string())]);
    let linked = Arc::new(linked);
    session(&place.channel, "session-l", &linked).await;
    let failed = control(&place.channel).solve(solve("l", &["tar"])).await.unwrap_err();
    assert!(!failed.message().contains("kept"), "{failed:?}");
    // The server goes on, and the next client's copy is sound.
    let good = Arc::new(shelf("FROM scratch\nCOPY . /\n", vec![entry("a", "x")]));
    session(&place.channel, "session-good", &good).await;
    control(&place.channel).solve(solve("good", &["tar"])).await.unwrap();
    assert_eq!(files(&good.outputs.lock().unwrap()["0"])["a"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish() {
    let mut place = Place::new().await;
    let shelf = Arc::new(shelf("FROM scratch\n", Vec::new()));
    let open = session(&place.channel, "session-v", &shelf).await;
    let mut other = control(&connect(&place.socket()).await);
    // The build waits for its client, which goes away.
    let request = api::SolveRequest { frontend: String::new(), ..solve("v", &[]) };
    let waiting = tokio::spawn(async move { other.solve(request).await });
    bridge(&place.channel).ping(of_build("v", frontend::PingRequest {})).await.unwrap();
    open.abort();
    let failed = waiting.await.unwrap().unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Cancelled, "the client's session is over"));
    // So does a call that is dropped.
    let shelf_again = session(&place.channel, "session-w", &shelf).await;
    let mut other = control(&connect(&place.socket()).await);
    let request = api::SolveRequest { frontend: String::new(), ..solve("w", &[]) };
    let dropped = tokio::spawn(async move { other.solve(request).await });
    bridge(&place.channel).ping(of_build("w", frontend::PingRequest {})).await.unwrap();
    dropped.abort();
    let mut status = control(&place.channel)
        .status(api::StatusRequest { r#ref: "w".to_owned() })
        .await
        .unwrap()
        .into_inner();
    while status.message().await.unwrap().is_some() {}
    shelf_again.abort();
    // A server that is to stop stops.
    place.stop.take().unwrap().send(()).unwrap();
    for _ in 0..100 {
        if !place.socket().exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the socket is still there");
}
