//! `cargo xtask test`: everything, on a bare Debian machine.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::count::Count;

/// Debian packages that the tests use.
const PACKAGES: [&str; 20] = [
    "busybox-static",
    "containerd",
    "debootstrap",
    "docker-registry",
    "gcc",
    "git",
    "iproute2",
    "libc6-dev",
    "nftables",
    "openssh-client",
    "openssl",
    "passt",
    "python3",
    "python3-jsonschema",
    "python3-pip",
    "skopeo",
    "slirp4netns",
    "uidmap",
    "umoci",
    "zstd",
];

/// What `cargo xtask test` does with tests that cannot run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skips {
    /// They fail.
    Fail,
    /// They are counted.
    Allowed,
}

/// Installs what is missing, checks format, lints, documentation and tidiness, and runs all tests.
pub(crate) fn test(skips: Skips) -> Result<(), String> {
    install()?;
    crate::tidy::install_deny()?;
    crate::run("cargo", &["fmt", "--all", "--", "--check"])?;
    crate::run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    crate::tidy::tidy(crate::tidy::Deny::Required)?;
    document()?;
    run_all(skips)?.verdict()
}

/// Makes the documentation for developers, private items too; a link that leads nowhere is a failure.
fn document() -> Result<(), String> {
    let status = Command::new("cargo")
        .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")
        .current_dir(crate::top())
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("the documentation has faults".to_owned()) }
}

/// Only the real builds whose name contains `only`, after the packages that they need were installed.
pub(crate) fn only_e2e(only: &str) -> Result<(), String> {
    install()?;
    crate::run("cargo", &["test", "--quiet", "--package", "lapstrake", "--test", "e2e", "--", only])
}

fn install() -> Result<(), String> {
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    crate::run("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(missing);
    crate::run("apt-get", &args)
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).output();
    output.is_ok_and(|output| output.stdout.ends_with(b"ok installed"))
}

/// `cargo test`, its output passed on and its counts added up.
fn run_all(skips: Skips) -> Result<Count, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--no-fail-fast", "--quiet"]).current_dir(crate::top());
    if skips == Skips::Fail {
        command.env(lapstrake_testkit::NO_SKIPS, "1");
    }
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut count = Count::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("test result: ") {
                count.passed += number_before(rest, " passed");
                count.failed += number_before(rest, " failed");
            } else {
                // Both harnesses print such a line for each.
                count.skipped += usize::from(line.contains(" ... skipped: "));
                println!("{line}");
            }
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() && count.failed == 0 {
        count.failed += 1;
    }
    Ok(count)
}

fn number_before(text: &str, word: &str) -> usize {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
