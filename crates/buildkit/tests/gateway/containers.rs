//! Containers of clients, and the processes in them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::moby::buildkit::v1::frontend::exec_message::Input;
use lapstrake_proto::pb;
use lapstrake_testkit::buildkit::{Shelf, entry, of_build, shelf};
use lapstrake_testkit::{ALL, Mode, Test};
use tonic::Code;

use crate::place::{BUILD, DOCKERFILE, Place, WAIT, shell, tree, with};

pub(crate) const TESTS: &[Test] = &[
    ("processes_and_their_streams", ALL, processes_and_their_streams),
    ("processes_that_cannot_be", ALL, processes_that_cannot_be),
    ("signals_and_ends", ALL, signals_and_ends),
    ("terminals", ALL, terminals),
    ("mounts_of_each_kind", ALL, mounts_of_each_kind),
    ("files_of_containers", ALL, files_of_containers),
    ("entitlements_of_processes", ALL, entitlements_of_processes),
    ("containers_that_cannot_be", ALL, containers_that_cannot_be),
    ("errors_come_back", &[Mode::Root], errors_come_back),
    ("nothing_is_left", ALL, nothing_is_left),
];

fn plain() -> Shelf {
    shelf(DOCKERFILE, tree(vec![entry("file", "text")]))
}

fn processes_and_their_streams(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        stream.begin("one", shell("c", WAIT), "ready").await;
        // A further process sees what another one has written.
        let done =
            stream.run("two", shell("c", "echo out; echo err >&2; busybox mkdir /t; echo x > /t/x")).await;
        assert_eq!((done.stdout.as_str(), done.stderr.as_str(), done.code()), ("out\n", "err\n", 0));
        assert_eq!(
            stream.run("three", shell("c", "busybox cat /t/x; busybox ps")).await.stdout.lines().next(),
            Some("x")
        );
        // Input, environment, directory and the exit code.
        let mut init = shell("c", "busybox cat; pwd; echo $A $HOME; exit 3");
        let meta = init.meta.as_mut().unwrap();
        (meta.env, meta.cwd) = (vec!["A=b".to_owned()], "/t".to_owned());
        stream.send("four", Input::Init(init));
        stream.write("four", "in", false);
        stream.write("four", "put\n", true);
        let done = stream.end("four").await;
        assert_eq!((done.stdout.as_str(), done.code()), ("input\n/t\nb /\n", 3));
        let error = done.exit.unwrap().error.unwrap();
        assert_eq!((error.code, error.message.as_str()), (2, "exit code: 3"));
        assert_eq!(error.details[0].type_url, "github.com/moby/buildkit/gatewayapi.ExitMessage+json");
        assert_eq!(error.details[0].value, br#"{"Code":3}"#);
        // Much output comes whole and in order.
        let done = stream.run("five", shell("c", "busybox seq 1 100000")).await;
        assert!(done.stdout.lines().eq((1..=100_000).map(|n: u32| n.to_string()).collect::<Vec<_>>()));
        // A process that leaves another one behind has ended all the same.
        let done = stream.run("six", shell("c", "busybox sleep 100 & echo begun")).await;
        assert_eq!(done.stdout, "begun\n");
        // Who wants no output gets none.
        let done =
            stream.run("seven", frontend::InitMessage { fds: vec![0], ..shell("c", "echo out") }).await;
        assert_eq!((done.stdout.as_str(), done.code()), ("", 0), "{done:?}");
    });
}

fn processes_that_cannot_be(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        stream.begin("one", shell("c", WAIT), "ready").await;
        let mut init = shell("c", "");
        init.meta.as_mut().unwrap().args = vec!["nosuch".to_owned()];
        let done = stream.run("two", init).await;
        assert!(done.code() == 255 && done.error().contains("nosuch"), "{done:?}");
        let mut init = shell("c", "true");
        init.meta.as_mut().unwrap().user = "nobody-here".to_owned();
        assert!(stream.run("three", init).await.error().contains("nobody-here"));
        let done = stream.run("four", frontend::InitMessage { security: 2, ..shell("c", "true") }).await;
        assert_eq!(done.error(), "invalid security mode 2");
        let done = stream.run("five", frontend::InitMessage { meta: None, ..shell("c", "true") }).await;
        assert!(done.error().contains("no arguments"));
        // These end the stream.
        for (what, code) in [
            (("x", Input::Init(shell("other", "true"))), Code::NotFound),
            (("x", Input::File(frontend::FdMessage::default())), Code::NotFound),
            (("", Input::Init(shell("c", "true"))), Code::InvalidArgument),
            (("y", Input::Signal(frontend::SignalMessage::default())), Code::NotFound),
        ] {
            let mut stream = place.stream().await;
            stream.send(what.0, what.1);
            let error = stream.until("x", |_| false).await.unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
        }
        let mut other = place.stream().await;
        other.begin("z", shell("c", WAIT), "ready").await;
        other.signal("z", "NOSUCH");
        assert_eq!(other.until("x", |_| false).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(stream.run("six", shell("c", "echo on")).await.stdout, "on\n");
    });
}

