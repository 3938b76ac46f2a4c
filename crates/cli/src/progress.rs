//! Showing a build's events: on a terminal, as plain lines, as JSON, or not at all.
//!
//! A sink runs on a thread of its own until the build drops its end of the channel; it keeps what a failed step said
//! last, for the error message.

mod board;
mod held;
mod joint;
mod lines;
mod names;
mod plain;
mod rawjson;
mod tty;

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use lapstrake_build::{Failure, Journal, Tails};
use lapstrake_engine::{Event, Progress};

pub(crate) use held::hold;
pub(crate) use joint::{Joint, Part};
pub(crate) use names::printable;

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
        self.thread.join().map(printed).unwrap_or_default()
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

/// The failures, as a terminal may show them, and the journal.
fn printed(tails: Tails) -> (Vec<Failure>, Journal) {
    let (mut failures, journal) = tails.into_parts();
    for failure in &mut failures {
        failure.name = printable(&failure.name);
        failure.lines.iter_mut().for_each(|(_, line)| *line = printable(line));
    }
    (failures, journal)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lapstrake_engine::StepId;

    use super::*;

    #[test]
    fn what_failed_steps_said_does_not_steer_the_terminal() {
        let step = StepId("s".to_owned());
        let (at, error) = (Duration::ZERO, Some("exit code: 1".to_owned()));
        let data = b"\x1b]0;title\x07\x1b[31mred\x1b[0m\n".to_vec();
        let mut tails = Tails::default();
        for event in [
            Event::Started { step: step.clone(), name: "RUN \u{1b}[2J".to_owned(), at },
            Event::Log { step: step.clone(), stream: lapstrake_engine::Stream::Stdout, data, at },
            Event::Completed { step, at, cached: false, error },
        ] {
            tails.note(&event);
        }
        let failures = printed(tails).0;
        assert!(!format!("{failures:?}").contains("u{1b}"), "{failures:?}");
    }
}
