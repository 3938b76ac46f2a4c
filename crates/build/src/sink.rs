//! Files that the user names.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use lapstrake_diag::{Context as _, Outcome};
use lapstrake_sys::outfile::{NewMode, write_output};

/// Writes an output: a regular file whole or not at all, anything else in place (`sys::outfile`); without a path, to
/// standard output.
///
/// # Errors
/// The file cannot be opened, or `write` fails.
pub fn to_file<T>(dest: Option<&Path>, write: impl FnOnce(&mut dyn io::Write) -> Outcome<T>) -> Outcome<T> {
    let Some(dest) = dest else {
        let mut out = BufWriter::new(io::stdout().lock());
        let result = write(&mut out)?;
        out.flush()?;
        return Ok(result);
    };
    write_output(dest, NewMode::Masked, write).with_context(|| format!("cannot write `{}`", dest.display()))
}
