//! Outputs that the user names.

use std::io;
use std::path::Path;

use lapstrake_diag::Outcome;

/// As [`lapstrake_build::to_file`], while Ctrl-C and SIGTERM are watched for: a pipe may have no reader.
///
/// # Errors
/// The file cannot be opened, or `write` fails.
pub(super) fn to_file<T>(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> Outcome<T>,
) -> Outcome<T> {
    if dest.is_some() {
        super::signals::watch();
    }
    lapstrake_build::to_file(dest, write)
}

/// Writes these bytes as an output.
///
/// # Errors
/// As [`to_file`].
pub(super) fn put(dest: &Path, bytes: impl AsRef<[u8]>) -> Outcome<()> {
    to_file(Some(dest), |out| Ok(out.write_all(bytes.as_ref())?))
}
