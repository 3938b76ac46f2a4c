//! `cargo xtask fuzz [NAME] [SECONDS]`: the targets of `crates/fuzz` under libFuzzer, on the stable compiler.
//!
//! The compiler's coverage pass and libFuzzer need no nightly; what does, the address sanitizer, has nothing to find in code
//! without `unsafe`. What is found is kept in `target/fuzz/found/NAME`; once it is mended it belongs into
//! `testdata/fuzz/NAME`, where the tests run it for good.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Counters for libFuzzer in our own crates and in all that they use.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=yes -Coverflow-checks=yes";
/// An input that takes longer than this many seconds is a bug.
const TIMEOUT: &str = "-timeout=5";
/// As is one that takes more than this many MiB.
const MEMORY: &str = "-rss_limit_mb=2048";

/// Runs one target, or one after the other.
pub(crate) fn fuzz(name: &str, seconds: &str) -> Result<(), String> {
    let seconds: u32 = match seconds {
        "" => 60,
        text => text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?,
    };
    let home = crate::target()?.join("fuzz");
    crate::run("cargo", &["build", "--quiet", "--package", "lapstrake-fuzz", "--bin", "seeds"])?;
    let seeds = crate::target()?.join("debug/seeds");
    let listed = Command::new(&seeds).output().map_err(|error| error.to_string())?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let targets: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(target, _)| name.is_empty() || *target == name)
        .collect();
    if targets.is_empty() {
        return Err(format!("there is no target `{name}`; there are\n{listed}"));
    }
    let engine = build(&home)?;
    let found: Vec<&str> = targets
        .into_iter()
        .filter_map(|(target, longest)| match run(&engine, &seeds, &home, (target, longest), seconds) {
            Ok(()) => None,
            Err(why) => {
                eprintln!("xtask: {target}: {why}");
                Some(target)
            }
        })
        .collect();
    if found.is_empty() { Ok(()) } else { Err(format!("something fell out of {}", found.join(", "))) }
}

/// Builds libFuzzer with our targets. A target triple keeps the counters out of build scripts.
fn build(home: &Path) -> Result<std::path::PathBuf, String> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = home.join("build");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", "lapstrake-fuzz", "--features", "libfuzzer"])
        .args(["--bin", "fuzz", "--target", &triple, "--target-dir"])
        .arg(&dir)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .current_dir(crate::top())
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("the fuzzer does not build; it needs a C++ compiler".to_owned());
    }
    Ok(dir.join(triple).join("release/fuzz"))
}

fn run(
    engine: &Path,
    seeds: &Path,
    home: &Path,
    (target, longest): (&str, &str),
    seconds: u32,
) -> Result<(), String> {
    let [corpus, start, found] = ["corpus", "seeds", "found"].map(|name| home.join(name).join(target));
    let words = home.join("seeds").join(format!("{target}.dict"));
    for dir in [&corpus, &start, &found] {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let status = Command::new(seeds).arg(target).arg(&start).arg(&words).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("it has no seeds".to_owned());
    }
    println!("fuzzing {target} for {seconds} seconds");
    let status = Command::new(engine)
        .env("LAPSTRAKE_FUZZ_TARGET", target)
        .args([TIMEOUT, MEMORY, "-print_final_stats=1", "-verbosity=0"])
        .args([format!("-max_total_time={seconds}"), format!("-max_len={longest}")])
        .args([format!("-dict={}", words.display()), format!("-artifact_prefix={}/", found.display())])
        .args([&corpus, &start])
        .status()
        .map_err(|error| format!("cannot run the fuzzer: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("see `{}`", found.display())) }
}
