//! What clients do with results while they drive a build: files and containers, as root and as an ordinary user.
//!
//! By [`lapstrake_testkit::main`], since this program is the zygote when it is asked to be.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, but with a main of its own clippy cannot know"
)]

#[path = "gateway/containers.rs"]
mod containers;
#[path = "gateway/definitions.rs"]
mod definitions;
#[path = "gateway/files.rs"]
mod files;
#[path = "gateway/images.rs"]
mod images;
#[path = "gateway/place.rs"]
mod place;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(by_hand) = lapstrake_runtime::zygote_main_if_asked(std::env::args_os()) {
        eprintln!("{by_hand}");
        return ExitCode::from(2);
    }
    lapstrake_testkit::main(&[files::TESTS, images::TESTS, containers::TESTS, definitions::TESTS].concat())
}
