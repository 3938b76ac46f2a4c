//! The sandbox from the inside and from the outside, as root and as an ordinary user.
//!
//! Each test runs in a process of its own that has become what its mode says before it starts a thread:
//!
//! | mode | who runs the sandbox |
//! |---|---|
//! | `root` | root (left out where the tests are run by an ordinary user) |
//! | `subids` | an ordinary user with subordinate ids (left out where the machine has none) |
//! | `oneid` | an ordinary user without |

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, but with a main of its own clippy cannot know"
)]

#[path = "sandbox/fixture.rs"]
mod fixture;
#[path = "sandbox/hostile.rs"]
mod hostile;
#[path = "sandbox/inside.rs"]
mod inside;
#[path = "sandbox/life.rs"]
mod life;

use std::process::{Command, ExitCode};

use fixture::Mode;

/// A test, with the modes it makes sense in.
type Test = (&'static str, &'static [Mode], fn(Mode));

fn main() -> ExitCode {
    lapstrake_runtime::zygote_main_if_asked();
    let tests: Vec<Test> = [inside::TESTS, hostile::TESTS, life::TESTS].concat();
    let all = tests.iter().flat_map(|test| test.1.iter().map(move |mode| (mode.name(test.0), *mode, test.2)));
    let all: Vec<_> = all.filter(|test| test.1.is_possible()).collect();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            all.iter().for_each(|test| println!("{}: test", test.0));
        }
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    if has("--exact") {
        let test = all.iter().find(|test| Some(&test.0) == filter).expect("no such test");
        test.1.enter();
        (test.2)(test.1);
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, ..) in all.iter().filter(|test| filter.is_none_or(|filter| test.0.contains(filter.as_str()))) {
        let this = std::env::current_exe().expect("there is a /proc");
        let status = Command::new(this).args([name, "--exact"]).status().expect("this program can be run");
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        failed += u8::from(!status.success());
    }
    ExitCode::from(failed.min(101))
}
