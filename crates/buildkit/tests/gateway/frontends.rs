//! Frontends in images: this test program, as `program` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use lapstrake_build::{BuildRecord, Journal};
use lapstrake_engine::Event;
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::moby::buildkit::v1::frontend::result::Result as Value;
use lapstrake_proto::pb;
use lapstrake_store::Store;
use lapstrake_testkit::buildkit::{Shelf, Tree, control, entry, of_build, shelf, solve};
use lapstrake_testkit::{ALL, Mode, Test};
use prost::Message as _;
use tonic::{Code, Status};

use crate::place::{BUILD, Place, with};

pub(crate) const TESTS: &[Test] = &[
    ("frontends_build", ALL, frontends_build),
    ("frontends_answer", ALL, frontends_answer),
    ("frontends_fail", ALL, frontends_fail),
    ("frontends_with_secrets", &[Mode::Root], frontends_with_secrets),
    ("frontends_are_canceled", ALL, frontends_are_canceled),
    ("frontends_call_each_other", ALL, frontends_call_each_other),
    ("frontends_of_dockerfiles", ALL, frontends_of_dockerfiles),
    ("frontends_are_not_entitled", ALL, frontends_are_not_entitled),
    ("frontends_that_cannot_be", ALL, frontends_that_cannot_be),
];

const IMAGE: &str = "local/frontend:1";
const CAPS: &str = "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests+forward\n";
const FRONTEND: &str = "FROM scratch\nCOPY . /\nENV OWN=env\nWORKDIR /work\nENTRYPOINT [\"/frontend\"]\n";

/// This program and the libraries that it needs, as a context.
fn program() -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("frontend");
    let own = std::env::current_exe().unwrap();
    let stripped = std::process::Command::new("strip").arg("-o").arg(&small).arg(&own).status();
    let binary = if stripped.is_ok_and(|status| status.success()) { small } else { own };
    let mut tree = vec![file("frontend", &binary)];
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries: Vec<&str> = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    libraries.retain(|path| path.starts_with('/') && path.contains(".so"));
    libraries.sort_unstable();
    libraries.dedup();
    tree.extend(["lib/", "lib64/"].map(|name| entry(name, "")));
    for library in libraries {
        let name = Path::new(library).file_name().unwrap().to_str().unwrap();
        // The loader has its place in the program, and looks for the others in the usual ones.
        let place = if name.starts_with("ld-") { "lib64" } else { "lib" };
        tree.push(file(&format!("{place}/{name}"), Path::new(library)));
    }
    tree.sort_by(|a, b| a.0.path.split('/').cmp(b.0.path.split('/')));
    tree
}

fn file(name: &str, path: &Path) -> (lapstrake_proto::fsutil::types::Stat, Vec<u8>) {
    let mut entry = entry(name, "");
    entry.1 = std::fs::read(path).unwrap();
    (entry.0.mode, entry.0.size) = (0o755, i64::try_from(entry.1.len()).unwrap());
    entry
}

/// A client with the frontend's image, and Dockerfiles that name it.
fn files() -> Shelf {
    let mut shelf = shelf(&format!("{FRONTEND}{CAPS}"), program());
    let dockerfiles = shelf.directories.get_mut("dockerfile").unwrap();
    dockerfiles.push(entry("Foreign", &format!("# syntax={IMAGE} more\nno Dockerfile at all\n")));
    dockerfiles.push(entry("NoEntrypoint", "FROM scratch\nCOPY . /\n"));
    dockerfiles.push(entry("NoNetwork", &format!("{FRONTEND}LABEL moby.buildkit.frontend.network.none=1\n")));
    shelf
}