fn signals_and_ends(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        stream.begin("one", shell("c", WAIT), "ready").await;
        let trap = "trap 'exit 99' HUP; echo ready; while :; do busybox sleep 0.05; done";
        stream.begin("two", shell("c", trap), "ready").await;
        stream.signal("two", "HUP");
        assert_eq!(stream.end("two").await.code(), 99);
        stream.begin("three", shell("c", WAIT), "ready").await;
        // The container ends with its first process.
        stream.signal("one", "KILL");
        assert_eq!(stream.end("one").await.code(), 137);
        let done = stream.end("three").await;
        assert_eq!((done.code(), done.error().as_str()), (137, "exit code: 137"));
        assert_eq!(stream.run("four", shell("c", "true")).await.code(), 255);
        // A released container ends with all of its processes.
        place.container("d", Vec::new()).await.unwrap();
        stream.begin("five", shell("d", WAIT), "ready").await;
        stream.begin("six", shell("d", WAIT), "ready").await;
        let release = || of_build(BUILD, frontend::ReleaseContainerRequest { container_id: "d".to_owned() });
        place.bridge.release_container(release()).await.unwrap();
        for id in ["five", "six"] {
            let done = stream.end(id).await;
            assert_eq!((done.code(), done.error().as_str()), (137, "exit code: 137: context canceled"));
        }
        let error = place.bridge.release_container(release()).await.unwrap_err();
        assert_eq!(error.message(), "container details for d not found");
        // The end of a stream is the end of its processes, and not of the container.
        place.container("e", Vec::new()).await.unwrap();
        let mut other = place.stream().await;
        stream.begin("seven", shell("e", WAIT), "ready").await;
        other
            .begin("eight", shell("e", "echo ready; echo $$ > /pid; exec busybox sleep 1000"), "ready")
            .await;
        drop(other);
        let gone =
            "while busybox kill -0 $(busybox cat /pid) 2> /dev/null; do busybox sleep 0.05; done; echo gone";
        assert_eq!(stream.run("nine", shell("e", gone)).await.stdout, "gone\n");
    });
}

fn terminals(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        for id in ["one", "two"] {
            let script = "echo ready; while read line; do case $line in size) busybox stty size;; end) exit 4;; \
                          *) busybox tty; echo got $line $TERM;; esac; done";
            stream.begin(id, frontend::InitMessage { tty: true, ..shell("c", script) }, "ready").await;
            stream.write(id, "word\n", false);
            let known = stream.until(id, |known| known.stdout.contains("got word xterm")).await.unwrap();
            assert!(known.stdout.contains("/dev/"), "{known:?}");
            stream.send(id, Input::Resize(frontend::ResizeMessage { rows: 33, cols: 77 }));
            stream.write(id, "size\n", false);
            stream.until(id, |known| known.stdout.contains("33 77")).await.unwrap();
        }
        stream.write("two", "end\n", false);
        assert_eq!(stream.end("two").await.code(), 4);
        stream.write("one", "end\n", false);
        assert_eq!(stream.end("one").await.code(), 4);
    });
}

fn mount(dest: &str, kind: pb::MountType) -> pb::Mount {
    pb::Mount { dest: dest.to_owned(), mount_type: kind.into(), ..pb::Mount::default() }
}

fn cache(id: &str) -> pb::Mount {
    let cache_opt = Some(pb::CacheOpt { id: id.to_owned(), sharing: 0 });
    pb::Mount { cache_opt, ..mount("/cache", pb::MountType::Cache) }
}

