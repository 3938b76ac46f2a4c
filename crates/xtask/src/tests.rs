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

/// Installs what is missing, checks format, lints and tidiness, and runs all tests.
pub(crate) fn test() -> Result<(), String> {
    install()?;
    crate::tidy::install_deny()?;
    crate::run("cargo", &["fmt", "--all", "--", "--check"])?;
    crate::run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    crate::tidy::tidy(crate::tidy::Deny::Required)?;
    let mut count = unit_tests()?;
    crate::e2e::run(&crate::binary()?, "", &mut count)?;
    count.verdict()
}

/// Only the real builds whose name contains `only`, with the binary that `LAPSTRAKE_TEST_BINARY` names where it does: on
/// another kernel one tests what was built elsewhere.
pub(crate) fn only_e2e(only: &str) -> Result<(), String> {
    install()?;
    let mut count = Count::default();
    let binary = match std::env::var_os("LAPSTRAKE_TEST_BINARY") {
        Some(path) => path.into(),
        None => crate::binary()?,
    };
    crate::e2e::run(&binary, only, &mut count)?;
    count.verdict()
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
fn unit_tests() -> Result<Count, String> {
    let mut child = Command::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast", "--quiet"])
        .current_dir(crate::top())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut count = Count::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("test result: ") {
                count.passed += number_before(rest, " passed");
                count.failed += number_before(rest, " failed");
            } else {
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
