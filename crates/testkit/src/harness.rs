//! The `main` of a test target with `harness = false`: lists tests, and runs each in a process of its own.
//!
//! It takes the arguments of libtest that cargo, nextest and editors use: `--list --format terse`, `--exact NAME`,
//! `--ignored`, `--include-ignored`, `--nocapture`, `--skip NAME`, `--test-threads N`, and names to look for.

use std::any::Any;
use std::collections::VecDeque;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::mode::Mode;

/// `1`: a test that cannot run here fails. `cargo xtask test` sets it, and so does CI.
pub const NO_SKIPS: &str = "LAPSTRAKE_NO_SKIPS";
/// Tells the process of one test that its runner knows [`SKIPPED`].
const CHILD: &str = "LAPSTRAKE_TESTKIT_CHILD";
/// The status of such a process whose test cannot run here.
const SKIPPED: u8 = 77;
/// What the last line of its output then begins with.
const SKIP_LINE: &str = "skipped: ";

/// A test with the modes that it makes sense in. It fails by panicking.
pub type Test = (&'static str, &'static [Mode], fn(Mode));

/// A test as a target lists it.
pub struct Case {
    /// The whole name, as `root::layers`.
    pub name: String,
    /// Why it cannot run here, where that is known before it begins.
    pub lack: Option<String>,
    /// Nothing else of the target runs at the same time.
    pub alone: bool,
    /// The test. It gives why it fails, or panics, and [`skip`]s where it finds that it cannot run here.
    pub run: Box<dyn Fn() -> Result<(), String> + Sync>,
}

/// What a test that cannot run here unwinds with.
struct Skip(String);

/// Ends the test that calls it: it cannot run here, for this reason.
pub fn skip(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skip(reason.into())))
}

/// For tests of the ordinary harness, which knows no third result: notes that the test that calls it cannot run here. The
/// test then returns. A line on standard output says so, for `cargo xtask test` to count.
///
/// # Panics
/// Where [`NO_SKIPS`] makes that a failure.
pub fn skipped(reason: &str) {
    assert!(!no_skips(), "it was skipped, and {NO_SKIPS}=1 makes that a failure: {reason}");
    let thread = std::thread::current();
    let line = format!("test {} ... skipped: {reason}\n", thread.name().unwrap_or("?"));
    // Not by `print!`, whose output the harness keeps to itself.
    std::io::stdout().write_all(line.as_bytes()).unwrap_or_default();
}

/// The `main` of a target whose tests run as root and as ordinary users.
pub fn main(tests: &[Test]) -> ExitCode {
    let in_modes = |test: &Test| {
        let (name, modes, run) = *test;
        modes.iter().map(move |mode| {
            let mode = *mode;
            let run = move || {
                mode.enter();
                run(mode);
                Ok(())
            };
            Case { name: mode.name(name), lack: mode.lack(), alone: false, run: Box::new(run) }
        })
    };
    run(&tests.iter().flat_map(in_modes).collect::<Vec<_>>())
}

/// The `main` of a target with these tests.
pub fn run(cases: &[Case]) -> ExitCode {
    let options = Options { no_skips: no_skips(), ..Options::read(std::env::args().skip(1)) };
    let chosen: Vec<&Case> = cases.iter().filter(|case| options.wants(case)).collect();
    if options.list {
        for case in chosen {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    match chosen[..] {
        [case] if options.exact => one(case),
        [] if options.exact => {
            eprintln!("no such test");
            ExitCode::FAILURE
        }
        _ => all(&chosen, &options, cases.len()),
    }
}

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    list: bool,
    exact: bool,
    /// Only those that are known not to run here.
    ignored: bool,
    nocapture: bool,
    threads: Option<usize>,
    names: Vec<String>,
    skipped: Vec<String>,
    /// Whether a test that cannot run here fails, so that none counts as ignored.
    no_skips: bool,
}

impl Options {
    fn read(args: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
            _ => vec![arg],
        });
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--ignored" => options.ignored = true,
                "--nocapture" | "--no-capture" => options.nocapture = true,
                "--test-threads" => options.threads = args.next().and_then(|number| number.parse().ok()),
                "--skip" => options.skipped.extend(args.next()),
                "--format" | "--color" | "--logfile" | "-Z" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => options.names.push(arg),
            }
        }
        options
    }

    fn wants(&self, case: &Case) -> bool {
        let is =
            |name: &String| if self.exact { case.name == *name } else { case.name.contains(name.as_str()) };
        let ignored = case.lack.is_some() && !self.no_skips;
        let named = self.names.is_empty() || self.names.iter().any(is);
        named && (!self.ignored || ignored) && !self.skipped.iter().any(is)
    }

    fn threads(&self) -> usize {
        let said = || std::env::var("RUST_TEST_THREADS").ok()?.parse().ok();
        // As many as there are processors: more of them would make bounds of time unsure.
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.or_else(said).unwrap_or_else(processors).max(1)
    }
}

fn no_skips() -> bool {
    std::env::var_os(NO_SKIPS).is_some_and(|value| value == "1")
}

/// Runs a test in this process.
fn one(case: &Case) -> ExitCode {
    let ran = match &case.lack {
        Some(lack) => Err(Box::new(Skip(lack.clone())) as Box<dyn Any + Send>),
        None => catch_unwind(AssertUnwindSafe(|| (case.run)())),
    };
    let payload = match ran {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(why)) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
        Err(payload) => payload,
    };
    let Some(Skip(reason)) = payload.downcast_ref() else { return ExitCode::FAILURE };
    println!("{SKIP_LINE}{reason}");
    if std::env::var_os(CHILD).is_some() {
        ExitCode::from(SKIPPED)
    } else if no_skips() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What came of a test.
