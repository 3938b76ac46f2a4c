//! Builds without the binary: the caller is a script.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use lapstrake_build::{
    Addressee, Client, Delivered, Engine, Job, Machine, Resolved, Trace, Writing, build, check_engine,
};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_engine::{Event, Progress};
use lapstrake_ops::{Debug, Secret};
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

/// A machine with an empty state, and a directory beside it.
struct Place {
    top: tempfile::TempDir,
    machine: Machine,
}

impl Place {
    fn new() -> Place {
        let top = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&top.path().join("state")).unwrap());
        // Nobody is mapped to other ids here, as in a container of CI.
        Place { machine: Machine { store, single_id: !rustix::process::geteuid().is_root() }, top }
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
        let job = Job { machine: &self.machine, client, progress: Progress::new(sender) };
        let result = runtime.block_on(build(job, request, resolved, &mut trace));
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
    assert_eq!(place.machine.store.tagged(&"app".parse().unwrap()).unwrap(), Some(id));
    assert_eq!(trace.steps.len(), 2, "a source and a copy");
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
    assert_eq!(place.machine.store.images().unwrap().len(), 0, "nothing is left behind");
}
