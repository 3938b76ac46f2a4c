//! The superblock: the file `state.json`, with the format of the state directory.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{StoreError, io_error};

/// The format that this lapstrake reads and writes.
pub(crate) const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Superblock {
    format: u32,
}

/// The format of a state directory; `None` where there is none yet.
pub(crate) fn format_of(root: &Path) -> Result<Option<u32>, StoreError> {
    let path = root.join("state.json");
    let bytes = match fs::read(&path) {
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
    // Two processes may do this at once: both write the same bytes, and rename makes each whole.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let fresh = root.join(format!("tmp/state.json.{}-{number}", std::process::id()));
    let bytes = serde_json::to_vec(&Superblock { format: FORMAT }).unwrap_or_default();
    let durable = superblock.exists();
    let written = fs::File::create(&fresh).and_then(|mut file| {
        file.write_all(&bytes)?;
        if durable { file.sync_all() } else { Ok(()) }
    });
    let made = written
        .map_err(io_error("write", &fresh))
        .and_then(|()| fs::rename(&fresh, &superblock).map_err(io_error("rename", &fresh)));
    if made.is_err() {
        // It has no lock that would tell the next process that its maker is gone.
        fs::remove_file(&fresh).unwrap_or_default();
    }
    made
}
