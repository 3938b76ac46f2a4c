//! Plain lines, in BuildKit's form: `#3 [2/5] RUN make`, `#3 0.412 cc -c main.c`, `#3 DONE 1.2s`.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use lapstrake_engine::{Event, StepId};
use lapstrake_go::size::human_padded as bytes;

use super::held::hold;
use super::names::seconds;
use lapstrake_build::Tails;

/// Shorter durations show as 0.0s.
const WORTH_TELLING: Duration = Duration::from_millis(50);

struct Shown {
    number: usize,
    name: String,
    begun: Duration,
    /// The text behind the last line end.
    open: Vec<u8>,
    /// Parts that have begun and not ended.
    parts: BTreeMap<String, Duration>,
}

#[derive(Default)]
struct Plain {
    steps: BTreeMap<StepId, Shown>,
    current: Option<StepId>,
}

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>) -> Tails {
    let mut tails = Tails::default();
    let mut plain = Plain::default();
    for event in events {
        tails.note(&event);
        let text = plain.lines(&event);
        let turn = hold();
        // Nobody reads any more: the build goes on all the same.
        crate::console::err_bytes(&text);
        drop(turn);
    }
    tails
}

impl Plain {
    fn lines(&mut self, event: &Event) -> Vec<u8> {
        let mut out = Vec::new();
        match event {
            Event::Started { step, name, at } => {
                let number = self.steps.get(step).map_or(self.steps.len() + 1, |shown| shown.number);
                let shown = Shown {
                    number,
                    name: name.clone(),
                    begun: *at,
                    open: Vec::new(),
                    parts: BTreeMap::new(),
                };
                self.steps.insert(step.clone(), shown);
                self.focus(step, &mut out);
            }
            Event::Log { step, data, at, .. } => {
                self.focus(step, &mut out);
                self.log(step, data, *at, &mut out);
            }
            Event::Status { step, id, current, done: true, at, .. } => {
                self.focus(step, &mut out);
                self.part_done(step, id, *current, *at, &mut out);
            }
            Event::Status { step, id, at, .. } => {
                if let Some(shown) = self.steps.get_mut(step) {
                    shown.parts.entry(id.clone()).or_insert(*at);
                }
            }
            Event::Completed { step, at, cached, error } => {
                self.completed(step, *at, *cached, error.as_deref(), &mut out);
            }
            // They are told once everything is over.
            Event::Warning(_) | Event::ResourceUsage { .. } => {}
        }
        out
    }

    /// Says whose lines follow, if somebody else's came before.
    fn focus(&mut self, step: &StepId, out: &mut Vec<u8>) {
        if self.current.as_ref() == Some(step) {
            return;
        }
        if let Some(shown) = self.steps.get(step) {
            if self.current.is_some() {
                out.push(b'\n');
            }
            out.extend(format!("#{} {}\n", shown.number, shown.name).into_bytes());
        }
        self.current = Some(step.clone());
    }

    fn log(&mut self, step: &StepId, data: &[u8], at: Duration, out: &mut Vec<u8>) {
        let Some(shown) = self.steps.get_mut(step) else { return };
        let prefix = format!("#{} {:.3} ", shown.number, at.saturating_sub(shown.begun).as_secs_f64());
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            shown.open.extend(piece);
            if piece.ends_with(b"\n") || shown.open.len() > 64 << 10 {
                out.extend(prefix.as_bytes());
                out.append(&mut shown.open);
                if !out.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
        }
    }

    fn part_done(&mut self, step: &StepId, id: &str, current: u64, at: Duration, out: &mut Vec<u8>) {
        let Some(shown) = self.steps.get_mut(step) else { return };
        let took = shown.parts.remove(id).map_or(Duration::ZERO, |begun| at.saturating_sub(begun));
        let size = if current > 0 { format!(" {}", bytes(current)) } else { String::new() };
        let time = if took >= WORTH_TELLING { format!(" {}", seconds(took)) } else { String::new() };
        out.extend(format!("#{} {id}{size}{time} done\n", shown.number).into_bytes());
    }

    fn completed(
        &mut self,
        step: &StepId,
        at: Duration,
        cached: bool,
        error: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.focus(step, out);
        if self.steps.get(step).is_some_and(|shown| !shown.open.is_empty()) {
            self.log(step, b"\n", at, out);
        }
        let Some(shown) = self.steps.get(step) else { return };
        let end = match error {
            Some("canceled") => "CANCELED".to_owned(),
            Some(error) => format!("ERROR: {error}"),
            None if cached => "CACHED".to_owned(),
            None => format!("DONE {}", seconds(at.saturating_sub(shown.begun))),
        };
        out.extend(format!("#{} {end}\n", shown.number).into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapstrake_engine::Stream;

    #[test]
    fn interleaved_steps_are_announced_again() {
        let id = |name: &str| StepId(name.to_owned());
        let at = Duration::from_millis(1500);
        let log = |step: &str, text: &str| Event::Log {
            step: id(step),
            stream: Stream::Stdout,
            data: text.as_bytes().to_vec(),
            at,
        };
        let start =
            |step: &str| Event::Started { step: id(step), name: format!("[{step}]"), at: Duration::ZERO };
        let events = [
            start("a"),
            log("a", "one\ntw"),
            start("b"),
            Event::Completed { step: id("b"), at, cached: true, error: None },
            log("a", "o\nlast"),
            Event::Completed { step: id("a"), at, cached: false, error: Some("exit code: 1".into()) },
        ];
        let mut plain = Plain::default();
        let text: Vec<u8> = events.iter().flat_map(|event| plain.lines(event)).collect();
        let expected = "#1 [a]\n#1 1.500 one\n\n#2 [b]\n#2 CACHED\n\n#1 [a]\n#1 1.500 two\n#1 1.500 last\n#1 ERROR: exit code: 1\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn parts_of_a_step_have_lines_of_their_own() {
        let step = StepId("x".to_owned());
        let status = |id: &str, done: bool, at: u64, current: u64| Event::Status {
            step: step.clone(),
            id: id.to_owned(),
            current,
            total: 0,
            done,
            at: Duration::from_millis(at),
        };
        let events = [
            Event::Started { step: step.clone(), name: "exporting to image".into(), at: Duration::ZERO },
            status("exporting layers", false, 0, 0),
            status("exporting layers", true, 120, 0),
            status("naming to a", true, 120, 0),
            status("sha256:abc", true, 130, 1500),
            Event::Completed {
                step: step.clone(),
                at: Duration::from_millis(130),
                cached: false,
                error: None,
            },
        ];
        let mut plain = Plain::default();
        let text: Vec<u8> = events.iter().flat_map(|event| plain.lines(event)).collect();
        let expected = "#1 exporting to image\n#1 exporting layers 0.1s done\n#1 naming to a done\n#1 sha256:abc 1.50kB done\n#1 DONE 0.1s\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
