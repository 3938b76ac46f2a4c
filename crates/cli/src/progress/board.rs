//! The screen of a build, as lines of text. Nothing here knows a terminal or the time of day.

use std::time::Duration;

use lapstrake_engine::{Event, StepId};
use lapstrake_go::size::human_padded as bytes;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Work;
use super::names::{printable, seconds};
use lapstrake_build::Tails;

/// Lines of output shown below a running step, as `docker build` does.
const LOG_LINES: usize = 6;
/// A terminal narrower than this gets lines of this width all the same.
const NARROWEST: usize = 20;

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Done,
    Canceled,
    Failed,
}

/// Something counted inside a step.
#[derive(Debug)]
struct Part {
    id: String,
    current: u64,
    total: u64,
    begun: Duration,
    ended: Option<Duration>,
}

#[derive(Debug)]
struct Running {
    step: StepId,
    name: String,
    begun: Duration,
    /// In the order they began.
    parts: Vec<Part>,
}

/// The steps that run, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Board {
    work: Work,
    /// In the order they began.
    running: Vec<Running>,
    total: usize,
    done: usize,
    failed: bool,
    canceled: bool,
}

impl Board {
    /// One that has seen nothing of this yet.
    pub(super) fn new(work: Work) -> Board {
        Board { work, ..Board::default() }
    }

    /// Takes in an event; gives the lines of a step that is over with, not wider than `width` columns.
    pub(super) fn take(&mut self, event: Event, width: usize) -> Vec<(Tone, String)> {
        match event {
            Event::Started { step, name, at } => {
                self.total += 1;
                self.running.push(Running { step, name, begun: at, parts: Vec::new() });
            }
            Event::Status { step, id, current, total, done, at } => {
                if let Some(running) = self.running.iter_mut().find(|running| running.step == step) {
                    running.count(Part { id, current, total, begun: at, ended: done.then_some(at) });
                }
            }
            // Warnings are told once everything is over.
            Event::Log { .. } | Event::Warning(_) | Event::ResourceUsage { .. } => {}
            Event::Completed { step, at, cached, error } => {
                let Some(place) = self.running.iter().position(|running| running.step == step) else {
                    return Vec::new();
                };
                let running = self.running.remove(place);
                self.done += 1;
                match error.as_deref() {
                    Some("canceled") => self.canceled = true,
                    Some(_) => self.failed = true,
                    None => {}
                }
                return running.over(at, cached, error.as_deref(), width);
            }
        }
        Vec::new()
    }

    /// The live part: a headline, and each running step with its counts and last output; at most `height` lines.
    pub(super) fn live(&self, tails: &Tails, elapsed: Duration, width: usize, height: usize) -> Vec<String> {
        let mut rows = vec![row(&self.headline(elapsed), "", width)];
        // Steps that do not fit are counted, in a line that takes the place of one more of them.
        let places = height.saturating_sub(1).max(1);
        let fits = self.running.len() <= places;
        let shown = if fits { self.running.len() } else { places - 1 };
        // With too little room for all, each step's own line matters more than what one of them says.
        let room = places.saturating_sub(self.running.len());
        let share = room / self.running.len().max(1);
        for running in &self.running[..shown] {
            let time = seconds(elapsed.saturating_sub(running.begun));
            rows.push(row(&format!(" => {}", printable(&running.name)), &time, width));
            let mut below = running.rows(elapsed, width);
            for (_, line) in tails.last(&running.step, LOG_LINES) {
                below.push(row(&format!(" => => # {}", printable(&line)), "", width));
            }
            let skipped = below.len().saturating_sub(share);
            rows.extend(below.into_iter().skip(skipped));
        }
        if !fits {
            rows.push(row(&format!(" => … and {} more running", self.running.len() - shown), "", width));
        }
        rows.truncate(height.max(1));
        rows
    }

    /// The last line of all.
    pub(super) fn end(&self, elapsed: Duration) -> String {
        let verdict = match (self.failed, self.canceled || !self.running.is_empty()) {
            (true, _) => "FAILED",
            (false, true) => "CANCELED",
            (false, false) => "FINISHED",
        };
        format!("{} {verdict}", self.headline(elapsed))
    }

