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
#[path = "gateway/failures.rs"]
mod failures;
#[path = "gateway/files.rs"]
mod files;
#[path = "gateway/frontends.rs"]
mod frontends;
#[path = "gateway/images.rs"]
mod images;
#[path = "gateway/place.rs"]
mod place;
#[path = "gateway/policies.rs"]
mod policies;
#[path = "gateway/program.rs"]
mod program;
#[path = "gateway/sources.rs"]
mod sources;
#[path = "gateway/stores.rs"]
mod stores;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(by_hand) = lapstrake_runtime::zygote_main_if_asked(std::env::args_os()) {
        eprintln!("{by_hand}");
        return ExitCode::from(2);
    }
    if let Some(code) = program::main_if_asked() {
        return code;
    }
    let first = [files::TESTS, images::TESTS, containers::TESTS, definitions::TESTS].concat();
    let second = [frontends::TESTS, policies::TESTS, sources::TESTS, stores::TESTS].concat();
    let second = [second, failures::TESTS.to_vec()].concat();
    lapstrake_testkit::main(&[first, second].concat())
}
