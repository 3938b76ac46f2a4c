//! The superblock: the file `state.json`, with the format of the state directory.

use std::path::Path;

use lapstrake_sys::persist;
use serde::{Deserialize, Serialize};

use crate::error::{StoreError, io_error};
use crate::files;

/// The format that this lapstrake reads and writes.
pub(crate) const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Superblock {
    format: u32,
}

/// The format of a state directory; `None` where there is none yet.
pub(crate) fn format_of(root: &Path) -> Result<Option<u32>, StoreError> {
    let path = root.join("state.json");
    let bytes = match files::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let superblock: Superblock =
        serde_json::from_slice(&bytes).map_err(|_| StoreError::Superblock { path: root.to_owned() })?;
    if superblock.format > FORMAT {
        return Err(StoreError::TooNew {
            path: root.to_owned(),
            found: superblock.format.into(),
            known: FORMAT.into(),
        });
    }
    Ok(Some(superblock.format))
}

/// Writes the superblock, or replaces one of an older format, then durably.
pub(crate) fn write_superblock(root: &Path) -> Result<(), StoreError> {
    let superblock = root.join("state.json");
    // Two processes may do this at once: both write the same bytes, and each file is whole.
    let bytes = serde_json::to_vec(&Superblock { format: FORMAT }).unwrap_or_default();
    let replace = if superblock.exists() { persist::replace_durably } else { persist::replace };
    replace(&superblock, &root.join("tmp"), &bytes).map_err(io_error("write", &superblock))
}