    fn headline(&self, elapsed: Duration) -> String {
        let word = match self.work {
            Work::Build => "Building",
            Work::Push => "Pushing",
            Work::Pull => "Pulling",
        };
        format!("[+] {word} {} ({}/{})", seconds(elapsed), self.done, self.total)
    }
}

impl Running {
    fn count(&mut self, part: Part) {
        match self.parts.iter_mut().find(|known| known.id == part.id) {
            Some(known) => *known = Part { begun: known.begun, ..part },
            None => self.parts.push(part),
        }
    }

    fn over(self, at: Duration, cached: bool, error: Option<&str>, width: usize) -> Vec<(Tone, String)> {
        let (mark, tone) = match error {
            Some("canceled") => ("CANCELED ", Tone::Canceled),
            Some(_) => ("ERROR ", Tone::Failed),
            None if cached => ("CACHED ", Tone::Done),
            None => ("", Tone::Done),
        };
        let time = seconds(at.saturating_sub(self.begun));
        let own = row(&format!(" => {mark}{}", printable(&self.name)), &time, width);
        let parts = self.rows(at, width);
        std::iter::once(own).chain(parts).map(|line| (tone, line)).collect()
    }

    fn rows(&self, now: Duration, width: usize) -> Vec<String> {
        self.parts
            .iter()
            .map(|part| {
                let time = seconds(part.ended.unwrap_or(now).saturating_sub(part.begun));
                let right = match (part.current, part.total) {
                    (0, 0) => time,
                    (current, 0) => format!("{} {time}", bytes(current)),
                    (current, total) => format!("{} / {} {time}", bytes(current), bytes(total)),
                };
                row(&format!(" => => {}", printable(&part.id)), &right, width)
            })
            .collect()
    }
}

