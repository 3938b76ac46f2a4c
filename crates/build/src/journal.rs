//! All that happened in a build, to be kept.

use std::collections::BTreeMap;

use lapstrake_engine::{Event, Secrets, StepId, Stream};

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
        self.join_lines();
        self.events = self.events.drain(..).map(|event| event.hiding(secrets)).collect();
    }

    /// Puts the pieces of each line of output together: a secret may begin in one and end in the next.
    fn join_lines(&mut self) {
        let mut open: BTreeMap<(StepId, Stream), usize> = BTreeMap::new();
        let mut joined: Vec<Event> = Vec::with_capacity(self.events.len());
        for event in self.events.drain(..) {
            if let Event::Log { step, stream, data, .. } = &event {
                let place = (step.clone(), *stream);
                if let Some(Event::Log { data: line, .. }) =
                    open.get(&place).and_then(|at| joined.get_mut(*at))
                {
                    line.extend(data);
                    if data.ends_with(b"\n") {
                        open.remove(&place);
                    }
                    continue;
                }
                if !data.ends_with(b"\n") {
                    open.insert(place, joined.len());
                }
            }
            joined.push(event);
        }
        self.events = joined;
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

    #[test]
    fn secrets_in_pieces_are_hidden() {
        let mut journal = Journal::default();
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n";
        let said = [
            ("a", "token=hush-", Stream::Stdout),
            ("b", "hush\n", Stream::Stdout),
            ("a", "-err\n", Stream::Stderr),
            ("a", "hush!\nMIIEvQIB", Stream::Stdout),
            ("a", "ADANBgkq\n", Stream::Stdout),
        ];
        for (step, text, stream) in said {
            let (step, data) = (StepId(step.to_owned()), text.as_bytes().to_vec());
            journal.note(&Event::Log { step, stream, data, at: Duration::ZERO });
        }
        journal.hide(&Secrets::among([("A_TOKEN", "hush-hush"), ("A_KEY", key)].into_iter()));
        let texts = journal.events().iter().map(|event| match event {
            Event::Log { data, .. } => String::from_utf8_lossy(data).into_owned(),
            _ => String::new(),
        });
        let texts: String = texts.collect();
        assert!(!texts.contains("MIIE") && texts.matches("(hidden, ").count() == 2, "{texts}");
        assert!(texts.contains("!\n") && texts.contains("hush\n-err\n"), "{texts}");
    }
}
