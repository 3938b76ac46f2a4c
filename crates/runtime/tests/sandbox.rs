//! The sandbox from the inside and from the outside, as root and as an ordinary user.
//!
//! By [`lapstrake_testkit::main`], since it is the zygote when it is asked to be.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, but with a main of its own clippy cannot know"
)]

#[path = "sandbox/entry.rs"]
mod entry;
#[path = "sandbox/fixture.rs"]
mod fixture;
#[path = "sandbox/hostile.rs"]
mod hostile;
#[path = "sandbox/inside.rs"]
mod inside;
#[path = "sandbox/life.rs"]
mod life;
#[path = "sandbox/owners.rs"]
mod owners;
#[path = "sandbox/probe.rs"]
mod probe;
#[path = "sandbox/races.rs"]
mod races;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(by_hand) = lapstrake_runtime::zygote_main_if_asked(std::env::args_os()) {
        eprintln!("{by_hand}");
        return ExitCode::from(2);
    }
    lapstrake_testkit::main(
        &[
            inside::TESTS,
            entry::TESTS,
            hostile::TESTS,
            races::TESTS,
            life::TESTS,
            owners::TESTS,
            probe::TESTS,
        ]
        .concat(),
    )
}