/// Builds the image `name` of a frontend.
async fn image(place: &Place, file: &str, name: &str) {
    let attrs = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    let exporters = vec![api::Exporter { r#type: "image".to_owned(), attrs }];
    let request = api::SolveRequest {
        session: "session-b".to_owned(),
        exporters,
        frontend_attrs: [("filename".to_owned(), file.to_owned())].into(),
        ..solve(name, &["image"])
    };
    control(&place.channel).solve(request).await.unwrap();
}

fn options(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn request(pairs: &[(&str, &str)]) -> frontend::SolveRequest {
    let mut opt = options(pairs);
    opt.entry("source".to_owned()).or_insert_with(|| IMAGE.to_owned());
    frontend::SolveRequest {
        frontend: "gateway.v0".to_owned(),
        frontend_opt: opt,
        allow_result_return: true,
        allow_result_array_ref: true,
        ..frontend::SolveRequest::default()
    }
}

async fn ask(place: &mut Place, pairs: &[(&str, &str)]) -> Result<frontend::Result, Status> {
    let answer = place.bridge.solve(of_build(BUILD, request(pairs))).await?;
    Ok(answer.into_inner().result.unwrap())
}

/// What the frontend wrote to its result.
async fn made(place: &mut Place, result: &frontend::Result) -> String {
    let Some(Value::Ref(reference)) = &result.result else { panic!("{result:?}") };
    assert!(reference.def.is_some(), "the caller gets the definition");
    let request = frontend::ReadFileRequest {
        r#ref: reference.id.clone(),
        file_path: "/made".to_owned(),
        ..frontend::ReadFileRequest::default()
    };
    let data = place.bridge.read_file(of_build(BUILD, request)).await.unwrap().into_inner().data;
    String::from_utf8(data).unwrap()
}

fn frontends_build(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let input = pb::Definition::default();
        let mut asked = request(&[("a", "b=c,d")]);
        asked.frontend_inputs = [("in".to_owned(), input)].into();
        let result = place.bridge.solve(of_build(BUILD, asked)).await.unwrap().into_inner().result.unwrap();
        let text = made(place, &result).await;
        for line in [
            r#""a": "b=c,d""#,
            "session=session-b\n",
            "own=env\ncwd=/work\ninputs=[\"in\"]\nworkers here=1\nops of its image=2\n",
            r#""platforms":[{"architecture""#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(String::from_utf8_lossy(&result.metadata["containerimage.config"]).contains("by"));
        // By a call of the client, to an image.
        let attrs = BTreeMap::from([("name".to_owned(), "local/result:1".to_owned())]);
        let request = api::SolveRequest {
            session: "session-b".to_owned(),
            frontend: "gateway.v0".to_owned(),
            frontend_attrs: options(&[("source", IMAGE)]),
            exporters: vec![api::Exporter { r#type: "image".to_owned(), attrs }],
            ..solve("whole", &[])
        };
        let built = control(&place.channel).solve(request).await.unwrap().into_inner();
        assert_eq!(built.exporter_response["frontend.told"], "yes");
        let ask = frontend::ResolveImageConfigRequest {
            r#ref: "local/result:1".to_owned(),
            ..frontend::ResolveImageConfigRequest::default()
        };
        let found = place.bridge.resolve_image_config(of_build(BUILD, ask)).await.unwrap().into_inner();
        assert!(String::from_utf8_lossy(&found.config).contains(r#""by":"frontend""#), "{found:?}");
        // The loopback interface is there without a network, too.
        image(place, "NoNetwork", "local/none:1").await;
        let result = super::frontends::ask(place, &[("source", "local/none:1")]).await.unwrap();
        assert!(made(place, &result).await.ends_with("network=1"));
        // A named context may stand for the image.
        let other = [("source", "nosuch"), ("context:nosuch", "docker-image://local/frontend:1")];
        let result = super::frontends::ask(place, &other).await.unwrap();
        assert!(made(place, &result).await.contains("nosuch"));
    });
}

fn frontends_answer(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let caps = ("frontend.caps", "moby.buildkit.frontend.subrequests+forward");
        let result = ask(place, &[("requestid", "test.question"), caps]).await.unwrap();
        assert_eq!(result.metadata["result.txt"], b"answer to test.question");
        assert!(result.result.is_none());
        let error = ask(place, &[("frontend.caps", "moby.buildkit.frontend.contexts")]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert_eq!(error.message(), "unsupported frontend capability moby.buildkit.frontend.contexts");
    });
}

fn frontends_fail(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let error = ask(place, &[("do", "error")]).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "of the frontend: no such thing"));
        let whole = rpc::Status::decode(error.details()).unwrap();
        assert_eq!(whole.details[0].type_url, "test/detail");
        for (what, text) in [
            ("crash", "frontend local/frontend:1: exit code: 7"),
            ("nothing", "frontend local/frontend:1: it ended without a result"),
            ("fails-late", "frontend local/frontend:1: exit code: 9"),
        ] {
            let error = ask(place, &[("do", what)]).await.unwrap_err();
            assert_eq!(error.message(), text);
        }
        let begun = Instant::now();
        let error = ask(place, &[("do", "garbage")]).await.unwrap_err();
        let text = "frontend local/frontend:1: frontend grpc server closed unexpectedly";
        assert_eq!(error.message(), text);
        assert!(begun.elapsed() < Duration::from_secs(40));
        // A frontend that has returned may not stay.
        ask(place, &[("do", "stays")]).await.unwrap();
        // The call of a client has the same error, and its log what the frontend said.
        let request = api::SolveRequest {
            session: "session-b".to_owned(),
            frontend: "gateway.v0".to_owned(),
            frontend_attrs: options(&[("source", IMAGE), ("do", "crash")]),
            ..solve("crash", &[])
        };
        let error = control(&place.channel).solve(request).await.unwrap_err();
        assert_eq!(error.message(), "frontend local/frontend:1: exit code: 7");
        let asked = api::StatusRequest { r#ref: "crash".to_owned() };
        let mut messages = control(&place.channel).status(asked).await.unwrap().into_inner();
        let mut said = String::new();
        while let Some(message) = messages.message().await.unwrap() {
            said.extend(message.logs.iter().map(|log| String::from_utf8_lossy(&log.msg).into_owned()));
        }
        assert!(said.contains("what the frontend says"), "{said}");
    });
}

/// The processes of frontends that hang.
fn hanging() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let hangs = |entry: &std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let own = format!("OWNER={}\0", std::process::id());
        let mine = environment.windows(own.len()).any(|part| part == own.as_bytes());
        command.starts_with(b"/frontend\0") && mine
    };
    processes.filter(hangs).count()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn frontends_with_secrets(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let secrets = [("build-arg:API_TOKEN", "hush-hush-1"), ("build-arg:PLAIN", "for-all-to-see")];
        // By the call of a client, and by the call of a client's own frontend.
        let attrs = |more: &[(&str, &str)]| options(&[more, &secrets].concat());
        let request = |id: &str, frontend: &str, frontend_attrs| api::SolveRequest {
            session: "session-b".to_owned(),
            frontend: frontend.to_owned(),
            frontend_attrs,
            ..solve(id, &[])
        };
        let whole = request("one", "gateway.v0", attrs(&[("source", IMAGE), ("do", "crash")]));
        control(&place.channel).solve(whole).await.unwrap_err();
        let mut driven = control(&place.channel);
        let whole = request("two", "", BTreeMap::new());
        let whole = tokio::spawn(async move { driven.solve(whole).await.map(drop) });
        let mut ask = super::frontends::request(&[]);
        ask.frontend_opt = attrs(&[("source", IMAGE), ("do", "crash")]);
        let failed = place.bridge.solve(of_build("two", ask)).await.unwrap_err();
        let definition = Some(pb::Definition::default());
        let empty = frontend::SolveRequest { definition, ..frontend::SolveRequest::default() };
        place.bridge.solve(of_build("two", empty)).await.unwrap();
        let error = Some(rpc::Status { message: failed.message().to_owned(), ..rpc::Status::default() });
        let returned = frontend::ReturnRequest { result: None, error };
        place.bridge.r#return(of_build("two", returned)).await.unwrap();
        whole.await.unwrap().unwrap_err();
        let store = Store::open(&place.top.path().join("state")).unwrap();
        for (id, has_options) in [("one", true), ("two", false)] {
            let row = store.builds_named(id).unwrap().into_iter().find(|row| row.id == id).unwrap();
            let record = format!("{:?}", BuildRecord::decode(&row).unwrap());
            let journal = Journal::decode(&store.build_log(id).unwrap()).unwrap();
            let said = journal.events().iter().filter_map(|event| match event {
                Event::Log { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
                _ => None,
            });
            let journal = format!("{:?} {}", journal.events(), said.collect::<String>());
            assert!(!record.contains("hush-hush"), "{record}");
            assert!(!journal.contains("hush-hush"), "{journal}");
            assert!(!has_options || record.contains("for-all-to-see"), "{record}");
            assert!(journal.contains("for-all-to-see") && journal.contains("(hidden, "), "{journal}");
        }
    });
}

