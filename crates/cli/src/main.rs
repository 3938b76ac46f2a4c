//! The `lapstrake` binary: arguments, settings, progress, wiring.

/// Prints a line of the result. The caller fails if nobody takes it any more; see [`exit::report`].
macro_rules! say {
    ($($text:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($text)*)))?
    };
}

/// Prints a line about the work, if anybody is there to read it.
macro_rules! tell {
    ($($text:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($text)*)))
            .unwrap_or_default()
    };
}

mod args;
mod commands;
mod env;
mod exit;
mod progress;
mod record;
mod rows;
mod session;
mod template;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The sandbox's zygote is this binary under another name; it must be found out before anything else happens.
    lapstrake_runtime::zygote_main_if_asked();
    let args = match args::Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // Nobody may be listening: then there is nothing to say.
            error.print().unwrap_or_default();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(args.command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