fn mounts_of_each_kind(mode: Mode) {
    let mut shelf = plain();
    shelf.secrets.insert("word".to_owned(), b"hidden".to_vec());
    with(mode, shelf, |mut place| async move {
        let own = place.solve().await;
        let secret = pb::SecretOpt { id: "word".to_owned(), mode: 0o400, ..pb::SecretOpt::default() };
        let missing = pb::SecretOpt { id: "none".to_owned(), optional: true, ..pb::SecretOpt::default() };
        let mounts = vec![
            pb::Mount {
                result_id: own.clone(),
                selector: "/bin".to_owned(),
                readonly: true,
                ..mount("/ro", pb::MountType::Bind)
            },
            pb::Mount { result_id: own, ..mount("/rw", pb::MountType::Bind) },
            mount("/empty", pb::MountType::Bind),
            cache("cache-one"),
            mount("/memory", pb::MountType::Tmpfs),
            pb::Mount { secret_opt: Some(secret.clone()), ..mount("/run/word", pb::MountType::Secret) },
            pb::Mount { secret_opt: Some(missing), ..mount("/run/none", pb::MountType::Secret) },
        ];
        place.container("c", mounts).await.unwrap();
        let mut stream = place.stream().await;
        let script = "busybox ls /ro; echo a > /ro/x; echo b > /rw/x; echo c > /empty/x; echo d > /cache/x; \
                      echo e > /memory/x; busybox cat /rw/x /empty/x /cache/x /memory/x /run/word; busybox ls /run";
        let init = frontend::InitMessage {
            secretenv: vec![
                pb::SecretEnv { id: "word".to_owned(), name: "WORD".to_owned(), optional: false },
                pb::SecretEnv { id: "none".to_owned(), name: "NONE".to_owned(), optional: true },
            ],
            ..shell("c", &format!("{script}; echo \"$WORD-$NONE\"; {WAIT}"))
        };
        stream.begin("one", init, "ready").await;
        let known = stream.until("one", |known| known.stderr.contains("ead-only")).await.unwrap();
        assert_eq!(known.stdout, "busybox\nsh\nb\nc\nd\ne\nhiddenword\nhidden-\nready\n");
        assert_eq!(stream.run("two", shell("c", "busybox cat /memory/x /empty/x")).await.stdout, "e\nc\n");
        // What a cache has stays; what was written elsewhere goes.
        place.container("d", vec![cache("cache-one")]).await.unwrap();
        let done =
            stream.run("three", shell("d", "busybox cat /cache/x; busybox ls / | busybox grep rw")).await;
        assert_eq!((done.stdout.as_str(), done.code()), ("d\n", 1));
        // A secret that must be there is asked for, and its absence is told.
        let needed = pb::SecretOpt { optional: false, id: "none".to_owned(), ..secret };
        let error = place
            .container(
                "e",
                vec![pb::Mount { secret_opt: Some(needed), ..mount("/run/x", pb::MountType::Secret) }],
            )
            .await
            .unwrap_err();
        assert!(error.message().contains("none"), "{error:?}");
        let wants = pb::SecretEnv { id: "none".to_owned(), name: "NONE".to_owned(), optional: false };
        let done =
            stream.run("four", frontend::InitMessage { secretenv: vec![wants], ..shell("c", "true") }).await;
        assert!(done.code() == 255 && done.error().contains("none"), "{done:?}");
    });
}

