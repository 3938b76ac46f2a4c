//! Builds without the binary: the caller is a script.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use lapstrake_build::{
    Addressee, Build, Client, Delivered, Engine, Resolved, Trace, Writing, build, check_engine,
};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_engine::{Event, Fate, Progress};
use lapstrake_ops::{Debug, Secret, StackReport, Worker};
use lapstrake_registry::{Credentials, Registries};
use lapstrake_request::BuildRequest;
use lapstrake_store::Store;

/// A caller that has directories by their names, and takes outputs into memory.
#[derive(Default)]
struct Script {
    directories: BTreeMap<PathBuf, PathBuf>,
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

    fn secrets(&self) -> BTreeMap<String, Secret> {
        BTreeMap::new()
    }

    fn agents(&self) -> BTreeMap<String, PathBuf> {
        BTreeMap::new()
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

    fn build(&self, client: &Script, request: &BuildRequest) -> (Outcome<Delivered>, Trace, Vec<Event>) {
        let (sender, events) = channel();
        let mut trace = Trace::default();
        let resolved = match Resolved::parse(request, client) {
            Ok(resolved) => resolved,
            Err(report) => return (Err(report), trace, Vec::new()),
        };
        check_engine(&resolved, client).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let this = Build { worker: &self.worker, client, progress: Progress::new(sender) };
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
    let client = Script { directories: [("theirs".into(), dir)].into(), ..Script::default() };
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
    let client = Script { directories: [("theirs".into(), dir)].into(), ..Script::default() };
    let (first, ..) = place.build(&client, &request("theirs"));
    let (second, _, events) = place.build(&client, &request("theirs"));
    assert_eq!(first.unwrap().id, second.unwrap().id);
    assert!(events.iter().any(|event| matches!(event, Event::Completed { cached: true, .. })));
}

#[test]
fn standard_input_is_the_clients() {
    let place = Place::new();
    let client = Script { stdin: b"FROM scratch\nLABEL a=b\n".to_vec(), ..Script::default() };
    let (delivered, ..) = place.build(&client, &request("-"));
    assert!(delivered.unwrap().id.is_some());
}

#[test]
fn failures_are_reports() {
    let place = Place::new();
    let dir =
        place.directory("app", &[("Dockerfile", "FROM scratch\nCOPY nothing /\n"), ("bad", "FORM x\n")]);
    let client = Script { directories: [("theirs".into(), dir)].into(), ..Script::default() };
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
    let client = || Script { directories: [("theirs".into(), dir.clone())].into(), ..Script::default() };
    let copies = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| place.build(&client(), &request("theirs"))));
        both.map(|thread| {
            let (delivered, trace, _) = thread.join().unwrap();
            let is_copy = |step: &&StackReport| step.name.contains("COPY") && step.fate == Fate::Executed;
            (delivered.unwrap().id, trace.steps.iter().filter(is_copy).count())
        })
    });
    assert_eq!(copies[0].0, copies[1].0);
    assert_eq!(copies[0].1 + copies[1].1, 1, "the copy is made by one of two builds");
}
