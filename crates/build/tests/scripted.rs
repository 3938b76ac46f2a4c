//! Builds without the binary: the caller is a script.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use lapstrake_build::{
    Addressee, Build, Client, Delivered, Engine, Resolved, Trace, Writing, WritingFiles, build, check_engine,
};
use lapstrake_diag::{Context as _, Fault, Outcome, Report};
use lapstrake_engine::{Event, Progress, StepOutcome};
use lapstrake_ops::{Debug, Secret, StackReport, Worker};
use lapstrake_registry::{Credentials, Registries};
use lapstrake_request::BuildRequest;
use lapstrake_store::Store;
use lapstrake_testkit::Registry;

/// A caller that has directories by their names, and takes outputs into memory.
#[derive(Default)]
struct Script {
    directories: BTreeMap<PathBuf, PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    secrets: BTreeMap<String, Outcome<Secret>>,
    /// The secrets that steps asked for.
    asked: Mutex<Vec<String>>,
    stdin: Vec<u8>,
    outputs: Mutex<BTreeMap<Option<PathBuf>, Vec<u8>>>,
}

impl Client for Script {
    fn directory(&self, named: &Path) -> Outcome<PathBuf> {
        self.directories
            .get(named)
            .cloned()
            .ok_or_else(|| Report::new(format!("no directory {}", named.display())))
    }

    fn file(&self, named: &Path) -> io::Result<Vec<u8>> {
        self.files.get(named).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn secret(&self, id: &str) -> Outcome<Option<Secret>> {
        self.asked.lock().unwrap().push(id.to_owned());
        self.secrets.get(id).cloned().transpose()
    }

    fn ssh_agent(&self, _: &str) -> Outcome<Option<PathBuf>> {
        Ok(None)
    }

    fn registries(&self) -> Registries {
        Registries { credentials: Credentials::None, ..Registries::default() }
    }

    fn git_environment(&self) -> Vec<(OsString, OsString)> {
        Vec::new()
    }

    fn stdin(&self) -> Box<dyn Read + Send> {
        Box::new(io::Cursor::new(self.stdin.clone()))
    }

    fn output(&self, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()> {
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        self.outputs.lock().unwrap().insert(dest.map(Path::to_owned), bytes);
        Ok(())
    }

    fn output_directory(&self, dest: &Path, write: &mut WritingFiles<'_>) -> Outcome<()> {
        std::fs::create_dir_all(dest).with_context(|| format!("cannot create `{}`", dest.display()))?;
        write(dest)
    }

    fn engine(&self) -> Outcome<Addressee> {
        Ok(Addressee { engine: Engine::Docker("/nonexistent/docker.sock".into()), named: false })
    }

    fn debugger(&self) -> Option<Debug> {
        None
    }
}

/// A worker with an empty state, and a directory beside it.
struct Place {
    top: tempfile::TempDir,
    worker: Arc<Worker>,
}

impl Place {
    fn new() -> Place {
        let top = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&top.path().join("state")).unwrap());
        // Nobody is mapped to other ids here, as in a container of CI.
        Place { worker: Arc::new(Worker::new(store, !rustix::process::geteuid().is_root())), top }
    }

    fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.top.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), text).unwrap();
        }
        dir
    }

    fn build(&self, client: &Arc<Script>, request: &BuildRequest) -> (Outcome<Delivered>, Trace, Vec<Event>) {
        let (sender, events) = channel();
        let mut trace = Trace::default();
        let client: Arc<dyn Client> = client.clone();
        let resolved = match Resolved::parse(request, &client) {
            Ok(resolved) => resolved,
            Err(report) => return (Err(report), trace, Vec::new()),
        };
        check_engine(&resolved, &*client).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let this = Build { worker: &self.worker, client: &*client, progress: Progress::new(sender) };
        let result = runtime.block_on(build(this, request, resolved, &mut trace));
        (result, trace, events.try_iter().collect())
    }
}

