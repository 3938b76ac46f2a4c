//! Files that the user names.

use std::io::Write;
use std::path::Path;

use lapstrake_diag::{Context as _, Outcome};
use lapstrake_sys::outfile::{NewMode, write_output};

/// Writes a file that the user names: a regular file whole or not at all, anything else in place (`sys::outfile`).
///
/// # Errors
/// The file cannot be opened, or `write` fails.
pub fn to_file<T>(dest: &Path, write: impl FnOnce(&mut dyn Write) -> Outcome<T>) -> Outcome<T> {
    write_output(dest, NewMode::Masked, write).with_context(|| format!("cannot write `{}`", dest.display()))
}
