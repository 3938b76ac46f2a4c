//! Two jobs of one worker, with steps that end when the test says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapstrake_diag::{Code, Reported};
use lapstrake_engine::{
    CacheMap, CacheStatus, Dep, Execution, Executor, Key, KeyHasher, Progress, Selector, Solved, Solver,
    Step, StepFailed, StepResult,
};
use lapstrake_graph::{Edge, File, FileAction, Graph, MakeDir, Op, Source, Vertex, VertexMeta};
use lapstrake_store::StackLayer;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::cache::Cache;
use crate::stack::{SharedStack, Stack};

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Failed,
    Panic,
}

#[derive(Debug, thiserror::Error)]
#[error("it went wrong")]
struct Wrong;

impl Reported for Wrong {
    fn code(&self) -> Code {
        Code::new("script", "wrong")
    }
}

/// A job whose step waits for a sign.
struct Scripted {
    end: End,
    go: Notify,
    begun: AtomicUsize,
    result: StackResult,
}

fn key(text: &str) -> Key {
    KeyHasher::new("test").part("", text.as_bytes()).finish()
}

impl Executor for Scripted {
    type Output = SharedStack;
    type Error = Wrong;

    fn cache_map(&self, vertex: &Vertex) -> CacheMap {
        CacheMap { op: b"step".to_vec(), deps: vec![Dep::ByKey; vertex.inputs.len()] }
    }

    async fn source_key(&self, _: &Vertex) -> Result<Key, Wrong> {
        Ok(key("source"))
    }

    async fn content_key(&self, _: &StackResult, _: &Selector) -> Result<Key, Wrong> {
        Ok(key("content"))
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        _: &[StackResult],
        _: &Step,
    ) -> Result<Execution<SharedStack>, Wrong> {
        if matches!(vertex.op, Op::Source(_)) {
            return Ok(StepResult { value: Stack::default().into(), content: Some(key("source")) }.into());
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.go.notified().await;
        match self.end {
            End::Well => Ok(self.result.clone().into()),
            End::Failed => Err(Wrong),
            End::Panic => panic!("in the middle of the step"),
        }
    }
}

/// A worker with a layer, and the graph that its jobs build.
struct Place {
    _root: tempfile::TempDir,
    worker: Arc<Worker>,
    result: StackResult,
    graph: Arc<Graph>,
    goal: Edge,
}

fn place(forced: bool) -> Place {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&root.path().join("s")).unwrap());
    let id: lapstrake_store::LayerId = "a".repeat(64).parse().unwrap();
    let dir = store.temp_dir().unwrap();
    std::fs::create_dir(dir.path().join("fs")).unwrap();
    let size = lapstrake_store::LayerSize { files: 0, own: None };
    store.put_layer(&id, dir.path(), |_| Ok(()), [0; 32], size).unwrap();
    let layers = vec![StackLayer { id, diff_id: None, clamp: None }];
    let result = Stack { layers, ..Stack::default() }.into_result(&store).unwrap();
    let mut graph = Graph::new();
    let meta = |name: &str, ignore_cache| VertexMeta {
        name: name.to_owned(),
        ignore_cache,
        ..VertexMeta::default()
    };
    let source = Op::Source(Source::Local { name: "src".to_owned() });
    let source = graph.add(source, vec![], meta("src", false)).unwrap();
    let dir = MakeDir { path: "/d".to_owned(), mode: 0o755, parents: true, owner: None, timestamp: None };
    let step = Op::File(File { actions: vec![FileAction::MakeDir(dir)] });
    let step = graph.add(step, vec![source.into()], meta("step", forced)).unwrap();
    let worker = Arc::new(Worker::new(store, false));
    Place { _root: root, worker, result, graph: Arc::new(graph), goal: step.into() }
}

type Ended = Result<Solved<SharedStack>, StepFailed>;

impl Place {
    /// Begins a job; each has its own executor and its own view of the cache.
    fn begin(&self, end: End) -> (Arc<Scripted>, JoinHandle<Ended>) {
        let (go, begun) = (Notify::new(), AtomicUsize::new(0));
        let executor = Arc::new(Scripted { end, go, begun, result: self.result.clone() });
        let cache = Cache::new(self.worker.clone());
        let (graph, own, goal) = (self.graph.clone(), executor.clone(), self.goal);
        let job = tokio::spawn(async move {
            let solver = Solver::new(&graph, &*own, &cache, Progress::none());
            solver.solve(goal).await
        });
        (executor, job)
    }
}

/// Waits until one of the jobs does the step; which one.
async fn one_at_work(jobs: [&Scripted; 2]) -> usize {
    for _ in 0..1000 {
        if let Some(at) = jobs.iter().position(|job| job.begun.load(Ordering::SeqCst) > 0) {
            // The other one has time to begin as well, if it does.
            tokio::time::sleep(Duration::from_millis(30)).await;
            return at;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no job begins the step");
}

async fn ended(job: JoinHandle<Ended>) -> Option<Ended> {
    tokio::time::timeout(Duration::from_secs(20), job).await.expect("the job ends").ok()
}

/// Two jobs, the first of which ends so; what became of the first and of the second, and how often the second did the step.
fn two_jobs(forced: bool, end: Option<End>) -> (Option<Ended>, Option<Ended>, usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let place = place(forced);
        let (one, first) = place.begin(end.unwrap_or(End::Well));
        assert_eq!(one_at_work([&one, &one]).await, 0);
        let (two, second) = place.begin(End::Well);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(two.begun.load(Ordering::SeqCst), 0, "the second job waits");
        match end {
            Some(_) => one.go.notify_one(),
            None => first.abort(),
        }
        let first = ended(first).await;
        two.go.notify_one();
        (first, ended(second).await, two.begun.load(Ordering::SeqCst))
    })
}

#[test]
fn equal_steps_of_two_jobs_run_once_in_a_worker() {
    for forced in [false, true] {
        let (first, second, times) = two_jobs(forced, Some(End::Well));
        let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
        assert_eq!(
            (first.status, second.status, times),
            (CacheStatus::Executed, CacheStatus::Cached, 0),
            "forced: {forced}"
        );
        assert_eq!(first.result, second.result);
    }
}

#[test]
fn a_job_that_ends_badly_leaves_the_other_jobs_of_its_worker_alone() {
    for forced in [false, true] {
        for end in [Some(End::Failed), Some(End::Panic), None] {
            let (first, second, times) = two_jobs(forced, end);
            assert!(first.is_none_or(|ended| ended.is_err()), "{end:?}");
            let second = second.unwrap().unwrap();
            assert_eq!((second.status, times), (CacheStatus::Executed, 1), "forced: {forced}, {end:?}");
        }
    }
}

#[test]
fn a_record_of_another_job_is_taken_later_too() {
    let place = place(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (one, first) = place.begin(End::Well);
        one.go.notify_one();
        assert_eq!(ended(first).await.unwrap().unwrap().status, CacheStatus::Executed);
        let (two, second) = place.begin(End::Well);
        assert_eq!(ended(second).await.unwrap().unwrap().status, CacheStatus::Cached);
        assert_eq!(two.begun.load(Ordering::SeqCst), 0);
    });
}
