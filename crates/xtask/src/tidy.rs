//! House rules that no compiler checks: who may depend on whom, how long files are, what every file begins with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers, bottom first. A crate may depend on lower rows only. What is not named here is for development.
const ROWS: [&[&str]; 8] = [
    &["lapstrake-oci", "lapstrake-diag", "lapstrake-sys"],
    &["lapstrake-tree"],
    &["lapstrake-dockerfile", "lapstrake-graph", "lapstrake-store"],
    &["lapstrake-snapshot", "lapstrake-runtime", "lapstrake-registry"],
    &["lapstrake-lower", "lapstrake-engine", "lapstrake-assemble"],
    &["lapstrake-ops", "lapstrake-outputs"],
    &["lapstrake-buildkit"],
    &["lapstrake"],
];

/// The hard budget for a file, tests and comments included.
const MAX_LINES: usize = 1000;

/// Checks everything.
pub(crate) fn tidy() -> Result<(), String> {
    let mut complaints = layers()?;
    for file in sources(&crate::top())? {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.strip_prefix(crate::top()).unwrap_or(&file).display().to_string();
        if !text.starts_with("//!") {
            complaints.push(format!("{name}: does not begin with `//!`"));
        }
        if text.lines().count() > MAX_LINES {
            complaints.push(format!("{name}: more than {MAX_LINES} lines"));
        }
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            complaints.push(format!("{name}: `foo.rs` and `foo/`, never `mod.rs`"));
        }
        if has_unchecked_code(&text) && !name.starts_with("crates/sys/") {
            complaints.push(format!("{name}: only crates/sys goes past the compiler's checks"));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(format!("untidy:\n{}", complaints.join("\n"))) }
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
