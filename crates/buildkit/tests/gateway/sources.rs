//! What clients learn of sources before they build on them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::pb;
use lapstrake_testkit::buildkit::{of_build, shelf};
use lapstrake_testkit::{Files, Mode, Response, Test, WebServer};
use tonic::{Code, Status};

use crate::place::{BUILD, Place, with};

pub(crate) const TESTS: &[Test] = &[
    ("facts_of_commits", &[Mode::Root, Mode::Oneid], facts_of_commits),
    ("facts_of_files", &[Mode::Root, Mode::Oneid], facts_of_files),
    ("facts_that_cannot_be", &[Mode::Root], facts_that_cannot_be),
];

fn asked(identifier: &str, attrs: &[(&str, &str)]) -> frontend::ResolveSourceMetaRequest {
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    frontend::ResolveSourceMetaRequest {
        source: Some(pb::SourceOp { identifier: identifier.to_owned(), attrs }),
        ..frontend::ResolveSourceMetaRequest::default()
    }
}

async fn ask(
    place: &mut Place,
    request: frontend::ResolveSourceMetaRequest,
) -> Result<frontend::ResolveSourceMetaResponse, Status> {
    Ok(place.bridge.resolve_source_meta(of_build(BUILD, request)).await?.into_inner())
}

/// What git prints.
fn git(dir: &Path, words: &[&str]) -> String {
    let identity = ["-c", "user.name=me", "-c", "user.email=me@host", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").current_dir(dir).args(identity).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn facts_of_commits(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let place = &mut place;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        git(dir, &["init", "-q"]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", "one"]);
        git(dir, &["tag", "-a", "v1", "-m", "the first"]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", "two"]);
        git(dir, &["update-server-info"]);
        let server = WebServer::files(Files::of(&dir.join(".git"))).unwrap();
        let url = format!("http://127.0.0.1:{}/", server.port);
        let source = |fragment: &str| {
            asked(&format!("git://127.0.0.1:{}/{fragment}", server.port), &[("git.fullurl", &url)])
        };
        let (tag, first, head) = (
            git(dir, &["rev-parse", "v1"]),
            git(dir, &["rev-parse", "v1^{commit}"]),
            git(dir, &["rev-parse", "HEAD"]),
        );

        let found = ask(place, source("")).await.unwrap();
        assert_eq!(found.source, source("").source);
        let found = found.git.unwrap();
        assert_eq!((&*found.r#ref, &found.checksum, &*found.commit_checksum), ("refs/heads/main", &head, ""));
        assert!(found.commit_object.is_empty() && found.tag_object.is_empty());

        let found = ask(place, source("#v1")).await.unwrap().git.unwrap();
        assert_eq!((&*found.r#ref, &found.checksum, &found.commit_checksum), ("refs/tags/v1", &tag, &first));

        // What a build knows stays: a tag that moves meanwhile changes nothing.
        git(dir, &["tag", "-f", "v1"]);
        git(dir, &["update-server-info"]);
        let with_objects = frontend::ResolveSourceMetaRequest {
            git: Some(frontend::ResolveSourceGitRequest { return_object: true }),
            ..source("#v1")
        };
        let found = ask(place, with_objects).await.unwrap().git.unwrap();
        assert_eq!((&found.checksum, &found.commit_checksum), (&tag, &first));
        assert!(found.commit_object.ends_with(b"\n\none\n"), "{found:?}");
        assert!(found.tag_object.ends_with(b"\n\nthe first\n"), "{found:?}");

        let found = ask(place, source(&format!("#{head}"))).await.unwrap().git.unwrap();
        assert_eq!((&found.r#ref, &found.checksum), (&head, &head));
        let error = ask(place, source("#nosuch")).await.unwrap_err();
        assert!(error.message().contains("nosuch"), "{error:?}");
    });
}

fn facts_of_files(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let place = &mut place;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let server = WebServer::start(move |request| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            match &*request.path {
                "/a" => Response::new(200, format!("content {number}"))
                    .with("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
                "/b" => Response::new(200, "b").with("Content-Disposition", "attachment; filename=\"my b\""),
                _ => Response::new(404, ""),
            }
        });
        let server = server.unwrap();
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.port);
        let found = ask(place, asked(&url("/a"), &[])).await.unwrap().http.unwrap();
        assert_eq!((&*found.filename, found.last_modified.map(|at| at.seconds)), ("a", Some(1_445_412_480)));
        // The file is asked for once in a build.
        let again = frontend::ResolveSourceMetaRequest {
            http: Some(frontend::ResolveSourceHttpRequest {
                checksum_request: Some(frontend::ChecksumRequest { algo: 2, suffix: b"!".to_vec() }),
            }),
            ..asked(&url("/a"), &[])
        };
        let again = ask(place, again).await.unwrap().http.unwrap();
        assert_eq!((again.checksum, count.load(Ordering::Relaxed)), (found.checksum, 1));
        let sum = again.checksum_response.unwrap();
        assert_eq!((sum.digest.len(), &*sum.suffix), ("sha512:".len() + 128, &b"!"[..]));

        let found = ask(place, asked(&url("/b"), &[])).await.unwrap().http.unwrap();
        assert_eq!((&*found.filename, found.last_modified), ("my b", None));
        let named = asked(&url("/b"), &[("http.filename", "own")]);
        assert_eq!(ask(place, named).await.unwrap().http.unwrap().filename, "own");
        // A pinned file is not asked for.
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = ask(place, asked(&url("/none"), &[("http.checksum", &digest)])).await.unwrap();
        assert_eq!(pinned.http.unwrap().checksum, digest);
    });
}

fn facts_that_cannot_be(mode: Mode) {
    with(mode, shelf("FROM scratch\n", Vec::new()), |mut place| async move {
        let place = &mut place;
        let local = ask(place, asked("local://x", &[("local.unique", "1")])).await.unwrap();
        assert_eq!(local.source, asked("local://x", &[("local.unique", "1")]).source);
        for (identifier, code) in [
            ("nothing", Code::InvalidArgument),
            ("other://x", Code::Unimplemented),
            ("", Code::InvalidArgument),
        ] {
            let error = ask(place, asked(identifier, &[])).await.unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
        }
        let error = ask(place, asked("http://127.0.0.1/x", &[("http.uid", "me")])).await.unwrap_err();
        assert!(error.message().contains("`me` is no number"), "{error:?}");
        let odd = frontend::ResolveSourceMetaRequest {
            http: Some(frontend::ResolveSourceHttpRequest {
                checksum_request: Some(frontend::ChecksumRequest { algo: 9, suffix: Vec::new() }),
            }),
            ..asked("http://127.0.0.1/x", &[])
        };
        let error = ask(place, odd).await.unwrap_err();
        assert_eq!(error.message(), "unsupported checksum algorithm 9");
    });
}
