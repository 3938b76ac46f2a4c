//! An executor whose steps end when the test says so, a cache in memory, and graphs made of names.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use lapstrake_diag::{Code, Reported};
use lapstrake_graph::{File, FileAction, Graph, MakeDir, Op, Source, Vertex, VertexId, VertexMeta};
use tokio::sync::oneshot::{Sender, channel};

use crate::{
    CacheIndex, CacheMap, Dep, Execution, Executor, InputRead, Key, KeyHasher, LockedStep, Record, Selector,
    Step, StepResult,
};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(text: &str) -> Key {
    KeyHasher::new("test").part("text", text.as_bytes()).finish()
}

/// A step of the script that was told to fail.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} went wrong")]
pub(super) struct Broken(String);

impl Reported for Broken {
    fn code(&self) -> Code {
        Code::new("script", "broken")
    }
}

/// The end of a step, as the test has it: what it gives, or that it fails.
type End = Result<Option<String>, Broken>;

#[derive(Default)]
struct State {
    /// Every start, in order.
    started: Vec<String>,
    running: BTreeMap<String, Sender<End>>,
    canceled: Vec<String>,
}

/// The executor. Steps are known by their names.
#[derive(Default)]
pub(super) struct Script {
    state: Mutex<State>,
    /// What sources are at now; 0 where nothing is said.
    versions: BTreeMap<String, u32>,
    /// Steps that count their inputs by content.
    by_content: BTreeSet<String>,
    /// What steps read of their first inputs, where that is not what they were said to have.
    read: BTreeMap<String, String>,
}

impl Script {
    pub(super) fn new(versions: &[(&str, u32)], by_content: &[&str]) -> Self {
        Self {
            state: Mutex::default(),
            versions: versions.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
            by_content: by_content.iter().map(|name| (*name).to_owned()).collect(),
            read: BTreeMap::new(),
        }
    }

    /// With a step that reads something else of its first input than the input was said to have.
    pub(super) fn reading(mut self, name: &str, token: &str) -> Self {
        self.read.insert(name.to_owned(), token.to_owned());
        self
    }

    /// The steps that run, by name.
    pub(super) fn running(&self) -> Vec<String> {
        locked(&self.state).running.keys().cloned().collect()
    }

    /// All steps that were started, in order.
    pub(super) fn started(&self) -> Vec<String> {
        locked(&self.state).started.clone()
    }

    /// The steps that were dropped half-way.
    pub(super) fn canceled(&self) -> Vec<String> {
        locked(&self.state).canceled.clone()
    }

    /// Ends a step with what it gives of itself.
    pub(super) fn finish(&self, name: &str) {
        self.end(name, Ok(None));
    }

    /// Ends a step with content that says nothing of its inputs.
    pub(super) fn finish_with(&self, name: &str, content: &str) {
        self.end(name, Ok(Some(content.to_owned())));
    }

    /// Drops the end of a step, so that its future panics.
    pub(super) fn forget(&self, name: &str) {
        locked(&self.state).running.remove(name).expect("the step runs");
    }

    pub(super) fn fail(&self, name: &str) {
        self.end(name, Err(Broken(name.to_owned())));
    }

    fn end(&self, name: &str, end: End) {
        let sender = locked(&self.state).running.remove(name).expect("the step runs");
        sender.send(end).expect("somebody waits for the step");
    }
}

/// Notes a step whose future is dropped.
struct Dropped<'a>(&'a Script, Option<String>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.1.take() {
            let mut state = locked(&self.0.state);
            state.running.remove(&name);
            state.canceled.push(name);
        }
    }
}

impl Executor for Script {
    type Output = String;
    type Error = Broken;

    fn cache_map(&self, vertex: &Vertex) -> CacheMap {
        let whole = Selector::everything();
        let by_content = self.by_content.contains(&vertex.meta.name);
        let dep = if by_content { Dep::ByContent(whole) } else { Dep::ByKey };
        CacheMap { op: format!("{:?}", vertex.op).into_bytes(), deps: vec![dep; vertex.inputs.len()] }
    }

    async fn source_key(&self, vertex: &Vertex) -> Result<Key, Broken> {
        let name = &vertex.meta.name;
        Ok(key(&format!("{name} {}", self.versions.get(name).unwrap_or(&0))))
    }

