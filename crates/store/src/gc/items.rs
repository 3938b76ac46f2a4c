//! Everything that takes room, from the database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use super::{Item, ItemKind, layer_ids};
use crate::error::{StoreError, io_error};
use crate::layout::Store;

/// What the records say of layers.
#[derive(Default)]
pub(super) struct Named {
    /// The keys of the records that name a layer.
    pub(super) records: BTreeMap<String, Vec<Vec<u8>>>,
    /// The step that made a layer, and how many layers are below it.
    steps: BTreeMap<String, (String, u32)>,
}

impl Store {
    /// Everything that takes room. Layers of images are among it, and are `shared`.
    pub fn items(&self) -> Result<Vec<Item>, StoreError> {
        let named = self.named()?;
        let images = self.image_layers()?;
        let mut items = self.layer_items(&named, &images)?;
        items.extend(self.blob_items(&named, &images)?);
        items.extend(self.mount_items()?);
        items.extend(self.context_items()?);
        Ok(items)
    }

    /// The ids of the layers of images, and what their tars are called.
    pub(super) fn image_layers(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut all = BTreeSet::new();
        let bases = self.bases()?;
        for image in self.images()? {
            for id in layer_ids(&image.layers) {
                all.extend([id].into_iter().chain(bases.get(id).map(String::as_str)).map(str::to_owned));
            }
        }
        Ok(all)
    }

    pub(super) fn named(&self) -> Result<Named, StoreError> {
        let bases = self.bases()?;
        self.with_db(|db| {
            let mut statement = db.prepare("SELECT key, CAST(value AS TEXT) FROM records1")?;
            let mut rows = statement.query([])?;
            let mut named = Named::default();
            while let Some(row) = rows.next()? {
                let key: Vec<u8> = row.get(0)?;
                let text = row.get_ref(1)?.as_str().unwrap_or_default();
                for id in layer_ids(text) {
                    for id in [id].into_iter().chain(bases.get(id).map(String::as_str)) {
                        named.records.entry(id.to_owned()).or_default().push(key.clone());
                    }
                }
                let record: Value = serde_json::from_str(text).unwrap_or_default();
                let token = record["result"]["token"].as_str().unwrap_or_default();
                let layers: Vec<&str> = layer_ids(token).collect();
                if let (Some(top), Some(name)) = (layers.last(), record["name"].as_str()) {
                    let depth = u32::try_from(layers.len()).unwrap_or(u32::MAX);
                    named.steps.insert((*top).to_owned(), (name.to_owned(), depth));
                }
            }
            Ok(named)
        })
    }

    fn layer_items(&self, named: &Named, images: &BTreeSet<String>) -> Result<Vec<Item>, StoreError> {
        self.with_db(|db| {
            let mut statement = db.prepare(
                "SELECT id, coalesce(own, size), created, \
                 max(used, created, coalesce((SELECT max(max(above.used, above.created)) FROM layers AS above \
                 WHERE above.base = layers.id AND above.condemned IS NULL), 0)), uses \
                 FROM layers WHERE condemned IS NULL",
            )?;
            let rows = statement.query_map([], |row| {
                let id: String = row.get(0)?;
                let (description, depth) = named.steps.get(&id).cloned().unwrap_or_default();
                Ok(Item {
                    kind: ItemKind::Layer,
                    shared: images.contains(&id),
                    recorded: named.records.contains_key(&id),
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
    fn blob_items(&self, named: &Named, images: &BTreeSet<String>) -> Result<Vec<Item>, StoreError> {
        let rows: Vec<(String, i64, String, Option<String>)> = self.with_db(|db| {
            let mut statement = db.prepare(
                "SELECT blobs.digest, blobs.size, blobs.variant, diffs.layer FROM blobs \
                 LEFT JOIN diffs ON diffs.diff_id = blobs.diff_id \
                 WHERE blobs.digest NOT IN (SELECT digest FROM condemned_blobs)",
            )?;
            let rows =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            rows.collect()
        })?;
        let mut items = BTreeMap::new();
        for (digest, size, variant, layer) in rows {
            let Ok(parsed) = digest.parse() else { continue };
            let Ok(file) = fs::metadata(self.blob_path(&parsed)) else { continue };
            let shared = layer.as_ref().is_some_and(|layer| images.contains(layer));
            let recorded = layer.is_some_and(|layer| named.records.contains_key(&layer));
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