fn frontends_are_canceled(mode: Mode) {
    let mut shelf = files();
    let mark = format!("{FRONTEND}ENV OWNER={}\n", std::process::id());
    shelf.directories.get_mut("dockerfile").unwrap()[0] = entry("Dockerfile", &mark);
    with(mode, shelf, |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        // The call of the client is dropped.
        let call = |id: &str| {
            let request = api::SolveRequest {
                session: "session-b".to_owned(),
                frontend: "gateway.v0".to_owned(),
                frontend_attrs: options(&[("source", IMAGE), ("do", "hang")]),
                ..solve(id, &[])
            };
            let mut control = control(&place.channel);
            tokio::spawn(async move { control.solve(request).await.map(drop) })
        };
        let running = call("dropped");
        until("the frontend runs", || hanging() == 1).await;
        running.abort();
        until("the frontend ends with its call", || hanging() == 0).await;
        // The client that drives a build returns, and goes away.
        let mut bridge = place.bridge.clone();
        let driven =
            tokio::spawn(
                async move { bridge.solve(of_build(BUILD, request(&[("do", "hang")]))).await.map(drop) },
            );
        let own = call("vanished");
        until("both frontends run", || hanging() == 2).await;
        place.bridge.r#return(of_build(BUILD, frontend::ReturnRequest::default())).await.unwrap();
        until("the frontend ends with its build", || hanging() == 1).await;
        assert_eq!(driven.await.unwrap().unwrap_err().code(), Code::Cancelled);
        std::mem::replace(&mut place.session, lapstrake_testkit::buildkit::Open::closed()).abort();
        until("the frontend ends with its session", || hanging() == 0).await;
        assert!(own.await.unwrap().is_err());
    });
}

