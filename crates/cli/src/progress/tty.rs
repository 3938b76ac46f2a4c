//! Live progress on a terminal: finished steps scroll up as lines, running ones stay below with their last output.
//!
//! One redraw clock for all; never taller than the terminal. What the lines say is [`super::board`]'s.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lapstrake_engine::Event;
use unicode_width::UnicodeWidthStr as _;

use super::Work;
use super::board::{Board, Tone};
use super::lines::Lines;
use lapstrake_build::Tails;

const REDRAW: Duration = Duration::from_millis(100);

struct Screen {
    lines: MultiProgress,
    slots: Vec<ProgressBar>,
    board: Board,
    begun: Instant,
    /// The lines below the finished steps.
    drawn: Drawn,
}

/// The live part as it was drawn last.
#[derive(Default)]
struct Drawn {
    /// Columns that each line takes.
    lines: Vec<usize>,
    /// Columns that the terminal had.
    width: usize,
}

impl Drawn {
    /// How many lines it takes on a terminal of `width` columns that breaks lines anew: as most do.
    fn lines_at(&self, width: usize) -> usize {
        let taken = |columns: &usize| columns.div_ceil(width.max(1)).max(1);
        self.lines.iter().map(taken).sum()
    }
}

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>, work: Work) -> Tails {
    let mut tails = Tails::default();
    let mut screen = Screen {
        lines: lines(),
        slots: Vec::new(),
        board: Board::new(work),
        begun: Instant::now(),
        drawn: Drawn::default(),
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

fn lines() -> MultiProgress {
    MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(Lines::default()), 20))
}

impl Screen {
    fn take(&mut self, event: Event) {
        let size = terminal_size();
        let over = self.board.take(event, size.0);
        if !over.is_empty() {
            self.fit(size);
        }
        for (tone, line) in over {
            // The terminal may be gone; the build is not.
            self.lines.println(paint(&line, tone)).unwrap_or_default();
        }
    }

    /// A terminal that has become smaller shows the live part in more lines than were drawn, or has no room for it: what can
    /// be seen of it is taken away, and drawing begins anew.
    fn fit(&mut self, (width, height): (usize, usize)) {
        let drawn = &self.drawn;
        let fits = width >= drawn.width && height > drawn.lines.len();
        if fits || drawn.lines.is_empty() {
            return;
        }
        self.lines.set_draw_target(ProgressDrawTarget::hidden());
        self.slots.clear();
        self.lines = lines();
        // The cursor stands at the end of the last line.
        let up = self.drawn.lines_at(width).min(height) - 1;
        let up = if up == 0 { String::new() } else { format!("\u{1b}[{up}A") };
        let mut err = std::io::stderr().lock();
        write!(err, "\r{up}\u{1b}[J").and_then(|()| err.flush()).unwrap_or_default();
        self.drawn = Drawn::default();
    }

    fn draw(&mut self, tails: &Tails) {
        let (width, height) = terminal_size();
        self.fit((width, height));
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
        self.drawn = Drawn { lines: rows.iter().map(|row| row.width()).collect(), width };
        for (slot, text) in self.slots.iter().zip(rows) {
            slot.set_message(text);
        }
    }

    fn end(&mut self) {
        self.fit(terminal_size());
        for slot in self.slots.drain(..) {
            slot.finish_and_clear();
        }
        self.lines.clear().unwrap_or_default();
        self.lines.println(self.board.end(self.begun.elapsed())).unwrap_or_default();
        std::io::stderr().write_all(b"\r\n").unwrap_or_default();
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
