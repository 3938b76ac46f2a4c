//! What happens during a build, in BuildKit's words: steps, statuses, logs, warnings.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::masked::Secrets;

/// Names a step in events: a vertex digest, or `internal:…` for work outside of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId(pub String);

/// An output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that happened. Times are since the build began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A step began.
    Started {
        /// The step.
        step: StepId,
        /// Its name.
        name: String,
        /// The time since the build began.
        at: Duration,
    },
    /// A step ended.
    Completed {
        /// The step.
        step: StepId,
        /// The time since the build began.
        at: Duration,
        /// Whether its result came from the cache.
        cached: bool,
        /// Why it failed.
        error: Option<String>,
    },
    /// Something countable inside of a step moved on: bytes of a layer, say.
    Status {
        /// The step.
        step: StepId,
        /// The name of the part, unique within the step.
        id: String,
        /// The part's progress, in bytes or items.
        current: u64,
        /// The part's size in the same unit; 0 if unknown.
        total: u64,
        /// Whether the part is complete.
        done: bool,
        /// The time since the build began.
        at: Duration,
    },
    /// A process said something. Not cut at line ends.
    Log {
        /// The step.
        step: StepId,
        /// The output of the process.
        stream: Stream,
        /// The bytes.
        data: Vec<u8>,
        /// The time since the build began.
        at: Duration,
    },
    /// What the processes of a step have used; told once, before it ends.
    #[serde(rename = "used")]
    ResourceUsage {
        /// The step.
        step: StepId,
        /// The amounts.
        used: ResourceUsage,
        /// The time since the build began.
        at: Duration,
    },
    /// Something in the text that is built from is most likely not meant.
    Warning(Warning),
}

impl Event {
    /// The event without these values.
    #[must_use]
    pub fn hiding(mut self, secrets: &Secrets) -> Event {
        match &mut self {
            Event::Started { name: text, .. }
            | Event::Status { id: text, .. }
            | Event::Completed { error: Some(text), .. } => *text = secrets.hide(text),
            Event::Log { data, .. } => *data = secrets.hide_bytes(data),
            Event::Warning(Warning { short, detail, .. }) => {
                (*short, *detail) = (secrets.hide(short), secrets.hide(detail));
            }
            Event::Completed { error: None, .. } | Event::ResourceUsage { .. } => {}
        }
        self
    }
}

/// What the processes of a step have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResourceUsage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory, in bytes: of all of them where there was a limit, else of the largest one.
    pub peak_memory: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// A warning about the text that is built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is, in a line that names rule and place.
    pub short: String,
    /// What the rule is about.
    pub detail: String,
    /// Where that is explained.
    pub url: Option<String>,
    /// The text's name.
    pub file: String,
    /// First and last line.
    pub lines: (u32, u32),
    /// What only callers with their own texts say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Box<OwnWarning>>,
}

/// The part of a warning that comes from a caller with a text of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnWarning {
    /// The step that it is about; empty for the first one.
    pub step: String,
    /// How serious it is; 1 is the least.
    pub level: i32,
    /// The text.
    pub text: String,
}

/// Where events go. Cheap to clone; a receiver that has gone away is no error.
#[derive(Clone, Debug)]
pub struct Progress {
    sender: Option<Sender<Event>>,
    begun: Instant,
    /// Left out of all events but the output of processes.
    secrets: Arc<Secrets>,
}

impl Progress {
    /// Events go to `sender`, their times counted from now.
    pub fn new(sender: Sender<Event>) -> Progress {
        Progress { sender: Some(sender), begun: Instant::now(), secrets: Arc::default() }
    }

    /// Events go nowhere.
    pub fn none() -> Progress {
        Progress { sender: None, begun: Instant::now(), secrets: Arc::default() }
    }

    /// Leaves these values out of names, statuses, errors and warnings. What a process writes is shown as it is.
    #[must_use]
    pub fn hiding(self, secrets: &Secrets) -> Progress {
        Progress { secrets: Arc::new(secrets.clone()), ..self }
    }

    /// The sink; nothing where events go nowhere.
    pub fn sender(&self) -> Option<Sender<Event>> {
        self.sender.clone()
    }

    /// Events go to `sender`, their times counted as here.
    #[must_use]
    pub fn to(&self, sender: Sender<Event>) -> Progress {
        Progress { sender: Some(sender), begun: self.begun, secrets: Arc::clone(&self.secrets) }
    }

    /// Begins a step.
    pub fn start(&self, id: StepId, name: &str) -> Step {
        self.send(Event::Started { step: id.clone(), name: name.to_owned(), at: self.begun.elapsed() });
        Step { progress: self.clone(), id }
    }

    /// A step that another part of the build has begun, to report from.
    pub fn step(&self, id: StepId) -> Step {
        Step { progress: self.clone(), id }
    }

    /// Reports a warning.
    pub fn warn(&self, warning: Warning) {
        self.send(Event::Warning(warning));
    }

    fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            let is_output = matches!(event, Event::Log { .. });
            let event =
                if is_output || self.secrets.is_empty() { event } else { event.hiding(&self.secrets) };
            // The sink may have ended first; a build does not fail for want of an audience.
            sender.send(event).unwrap_or_default();
        }
    }
}

/// A running step, to report from.
#[derive(Clone, Debug)]
pub struct Step {
    progress: Progress,
    id: StepId,
}

impl Step {
    /// Which it is.
    pub fn id(&self) -> &StepId {
        &self.id
    }

    /// Reports output of its process.
    pub fn log(&self, stream: Stream, data: Vec<u8>) {
        self.progress.send(Event::Log {
            step: self.id.clone(),
            stream,
            data,
            at: self.progress.begun.elapsed(),
        });
    }

    /// Reports how far something inside of it is.
    pub fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let at = self.progress.begun.elapsed();
        self.progress.send(Event::Status {
            step: self.id.clone(),
            id: id.to_owned(),
            current,
            total,
            done,
            at,
        });
    }

    /// Reports what its processes have used.
    pub fn used(&self, used: ResourceUsage) {
        let at = self.progress.begun.elapsed();
        self.progress.send(Event::ResourceUsage { step: self.id.clone(), used, at });
    }

    /// Ends it.
    pub fn complete(self, cached: bool, error: Option<String>) {
        let at = self.progress.begun.elapsed();
        self.progress.send(Event::Completed { step: self.id, at, cached, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in journals of builds, to the byte: each version reads journals of the others.
    #[test]
    fn journals_keep_their_names() {
        let used = ResourceUsage { peak_memory: 7, ..ResourceUsage::default() };
        let event = Event::ResourceUsage { step: StepId("s".to_owned()), used, at: Duration::ZERO };
        let zero = r#"{"secs":0,"nanos":0}"#;
        let written = format!(
            r#"{{"used":{{"step":"s","used":{{"user":{zero},"system":{zero},"peak_memory":7,"read":0,"written":0}},"at":{zero}}}}}"#
        );
        assert_eq!(serde_json::to_string(&event).unwrap(), written);
        assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), event);
    }
}
