//! Lists and runs tests, each in a process of its own.

use std::process::{Command, ExitCode};

use crate::mode::Mode;

/// A test, with the modes it makes sense in.
pub type Test = (&'static str, &'static [Mode], fn(Mode));

/// The `main` of a test target with `harness = false`. A test fails by panicking.
pub fn main(tests: &[Test]) -> ExitCode {
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
    let wanted = all.iter().filter(|test| filter.is_none_or(|filter| test.0.contains(filter.as_str())));
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for (name, ..) in wanted {
        let this = std::env::current_exe().expect("there is a /proc");
        let status = Command::new(this).args([name, "--exact"]).status().expect("this program can be run");
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        *(if status.success() { &mut passed } else { &mut failed }) += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
