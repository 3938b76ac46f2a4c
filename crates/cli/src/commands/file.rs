//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Writes a file whole or not at all; without a path, to standard output.
pub(super) fn to_file<T>(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(dest) = dest else {
        let mut out = BufWriter::new(io::stdout().lock());
        let result = write(&mut out)?;
        out.flush()?;
        return Ok(result);
    };
    let mut partial = dest.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = || format!("cannot write `{}`", dest.display());
    let result = (|| {
        let mut out = BufWriter::with_capacity(256 << 10, File::create(&partial).with_context(failed)?);
        let result = write(&mut out).with_context(failed)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&partial, dest).with_context(failed)?;
        Ok(result)
    })();
    if result.is_err() {
        // What is half-written must not stay; if it cannot go, the first error is the one to tell.
        fs::remove_file(&partial).unwrap_or_default();
    }
    result
}
