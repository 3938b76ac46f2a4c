//! The tasks of this workspace: `cargo xtask tidy`, `cargo xtask test`, `cargo xtask e2e`, `cargo xtask bench`,
//! `cargo xtask fuzz`, `cargo xtask example`, `cargo xtask dist`.

mod bench;
mod count;
mod dist;
mod example;
mod fuzz;
mod tests;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // For the benchmark of the sandbox, whose zygote is this program under another name.
    if let Err(by_hand) = lapstrake_runtime::zygote_main_if_asked(std::env::args_os()) {
        eprintln!("{by_hand}");
        return ExitCode::from(2);
    }
    let task = std::env::args().nth(1);
    let argument = |number| std::env::args().nth(number).unwrap_or_default();
    let done = match task.as_deref() {
        Some("tidy") => tidy::tidy(tidy::Deny::WhereInstalled),
        Some("test") => match argument(2).as_str() {
            "" => tests::test(tests::Skips::Fail),
            "--allow-skips" => tests::test(tests::Skips::Allowed),
            other => Err(format!("unknown argument `{other}`: only `--allow-skips`")),
        },
        Some("e2e") => tests::only_e2e(&argument(2)),
        Some("bench") => bench::bench(&argument(2)),
        Some("fuzz") => fuzz::fuzz(&argument(2), &argument(3)),
        Some("example") => example::example(),
        Some("dist") => dist::dist(),
        _ => Err("usage: cargo xtask tidy|test [--allow-skips]|e2e [NAME]|bench [NAME]|fuzz [NAME] [SECONDS]|example|dist"
            .to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's top directory.
fn top() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map_or(own.clone(), PathBuf::from)
}

/// Runs a program in the top directory and fails if it does.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(top()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", args.join(" "))),
        Err(error) => Err(format!("cannot run `{program}`: {error}")),
    }
}

/// Builds the binary as it is shipped and says where it is.
fn release_binary() -> Result<PathBuf, String> {
    run("cargo", &["build", "--quiet", "--release", "--package", "lapstrake"])?;
    Ok(target()?.join("release/lapstrake"))
}

fn target() -> Result<PathBuf, String> {
    let metadata = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(top())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).map_err(|error| error.to_string())?;
    let target = metadata["target_directory"].as_str().ok_or("cargo names no target directory")?;
    Ok(PathBuf::from(target))
}