fn frontends_call_each_other(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let next =
            [("do", "call"), ("next-frontend", "gateway.v0"), ("next-source", IMAGE), ("next-word", "w")];
        let result = ask(place, &next).await.unwrap();
        assert!(made(place, &result).await.contains(r#""word": "w""#));
        let dockerfile =
            [("do", "call"), ("next-frontend", "dockerfile.v0"), ("next-filename", "NoEntrypoint")];
        let result = ask(place, &dockerfile).await.unwrap();
        assert!(matches!(result.result, Some(Value::Ref(reference)) if reference.def.is_some()));
        let unknown = ask(place, &[("do", "call"), ("next-frontend", "nosuch")]).await.unwrap_err();
        assert!(unknown.message().contains("frontend nosuch not found"), "{unknown:?}");
        let without_end =
            [("do", "call"), ("next-frontend", "gateway.v0"), ("next-source", IMAGE), ("next-do", "call")];
        let error = ask(place, &without_end).await.unwrap_err();
        assert!(error.message().contains("more than 10 frontends"), "{error:?}");
        assert_eq!(error.code(), Code::ResourceExhausted);
    });
}

fn frontends_of_dockerfiles(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let of = |pairs: &[(&str, &str)]| frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: options(pairs),
            ..frontend::SolveRequest::default()
        };
        let foreign = of_build(BUILD, of(&[("filename", "Foreign"), ("target", "t")]));
        let result = place.bridge.solve(foreign).await.unwrap().into_inner().result.unwrap();
        let text = made(place, &result).await;
        for part in
            [r#""cmdline": "local/frontend:1 more""#, r#""target": "t""#, r#""source": "local/frontend:1""#]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let argument = of_build(BUILD, of(&[("build-arg:BUILDKIT_SYNTAX", "local/frontend:1 x")]));
        let result = place.bridge.solve(argument).await.unwrap().into_inner().result.unwrap();
        assert!(made(place, &result).await.contains(r#""cmdline": "local/frontend:1 x""#));
        // A question goes to the frontend, too.
        let question = of_build(BUILD, of(&[("filename", "Foreign"), ("requestid", "q")]));
        let result = place.bridge.solve(question).await.unwrap().into_inner().result.unwrap();
        assert_eq!(result.metadata["result.txt"], b"answer to q");
        // An error is at the line that names the frontend.
        let failing = of_build(BUILD, of(&[("filename", "Foreign"), ("do", "crash")]));
        let error = place.bridge.solve(failing).await.unwrap_err();
        let whole = rpc::Status::decode(error.details()).unwrap();
        let place_of = String::from_utf8_lossy(&whole.details[0].value).into_owned();
        assert!(place_of.contains(r#""start":{"line":1}"#), "{place_of}");
        let argument = [("build-arg:BUILDKIT_SYNTAX", "local/frontend:1"), ("do", "crash")];
        let error = place.bridge.solve(of_build(BUILD, of(&argument))).await.unwrap_err();
        let text = "failed with build-arg:BUILDKIT_SYNTAX = local/frontend:1: frontend local/frontend:1: exit code: 7";
        assert_eq!(error.message(), text);
        // The built-in frontend stands for its image.
        let known = [("build-arg:BUILDKIT_SYNTAX", "docker/dockerfile:1.2"), ("filename", "NoEntrypoint")];
        place.bridge.solve(of_build(BUILD, of(&known))).await.unwrap();
    });
}

fn frontends_are_not_entitled(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "Dockerfile", IMAGE).await;
        let error = ask(place, &[("do", "exec")]).await.unwrap_err();
        let text = "of the frontend: security.insecure is not allowed";
        assert_eq!((error.code(), error.message()), (Code::PermissionDenied, text));
    });
}

fn frontends_that_cannot_be(mode: Mode) {
    with(mode, files(), |mut place| async move {
        let place = &mut place;
        image(place, "NoEntrypoint", "local/empty:1").await;
        for (source, text) in [
            ("local/empty:1", "frontend local/empty:1: "),
            ("", "no source specified for gateway"),
            ("A//B", "frontend A//B: invalid reference"),
            ("localhost:1/nosuch", "frontend localhost:1/nosuch: "),
        ] {
            let error = ask(place, &[("source", source)]).await.unwrap_err();
            assert!(error.message().starts_with(text), "{source}: {error:?}");
        }
        let error = ask(place, &[("source", "local/empty:1")]).await.unwrap_err();
        assert!(error.message().contains("/run"), "{error:?}");
        let local = [("source", "x"), ("context:x", "local:x")];
        let error = ask(place, &local).await.unwrap_err();
        assert!(error.message().contains("a frontend cannot come from `local:x`"), "{error:?}");
    });
}
