//! `lapstrake debug parse`: a Dockerfile's syntax tree as JSON.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use lapstrake_diag::SourceFile;

/// Prints the tree of `file`. The status is 0 whether or not the file is valid.
pub(crate) fn parse(file: &Path) -> anyhow::Result<ExitCode> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        bytes
    } else {
        std::fs::read(file)?
    };
    let name = file.to_string_lossy();
    let source = SourceFile::from_bytes(name.as_ref(), &bytes);
    let tree = lapstrake_dockerfile::parse_json(&source);
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &tree)?;
    out.write_all(b"\n")?;
    Ok(ExitCode::SUCCESS)
}