enum Outcome {
    Passed,
    Failed(Vec<u8>),
    Skipped(String),
}

/// What came of all of them.
#[derive(Default)]
struct Count {
    passed: usize,
    skipped: usize,
    failed: Vec<(String, Vec<u8>)>,
}

/// Runs tests in processes of their own, several at a time, and those that want to be alone one after the other.
fn all(cases: &[&Case], options: &Options, of: usize) -> ExitCode {
    let begun = Instant::now();
    println!("\nrunning {} tests", cases.len());
    let (alone, together): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
    let count = Mutex::new(Count::default());
    for (cases, threads) in [(together, options.threads()), (alone, 1)] {
        let queue = Mutex::new(cases.into_iter().collect::<VecDeque<_>>());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        // Not the head of a `while let`: the lock would be held for as long as the test runs.
                        let next = locked(&queue).pop_front();
                        let Some(case) = next else { break };
                        let outcome = process(case, options.nocapture);
                        note(&mut locked(&count), case, outcome);
                    }
                });
            }
        });
    }
    let count = count.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (name, output) in &count.failed {
        println!("\n---- {name} ----\n{}", String::from_utf8_lossy(output).trim_end());
    }
    let verdict = if count.failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} skipped; {} filtered out; finished in {:.2}s\n",
        count.passed,
        count.failed.len(),
        count.skipped,
        of - cases.len(),
        begun.elapsed().as_secs_f64()
    );
    if count.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(count: &mut Count, case: &Case, outcome: Outcome) {
    let line = match outcome {
        Outcome::Passed => {
            count.passed += 1;
            "ok".to_owned()
        }
        Outcome::Skipped(reason) if no_skips() => {
            let why = format!("it was skipped, and {NO_SKIPS}=1 makes that a failure: {reason}");
            count.failed.push((case.name.clone(), why.into_bytes()));
            format!("FAILED (skipped: {reason})")
        }
        Outcome::Skipped(reason) => {
            count.skipped += 1;
            format!("skipped: {reason}")
        }
        Outcome::Failed(output) => {
            count.failed.push((case.name.clone(), output));
            "FAILED".to_owned()
        }
    };
    println!("test {} ... {line}", case.name);
    // It may go to a file that somebody watches.
    std::io::stdout().flush().unwrap_or_default();
}

/// Runs a test in a process of its own. Its output is shown if it fails.
fn process(case: &Case, nocapture: bool) -> Outcome {
    if let Some(lack) = &case.lack {
        return Outcome::Skipped(lack.clone());
    }
    let this = std::env::current_exe().expect("there is a /proc");
    // `sh` makes one stream of two, in the order in which they were written.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --exact \"$1\" --nocapture 2>&1"]).arg(this).arg(&case.name);
    command.env(CHILD, "1").stdin(Stdio::null());
    if nocapture {
        command.stdout(Stdio::inherit());
    }
    let output = command.output().expect("this program can be run");
    match output.status.code() {
        Some(0) => Outcome::Passed,
        Some(code) if code == i32::from(SKIPPED) => Outcome::Skipped(reason(&output.stdout)),
        _ => Outcome::Failed([&output.stdout[..], format!("\n{}", output.status).as_bytes()].concat()),
    }
}

/// Why a test was skipped, by its output.
fn reason(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find_map(|line| line.strip_prefix(SKIP_LINE));
    line.unwrap_or("it says so above").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, lack: Option<&str>) -> Case {
        Case { name: name.to_owned(), lack: lack.map(str::to_owned), alone: false, run: Box::new(|| Ok(())) }
    }

    fn chosen(args: &str) -> Vec<&'static str> {
        let options = Options::read(args.split_whitespace().map(str::to_owned));
        ["root::one", "root::two", "user::one"]
            .into_iter()
            .filter(|name| options.wants(&case(name, name.starts_with("user").then_some("no user"))))
            .collect()
    }

    #[test]
    fn tests_are_chosen_as_libtest_does() {
        assert_eq!(chosen("--list --format terse"), ["root::one", "root::two", "user::one"]);
        assert_eq!(chosen("--list --format terse --ignored"), ["user::one"]);
        assert_eq!(chosen("--list --include-ignored"), ["root::one", "root::two", "user::one"]);
        assert_eq!(chosen("one --nocapture -q"), ["root::one", "user::one"]);
        assert_eq!(chosen("one two --skip=user"), ["root::one", "root::two"]);
        assert_eq!(chosen("--exact root::one --test-threads=3 --color always"), ["root::one"]);
        assert_eq!(chosen("--exact one"), [""; 0]);
        assert_eq!(chosen("--ignored"), ["user::one"]);
        let strict = Options { ignored: true, no_skips: true, ..Options::default() };
        assert!(!strict.wants(&case("user::one", Some("no user"))), "a failure is not ignored");
    }

    #[test]
    fn threads_can_be_said() {
        let threads = |args: &str| Options::read(args.split_whitespace().map(str::to_owned)).threads;
        assert_eq!(threads("--test-threads 3 name"), Some(3));
        assert_eq!(threads("--test-threads=4"), Some(4));
        assert_eq!(threads("name"), None);
    }

    #[test]
    fn the_reason_is_the_last_line_that_gives_one() {
        assert_eq!(reason(b"noise\nskipped: no root\n"), "no root");
        assert_eq!(reason(b"noise\n"), "it says so above");
    }

    #[test]
    fn a_skip_unwinds() {
        let caught = catch_unwind(|| skip("no root")).unwrap_err();
        assert_eq!(caught.downcast_ref::<Skip>().map(|skip| skip.0.as_str()), Some("no root"));
    }
}