/// `left`, cut to fit, and `right` at the edge; the last of `width` columns stays free, since some terminals go on to
/// the next line when it is written to.
fn row(left: &str, right: &str, width: usize) -> String {
    let width = width.max(NARROWEST) - 1;
    let beside = if right.is_empty() { 0 } else { right.width() + 1 };
    let room = width.saturating_sub(beside);
    let mut text = String::new();
    let mut used = 0;
    for c in left.chars() {
        // With this selector, what stands before it may be shown as a picture of two columns.
        let columns = if c == '\u{fe0f}' { 1 } else { c.width().unwrap_or(0) };
        if used + columns > room {
            break;
        }
        text.push(c);
        used += columns;
    }
    if !right.is_empty() {
        text.extend(std::iter::repeat_n(' ', room - used + 1));
        text.push_str(right);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapstrake_engine::Stream;

    fn id(name: &str) -> StepId {
        StepId(name.to_owned())
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn started(name: &str, at: u64) -> Event {
        Event::Started { step: id(name), name: name.to_owned(), at: ms(at) }
    }

    fn completed(name: &str, at: u64, cached: bool, error: Option<&str>) -> Event {
        Event::Completed { step: id(name), at: ms(at), cached, error: error.map(str::to_owned) }
    }

    fn status(step: &str, what: &str, (current, total): (u64, u64), at: u64, done: bool) -> Event {
        Event::Status { step: id(step), id: what.to_owned(), current, total, done, at: ms(at) }
    }

    fn said(step: &str, text: &str) -> Event {
        let data = text.as_bytes().to_vec();
        Event::Log { step: id(step), stream: Stream::Stdout, data, at: ms(0) }
    }

    /// Takes all in; the finished lines, and the board with the tails.
    fn play(events: Vec<Event>, width: usize) -> (Vec<(Tone, String)>, Board, Tails) {
        let (mut board, mut tails, mut over) = (Board::default(), Tails::default(), Vec::new());
        for event in events {
            tails.note(&event);
            over.extend(board.take(event, width));
        }
        (over, board, tails)
    }

    #[test]
    fn finished_steps_are_marked() {
        let events = ["a", "b", "c", "d"].map(|name| started(name, 0)).into_iter().chain([
            completed("a", 1500, false, None),
            completed("b", 0, true, None),
            completed("c", 200, false, Some("exit code: 1")),
            completed("d", 300, false, Some("canceled")),
        ]);
        let (over, board, _) = play(events.collect(), 31);
        let expected = [
            (Tone::Done, " => a                     1.5s"),
            (Tone::Done, " => CACHED b              0.0s"),
            (Tone::Failed, " => ERROR c               0.2s"),
            (Tone::Canceled, " => CANCELED d            0.3s"),
        ];
        assert_eq!(over, expected.map(|(tone, text)| (tone, text.to_owned())));
        assert_eq!(board.end(ms(1600)), "[+] Building 1.6s (4/4) FAILED");
        assert_eq!(Board::new(Work::Push).end(ms(100)), "[+] Pushing 0.1s (0/0) FINISHED");
    }

    #[test]
    fn parts_stay_below_their_step() {
        let events = vec![
            started("pull", 0),
            status("pull", "sha256:abc", (0, 5_000_000), 0, false),
            status("pull", "sha256:abc", (5_000_000, 5_000_000), 1000, true),
            status("pull", "extracting", (0, 0), 1000, false),
        ];
        let (_, board, tails) = play(events, 45);
        let live = board.live(&tails, ms(1500), 45, 20);
        let expected = [
            "[+] Building 1.5s (0/1)",
            " => pull                                1.5s",
            " => => sha256:abc     5.00MB / 5.00MB 1.0s",
            " => => extracting                       0.5s",
        ];
        assert_eq!(live.len(), expected.len());
        for (row, expected) in live.iter().zip(expected) {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(row), words(expected));
        }
        let mut board = board;
        let over = board.take(completed("pull", 2000, false, None), 45);
        assert_eq!(over.len(), 3);
        assert_eq!(board.end(ms(2000)), "[+] Building 2.0s (1/1) FINISHED");
    }

    #[test]
    fn little_room_goes_to_steps_before_output() {
        let mut events = vec![started("a", 0), started("b", 0)];
        for step in ["a", "b"] {
            events.push(said(step, "1\n2\n3\n4\n5\n6\n7\n"));
        }
        let (_, board, tails) = play(events, 60);
        assert_eq!(board.live(&tails, ms(0), 60, 50).len(), 1 + 2 * (1 + LOG_LINES));
        let small = board.live(&tails, ms(0), 60, 7);
        let shown: Vec<&str> = small.iter().map(|row| row.split("  ").next().unwrap_or_default()).collect();
        assert_eq!(
            shown,
            [
                "[+] Building 0.0s (0/2)",
                " => a",
                " => => # 6",
                " => => # 7",
                " => b",
                " => => # 6",
                " => => # 7"
            ]
        );
        let least = board.live(&tails, ms(0), 60, 2);
        assert_eq!((least.len(), least[1].as_str()), (2, " => … and 2 more running"));
    }

    #[test]
    fn steps_that_do_not_fit_are_counted() {
        let names: Vec<String> = (0..9).map(|number| format!("s{number}")).collect();
        let (_, board, tails) = play(names.iter().map(|name| started(name, 0)).collect(), 60);
        let live = |height| {
            let rows = board.live(&tails, ms(0), 60, height);
            let first = |row: &String| row.split("  ").next().unwrap_or_default().trim().to_owned();
            rows.iter().map(first).collect::<Vec<_>>()
        };
        assert_eq!(live(10)[1..], names.iter().map(|name| format!("=> {name}")).collect::<Vec<_>>());
        assert_eq!(live(5)[1..], ["=> s0", "=> s1", "=> s2", "=> … and 6 more running"]);
        assert_eq!(live(9).last().map(String::as_str), Some("=> … and 2 more running"));
        assert_eq!(live(1).len(), 1);
    }

    #[test]
    fn rows_fit() {
        assert_eq!(row("abc", "1.0s", 21), format!("abc{}1.0s", " ".repeat(13)));
        assert_eq!(row(&"x".repeat(50), "1s", 30), format!("{} 1s", "x".repeat(26)));
        assert_eq!(row("é", "", 3), "é");
        // Two columns each: an odd one stays free.
        assert_eq!(row(&"漢".repeat(50), "1s", 30).width(), 29);
        assert_eq!(row(&"漢".repeat(50), "", 30), "漢".repeat(14));
        // Marks that take no column do not count.
        assert_eq!(row("e\u{301}", "1s", 20).width(), 19);
    }
}
