//! Reports on a terminal, and exit statuses: 1 the build failed, 2 usage, 3 the environment.

use std::process::ExitCode;

use lapstrake_diag::{Excerpt, Fault, Place, Report, Style, excerpt, render};

use crate::env;

/// The status of `run` where the fault is ours or the caller's, and not that of the program in the container: the status
/// of `docker run`.
pub(crate) const OF_RUN: u8 = 125;
/// The status of a program that the kernel ended because nobody reads its output.
const UNREAD: u8 = 141;

/// Whether messages are coloured.
pub(crate) fn style() -> Style {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    if terminal && !env::no_color() { Style::Coloured } else { Style::Plain }
}

/// Prints a report with its place in the Dockerfile and its hint, and gives the exit status.
///
/// The reader of a result may leave early (`lapstrake images | head`): then nothing is printed.
pub(crate) fn report(report: &Report) -> ExitCode {
    if report.is_broken_pipe() {
        return ExitCode::from(UNREAD);
    }
    if let Some(place) = report.place() {
        tell_place(place);
    }
    tell!("ERROR: {report}");
    if let Some(hint) = report.hint() {
        tell!("hint: {hint}");
    }
    ExitCode::from(status(report.fault()))
}

fn tell_place(Place { file, excerpt: part }: &Place) {
    match part {
        Excerpt::Findings(findings) => {
            findings.iter().for_each(|finding| tell!("{}", render(finding, file, style())));
        }
        Excerpt::Lines(first, last) => tell!("{}", excerpt(file, *first, *last).trim_end()),
    }
}

fn status(fault: Fault) -> u8 {
    match fault {
        Fault::Build => 1,
        Fault::Usage => 2,
        Fault::Environment => 3,
        // That of a shell for a program that a signal has ended.
        Fault::Canceled(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    }
}