fn files_of_containers(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        let canary = place.top.path().join("canary");
        fs::write(&canary, "kept").unwrap();
        let mounts = vec![mount("/m", pb::MountType::Bind), mount("/memory", pb::MountType::Tmpfs)];
        place.container("c", mounts).await.unwrap();
        let mut stream = place.stream().await;
        let canary = canary.display();
        let script = format!(
            "echo written > /w; busybox ln -s w /same; busybox ln -s {canary} /out; echo inner > /m/i; \
             busybox ln -s ../w /m/up; busybox mkfifo /pipe; {WAIT}"
        );
        stream.begin("one", shell("c", &script), "ready").await;
        let read = |path: &str, mount_index: i32| {
            let request = frontend::ReadFileRequest {
                r#ref: "c".to_owned(),
                file_path: path.to_owned(),
                range: None,
                mount_index,
            };
            let mut bridge = place.bridge.clone();
            async move {
                let data = bridge.read_file_container(of_build(BUILD, request)).await?.into_inner().data;
                Ok::<_, tonic::Status>(String::from_utf8_lossy(&data).into_owned())
            }
        };
        assert_eq!(read("/w", 0).await.unwrap(), "written\n");
        assert_eq!(read("/same", 0).await.unwrap(), "written\n");
        assert_eq!(read("/i", 1).await.unwrap(), "inner\n");
        for (path, mount, word) in [
            ("/out", 0, "path escapes"),
            ("/up", 1, "path escapes"),
            ("/../../etc/passwd", 0, "path escapes"),
            ("/pipe", 0, "not a regular file"),
            ("/x", 2, "no files outside"),
            ("/w", 3, "out of bounds (3 available)"),
            ("/w", -1, "out of bounds"),
        ] {
            let error = read(path, mount).await.unwrap_err();
            assert!(error.message().contains(word), "{path}: {error:?}");
        }
        list_container(&mut place, &canary.to_string()).await;
    });
}

/// The rest of [`files_of_containers`]: facts and lists.
async fn list_container(place: &mut Place, canary: &str) {
    let request =
        frontend::StatFileRequest { r#ref: "c".to_owned(), path: "/out".to_owned(), mount_index: 0 };
    let stat = place.bridge.stat_file_container(of_build(BUILD, request)).await.unwrap();
    assert_eq!(stat.into_inner().stat.unwrap().linkname, canary);
    for (dir_path, mount_index, expected) in [("/", 1, vec!["i", "up"]), ("/bin", 0, vec!["busybox", "sh"])] {
        let request = frontend::ReadDirRequest {
            r#ref: "c".to_owned(),
            dir_path: dir_path.to_owned(),
            include_pattern: String::new(),
            mount_index,
        };
        let listed = place.bridge.read_dir_container(of_build(BUILD, request)).await.unwrap().into_inner();
        assert_eq!(listed.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), expected);
    }
    let lost = frontend::StatFileRequest { r#ref: "d".to_owned(), path: "/w".to_owned(), mount_index: 0 };
    let error = place.bridge.stat_file_container(of_build(BUILD, lost)).await.unwrap_err();
    assert_eq!(error.message(), "container details for d@0 not found");
}

fn entitlements_of_processes(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        let insecure =
            || frontend::InitMessage { security: pb::SecurityMode::Insecure.into(), ..shell("c", "true") };
        // For a first process and for a further one.
        let done = stream.run("one", insecure()).await;
        assert_eq!((done.code(), done.error().as_str()), (255, "security.insecure is not allowed"));
        stream.begin("two", shell("c", WAIT), "ready").await;
        assert_eq!(stream.run("three", insecure()).await.error(), "security.insecure is not allowed");
        let root = place.solve().await;
        let request = frontend::NewContainerRequest {
            container_id: "d".to_owned(),
            mounts: vec![pb::Mount { result_id: root, ..mount("/", pb::MountType::Bind) }],
            network: pb::NetMode::Host.into(),
            ..frontend::NewContainerRequest::default()
        };
        place.bridge.new_container(of_build(BUILD, request)).await.unwrap();
        assert_eq!(stream.run("four", shell("d", "true")).await.error(), "network.host is not allowed");
    });
}

