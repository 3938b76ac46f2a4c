//! Live progress on a terminal: finished steps scroll up as lines, running ones stay below with their last output.
//!
//! One redraw clock for all; never taller than the terminal. What the lines say is [`super::board`]'s.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lapstrake_engine::Event;

use super::Work;
use super::board::{Board, Tone};
use super::tail::Tails;

const REDRAW: Duration = Duration::from_millis(100);

struct Screen {
    lines: MultiProgress,
    slots: Vec<ProgressBar>,
    board: Board,
    begun: Instant,
}

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>, work: Work) -> Tails {
    let mut tails = Tails::default();
    let mut screen = Screen {
        lines: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(20)),
        slots: Vec::new(),
        board: Board::new(work),
        begun: Instant::now(),
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
        for (tone, line) in self.board.take(event, terminal_size().0) {
            // The terminal may be gone; the build is not.
            self.lines.println(paint(&line, tone)).unwrap_or_default();
        }
    }

    fn draw(&mut self, tails: &Tails) {
        let (width, height) = terminal_size();
        // Two lines stay free: where the cursor is, and one that has scrolled up.
        let rows = self.board.live(tails, self.begun.elapsed(), width, height.saturating_sub(2).max(1));
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
        self.lines.println(self.board.end(self.begun.elapsed())).unwrap_or_default();
    }
}

/// Columns and rows.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

fn paint(text: &str, tone: Tone) -> String {
    if crate::env::no_color() {
        return text.to_owned();
    }
    let colour = match tone {
        Tone::Done => "34",
        Tone::Canceled => "33",
        Tone::Failed => "31",
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}
