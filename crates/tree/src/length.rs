//! The kernel's limits for names and paths.

use crate::error::TreeError;
use crate::path::lossy;

/// The longest path, in bytes: `PATH_MAX` without the NUL at its end.
pub(crate) const MAX_PATH: usize = 4095;
/// The longest name in a directory, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// How much of a long path is shown.
const SHOWN: usize = 60;

/// Refuses what is longer than the kernel takes.
///
/// # Errors
/// [`TreeError::TooLong`] with the beginning of `path`.
pub(crate) fn check_length(
    path: &[u8],
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<(), TreeError> {
    if bytes.len() <= limit {
        return Ok(());
    }
    let path = lossy(&path[..path.len().min(SHOWN)]);
    Err(TreeError::TooLong { path, what, length: bytes.len(), limit })
}
