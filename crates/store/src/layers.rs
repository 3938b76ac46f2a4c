//! Layers: a directory of files in overlay format and the encoded tree that describes it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lapstrake_oci::DiffId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::boot::boot_id;
use crate::db::now;
use crate::error::{StoreError, io_error};
use crate::files;
use crate::layer_id::LayerId;
use crate::layout::Store;

/// How large a layer is, in bytes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSize {
    /// All that it shows.
    pub files: u64,
    /// What it takes on the disk where that is less, because it is changes to another layer.
    pub own: Option<u64>,
}

/// What is known of a layer without reading its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRow {
    /// The digest of its canonical tar, once somebody needed it.
    pub diff_id: Option<DiffId>,
    /// The bytes of its files.
    pub size: u64,
    /// The digest of its content without times.
    pub content: [u8; 32],
    /// When it was made, seconds since the Unix epoch.
    pub created: i64,
}

impl Store {
    pub(crate) fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.root().join("layers").join(id.as_str())
    }

    /// What is known of a layer; `None` if it is not there.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerRow>, StoreError> {
        if !self.has_layer(id) {
            return Ok(None);
        }
        self.with_db(|db| row(db, id))
    }

    /// The rows of these layers, in their order, by one query.
    pub fn layers<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a LayerId>,
    ) -> Result<Vec<LayerRow>, StoreError> {
        let ids: Vec<&LayerId> = ids.into_iter().collect();
        let rows: HashMap<String, LayerRow> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT diff_id, size, content, created, id FROM layers \
                 WHERE id IN (SELECT value FROM json_each(?1))",
            )?
            .query_map([id_list(ids.iter().copied())], |row| Ok((row.get(4)?, layer_row(row)?)))?
            .collect()
        })?;
        let known = |id: &&LayerId| rows.get(id.as_str()).filter(|_| self.has_layer(id)).cloned();
        let missing = |id: &LayerId| StoreError::Missing { what: "layer", name: id.to_string() };
        ids.iter().map(|id| known(id).ok_or_else(|| missing(id))).collect()
    }

    /// The encoded tree of a layer.
    pub fn layer_tree(&self, id: &LayerId) -> Result<Vec<u8>, StoreError> {
        let path = self.layer_dir(id).join("tree");
        files::read(&path).map_err(io_error("read", &path))
    }

    /// Takes in a layer: `dir` (in `tmp/`) has its files in `fs/`, or none if it is packed, or it was made a patch by
    /// [`Store::make_delta`]; `tree` writes its encoded tree. If the layer is there already, `dir` is dropped, but for the
    /// files of one that was packed.
    pub fn put_layer(
        &self,
        id: &LayerId,
        dir: &Path,
        tree: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
        content: [u8; 32],
        size: LayerSize,
    ) -> Result<(), StoreError> {
        // If it is there already, this one is dropped.
        let base = if self.has_layer(id) { self.layer_base(id) } else { base_of(dir) };
        // The row comes first: a row without a directory is no layer, a directory without a row would stay for ever.
        self.with_db(|db| {
            db.prepare_cached(
                "INSERT INTO layers (id, size, content, created, used, unsynced, base, own) \
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7) \
                 ON CONFLICT (id) DO UPDATE SET condemned = NULL, base = excluded.base, own = excluded.own \
                 WHERE condemned IS NOT NULL OR base IS NOT excluded.base",
            )?
            .execute(params![
                id.as_str(),
                signed(size.files),
                content.as_slice(),
                now(),
                Some(boot_id()).filter(|boot| !boot.is_empty()),
                base.as_ref().map(LayerId::as_str),
                size.own.filter(|_| base.is_some()).map(signed)
            ])
        })?;
        if self.has_files(id) {
            return self.note_base(id);
        }
        let (tree_path, target) = (dir.join("tree"), self.layer_dir(id));
        let written = files::create(&tree_path).and_then(|mut file| tree(&mut file));
        written.map_err(io_error("write", &tree_path))?;
        match fs::rename(dir, &target) {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                self.put_files(id, &dir.join("fs"))?;
                self.note_base(id)
            }
            Err(error) => Err(io_error("move a layer to", &target)(error)),
        }
    }

    /// Keeps states of the hash of a layer's tar. They are only ever a help, so nothing that goes wrong matters.
    pub fn keep_hash_states(&self, id: &LayerId, states: &[u8]) {
        let path = self.layer_dir(id).join(HASH_STATES);
        let Ok(temporary) = self.temp_path() else { return };
        let Some(dir) = temporary.parent() else { return };
        lapstrake_sys::persist::replace(&path, dir, states).unwrap_or_default();
    }

    /// The states that were kept by [`Store::keep_hash_states`]; whether they are whole is for the reader to find out.
    pub fn hash_states(&self, id: &LayerId) -> Option<Vec<u8>> {
        files::read(&self.layer_dir(id).join(HASH_STATES)).ok()
    }

    /// Remembers the digest of a layer's canonical tar.
    pub fn set_diff_id(&self, id: &LayerId, diff_id: &DiffId) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached("UPDATE layers SET diff_id = ?2 WHERE id = ?1")?
                .execute([id.as_str(), &diff_id.to_string()])
        })?;
        self.link_diff(diff_id, id)
    }

    /// The layer was made at `created`, seconds since the Unix epoch, if that is earlier than what is known.
    pub fn set_created(&self, id: &LayerId, created: i64) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached("UPDATE layers SET created = ?2 WHERE id = ?1 AND created > ?2")?
                .execute(params![id.as_str(), created])
                .map(drop)
        })
    }

    /// Remembers that the tar with `diff_id` unpacks to the layer `id`.
    pub fn link_diff(&self, diff_id: &DiffId, id: &LayerId) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO diffs (diff_id, layer) VALUES (?1, ?2)")?
                .execute([&diff_id.to_string(), id.as_str()])
                .map(drop)
        })
    }

    /// The layer that the tar with `diff_id` unpacks to, if it is there.
    pub fn layer_of_diff(&self, diff_id: &DiffId) -> Result<Option<LayerId>, StoreError> {
        let found: Option<String> = self.with_db(|db| {
            // A pruned layer is told to those only who had it before.
            db.prepare_cached(
                "SELECT layer FROM diffs WHERE diff_id = ?1 AND NOT EXISTS \
                 (SELECT 1 FROM layers WHERE id = diffs.layer AND condemned IS NOT NULL)",
            )?
            .query_row([diff_id.to_string()], |row| row.get(0))
            .optional()
        })?;
        let found: Option<LayerId> = found.and_then(|text| text.parse().ok());
        match found {
            Some(id) if self.is_available(&id)? && self.protect_layer(&id)? => Ok(Some(id)),
            _ => Ok(None),
        }
    }
}

/// In a layer's directory: states of the hash of its tar.
const HASH_STATES: &str = "hash-states";

/// In a layer's directory: the name of the layer that it is changes to.
pub(crate) const BASE: &str = "base";

/// What the layer in `dir` lies on.
pub(crate) fn base_of(dir: &Path) -> Option<LayerId> {
    files::read_to_string(&dir.join(BASE)).ok()?.parse().ok()
}

/// Ids as one parameter of a query: `json_each` makes rows of it.
pub(crate) fn id_list<'a>(ids: impl IntoIterator<Item = &'a LayerId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", ids.join(","))
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn row(db: &Connection, id: &LayerId) -> rusqlite::Result<Option<LayerRow>> {
    db.prepare_cached("SELECT diff_id, size, content, created FROM layers WHERE id = ?1")?
        .query_row([id.as_str()], layer_row)
        .optional()
}

fn layer_row(row: &Row<'_>) -> rusqlite::Result<LayerRow> {
    let diff_id: Option<String> = row.get(0)?;
    Ok(LayerRow {
        diff_id: diff_id.and_then(|text| text.parse().ok()).map(DiffId),
        size: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        content: row.get(2)?,
        created: row.get(3)?,
    })
}