fn containers_that_cannot_be(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        assert_eq!(place.container("c", Vec::new()).await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(place.container("", Vec::new()).await.unwrap_err().code(), Code::InvalidArgument);
        let bad = [
            mount("/", pb::MountType::Bind),
            mount("/proc/x", pb::MountType::Tmpfs),
            mount("/s", pb::MountType::Secret),
            mount("/c", pb::MountType::Cache),
            pb::Mount { mount_type: 77, ..mount("/x", pb::MountType::Bind) },
            pb::Mount { result_id: "nosuch".to_owned(), ..mount("/x", pb::MountType::Bind) },
        ];
        for (number, mount) in bad.into_iter().enumerate() {
            let id = format!("bad{number}");
            match place.container(&id, vec![mount.clone()]).await {
                Err(error) => assert_ne!(error.code(), Code::Internal, "{mount:?}: {error:?}"),
                Ok(()) => {
                    // The place is looked at when there is a process.
                    let mut stream = place.stream().await;
                    let done = stream.run("x", shell(&id, "true")).await;
                    assert_eq!(done.code(), 255, "{mount:?}: {done:?}");
                }
            }
        }
        let hosts = vec![pb::HostIp { host: "h".to_owned(), ip: "no".to_owned() }];
        let request = frontend::NewContainerRequest {
            container_id: "h".to_owned(),
            extra_hosts: hosts,
            ..frontend::NewContainerRequest::default()
        };
        let error = place.bridge.new_container(of_build(BUILD, request)).await.unwrap_err();
        assert_eq!(error.message(), "failed to parse IP no");
        let root = place.solve().await;
        let request = frontend::NewContainerRequest {
            container_id: "n".to_owned(),
            mounts: vec![pb::Mount { result_id: root, readonly: true, ..mount("/", pb::MountType::Bind) }],
            extra_hosts: vec![pb::HostIp { host: "some.host".to_owned(), ip: "1.2.3.4".to_owned() }],
            hostname: "named".to_owned(),
            network: pb::NetMode::None.into(),
            ..frontend::NewContainerRequest::default()
        };
        place.bridge.new_container(of_build(BUILD, request)).await.unwrap();
        let mut stream = place.stream().await;
        let script =
            "busybox hostname; busybox grep some.host /etc/hosts; busybox ls /sys/class/net; echo x > /x";
        let done = stream.run("one", shell("n", script)).await;
        assert_eq!(done.stdout, "named\n1.2.3.4\tsome.host\nlo\n");
        assert!(done.stderr.contains("ead-only"), "{done:?}");
    });
}

/// The exit of a process that a client gives back as the end of its build.
fn errors_come_back(mode: Mode) {
    with(mode, plain(), |mut place| async move {
        place.container("c", Vec::new()).await.unwrap();
        let mut stream = place.stream().await;
        let error = stream.run("one", shell("c", "exit 7")).await.exit.unwrap().error;
        let back = frontend::ReturnRequest { result: None, error };
        place.bridge.r#return(of_build(BUILD, back)).await.unwrap();
        let failed = place.build.await.unwrap().unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Unknown, "exit code: 7"));
        assert!(String::from_utf8_lossy(failed.details()).contains(r#"{"Code":7}"#));
    });
}

/// The entries of a directory that need not be there.
fn entries(path: &Path) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// How long the processes of this test sleep, by which they are told from those of others.
fn seconds() -> u32 {
    1_000_000 + std::process::id()
}

/// The processes of this test.
fn sleepers() -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let commands = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let own = format!("sleep\0{}\0", seconds());
    commands.filter(|line| *line == own.as_bytes()).count()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not so that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients that go in each way leave no process and no directory.
fn nothing_is_left(mode: Mode) {
    for way in ["release", "return", "session", "call"] {
        with(mode, plain(), |place| nothing_is_left_by(place, way));
    }
}

async fn nothing_is_left_by(mut place: Place, way: &'static str) {
    let sleep = format!("echo ready; exec sleep {}", seconds());
    let temporary = place.top.path().join("state/tmp");
    let id = place.solve().await;
    place.bridge.evaluate(of_build(BUILD, frontend::EvaluateRequest { r#ref: id })).await.unwrap();
    let before = entries(&temporary);
    place.container("c", vec![mount("/m", pb::MountType::Bind), cache(way)]).await.unwrap();
    let mut stream = place.stream().await;
    stream.begin("one", shell("c", &sleep), "ready").await;
    stream.begin("two", shell("c", &sleep), "ready").await;
    until("two processes run", || sleepers() == 2).await;
    match way {
        "release" => {
            let release = frontend::ReleaseContainerRequest { container_id: "c".to_owned() };
            place.bridge.release_container(of_build(BUILD, release)).await.unwrap();
        }
        "return" => {
            let nothing = frontend::ReturnRequest { result: Some(frontend::Result::default()), error: None };
            place.bridge.r#return(of_build(BUILD, nothing)).await.unwrap();
            place.build.await.unwrap().unwrap();
        }
        "session" => {
            place.session.abort();
            place.build.await.unwrap().unwrap_err();
        }
        _ => place.build.abort(),
    }
    until("no process runs", || sleepers() == 0).await;
    until("no directory is left", || entries(&temporary) <= before).await;
}
