//! All that happened in a build, to be kept.

use lapstrake_engine::{Event, Secrets};

/// No more output of processes than this is kept, in bytes.
const MOST_OUTPUT: usize = 16 << 20;

/// The events of a build, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    events: Vec<Event>,
    output: usize,
}

impl Journal {
    /// Takes in one event.
    pub fn note(&mut self, event: &Event) {
        if let Event::Log { data, .. } = event {
            self.output += data.len();
            if self.output > MOST_OUTPUT {
                return;
            }
        }
        // How far something is in between interests nobody afterwards.
        if !matches!(event, Event::Status { done: false, current: 1.., .. }) {
            self.events.push(event.clone());
        }
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events, without the journal.
    pub fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Leaves secrets out.
    pub fn hide(&mut self, secrets: &Secrets) {
        if secrets.is_empty() {
            return;
        }
        self.events = self.events.drain(..).map(|event| event.hiding(secrets)).collect();
    }

    /// As bytes to keep: a JSON object a line, by zstd.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for event in &self.events {
            lines.extend(lapstrake_go::to_json(event));
            lines.push(b'\n');
        }
        // Its length is known, so the compressor takes no more memory than that.
        zstd::bulk::compress(&lines, 1)
    }

    /// From what was kept. Lines that another version wrote are passed over.
    pub fn decode(bytes: &[u8]) -> std::io::Result<Journal> {
        let lines = zstd::decode_all(bytes)?;
        let events = lines.split(|byte| *byte == b'\n');
        Ok(Journal {
            events: events.filter_map(|line| serde_json::from_slice(line).ok()).collect(),
            output: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use lapstrake_engine::{StepId, Stream};

    #[test]
    fn what_is_kept_comes_back() {
        let step = StepId("a".to_owned());
        let at = Duration::from_millis(1_500);
        let log = Event::Log { step: step.clone(), stream: Stream::Stderr, data: b"\xff\n".to_vec(), at };
        let status =
            Event::Status { step: step.clone(), id: "x".to_owned(), current: 5, total: 9, done: false, at };
        let end = Event::Completed { step, at, cached: false, error: Some("no".to_owned()) };
        let mut journal = Journal::default();
        for event in [&log, &status, &end] {
            journal.note(event);
        }
        let again = Journal::decode(&journal.encode().unwrap()).unwrap();
        assert_eq!(again.events(), [log, end]);
        assert!(Journal::decode(b"damaged").is_err());
        journal.hide(&Secrets::among([("MY_TOKEN", "\u{fffd}none")].into_iter()));
        assert_eq!(journal.events(), again.events());
    }
}
