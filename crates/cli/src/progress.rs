//! Showing a build's events: on a terminal, as plain lines, as JSON, or not at all.
//!
//! A sink runs on a thread of its own until the build drops its end of the channel; it keeps what a failed step said
//! last, for the error message.

mod board;
mod held;
mod lines;
mod names;
mod plain;
mod rawjson;
mod tail;
mod tty;

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use lapstrake_build::Journal;
use lapstrake_engine::{Event, Progress};

pub(crate) use held::hold;
pub(crate) use names::printable;
pub(crate) use tail::Failure;
use tail::Tails;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// `tty` if standard error is a terminal, else `plain`.
    Auto,
    /// A live display.
    Tty,
    /// Lines, in order.
    Plain,
    /// One JSON object a line, in BuildKit's schema.
    Rawjson,
    /// No progress.
    Quiet,
}

/// A running sink.
pub(crate) struct Display {
    thread: JoinHandle<Tails>,
}

/// The current activity, for the headline of a terminal's display.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Work {
    #[default]
    Build,
    Push,
    Pull,
}

/// Starts a sink and gives the handle that events are reported through.
pub(crate) fn start(mode: Mode, work: Work) -> (Progress, Display) {
    let (sender, events) = channel();
    let mode = match mode {
        Mode::Auto if std::io::stderr().is_terminal() => Mode::Tty,
        Mode::Auto => Mode::Plain,
        chosen => chosen,
    };
    let thread = std::thread::spawn(move || match mode {
        Mode::Tty => tty::show(&events, work),
        Mode::Rawjson => rawjson::show(&events),
        Mode::Quiet => drain(&events),
        Mode::Plain | Mode::Auto => plain::show(&events),
    });
    (Progress::new(sender), Display { thread })
}

impl Display {
    /// Waits for the last event to be shown; every [`Progress`] must be gone. Gives what failed steps said last, and
    /// all that happened.
    pub(crate) fn finish(self) -> (Vec<Failure>, Journal) {
        self.thread.join().map(Tails::into_parts).unwrap_or_default()
    }
}

/// Shows the events of a build that is over, as plain lines.
pub(crate) fn replay(journal: Journal) {
    let (sender, receiver) = channel();
    for event in journal.into_events() {
        // The other end is below.
        sender.send(event).unwrap_or_default();
    }
    drop(sender);
    plain::show(&receiver);
}

fn drain(events: &Receiver<Event>) -> Tails {
    let mut tails = Tails::default();
    for event in events {
        tails.note(&event);
    }
    tails
}
