//! Images that running containers stand on. Who runs one says so in its own part of `tmp/`, where a lock tells the living
//! from the dead.

use std::fs;

use lapstrake_oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layout::Store;
use crate::process_dir::{LOCK, state_lock};

/// How the names of the notes begin; an image id follows.
const PREFIX: &str = "image-";
/// How the names of those files begin that hold a container's name.
const NAME_PREFIX: &str = "name-";

impl Store {
    /// Says that this process runs `command` in an image, for as long as the store is open. `false` if the image is gone.
    pub fn pin_image(&self, id: &Digest, command: &str) -> Result<bool, StoreError> {
        let note = self.process_dir.path("")?.with_file_name(format!("{PREFIX}{}", id.hex()));
        files::write(&note, format!("{}\n{command}", std::process::id()))
            .map_err(io_error("write", &note))?;
        // Removal looks for notes first and then deletes, with the gate shut: it sees ours, or we see what it did.
        let state_lock = state_lock(self.root(), FlockOperation::LockShared)?;
        let there = self.image(id)?.is_some();
        drop(state_lock);
        Ok(there)
    }

    /// Gives this process's container a name for as long as the store is open, unless another process has it; the
    /// number of that process.
    ///
    /// # Errors
    /// [`StoreError`] where the state directory cannot be read or written.
    pub fn take_name(&self, name: &str) -> Result<Option<String>, StoreError> {
        let note = format!("{NAME_PREFIX}{}", name.trim_start_matches('/'));
        // Before the gate is shut, through which a directory for the note is made.
        let own = self.process_dir.path("")?.with_file_name(&note);
        // Two that come at once must see each other.
        let state_lock = state_lock(self.root(), FlockOperation::LockExclusive)?;
        if let Some(holder) = self.living_note(&note)? {
            return Ok(Some(holder));
        }
        files::write(&own, std::process::id().to_string()).map_err(io_error("write", &own))?;
        drop(state_lock);
        Ok(None)
    }

    /// As [`Store::remove_image`], unless somebody runs something in it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] names who does.
    pub fn remove_unused_image(&self, id: &Digest) -> Result<(), StoreError> {
        let state_lock = state_lock(self.root(), FlockOperation::LockExclusive)?;
        if let Some(note) = self.note_of(id)? {
            let (process, command) = note.split_once('\n').unwrap_or((&note, ""));
            let (process, command) = (process.to_owned(), command.to_owned());
            return Err(StoreError::InUse { image: id.short().to_owned(), process, command });
        }
        self.remove_image(id)?;
        drop(state_lock);
        Ok(())
    }

    /// Whether somebody runs something in an image.
    pub fn is_pinned(&self, id: &Digest) -> Result<bool, StoreError> {
        Ok(self.note_of(id)?.is_some())
    }

    /// What a living process noted about its use of an image.
    fn note_of(&self, id: &Digest) -> Result<Option<String>, StoreError> {
        self.living_note(&format!("{PREFIX}{}", id.hex()))
    }

    /// The note of this name that a living process has.
    fn living_note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let tmp = self.root().join("tmp");
        for entry in fs::read_dir(&tmp).map_err(io_error("list", &tmp))?.flatten() {
            let Ok(note) = files::read_to_string(&entry.path().join(name)) else { continue };
            let lock = files::open(&entry.path().join(LOCK));
            if lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()) {
                return Ok(Some(note));
            }
        }
        Ok(None)
    }
}
