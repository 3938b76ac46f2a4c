//! What there is, what of it has to go, and how it goes.
//!
//! Sizes were recorded when things were made, so nobody walks a tree to know them. What goes is first tombstoned, in one
//! transaction with the records that name it; its files are removed by [`Store::reclaim`] once nobody is left who may be
//! using them (see [`crate::epochs`]). A process that comes to need a tombstoned thing in between takes it back.
//! Whoever is killed on the way leaves tombstoned things, which the next one removes.

mod collect;
mod generations;
mod items;
pub(crate) mod policy;

use std::collections::BTreeSet;

use lapstrake_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::db::now;
use crate::error::StoreError;
use crate::layer_id::LayerId;
use crate::layers::id_list;
use crate::layout::Store;

pub use collect::Reclaimed;
pub(crate) use collect::{space_of, tombstone_blob_unless_named};
pub use generations::StoreUse;
#[cfg(test)]
pub(crate) use items::STEPS;

/// What kinds of things can be pruned. Their names are BuildKit's record types, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A layer: the result of a step, or of somebody else's image.
    Layer,
    /// A layer's tar, or a config or manifest, as it goes to a registry.
    Blob,
    /// A directory of `RUN --mount=type=cache`.
    CacheMount,
    /// The stat index of a build context.
    Context,
}

impl ItemKind {
    /// All of them.
    pub const ALL: [ItemKind; 4] = [ItemKind::Layer, ItemKind::Blob, ItemKind::CacheMount, ItemKind::Context];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            ItemKind::Layer => "regular",
            ItemKind::Blob => "blob",
            ItemKind::CacheMount => "exec.cachemount",
            ItemKind::Context => "source.local",
        }
    }
}

/// Something that takes room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its name in the store.
    pub id: String,
    /// In bytes.
    pub size: u64,
    /// When it was made, seconds since the Unix epoch.
    pub created: i64,
    /// When somebody last used it.
    pub used: i64,
    /// How often.
    pub uses: u64,
    /// Whether an image has it: then it does not go before the image does.
    pub shared: bool,
    /// Whether the build cache has it.
    pub recorded: bool,
    /// How many layers it stands on, as far as records say.
    pub depth: u32,
    /// The step that made it, or what it is for.
    pub description: String,
}

/// Takes back a layer and what it lies on.
const SPARE: &str = "UPDATE layers SET condemned = NULL \
                     WHERE (id = ?1 OR id = (SELECT base FROM layers WHERE id = ?1)) AND condemned IS NOT NULL";

/// Takes back the blobs that a layer's files may still be packed in.
const SPARE_PACKED: &str = "DELETE FROM condemned_blobs WHERE digest IN \
                            (SELECT blobs.digest FROM blobs JOIN diffs ON diffs.diff_id = blobs.diff_id \
                            WHERE diffs.layer = ?1)";

impl Store {
    /// Remembers that these layers were used now. Writes only what the last hour does not say already.
    pub fn touch_layers(&self, ids: &BTreeSet<LayerId>) -> Result<(), StoreError> {
        let now = now();
        let due: Vec<String> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT id FROM layers WHERE used < ?2 AND id IN (SELECT value FROM json_each(?1))",
            )?
            .query_map(params![id_list(ids), now - 3_600], |row| row.get(0))?
            .collect()
        })?;
        if due.is_empty() {
            return Ok(());
        }
        self.with_db(|db| {
            let change = db.transaction()?;
            for id in due {
                change
                    .prepare_cached("UPDATE layers SET used = ?2, uses = uses + 1 WHERE id = ?1")?
                    .execute(params![id, now])?;
            }
            change.commit()
        })
    }

    /// Whether the layer may be relied on; takes it back if it, or what it lies on, was tombstoned.
    pub fn protect_layer(&self, id: &LayerId) -> Result<bool, StoreError> {
        self.with_db(|db| {
            let condemned = |db: &Connection| {
                db.prepare_cached(
                    "SELECT condemned IS NOT NULL OR EXISTS (SELECT 1 FROM layers AS below \
                     WHERE below.id = layers.base AND below.condemned IS NOT NULL) FROM layers WHERE id = ?1",
                )?
                .query_row([id.as_str()], |row| row.get(0))
                .optional()
            };
            if condemned(db)? == Some(true) {
                db.execute(SPARE, [id.as_str()])?;
                db.execute(SPARE_PACKED, [id.as_str()])?;
            }
            // It may have gone in between.
            Ok(condemned(db)? == Some(false))
        })
    }

    /// The layers that were pruned and are there yet for who uses them.
    pub fn tombstoned_layers(&self) -> Result<BTreeSet<LayerId>, StoreError> {
        let ids: Vec<String> = self.with_db(|db| {
            db.prepare("SELECT id FROM layers WHERE condemned IS NOT NULL")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Takes a blob back if it was tombstoned; it is still to be checked whether its file is there.
    pub(crate) fn protect_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.with_db(|db| {
            let digest = digest.to_string();
            let condemned =
                db.prepare_cached("SELECT 1 FROM condemned_blobs WHERE digest = ?1")?.exists([&digest])?;
            if condemned {
                db.execute("DELETE FROM condemned_blobs WHERE digest = ?1", [&digest])?;
            }
            Ok(true)
        })
    }
}

/// Takes back those of these layers that are tombstoned, as part of `change`: a process that names a layer has it in use,
/// so its files are still there.
pub(crate) fn protect_named<'a>(
    change: &Transaction<'_>,
    layers: impl IntoIterator<Item = &'a LayerId>,
) -> rusqlite::Result<()> {
    let any: bool = change
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM layers WHERE condemned IS NOT NULL) OR \
             EXISTS (SELECT 1 FROM condemned_blobs)",
        )?
        .query_row([], |row| row.get(0))?;
    if !any {
        return Ok(());
    }
    let mut spare = change.prepare_cached(SPARE)?;
    let mut blobs = change.prepare_cached(SPARE_PACKED)?;
    for id in layers {
        spare.execute([id.as_str()])?;
        blobs.execute([id.as_str()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
