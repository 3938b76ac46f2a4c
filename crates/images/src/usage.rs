//! The room that images and the build cache take.

use std::collections::{BTreeMap, BTreeSet};

use lapstrake_diag::Outcome;
use lapstrake_store::{ImageRow, Item, ItemKind, Store};

/// The room that things of one kind take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Docker's name for the kind.
    pub kind: &'static str,
    /// How many there are.
    pub total: usize,
    /// How many of them something needs.
    pub active: usize,
    /// Their bytes.
    pub size: u64,
    /// The bytes of them that pruning would free.
    pub reclaimable: u64,
}

/// An image, and the room that it takes.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub row: ImageRow,
    /// The names of the image, as Docker writes them.
    pub names: Vec<String>,
    /// The bytes of all layers of the image.
    pub size: u64,
    /// The bytes on the disk that no other image needs.
    pub unique: u64,
}

/// The room that each image takes; `items` is what [`Store::items`] gives.
///
/// # Errors
/// The state directory cannot be read.
pub fn image_usage(store: &Store, items: &[Item]) -> Outcome<Vec<ImageUsage>> {
    let layers_on_disk = items.iter().filter(|item| item.kind == ItemKind::Layer);
    let room: BTreeMap<&str, u64> = layers_on_disk.map(|item| (item.id.as_str(), item.size)).collect();
    let (rows, tags) = (store.images()?, store.tags()?);
    let mut layers = Vec::new();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        let ids: BTreeSet<_> = row.layers.iter().map(|layer| layer.id.clone()).collect();
        for id in &ids {
            *owners.entry(id.to_string()).or_default() += 1;
        }
        layers.push(ids);
    }
    let mut usage = Vec::new();
    for (row, ids) in rows.into_iter().zip(layers) {
        let (mut size, mut unique) = (0, 0);
        for id in ids {
            size += store.layer(&id)?.map_or(0, |layer| layer.size);
            let own = room.get(id.as_str()).filter(|_| owners.get(id.as_str()) == Some(&1));
            unique += own.copied().unwrap_or(0);
        }
        let names = tags.iter().filter(|tag| tag.image == row.id).map(|tag| tag.reference.familiar());
        usage.push(ImageUsage { names: names.collect(), row, size, unique });
    }
    Ok(usage)
}

/// The room that images, the build cache and cache directories take together.
#[must_use]
pub fn usage(items: &[Item], images: &[ImageUsage]) -> Vec<Usage> {
    let shared = |item: &&Item| item.shared && item.kind == ItemKind::Layer;
    let of_images: u64 = items.iter().filter(shared).map(|item| item.size).sum();
    let mut rows = vec![Usage {
        kind: "Images",
        total: images.len(),
        active: images.iter().filter(|image| !image.names.is_empty()).count(),
        size: of_images,
        reclaimable: images.iter().filter(|image| image.names.is_empty()).map(|image| image.unique).sum(),
    }];
    let kinds = [
        ("Build Cache", &[ItemKind::Layer, ItemKind::Blob, ItemKind::Context][..]),
        ("Cache Mounts", &[ItemKind::CacheMount][..]),
    ];
    for (kind, kinds) in kinds {
        let mine = || items.iter().filter(|item| kinds.contains(&item.kind) && !shared(item));
        let sum =
            |shared: bool| mine().filter(|item| !shared || item.shared).map(|item| item.size).sum::<u64>();
        rows.push(Usage {
            kind,
            total: mine().count(),
            active: mine().filter(|item| item.shared).count(),
            size: sum(false),
            reclaimable: sum(false) - sum(true),
        });
    }
    rows
}