    async fn content_key(&self, result: &StepResult<String>, _: &Selector) -> Result<Key, Broken> {
        Ok(key(&result.value))
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[StepResult<String>],
        _: &Step,
    ) -> Result<Execution<String>, Broken> {
        let name = vertex.meta.name.clone();
        let (sender, end) = channel();
        locked(&self.state).started.push(name.clone());
        let twin = locked(&self.state).running.insert(name.clone(), sender);
        assert!(twin.is_none(), "{name} runs twice at once");
        let mut dropped = Dropped(self, Some(name.clone()));
        let end = end.await.expect("every step is ended by the test");
        dropped.1 = None;
        let mut inputs: Vec<&str> = inputs.iter().map(|input| input.value.as_str()).collect();
        if let (Some(read), Some(first)) = (self.read.get(&name), inputs.first_mut()) {
            *first = read;
        }
        let version = self.versions.get(&name).unwrap_or(&0);
        let value = end?.unwrap_or_else(|| format!("{name}.{version}({})", inputs.join(",")));
        let read =
            self.read.get(&name).map(|token| InputRead { input: 0, content: key(token), source: key(token) });
        let result = StepResult { content: Some(key(&value)), value };
        Ok(Execution { result, read: read.into_iter().collect() })
    }
}

/// What jobs did of a step: how often, and with which result the last time.
#[derive(Default)]
pub(super) struct Ended {
    times: usize,
    result: Option<StepResult<String>>,
}

type Lock = Arc<tokio::sync::Mutex<Ended>>;

/// Records by key, and who works on what.
#[derive(Default)]
pub(super) struct Memory {
    records: Mutex<BTreeMap<Key, StepResult<String>>>,
    locks: Mutex<BTreeMap<Key, (Lock, usize)>>,
}

impl CacheIndex for Memory {
    type Output = String;
    type Lock = (Key, tokio::sync::OwnedMutexGuard<Ended>);
    type Error = Infallible;

    async fn lookup(&self, key: &Key) -> Result<Option<StepResult<String>>, Infallible> {
        Ok(locked(&self.records).get(key).cloned())
    }

    async fn lock(&self, key: &Key) -> Result<LockedStep<Self::Lock, String>, Infallible> {
        let (lock, before) = locked(&self.locks).entry(*key).or_default().clone();
        let ended = lock.lock_owned().await;
        let result = ended.result.clone().filter(|_| ended.times > before);
        Ok(LockedStep { lock: (*key, ended), result })
    }

    fn done(&self, (key, mut ended): Self::Lock, result: &StepResult<String>) {
        ended.times += 1;
        ended.result = Some(result.clone());
        locked(&self.locks).entry(key).or_default().1 = ended.times;
    }

    async fn insert(&self, keys: &[Key], record: &Record<String>) -> Result<(), Infallible> {
        locked(&self.records).extend(keys.iter().map(|key| (*key, record.result.clone())));
        Ok(())
    }
}

/// A build that moves when it is told to.
pub(super) struct Play<'a, T>(Option<Pin<Box<dyn Future<Output = T> + 'a>>>);

impl<'a, T> Play<'a, T> {
    /// Begins, as far as it comes by itself; what came out, if nothing is left to do.
    pub(super) fn start(build: impl Future<Output = T> + 'a) -> Result<Self, T> {
        let mut play = Self(Some(Box::pin(build)));
        match play.go() {
            Some(out) => Err(out),
            None => Ok(play),
        }
    }

    /// Begins a build that has something to do.
    pub(super) fn new(build: impl Future<Output = T> + 'a) -> Self {
        Self::start(build).ok().expect("something is left to do")
    }

    /// Drops the build half-way.
    pub(super) fn cancel(&mut self) {
        self.0 = None;
    }

    /// Goes on as far as it can; what came out, if that was the end.
    pub(super) fn go(&mut self) -> Option<T> {
        match self.0.as_mut()?.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(out) => Some(out),
            Poll::Pending => None,
        }
    }
}

/// A graph whose steps are told by names.
#[derive(Default)]
pub(super) struct Sketch {
    pub(super) graph: Graph,
}

impl Sketch {
    pub(super) fn source(&mut self, name: &str) -> VertexId {
        self.add(Op::Source(Source::Local { name: name.to_owned() }), &[], name, false)
    }

    pub(super) fn step(&mut self, name: &str, inputs: &[VertexId]) -> VertexId {
        self.add(op(name), inputs, name, false)
    }

    /// A step that runs whatever is remembered.
    pub(super) fn uncached(&mut self, name: &str, inputs: &[VertexId]) -> VertexId {
        self.add(op(name), inputs, name, true)
    }

    fn add(&mut self, op: Op, inputs: &[VertexId], name: &str, ignore_cache: bool) -> VertexId {
        let inputs = inputs.iter().map(|id| (*id).into()).collect();
        let meta = VertexMeta { name: name.to_owned(), ignore_cache, ..VertexMeta::default() };
        self.graph.add(op, inputs, meta).expect("the sketch is a graph")
    }
}

fn op(name: &str) -> Op {
    let path = format!("/{name}");
    let dir = MakeDir { path, mode: 0o755, parents: true, owner: None, timestamp: None };
    Op::File(File { actions: vec![FileAction::MakeDir(dir)] })
}
