//! Content stores of the client: caches, images and outputs in them. Exporters that the session names.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_testkit::buildkit::{Shelf, control, of_build, session, shelf, solve};
use lapstrake_testkit::{Mode, Test};
use serde_json::Value;

use crate::place::{BUILD, Place, tree, with};

pub(crate) const TESTS: &[Test] = &[
    ("outputs_and_layouts_of_clients", &[Mode::Root, Mode::Oneid], outputs_and_layouts_of_clients),
    ("blobs_that_are_too_long", &[Mode::Root], blobs_that_are_too_long),
    ("caches_of_clients", &[Mode::Root, Mode::Oneid], caches_of_clients),
    ("exporters_of_sessions", &[Mode::Root], exporters_of_sessions),
    ("warnings_of_clients", &[Mode::Root], warnings_of_clients),
    ("platforms_of_answers", &[Mode::Root], platforms_of_answers),
];

fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn exporter(kind: &str, pairs: &[(&str, &str)]) -> api::Exporter {
    api::Exporter { r#type: kind.to_owned(), attrs: attrs(pairs) }
}

async fn answer(
    place: &Place,
    request: api::SolveRequest,
) -> Result<BTreeMap<String, String>, tonic::Status> {
    Ok(control(&place.channel).solve(request).await?.into_inner().exporter_response)
}

fn decoded(text: &str) -> Value {
    use base64::Engine as _;
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

/// The files of the tar that the client got as output 0.
fn tar_of(shelf: &Shelf) -> String {
    String::from_utf8_lossy(&shelf.outputs.lock().unwrap()["0"]).into_owned()
}

fn outputs_and_layouts_of_clients(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |place| async move {
        let maker = Arc::new(shelf("FROM scratch\nCOPY busybox /made\n", tree(Vec::new())));
        let _maker = session(&place.channel, "session-maker", &maker).await;
        let exporters = vec![exporter("oci", &[("tar", "false"), ("name", "app:1")])];
        let made = answer(&place, api::SolveRequest { exporters, ..solve("maker", &[]) }).await.unwrap();
        let digest = made["containerimage.digest"].clone();
        let descriptor = decoded(&made["containerimage.descriptor"]);
        assert_eq!(descriptor["digest"], *digest);
        let manifest = maker.document("export", &digest);
        let blobs = maker.blobs.lock().unwrap().clone();
        assert_eq!(blobs.len(), 2 + manifest["layers"].as_array().unwrap().len());

        // The image is a named context of another client, which has it under another name.
        let user = shelf("FROM base\nCOPY --from=base /made /copy\n", Vec::new());
        let moved = blobs.into_iter().map(|((_, digest), bytes)| (("oci:mine".to_owned(), digest), bytes));
        *user.blobs.lock().unwrap() = moved.collect();
        let user = Arc::new(user);
        let _user = session(&place.channel, "session-user", &user).await;
        let named = |value: String| attrs(&[("context:base", &value)]);
        let frontend_attrs = named(format!("oci-layout://mine:1@{digest}"));
        let request = api::SolveRequest { frontend_attrs, ..solve("user", &["tar"]) };
        answer(&place, request).await.unwrap();
        let tar = tar_of(&user);
        assert!(tar.contains("made") && tar.contains("copy"));

        // A client gets no image of the cache that it does not have.
        let other = Arc::new(shelf("FROM base\n", Vec::new()));
        let _other = session(&place.channel, "session-other", &other).await;
        for (number, (address, why)) in [
            (format!("oci-layout://mine@{digest}"), "is not there"),
            // The slashes are optional.
            (format!("oci-layout:mine:1@{digest}"), "is not there"),
            ("oci-layout://mine:1".to_owned(), "could not get digest"),
        ]
        .into_iter()
        .enumerate()
        {
            let request = api::SolveRequest { frontend_attrs: named(address), ..solve("other", &["tar"]) };
            let request = api::SolveRequest { r#ref: format!("other{number}"), ..request };
            let error = answer(&place, request).await.unwrap_err();
            assert!(error.message().contains(why), "{error:?}");
        }

        // What a client is told of the image is that of the layout.
        let mut place = place;
        let asked = frontend::ResolveImageConfigRequest {
            r#ref: format!("docker.io/library/mine@{digest}"),
            resolver_type: 1,
            store_id: "mine".to_owned(),
            session_id: "session-user".to_owned(),
            ..frontend::ResolveImageConfigRequest::default()
        };
        let found = place.bridge.resolve_image_config(of_build(BUILD, asked)).await.unwrap().into_inner();
        assert_eq!(found.digest, digest);
    });
}

/// A client announces the size of each blob, and sends no more.
fn blobs_that_are_too_long(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let place = &mut place;
        let document = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        let digest = lapstrake_oci::Digest::sha256(&document).to_string();
        let user = shelf("FROM base\n", Vec::new());
        user.blobs.lock().unwrap().insert(("oci:mine".to_owned(), digest.clone()), document);
        let user = Arc::new(user);
        let _user = session(&place.channel, "session-long", &user).await;
        for (number, (size, why)) in
            [(10, "is longer than 10 bytes"), (65 << 20, "are too long for a document")]
                .into_iter()
                .enumerate()
        {
            user.announced.lock().unwrap().insert(digest.clone(), size);
            let frontend_attrs = attrs(&[("context:base", &format!("oci-layout://mine@{digest}"))]);
            let id = format!("long{number}");
            let request = api::SolveRequest { frontend_attrs, r#ref: id, ..solve("long", &["tar"]) };
            let error = answer(place, request).await.unwrap_err();
            assert!(error.message().contains(why), "{error:?}");
        }
    });
}

/// A build of a Dockerfile whose second step gives another result each time.
fn random() -> Shelf {
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \
                \"/bin/busybox cat /proc/sys/kernel/random/uuid > /id\"]\n";
    shelf(text, tree(Vec::new()))
}

fn cache(pairs: &[(&str, &str)]) -> api::CacheOptionsEntry {
    api::CacheOptionsEntry { r#type: "local".to_owned(), attrs: attrs(pairs) }
}

fn caches_of_clients(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |place| async move {
        let first = Arc::new(random());
        let _first = session(&place.channel, "session-first", &first).await;
        let exports = vec![cache(&[("dest", "my cache/dir"), ("mode", "max"), ("reset", "true")])];
        let options = Some(api::CacheOptions { exports, ..api::CacheOptions::default() });
        let request = api::SolveRequest { cache: options, ..solve("first", &["tar"]) };
        let told = answer(&place, request).await.unwrap();
        let manifest: Value = serde_json::from_str(&told["cache.manifest"]).unwrap();
        let digest = manifest["digest"].as_str().unwrap();
        assert!(first.document("local:my cache/dir", digest)["layers"].as_array().unwrap().len() > 1);

        let prune = api::PruneRequest { all: true, ..api::PruneRequest::default() };
        let mut pruned = control(&place.channel).prune(prune).await.unwrap().into_inner();
        while pruned.message().await.unwrap().is_some() {}

        let second = random();
        *second.blobs.lock().unwrap() = first.blobs.lock().unwrap().clone();
        let second = Arc::new(second);
        let _second = session(&place.channel, "session-second", &second).await;
        let imports = vec![cache(&[("src", "my cache/dir"), ("digest", digest)])];
        let options = Some(api::CacheOptions { imports, ..api::CacheOptions::default() });
        let request = api::SolveRequest { cache: options, ..solve("second", &["tar"]) };
        answer(&place, request).await.unwrap();
        assert!(tar_of(&first) == tar_of(&second), "the step ran again");

        // A cache that is not there is no failure, and a place that is none is one.
        let imports = vec![cache(&[("src", "elsewhere"), ("digest", digest)])];
        let options = Some(api::CacheOptions { imports, ..api::CacheOptions::default() });
        let request = api::SolveRequest { cache: options, ..solve("second", &["tar"]) };
        answer(&place, api::SolveRequest { r#ref: "third".to_owned(), ..request }).await.unwrap();
        let exports = vec![cache(&[("dest", "\u{e9}")])];
        let options = Some(api::CacheOptions { exports, ..api::CacheOptions::default() });
        let request = api::SolveRequest { cache: options, ..solve("second", &["tar"]) };
        let error =
            answer(&place, api::SolveRequest { r#ref: "fourth".to_owned(), ..request }).await.unwrap_err();
        assert!(error.message().contains("non-printable ASCII"), "{error:?}");
    });
}

fn exporters_of_sessions(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        // All of the place, so that its directory stays.
        let place = &mut place;
        let shelf = Arc::new(shelf("FROM scratch\nCOPY busybox /made\n", tree(Vec::new())));
        let platforms = r#"{"Platforms":[{"ID":"x","Platform":{"os":"linux","architecture":"amd64"}}]}"#;
        shelf.exporters.lock().unwrap().0 = vec![exporter("oci", &[("tar", "false")])];
        let _open = session(&place.channel, "session-e", &shelf).await;
        let mut control = control(&place.channel);
        let request =
            api::SolveRequest { frontend: String::new(), enable_session_exporter: true, ..solve("e", &[]) };
        let whole = tokio::spawn(async move { control.solve(request).await });
        let solve = frontend::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..frontend::SolveRequest::default()
        };
        let solved = place.bridge.solve(of_build("e", solve)).await.unwrap().into_inner();
        let Some(frontend::result::Result::Ref(reference)) = solved.result.unwrap().result else { panic!() };
        let metadata = [
            ("refs.platforms", platforms),
            ("annotation-index.a", "index"),
            ("annotation-manifest[linux/amd64].b", "manifest"),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        let result = frontend::Result {
            result: Some(frontend::result::Result::Refs(frontend::RefMap {
                refs: BTreeMap::from([("x".to_owned(), reference)]),
            })),
            metadata: metadata.into(),
            ..frontend::Result::default()
        };
        let returned = frontend::ReturnRequest { result: Some(result), error: None };
        place.bridge.r#return(of_build("e", returned)).await.unwrap();
        let told = whole.await.unwrap().unwrap().into_inner().exporter_response;
        let digest = &told["containerimage.digest"];
        assert_eq!(shelf.exporters.lock().unwrap().1["containerimage.digest"], *digest);
        let index = shelf.document("export", digest);
        assert_eq!(index["annotations"]["a"], "index");
        let manifest = shelf.document("export", index["manifests"][0]["digest"].as_str().unwrap());
        assert_eq!(manifest["annotations"]["b"], "manifest");
    });
}

/// A result that is no image needs no platforms.
fn platforms_of_answers(mode: Mode) {
    with(mode, shelf("FROM scratch\nCOPY busybox /made\n", tree(Vec::new())), |mut place| async move {
        // All of the place, so that its directory stays.
        let place = &mut place;
        for (id, is_image) in [("answer", false), ("image", true)] {
            let mut driven = control(&place.channel);
            let request = api::SolveRequest {
                session: "session-b".to_owned(),
                frontend: String::new(),
                frontend_attrs: attrs(&[("platform", "linux/amd64,linux/arm64")]),
                ..solve(id, &[])
            };
            let whole = tokio::spawn(async move { driven.solve(request).await.map(drop) });
            let none = frontend::result::Result::Ref(frontend::Ref::default());
            let mut result = frontend::Result { result: Some(none), ..frontend::Result::default() };
            if is_image {
                let asked = frontend::SolveRequest {
                    frontend: "dockerfile.v0".to_owned(),
                    allow_result_return: true,
                    allow_result_array_ref: true,
                    ..frontend::SolveRequest::default()
                };
                let solved = place.bridge.solve(of_build(id, asked)).await.unwrap().into_inner();
                result.result = solved.result.unwrap().result;
            }
            let returned = frontend::ReturnRequest { result: Some(result), error: None };
            place.bridge.r#return(of_build(id, returned)).await.unwrap();
            whole.await.unwrap().unwrap();
            let asked = api::StatusRequest { r#ref: id.to_owned() };
            let mut status = control(&place.channel).status(asked).await.unwrap().into_inner();
            let mut warnings = Vec::new();
            while let Some(message) = status.message().await.unwrap() {
                warnings.extend(message.warnings.into_iter().map(|one| one.short));
            }
            assert_eq!(!warnings.is_empty(), is_image, "{id}: {warnings:?}");
        }
    });
}

fn warnings_of_clients(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let place = &mut place;
        let warning = frontend::WarnRequest {
            digest: "sha256:x".to_owned(),
            level: 3,
            short: b"short".to_vec(),
            detail: vec![b"one".to_vec(), b"two".to_vec()],
            url: "https://example.com".to_owned(),
            info: Some(lapstrake_proto::pb::SourceInfo {
                filename: "file".to_owned(),
                data: b"text".to_vec(),
                ..Default::default()
            }),
            ranges: Vec::new(),
        };
        place.bridge.warn(of_build(BUILD, warning)).await.unwrap();
        let asked = api::StatusRequest { r#ref: BUILD.to_owned() };
        let mut status = control(&place.channel).status(asked).await.unwrap().into_inner();
        let found = loop {
            let message = status.message().await.unwrap().expect("there is a warning");
            if let Some(warning) = message.warnings.into_iter().next() {
                break warning;
            }
        };
        assert_eq!((found.level, &*found.vertex, found.detail.len()), (3, "sha256:x", 2));
        assert_eq!(found.info.unwrap().data, b"text");
    });
}
