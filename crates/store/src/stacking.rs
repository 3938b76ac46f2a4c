//! How layers are put on each other here, and what their directories lack where no overlay can be mounted.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layer_id::LayerId;
use crate::layout::{Stacking, Store};

/// In a layer's directory: its files lack the marks of deletions, which only its tree has.
const UNMARKED: &str = "unmarked";

impl Store {
    /// How layers are put on each other here, if that was found out.
    pub fn stacking(&self) -> Option<Stacking> {
        self.stacking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers it for this process.
    pub fn set_stacking(&self, stacking: Stacking) {
        *self.stacking.lock().unwrap_or_else(PoisonError::into_inner) = Some(stacking);
    }

    /// Notes in the directory of a layer-to-be that its files lack the marks of deletions.
    ///
    /// # Errors
    /// [`StoreError`] if the note cannot be written.
    pub fn note_unmarked(dir: &Path) -> Result<(), StoreError> {
        let note = dir.join(UNMARKED);
        files::write(&note, "").map_err(io_error("write", &note))
    }

    /// Whether the files of a layer lack the marks of deletions.
    pub fn is_unmarked(&self, id: &LayerId) -> bool {
        self.layer_dir(id).join(UNMARKED).exists()
    }

    /// The files of the layer have all marks now.
    ///
    /// # Errors
    /// [`StoreError`] if the note cannot be removed.
    pub fn set_marked(&self, id: &LayerId) -> Result<(), StoreError> {
        let note = self.layer_dir(id).join(UNMARKED);
        match fs::remove_file(&note) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", &note)(error))
            }
            _ => Ok(()),
        }
    }

    /// Brings the note along where files are put beside the tree of a packed layer.
    pub(crate) fn take_note(&self, id: &LayerId, files: &Path) -> Result<(), StoreError> {
        if files.with_file_name(UNMARKED).exists() {
            Store::note_unmarked(&self.layer_dir(id))
        } else {
            Ok(())
        }
    }
}
