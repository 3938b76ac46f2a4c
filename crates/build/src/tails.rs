//! The last output of steps, kept for when they fail.

use std::collections::BTreeMap;
use std::time::Duration;

use lapstrake_engine::{Event, StepId};

use crate::journal::Journal;

/// As much as fits on a screen and still has the compiler's first error in it.
const KEPT_LINES: usize = 60;
const KEPT_LINE_BYTES: usize = 4096;

/// A failed step and what it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step's name.
    pub name: String,
    /// Its last lines, with the seconds since it began.
    pub lines: Vec<(Duration, String)>,
}

#[derive(Default)]
struct Tail {
    name: String,
    begun: Duration,
    lines: std::collections::VecDeque<(Duration, String)>,
    open: bool,
    failed: bool,
}

/// The tails of all steps, and the journal of everything.
#[derive(Default)]
pub struct Tails {
    steps: BTreeMap<StepId, Tail>,
    journal: Journal,
}

impl Tails {
    /// Takes in one event.
    pub fn note(&mut self, event: &Event) {
        self.journal.note(event);
        match event {
            Event::Started { step, name, at } => {
                self.steps.insert(step.clone(), Tail { name: name.clone(), begun: *at, ..Tail::default() });
            }
            Event::Log { step, data, at, .. } => {
                let Some(tail) = self.steps.get_mut(step) else { return };
                tail.push(at.saturating_sub(tail.begun), &String::from_utf8_lossy(data));
            }
            Event::Completed { step, error, .. } => {
                let Some(tail) = self.steps.get_mut(step) else { return };
                tail.failed = error.as_ref().is_some_and(|text| text != "canceled");
                // What a step that went well said is not needed any more.
                if !tail.failed {
                    tail.lines.clear();
                }
            }
            Event::Status { .. } | Event::Warning(_) | Event::ResourceUsage { .. } => {}
        }
    }

    /// The last `count` lines of a step.
    pub fn last(&self, step: &StepId, count: usize) -> Vec<(Duration, String)> {
        let Some(tail) = self.steps.get(step) else { return Vec::new() };
        tail.lines.iter().skip(tail.lines.len().saturating_sub(count)).cloned().collect()
    }

    /// The steps that failed, and the journal. Names and lines are as the programs wrote them.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Failure>, Journal) {
        let failed = self.steps.into_values().filter(|tail| tail.failed);
        let failures =
            failed.map(|tail| Failure { name: tail.name, lines: tail.lines.into_iter().collect() });
        (failures.collect(), self.journal)
    }
}

impl Tail {
    fn push(&mut self, at: Duration, text: &str) {
        for piece in text.split_inclusive('\n') {
            let ends = piece.ends_with('\n');
            let piece = piece.trim_end_matches(['\n', '\r']);
            match self.lines.back_mut() {
                Some((_, line)) if self.open => {
                    let room = KEPT_LINE_BYTES.saturating_sub(line.len());
                    line.push_str(cut(piece, room));
                }
                _ => self.lines.push_back((at, cut(piece, KEPT_LINE_BYTES).to_owned())),
            }
            self.open = !ends;
            if self.lines.len() > KEPT_LINES {
                self.lines.pop_front();
            }
        }
    }
}

/// At most `room` bytes of `text`, cut between characters.
fn cut(text: &str, room: usize) -> &str {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_across_pieces() {
        let mut tail = Tail::default();
        tail.push(Duration::ZERO, "a");
        tail.push(Duration::ZERO, "b\nc\r\nd");
        let lines: Vec<_> = tail.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["ab", "c", "d"]);
        tail.push(Duration::ZERO, &"x\n".repeat(1000));
        assert_eq!(tail.lines.len(), KEPT_LINES);
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 9), "aé");
    }
}
