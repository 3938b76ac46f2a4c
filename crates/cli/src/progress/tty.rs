//! Live progress on a terminal: finished steps scroll up as lines, running ones stay below with their last output.
//!
//! One redraw clock for all; never taller than the terminal.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lapstrake_engine::{Event, StepId};

use super::names::{bytes, printable, seconds};
use super::tail::Tails;

const REDRAW: Duration = Duration::from_millis(100);
/// Lines of output shown below a running step, as `docker build` does.
const LOG_LINES: usize = 6;

struct Running {
    name: String,
    begun: Duration,
    /// Things counted inside: what, how far, of how much.
    counts: BTreeMap<String, (u64, u64)>,
}

struct Screen {
    lines: MultiProgress,
    slots: Vec<ProgressBar>,
    running: BTreeMap<(Duration, StepId), Running>,
    begun: Instant,
    total: usize,
    done: usize,
}

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>) -> Tails {
    let mut tails = Tails::default();
    let mut screen = Screen {
        lines: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(20)),
        slots: Vec::new(),
        running: BTreeMap::new(),
        begun: Instant::now(),
        total: 0,
        done: 0,
    };
    let mut drawn = Instant::now();
    loop {
        match events.recv_timeout(REDRAW) {
            Ok(event) => {
                tails.note(&event);
                screen.take(event);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // A cached build ends before its first frame: then nothing flickers.
        if drawn.elapsed() >= REDRAW {
            screen.draw(&tails);
            drawn = Instant::now();
        }
    }
    screen.end();
    tails
}

impl Screen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started { step, name, at } => {
                self.total += 1;
                self.running.insert((at, step), Running { name, begun: at, counts: BTreeMap::new() });
            }
            Event::Status { step, id, current, total, .. } => {
                if let Some(running) = self.running.iter_mut().find(|((_, s), _)| *s == step).map(|(_, r)| r)
                {
                    running.counts.insert(id, (current, total));
                }
            }
            Event::Log { .. } => {}
            Event::Completed { step, at, cached, error } => {
                let Some(key) = self.running.keys().find(|(_, s)| *s == step).cloned() else { return };
                let Some(running) = self.running.remove(&key) else { return };
                self.done += 1;
                let mark = match error.as_deref() {
                    Some("canceled") => "CANCELED ",
                    Some(_) => "ERROR ",
                    None if cached => "CACHED ",
                    None => "",
                };
                let time = seconds(at.saturating_sub(running.begun));
                let colour = match error.as_deref() {
                    Some("canceled") => "33",
                    Some(_) => "31",
                    None => "34",
                };
                let line = row(&format!(" => {mark}{}", printable(&running.name)), &time, width());
                // The terminal may be gone; the build is not.
                self.lines.println(paint(&line, colour)).unwrap_or_default();
            }
        }
    }

    /// The live part: a headline, and each running step with its counts and last output.
    fn draw(&mut self, tails: &Tails) {
        let (width, height) = (width(), usize::from(terminal_size().1));
        let elapsed = self.begun.elapsed();
        let mut rows = vec![row(
            &format!("[+] Building {} ({}/{})", seconds(elapsed), self.done, self.total),
            "",
            width,
        )];
        for ((_, step), running) in &self.running {
            let time = seconds(elapsed.saturating_sub(running.begun));
            rows.push(row(&format!(" => {}", printable(&running.name)), &time, width));
            for (id, (current, total)) in &running.counts {
                let of = if *total > 0 { format!(" / {}", bytes(*total)) } else { String::new() };
                rows.push(row(&format!(" => => {id}"), &format!("{}{of}", bytes(*current)), width));
            }
            for (_, line) in tails.last(step, LOG_LINES) {
                rows.push(row(&format!(" => => # {}", printable(&line)), "", width));
            }
        }
        rows.truncate(height.saturating_sub(2).max(1));
        while self.slots.len() < rows.len() {
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            self.slots.push(self.lines.add(ProgressBar::new_spinner().with_style(style)));
        }
        for slot in self.slots.drain(rows.len()..) {
            slot.finish_and_clear();
            self.lines.remove(&slot);
        }
        for (slot, text) in self.slots.iter().zip(rows) {
            slot.set_message(text);
        }
    }

    fn end(&mut self) {
        for slot in self.slots.drain(..) {
            slot.finish_and_clear();
        }
        self.lines.clear().unwrap_or_default();
        let text =
            format!("[+] Building {} ({}/{}) done", seconds(self.begun.elapsed()), self.done, self.total);
        self.lines.println(text).unwrap_or_default();
    }
}

fn width() -> usize {
    usize::from(terminal_size().0)
}

/// Columns and rows.
fn terminal_size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

/// `left`, cut to fit, and `right` at the edge of `width` columns.
fn row(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.chars().count() + 2).max(8);
    let mut text: String = left.chars().take(room).collect();
    if right.is_empty() {
        return text;
    }
    let used = text.chars().count();
    text.extend(std::iter::repeat_n(' ', room.saturating_sub(used) + 1));
    text + right
}

fn paint(text: &str, colour: &str) -> String {
    if crate::env::no_color() { text.to_owned() } else { format!("\u{1b}[{colour}m{text}\u{1b}[0m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit() {
        assert_eq!(row("abc", "1.0s", 20), format!("abc{}1.0s", " ".repeat(12)));
        assert_eq!(row(&"x".repeat(50), "1s", 20).chars().count(), 20 - 1);
        assert_eq!(row("é", "", 3), "é");
    }
}
