//! Events of a build as BuildKit's clients see them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lapstrake_engine::{Event, OwnWarning, StepId, Stream, Warning};
use lapstrake_oci::Digest;
use lapstrake_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use lapstrake_proto::pb;
use prost_types::Timestamp;
use tokio::sync::Notify;

/// The bytes of log lines that are kept for clients that come late.
const MOST_KEPT: usize = 32 << 20;

/// The beginning of the ids of transfers from a client. Clients know them by this name.
pub(crate) const TRANSFERRING: &str = "transferring";

/// The messages of one build. Any number of clients read them from the first one on, also after the end.
#[derive(Default)]
pub(crate) struct StatusLog {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    messages: Vec<StatusResponse>,
    bytes: usize,
    over: bool,
    /// The groups of vertices that are shown as one, by the digests of the vertices.
    groups: BTreeMap<String, pb::ProgressGroup>,
}

impl StatusLog {
    /// The vertex `digest` belongs to `group`.
    pub(crate) fn group(&self, digest: &str, group: &pb::ProgressGroup) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.groups.insert(digest.to_owned(), group.clone());
    }

    /// Adds a message. Output of steps beyond a limit is left out.
    pub(crate) fn add(&self, mut message: StatusResponse) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for vertex in &mut message.vertexes {
            vertex.progress_group = state.groups.get(&vertex.digest).cloned();
        }
        state.bytes += message.logs.iter().map(|log| log.msg.len()).sum::<usize>();
        if state.bytes <= MOST_KEPT || message.logs.is_empty() {
            state.messages.push(message);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// No more messages come.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.changed.notify_waiters();
    }

    /// The message `number`, counted from 0, once it is there; nothing if there will be none.
    pub(crate) async fn get(&self, number: usize) -> Option<StatusResponse> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(message) = state.messages.get(number) {
                    return Some(message.clone());
                }
                if state.over {
                    return None;
                }
            }
            changed.await;
        }
    }
}

/// Makes messages of events. Remembers what later messages have to repeat.
pub(crate) struct Messages {
    begun: SystemTime,
    vertices: BTreeMap<StepId, Vertex>,
    statuses: BTreeMap<(StepId, String), Timestamp>,
}

impl Messages {
    /// For a build that begins now.
    pub(crate) fn new() -> Messages {
        Messages::since(SystemTime::now())
    }

    /// For a build that began at `begun`.
    pub(crate) fn since(begun: SystemTime) -> Messages {
        Messages { begun, vertices: BTreeMap::new(), statuses: BTreeMap::new() }
    }

    /// The message of `event`; nothing for what clients have no word for.
    pub(crate) fn of(&mut self, event: Event) -> Option<StatusResponse> {
        let mut message = StatusResponse::default();
        match event {
            Event::Started { step, name, at } => {
                let vertex =
                    Vertex { digest: digest(&step), name, started: Some(self.time(at)), ..Vertex::default() };
                self.vertices.insert(step, vertex.clone());
                message.vertexes.push(vertex);
            }
            Event::Completed { step, at, cached, error } => {
                let completed = self.time(at);
                let vertex = self.vertices.entry(step.clone());
                let vertex = vertex.or_insert_with(|| Vertex { digest: digest(&step), ..Vertex::default() });
                vertex.completed = Some(completed);
                vertex.cached = cached;
                vertex.error = error.unwrap_or_default();
                message.vertexes.push(vertex.clone());
            }
            Event::Status { step, id, current, total, done, at } => {
                let now = self.time(at);
                let started = *self.statuses.entry((step.clone(), id.clone())).or_insert(now);
                message.statuses.push(VertexStatus {
                    id: id.clone(),
                    vertex: digest(&step),
                    name: if id.starts_with(TRANSFERRING) { TRANSFERRING.to_owned() } else { id },
                    current: i64::try_from(current).unwrap_or(i64::MAX),
                    total: i64::try_from(total).unwrap_or(i64::MAX),
                    timestamp: Some(now),
                    started: Some(started),
                    completed: done.then_some(now),
                });
            }
            Event::Log { step, stream, data, at } => message.logs.push(VertexLog {
                vertex: digest(&step),
                timestamp: Some(self.time(at)),
                stream: if stream == Stream::Stdout { 1 } else { 2 },
                msg: data,
            }),
            Event::Warning(warning) => message.warnings.push(self.warning(warning)),
            Event::ResourceUsage { .. } => return None,
        }
        Some(message)
    }

    fn time(&self, at: Duration) -> Timestamp {
        Timestamp::from(self.begun + at)
    }

    fn warning(&self, warning: Warning) -> VertexWarning {
        let position =
            |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        let (first, last) = warning.lines;
        // Warnings belong to a step; those of the text belong to the first one.
        let first_step =
            || self.vertices.values().next().map_or_else(String::new, |vertex| vertex.digest.clone());
        let language = if warning.own.is_some() { String::new() } else { "Dockerfile".to_owned() };
        let OwnWarning { step, level, text } = warning.own.map(|own| *own).unwrap_or_default();
        VertexWarning {
            vertex: Some(step).filter(|step| !step.is_empty()).unwrap_or_else(first_step),
            level: i64::from(level.max(1)),
            short: warning.short.into_bytes(),
            detail: warning.detail.split('\n').map(|line| line.as_bytes().to_vec()).collect(),
            url: warning.url.unwrap_or_default(),
            info: Some(pb::SourceInfo {
                filename: warning.file,
                data: text.into_bytes(),
                language,
                ..pb::SourceInfo::default()
            }),
            ranges: vec![pb::Range { start: position(first), end: position(last) }],
        }
    }
}

/// The digest that stands for a step. Steps outside of the graph have that of their name.
fn digest(step: &StepId) -> String {
    if step.0.starts_with("sha256:") { step.0.clone() } else { Digest::sha256(step.0.as_bytes()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vertices_keep_their_beginning() {
        let mut messages = Messages::new();
        let step = StepId("internal:x".to_owned());
        let started = Event::Started { step: step.clone(), name: "x".to_owned(), at: Duration::from_secs(1) };
        let started = messages.of(started).unwrap().vertexes.remove(0);
        let ended = Event::Completed { step, at: Duration::from_secs(2), cached: true, error: None };
        let ended = messages.of(ended).unwrap().vertexes.remove(0);
        assert!(ended.digest.starts_with("sha256:"));
        assert_eq!((ended.name, ended.started, ended.cached), ("x".to_owned(), started.started, true));
        assert_eq!(ended.completed.unwrap().seconds, started.started.unwrap().seconds + 1);
    }

    #[tokio::test]
    async fn late_readers_see_everything() {
        let log = StatusLog::default();
        log.add(StatusResponse::default());
        log.end();
        assert!(log.get(0).await.is_some());
        assert!(log.get(1).await.is_none());
    }
}
