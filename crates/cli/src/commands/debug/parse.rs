//! `lapstrake debug parse`: a Dockerfile's syntax tree as JSON.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{read, with_includes};
use lapstrake_diag::Outcome;

/// Prints the tree of `file`. The status is 0 whether or not the file is valid.
pub(super) fn parse(file: &Path) -> Outcome<ExitCode> {
    let text = read(file)?;
    let dialect = lapstrake_dockerfile::dialect(&text);
    let tree = lapstrake_dockerfile::parse_json(&with_includes(text, dialect, file)?);
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &tree)?;
    out.write_all(b"\n")?;
    Ok(ExitCode::SUCCESS)
}
