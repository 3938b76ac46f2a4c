//! Outputs that the user names.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use lapstrake_diag::Outcome;

/// Writes an output to a file as [`lapstrake_build::to_file`] does, or without a path to standard output. Ctrl-C and SIGTERM
/// are watched for: a pipe may have no reader.
///
/// # Errors
/// The file cannot be opened, or `write` fails.
pub(crate) fn to_file<T>(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> Outcome<T>,
) -> Outcome<T> {
    let Some(dest) = dest else {
        let mut out = BufWriter::new(io::stdout().lock());
        let result = write(&mut out)?;
        out.flush()?;
        return Ok(result);
    };
    super::signals::watch();
    lapstrake_build::to_file(dest, write)
}

/// Writes these bytes as an output.
///
/// # Errors
/// As [`to_file`].
pub(super) fn put(dest: &Path, bytes: impl AsRef<[u8]>) -> Outcome<()> {
    to_file(Some(dest), |out| Ok(out.write_all(bytes.as_ref())?))
}
