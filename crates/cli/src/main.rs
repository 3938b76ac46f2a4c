//! The `lapstrake` binary: arguments, settings, progress, wiring.

/// Prints a line of the result. The caller fails if nobody takes it any more; see [`exit::report`].
macro_rules! say {
    ($($text:tt)*) => {
        crate::console::out(format_args!("{}\n", format_args!($($text)*)))?
    };
}

/// Prints a line about the work, if anybody is there to read it.
macro_rules! tell {
    ($($text:tt)*) => {
        crate::console::err(format_args!("{}\n", format_args!($($text)*)))
    };
}

mod args;
mod client;
mod commands;
mod console;
mod env;
mod exit;
mod log;
mod progress;
mod rows;
mod session;

use std::process::ExitCode;

use lapstrake_diag::Report;

fn main() -> ExitCode {
    // The sandbox's zygote is this binary under another name; it must be found out before anything else happens.
    if let Err(by_hand) = lapstrake_runtime::zygote_main_if_asked(env::args()) {
        tell!("{by_hand}");
        return ExitCode::from(2);
    }
    lapstrake_sys::process::raise_file_limit();
    let mut words: Vec<_> = env::args().collect();
    let verbosity = log::take_verbosity(&mut words);
    let of_run = words.get(1).is_some_and(|verb| verb == "run");
    let args = match args::Args::read(words) {
        Ok(args) => args,
        Err(error) => {
            // Nobody may be listening: then there is nothing to say.
            error.print().unwrap_or_default();
            let status = if of_run { exit::OF_RUN } else { 2 };
            return if error.use_stderr() { ExitCode::from(status) } else { ExitCode::SUCCESS };
        }
    };
    match log::start(verbosity).map_err(Report::from).and_then(|()| commands::run(args.command)) {
        Ok(code) => code,
        Err(error) => {
            let code = exit::report(&error);
            if of_run { ExitCode::from(exit::OF_RUN) } else { code }
        }
    }
}