fn request(context: &str) -> BuildRequest {
    BuildRequest { context: context.into(), ..BuildRequest::default() }
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn outputs_go_to_the_client() {
    let place = Place::new();
    let dir = place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY data /data\n"), ("data", "text")]);
    let client = Arc::new(Script { directories: [("theirs".into(), dir)].into(), ..Script::default() });
    let mut request = request("theirs");
    request.tags = vec!["app".to_owned()];
    request.outputs = ["type=image", "type=oci,dest=out.tar", "type=tar"].map(str::to_owned).to_vec();
    let (delivered, trace, events) = place.build(&client, &request);
    let id = delivered.unwrap().id.unwrap();
    assert_eq!(place.worker.store().tagged(&"app".parse().unwrap()).unwrap(), Some(id));
    assert!(trace.steps.iter().any(|step| step.name.contains("COPY data /data")));
    assert!(events.iter().any(|event| matches!(event, Event::Completed { error: None, .. })));
    let outputs = client.outputs.lock().unwrap();
    assert!(names(&outputs[&Some("out.tar".into())]).contains(&"index.json".to_owned()));
    assert_eq!(names(&outputs[&None]), ["data"]);
}

#[test]
fn the_second_build_is_cached() {
    let place = Place::new();
    let dir = place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY data /data\n"), ("data", "text")]);
    let client = Arc::new(Script { directories: [("theirs".into(), dir)].into(), ..Script::default() });
    let (first, ..) = place.build(&client, &request("theirs"));
    let (second, _, events) = place.build(&client, &request("theirs"));
    assert_eq!(first.unwrap().id, second.unwrap().id);
    assert!(events.iter().any(|event| matches!(event, Event::Completed { cached: true, .. })));
}

#[test]
fn standard_input_is_the_clients() {
    let place = Place::new();
    let client = Arc::new(Script { stdin: b"FROM scratch\nLABEL a=b\n".to_vec(), ..Script::default() });
    let (delivered, ..) = place.build(&client, &request("-"));
    assert!(delivered.unwrap().id.is_some());
}

#[test]
fn a_dockerfile_elsewhere_is_read_by_the_client() {
    let place = Place::new();
    let context =
        place.directory("app", &[("one", "1"), ("two", "2"), ("Dockerfile", "FROM scratch\nCOPY one /\n")]);
    let theirs = place.directory("files", &[("part", "COPY . /\n")]);
    let client = Arc::new(Script {
        directories: [("theirs".into(), context), ("files".into(), theirs)].into(),
        files: [
            ("files/dockerfile".into(), b"FROM scratch\nINCLUDE part\n".to_vec()),
            ("files/Dockerfile.dockerignore".into(), b"one\nDockerfile\n".to_vec()),
        ]
        .into(),
        ..Script::default()
    });
    let mut request = BuildRequest { dockerfile: Some("files/Dockerfile".into()), ..request("theirs") };
    request.syntax = Some("lapstrake".to_owned());
    request.outputs = vec!["type=tar".to_owned()];
    place.build(&client, &request).0.unwrap();
    assert_eq!(names(&client.outputs.lock().unwrap()[&None]), ["two"]);
    request.dockerfile = Some("files/absent".into());
    let absent = place.build(&client, &request).0.map(|_| ()).unwrap_err();
    assert!(absent.to_string().starts_with("failed to read dockerfile: open files/absent: "), "{absent}");
}

/// A server of one file, which answers each request, and keeps the `Authorization` of each.
struct OneFile {
    address: String,
    logins: Arc<Mutex<Vec<Option<String>>>>,
}

impl OneFile {
    fn start() -> OneFile {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let logins = Arc::new(Mutex::new(Vec::new()));
        let kept = logins.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let login = head.iter().find_map(|line| line.strip_prefix("authorization: "));
                kept.lock().unwrap().push(login.map(str::to_owned));
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfile";
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        OneFile { address, logins }
    }
}

#[test]
fn secrets_are_asked_for_when_a_step_needs_them() {
    let place = Place::new();
    let server = OneFile::start();
    let text = format!("FROM scratch AS none\nCOPY a /\nFROM scratch\nADD http://{}/x /x\n", server.address);
    let dir = place.directory("app", &[("Dockerfile", &text), ("a", "a")]);
    let id = format!("HTTP_AUTH_TOKEN_{}", server.address);
    let client = |value: Outcome<Secret>| {
        let directories = [("theirs".into(), dir.clone())].into();
        Arc::new(Script { directories, secrets: [(id.clone(), value)].into(), ..Script::default() })
    };
    let given = client(Ok(b"canary\n".to_vec().into()));
    let none = BuildRequest { target: Some("none".to_owned()), ..request("theirs") };
    place.build(&given, &none).0.unwrap();
    assert!(given.asked.lock().unwrap().is_empty(), "no step needs a secret");
    place.build(&given, &request("theirs")).0.unwrap();
    assert!(given.asked.lock().unwrap().contains(&id));
    assert_eq!(server.logins.lock().unwrap().last().unwrap().as_deref(), Some("Bearer canary"));
    let refused = client(Err(Report::new("the vault is closed").with_hint("open it")));
    let report = place.build(&refused, &request("theirs")).0.map(|_| ()).unwrap_err();
    assert!(report.to_string().ends_with("the vault is closed"), "{report}");
    assert_eq!(report.hint(), Some("open it"));
}

#[test]
fn images_are_pushed() {
    let place = Place::new();
    let registry = match Registry::start(place.top.path(), "registry", "") {
        Ok(registry) => registry,
        Err(why) => return lapstrake_testkit::skipped(&why),
    };
    let dir = place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY data /data\n"), ("data", "text")]);
    let client = Arc::new(Script { directories: [("theirs".into(), dir)].into(), ..Script::default() });
    let pushed: BuildRequest =
        BuildRequest { tags: vec![format!("{}/app:1", registry.address)], push: true, ..request("theirs") };
    place.build(&client, &pushed).0.unwrap();
    let copied = place.directory("copy", &[("Dockerfile", &format!("FROM {}/app:1\n", registry.address))]);
    let client = Arc::new(Script { directories: [("theirs".into(), copied)].into(), ..Script::default() });
    // Another state directory has only what the registry gives.
    let elsewhere = Place::new();
    let tar = BuildRequest { outputs: vec!["type=tar".to_owned()], ..request("theirs") };
    elsewhere.build(&client, &tar).0.unwrap();
    assert_eq!(names(&client.outputs.lock().unwrap()[&None]), ["data"]);
}

#[test]
fn failures_are_reports() {
    let place = Place::new();
    let dir =
        place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY nothing /\n"), ("bad", "FORM x\n")]);
    let client = Arc::new(Script { directories: [("theirs".into(), dir)].into(), ..Script::default() });
    let (failed, ..) = place.build(&client, &request("theirs"));
    let report = failed.map(|_| ()).unwrap_err();
    assert_eq!(report.fault(), Fault::Build);
    assert_eq!(report.place().and_then(lapstrake_diag::Place::start), Some(("Dockerfile", 2)));
    assert!(report.to_string().starts_with("failed to solve: failed to compute cache key"), "{report}");
    let unknown = BuildRequest { outputs: vec!["type=nosuch".to_owned()], ..request("theirs") };
    assert_eq!(place.build(&client, &unknown).0.map(|_| ()).unwrap_err().fault(), Fault::Usage);
    let (absent, ..) = place.build(&client, &request("ours"));
    assert_eq!(absent.map(|_| ()).unwrap_err().to_string(), "no directory ours");
    assert_eq!(place.worker.store().images().unwrap().len(), 0, "nothing is left behind");
}

#[test]
fn equal_steps_of_two_builds_run_once() {
    let place = Place::new();
    let dir = place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY data /data\n"), ("data", "text")]);
    let client =
        || Arc::new(Script { directories: [("theirs".into(), dir.clone())].into(), ..Script::default() });
    let copies = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| place.build(&client(), &request("theirs"))));
        both.map(|thread| {
            let (delivered, trace, _) = thread.join().unwrap();
            let is_copy =
                |step: &&StackReport| step.name.contains("COPY") && step.outcome == StepOutcome::Executed;
            (delivered.unwrap().id, trace.steps.iter().filter(is_copy).count())
        })
    });
    assert_eq!(copies[0].0, copies[1].0);
    assert_eq!(copies[0].1 + copies[1].1, 1, "the copy is made by one of two builds");
}
