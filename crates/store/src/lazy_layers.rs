//! Layers whose files are still in the blob that they came in.
//!
//! A layer of somebody else's image may be packed: `tree` is there and `fs/` is not. Whoever needs the files has them put
//! beside the tree. A layer that is changes to another one is never packed.

use std::fs;
use std::path::Path;

use lapstrake_oci::DiffId;

use crate::blobs::Blob;
use crate::boot::boot_id;
use crate::error::{StoreError, io_error};
use crate::layer_id::LayerId;
use crate::layout::Store;

/// In front of the boot in which a layer's files came, where its tree had been synced before.
pub(crate) const UNSYNCED_FILES: &str = "files ";

impl Store {
    /// Whether the layer is there, packed or not.
    pub fn has_layer(&self, id: &LayerId) -> bool {
        self.has_files(id) || self.is_packed(id)
    }

    fn is_packed(&self, id: &LayerId) -> bool {
        let dir = self.layer_dir(id);
        dir.join("tree").is_file() && !dir.join("fs").exists() && self.layer_base(id).is_none()
    }

    /// A blob that a packed layer's files can be unpacked from, if there is one.
    pub fn lazy_blob(&self, id: &LayerId) -> Result<Option<Blob>, StoreError> {
        if !self.is_packed(id) {
            return Ok(None);
        }
        let forms: Vec<(String, String)> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT blobs.diff_id, blobs.variant FROM blobs JOIN diffs ON diffs.diff_id = blobs.diff_id \
                 WHERE diffs.layer = ?1 AND blobs.variant NOT LIKE 'to-%' ORDER BY blobs.variant = 'original' DESC",
            )?
            .query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })?;
        for (diff_id, variant) in forms {
            let Ok(diff_id) = diff_id.parse().map(DiffId) else { continue };
            if let Some(blob) = self.layer_blob(&diff_id, &variant)? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Whether the layer's files are there or can be unpacked.
    pub(crate) fn is_available(&self, id: &LayerId) -> Result<bool, StoreError> {
        Ok(self.has_files(id) || self.lazy_blob(id)?.is_some())
    }

    /// Puts files beside the tree of a packed layer.
    pub(crate) fn put_files(&self, id: &LayerId, files: &Path) -> Result<(), StoreError> {
        if !self.is_packed(id) || !files.is_dir() {
            return Ok(());
        }
        // Noted first, as for a whole layer: see `Store::drop_unsynced`.
        self.with_db(|db| {
            db.prepare_cached("UPDATE layers SET unsynced = ?2 WHERE id = ?1 AND unsynced IS NULL")?
                .execute([id.as_str(), &format!("{UNSYNCED_FILES}{}", boot_id())])
                .map(drop)
        })?;
        self.take_note(id, files)?;
        let target = self.layer_dir(id).join("fs");
        match fs::rename(files, &target) {
            // Somebody else was as quick.
            Err(_) if self.has_files(id) => Ok(()),
            renamed => renamed.map_err(io_error("move a layer's files to", &target)),
        }
    }

    /// Packed layers whose blobs are gone.
    pub(crate) fn unreachable(&self) -> Result<Vec<LayerId>, StoreError> {
        let mut found = Vec::new();
        for id in self.layers_on_disk()? {
            if self.is_packed(&id) && !self.has_lasting_blob(&id)? {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Whether a layer is packed and its blob is gone.
    pub(crate) fn is_lost(&self, id: &LayerId) -> Result<bool, StoreError> {
        Ok(self.is_packed(id) && !self.has_lasting_blob(id)?)
    }

    /// Whether one of the blobs that a packed layer's files are in is there and not tombstoned. Takes none back.
    fn has_lasting_blob(&self, id: &LayerId) -> Result<bool, StoreError> {
        let digests: Vec<String> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT blobs.digest FROM blobs JOIN diffs ON diffs.diff_id = blobs.diff_id \
                 WHERE diffs.layer = ?1 AND blobs.variant NOT LIKE 'to-%' \
                 AND blobs.digest NOT IN (SELECT digest FROM condemned_blobs)",
            )?
            .query_map([id.as_str()], |row| row.get(0))?
            .collect()
        })?;
        let mut digests = digests.iter().filter_map(|digest| digest.parse().ok());
        Ok(digests.any(|digest| self.blob_path(&digest).is_file()))
    }

    /// A layer that was packed when it was last synced is so again.
    pub(crate) fn drop_files(&self, id: &str) -> Result<(), StoreError> {
        if let Ok(layer) = id.parse() {
            self.move_away(&self.layer_dir(&layer).join("fs"))?;
        }
        self.with_db(|db| db.execute("UPDATE layers SET unsynced = NULL WHERE id = ?1", [id]).map(drop))
    }
}
