//! Everything that takes room, from the database.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Item, ItemKind};
use crate::error::{StoreError, io_error};
use crate::layout::Store;
use crate::relations::{image_needs, record_needs};

/// The step that made a layer, and how many layers its result has: as the record with the highest key says.
type Steps = BTreeMap<String, (String, u32)>;

/// The step that made each layer: that of the record with the highest key, of those whose result has it on top.
pub(crate) const STEPS: &str = "
SELECT stacks.layer, records.step, stacks.depth, max(records.key) FROM stacks
CROSS JOIN records ON records.stack = stacks.id WHERE records.step IS NOT NULL GROUP BY stacks.layer";

impl Store {
    /// Everything that takes room. Layers of images are among it, and are `shared`.
    pub fn items(&self) -> Result<Vec<Item>, StoreError> {
        let mut items = self.layer_items()?;
        items.extend(self.blob_items()?);
        items.extend(self.mount_items()?);
        items.extend(self.context_items()?);
        Ok(items)
    }

    fn steps(&self) -> Result<Steps, StoreError> {
        self.with_db(|db| {
            db.prepare(STEPS)?.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
        })
    }

    fn layer_items(&self) -> Result<Vec<Item>, StoreError> {
        let steps = self.steps()?;
        let (shared, recorded) = (image_needs("layers.id"), record_needs("layers.id"));
        self.with_db(|db| {
            let mut statement = db.prepare(&format!(
                "SELECT id, coalesce(own, size), created, \
                 max(used, created, coalesce((SELECT max(max(above.used, above.created)) FROM layers AS above \
                 WHERE above.base = layers.id AND above.condemned IS NULL), 0)), uses, {shared}, {recorded} \
                 FROM layers WHERE condemned IS NULL"
            ))?;
            let rows = statement.query_map([], |row| {
                let id: String = row.get(0)?;
                let (description, depth) = steps.get(&id).cloned().unwrap_or_default();
                Ok(Item {
                    kind: ItemKind::Layer,
                    shared: row.get(5)?,
                    recorded: row.get(6)?,
                    id,
                    size: unsigned(row.get(1)?),
                    created: row.get(2)?,
                    used: row.get(3)?,
                    uses: unsigned(row.get(4)?),
                    depth,
                    description,
                })
            })?;
            rows.map(|row| row.map(|item| self.with_room(item))).collect()
        })
    }

    /// A packed layer takes no room: its blob does.
    fn with_room(&self, item: Item) -> Item {
        let packed = item.id.parse().is_ok_and(|id| !self.has_files(&id));
        Item { size: if packed { 0 } else { item.size }, ..item }
    }

    /// Layers' tars. An image has those of its layers, whichever form they are in.
    fn blob_items(&self) -> Result<Vec<Item>, StoreError> {
        let (shared, recorded) = (image_needs("diffs.layer"), record_needs("diffs.layer"));
        let rows: Vec<(String, i64, String, bool, bool)> = self.with_db(|db| {
            let mut statement = db.prepare(&format!(
                "SELECT blobs.digest, blobs.size, blobs.variant, {shared}, {recorded} FROM blobs \
                 LEFT JOIN diffs ON diffs.diff_id = blobs.diff_id \
                 WHERE blobs.digest NOT IN (SELECT digest FROM condemned_blobs)"
            ))?;
            let rows = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
            rows.collect()
        })?;
        let mut items = BTreeMap::new();
        for (digest, size, variant, shared, recorded) in rows {
            let Ok(parsed) = digest.parse() else { continue };
            let Ok(file) = fs::metadata(self.blob_path(&parsed)) else { continue };
            let (used, size) = (file.mtime(), unsigned(size));
            let description = format!("layer as {variant}");
            let kind = ItemKind::Blob;
            let item = Item {
                kind,
                id: digest.clone(),
                size,
                created: used,
                used,
                uses: 0,
                shared,
                recorded,
                depth: 0,
                description,
            };
            items.insert(digest, item);
        }
        Ok(items.into_values().collect())
    }

    fn mount_items(&self) -> Result<Vec<Item>, StoreError> {
        self.with_db(|db| {
            let mut statement = db.prepare("SELECT name, size, created, used, uses, identity FROM mounts")?;
            let rows = statement.query_map([], |row| {
                Ok(Item {
                    kind: ItemKind::CacheMount,
                    id: row.get(0)?,
                    size: unsigned(row.get(1)?),
                    created: row.get(2)?,
                    used: row.get(3)?,
                    uses: unsigned(row.get(4)?),
                    shared: false,
                    recorded: true,
                    depth: 0,
                    description: format!("cache directory {}", row.get::<_, String>(5)?),
                })
            })?;
            rows.collect()
        })
    }

    fn context_items(&self) -> Result<Vec<Item>, StoreError> {
        let contexts = self.root().join("contexts");
        let mut items = Vec::new();
        for entry in fs::read_dir(&contexts).map_err(io_error("list", &contexts))?.flatten() {
            let (Ok(meta), Ok(id)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
            items.push(Item {
                kind: ItemKind::Context,
                id,
                size: meta.len(),
                created: meta.mtime(),
                used: meta.mtime(),
                uses: 0,
                shared: false,
                recorded: true,
                depth: 0,
                description: "stat index of a build context".to_owned(),
            });
        }
        Ok(items)
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
