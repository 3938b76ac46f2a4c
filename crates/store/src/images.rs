//! Images and their tags.
//!
//! An image is its config's digest. Its layers are rows of their own: see [`crate::relations`].

use lapstrake_oci::{Digest, Reference};
use rusqlite::{OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::db::now;
use crate::error::StoreError;
use crate::gc;
use crate::layer_id::StackLayer;
use crate::layout::Store;
use crate::relations::{image_layers, parsed, put_image_layers};

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// The digest of its config: the image id.
    pub id: Digest,
    /// The digest of the manifest that it was pulled by.
    pub manifest: Option<Digest>,
    /// Its layers, lowest first.
    pub layers: Vec<StackLayer>,
    /// The bytes of its files.
    pub size: u64,
    /// When it was stored, seconds since the Unix epoch.
    pub stored: i64,
}

/// A name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRow {
    /// The name.
    pub reference: Reference,
    /// The id of the image.
    pub image: Digest,
}

impl Store {
    /// Stores an image and gives it these names, all or nothing. Says whether anything changed.
    pub fn put_image(&self, image: &ImageRow, names: &[Reference]) -> Result<bool, StoreError> {
        self.put_variants(std::slice::from_ref(image), 0, names)
    }

    /// Stores an image for several platforms, and gives them these names together, all or nothing. Where somebody means one
    /// of them and does not say which, it is the one at `main`. Says whether anything changed.
    pub fn put_variants(
        &self,
        images: &[ImageRow],
        main: usize,
        names: &[Reference],
    ) -> Result<bool, StoreError> {
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = 0;
            for image in images {
                changed += put_row(&change, image)?;
                let manifest = image.manifest.as_ref().map(ToString::to_string);
                change
                    .prepare_cached("DELETE FROM condemned_blobs WHERE digest IN (?1, ?2)")?
                    .execute(params![image.id.to_string(), manifest])?;
            }
            for name in names {
                changed += put_name(&change, &name.to_string(), (images, main))?;
            }
            gc::protect_named(&change, images.iter().flat_map(|image| &image.layers).map(|layer| &layer.id))?;
            change.commit()?;
            Ok(changed > 0)
        })
    }

    /// The images for all platforms that have exactly this name, in the order in which they were given it.
    pub fn variants(&self, name: &Reference) -> Result<Vec<Digest>, StoreError> {
        let Some(main) = self.tagged(name)? else { return Ok(Vec::new()) };
        let others: Vec<(u32, Digest)> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT place, image FROM variants WHERE reference = ?1 AND main = ?2 ORDER BY place",
            )?
            .query_map([name.to_string(), main.to_string()], |row| {
                Ok((row.get(0)?, parsed(1, &row.get::<_, String>(1)?)?))
            })?
            .collect()
        })?;
        // The place that none of the others has is that of the main one.
        let place = others.iter().zip(0..).position(|((place, _), at)| at != *place).unwrap_or(others.len());
        let mut all: Vec<Digest> = others.into_iter().map(|(_, image)| image).collect();
        all.insert(place, main);
        Ok(all)
    }

    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageRow>, StoreError> {
        self.with_db(|db| {
            let mut images: Vec<ImageRow> = db
                .prepare("SELECT id, manifest, size, stored FROM images ORDER BY stored DESC, id")?
                .query_map([], image_row)?
                .collect::<rusqlite::Result<_>>()?;
            for image in &mut images {
                image.layers = image_layers(db, &image.id.to_string())?;
            }
            Ok(images)
        })
    }

    /// The image `id`.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRow>, StoreError> {
        self.image_where("id", id)
    }

    /// The image pulled by the manifest `digest`.
    pub fn image_by_manifest(&self, digest: &Digest) -> Result<Option<ImageRow>, StoreError> {
        self.image_where("manifest", digest)
    }

    fn image_where(&self, column: &str, digest: &Digest) -> Result<Option<ImageRow>, StoreError> {
        let query = format!("SELECT id, manifest, size, stored FROM images WHERE {column} = ?1");
        self.with_db(|db| {
            let found = db.prepare_cached(&query)?.query_row([digest.to_string()], image_row).optional()?;
            let Some(image) = found else { return Ok(None) };
            let layers = image_layers(db, &image.id.to_string())?;
            Ok(Some(ImageRow { layers, ..image }))
        })
    }

    /// All names, sorted. One that several images have for several platforms is there with each of them.
    pub fn tags(&self) -> Result<Vec<TagRow>, StoreError> {
        self.with_db(|db| {
            db.prepare("SELECT reference, image FROM tags UNION SELECT tags.reference, variants.image FROM tags JOIN variants ON tags.reference = variants.reference AND tags.image = variants.main ORDER BY reference")?
                .query_map([], tag_row)?
                .collect()
        })
    }

    /// The image with exactly this name.
    pub fn tagged(&self, name: &Reference) -> Result<Option<Digest>, StoreError> {
        let row = self.with_db(|db| {
            db.prepare_cached("SELECT reference, image FROM tags WHERE reference = ?1")?
                .query_row([name.to_string()], tag_row)
                .optional()
        })?;
        Ok(row.map(|row| row.image))
    }

    /// Takes a name away, with a tag or a digest, from all that have it; says whether there was one.
    pub fn untag(&self, name: &Reference) -> Result<bool, StoreError> {
        let table = if name.digest().is_some() { "digests" } else { "tags" };
        let delete = format!("DELETE FROM {table} WHERE reference = ?1");
        self.with_db(|db| Ok(db.execute(&delete, [name.to_string()])? > 0))
    }

    /// Remembers that `name`, which has a digest and no tag, is this image: a registry said so.
    pub fn set_digest(&self, name: &Reference, image: &Digest) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO digests (reference, image) VALUES (?1, ?2)")?
                .execute([name.to_string(), image.to_string()])
                .map(drop)
        })
    }

    /// All names with digests, sorted.
    pub fn digests(&self) -> Result<Vec<TagRow>, StoreError> {
        self.with_db(|db| {
            db.prepare("SELECT reference, image FROM digests ORDER BY reference")?
                .query_map([], tag_row)?
                .collect()
        })
    }

    /// The image that `name`, which has a digest and no tag, was told to be.
    pub fn by_digest(&self, name: &Reference) -> Result<Option<Digest>, StoreError> {
        let row = self.with_db(|db| {
            db.prepare_cached("SELECT reference, image FROM digests WHERE reference = ?1")?
                .query_row([name.to_string()], tag_row)
                .optional()
        })?;
        Ok(row.map(|row| row.image))
    }

    /// Forgets an image and all of its names. Its layers stay, as cache.
    pub fn remove_image(&self, id: &Digest) -> Result<(), StoreError> {
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change.execute("DELETE FROM variants WHERE image = ?1", [id.to_string()])?;
            promote(&change, &id.to_string())?;
            change.execute("DELETE FROM tags WHERE image = ?1", [id.to_string()])?;
            change.execute("DELETE FROM digests WHERE image = ?1", [id.to_string()])?;
            let manifest: Option<String> = change
                .query_row("SELECT manifest FROM images WHERE id = ?1", [id.to_string()], |row| row.get(0))
                .optional()?
                .flatten();
            change.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])?;
            change.execute("DELETE FROM image_layers WHERE image = ?1", [id.to_string()])?;
            for document in [Some(id.to_string()), manifest].into_iter().flatten() {
                gc::tombstone_blob_unless_named(&change, &document)?;
            }
            change.commit()
        })
    }
}

fn put_row(change: &Transaction<'_>, image: &ImageRow) -> rusqlite::Result<usize> {
    let id = image.id.to_string();
    let changed = change
        .prepare_cached("INSERT INTO images (id, manifest, size, stored) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest) WHERE manifest IS NOT coalesce(excluded.manifest, manifest)")?
        .execute(params![
            id,
            image.manifest.as_ref().map(ToString::to_string),
            i64::try_from(image.size).unwrap_or(i64::MAX),
            now()
        ])?;
    Ok(changed + usize::from(put_image_layers(change, &id, &image.layers)?))
}

/// Gives all of `images` the name, and takes it from all others.
fn put_name(
    change: &Transaction<'_>,
    name: &str,
    (images, main): (&[ImageRow], usize),
) -> rusqlite::Result<usize> {
    let id = images[main].id.to_string();
    let mut changed = change
        .prepare_cached("INSERT INTO tags (reference, image, stored) VALUES (?1, ?2, ?3) ON CONFLICT (reference) DO UPDATE SET image = excluded.image, stored = excluded.stored WHERE image <> excluded.image")?
        .execute(params![name, id, now()])?;
    // Where the main one is there is no row.
    changed += change
        .prepare_cached("DELETE FROM variants WHERE reference = ?1 AND (place = ?2 OR place >= ?3)")?
        .execute(params![name, number(main), number(images.len())])?;
    for (place, other) in images.iter().enumerate().filter(|(place, _)| *place != main) {
        changed += change
            .prepare_cached("INSERT INTO variants (reference, place, main, image) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (reference, place) DO UPDATE SET main = excluded.main, image = excluded.image WHERE main <> excluded.main OR image <> excluded.image")?
            .execute(params![name, number(place), id, other.id.to_string()])?;
    }
    Ok(changed)
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Where the image `gone` was the one that a name meant, the next one that has the name takes its place.
fn promote(change: &Transaction<'_>, gone: &str) -> rusqlite::Result<()> {
    let heirs: Vec<(String, String)> = change
        .prepare("SELECT variants.reference, variants.image, min(place) FROM variants JOIN tags ON tags.reference = variants.reference AND tags.image = main WHERE main = ?1 GROUP BY variants.reference")?
        .query_map([gone], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, heir) in heirs {
        change.execute("UPDATE tags SET image = ?2 WHERE reference = ?1", [&name, &heir])?;
        change.execute("DELETE FROM variants WHERE reference = ?1 AND image = ?2", [&name, &heir])?;
        change.execute("UPDATE variants SET main = ?2 WHERE reference = ?1", [&name, &heir])?;
    }
    Ok(())
}

/// An image without its layers.
fn image_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    let manifest: Option<String> = row.get(1)?;
    Ok(ImageRow {
        id: parsed(0, &row.get::<_, String>(0)?)?,
        manifest: manifest.map(|text| parsed(1, &text)).transpose()?,
        layers: Vec::new(),
        size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        stored: row.get(3)?,
    })
}

fn tag_row(row: &Row<'_>) -> rusqlite::Result<TagRow> {
    Ok(TagRow {
        reference: parsed(0, &row.get::<_, String>(0)?)?,
        image: parsed(1, &row.get::<_, String>(1)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storing_twice_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let image =
            ImageRow { id: Digest::sha256(b"i"), manifest: None, layers: Vec::new(), size: 1, stored: 0 };
        let name: Reference = "app".parse().unwrap();
        assert!(store.put_image(&image, std::slice::from_ref(&name)).unwrap());
        assert!(!store.put_image(&image, std::slice::from_ref(&name)).unwrap());
        assert_eq!(store.tagged(&name).unwrap(), Some(image.id.clone()));
        let pinned = name.pinned(Digest::sha256(b"m"));
        store.set_digest(&pinned, &image.id).unwrap();
        assert_eq!(store.by_digest(&pinned).unwrap(), Some(image.id.clone()));
        assert_eq!(store.digests().unwrap()[0].reference, pinned);
        store.remove_image(&image.id).unwrap();
        assert_eq!(store.tagged(&name).unwrap(), None);
        assert!(store.images().unwrap().is_empty() && store.digests().unwrap().is_empty());
    }

    #[test]
    fn a_name_is_of_several_platforms() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let image = |text: &str| ImageRow {
            id: Digest::sha256(text.as_bytes()),
            manifest: None,
            layers: Vec::new(),
            size: 1,
            stored: 0,
        };
        let (all, name) = (["a", "b", "c"].map(image), "app".parse::<Reference>().unwrap());
        let ids = all.clone().map(|image| image.id);
        let names = std::slice::from_ref(&name);
        for main in [1, 0, 2] {
            assert!(store.put_variants(&all, main, names).unwrap());
            assert!(!store.put_variants(&all, main, names).unwrap(), "{main}");
            assert_eq!(store.tagged(&name).unwrap().as_ref(), Some(&ids[main]));
            assert_eq!(store.variants(&name).unwrap(), ids, "{main}");
            assert_eq!(store.tags().unwrap().len(), 3);
        }
        // Who removes the main one leaves the name to the others.
        store.remove_image(&ids[2]).unwrap();
        assert_eq!(store.tagged(&name).unwrap().as_ref(), Some(&ids[0]));
        assert_eq!(store.variants(&name).unwrap(), ids[..2]);
        store.remove_image(&ids[1]).unwrap();
        assert_eq!(store.variants(&name).unwrap(), ids[..1]);
        // One image takes the name from all of them, be it one of these.
        store.put_variants(&all, 0, names).unwrap();
        assert!(store.put_image(&all[0], names).unwrap());
        assert_eq!(store.variants(&name).unwrap(), ids[..1]);
        // A lapstrake that knows of one platform gave the name away.
        store.put_variants(&all, 0, names).unwrap();
        store
            .with_db(|db| db.execute("UPDATE tags SET image = ?1", [image("d").id.to_string()]).map(drop))
            .unwrap();
        assert_eq!(store.tags().unwrap().len(), 1);
        assert!(store.untag(&name).unwrap() && store.tags().unwrap().is_empty());
        assert!(store.variants(&name).unwrap().is_empty());
    }

    #[test]
    fn an_image_in_use_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let image =
            ImageRow { id: Digest::sha256(b"i"), manifest: None, layers: Vec::new(), size: 1, stored: 0 };
        store.put_image(&image, &[]).unwrap();
        let user = Store::open(&root.path().join("s")).unwrap();
        assert!(user.pin_image(&image.id, "sh -c true").unwrap());
        let error = store.remove_unused_image(&image.id).unwrap_err();
        assert!(error.to_string().contains("sh -c true"), "{error}");
        drop(user);
        store.remove_unused_image(&image.id).unwrap();
        let late = Store::open(&root.path().join("s")).unwrap();
        assert!(!late.pin_image(&image.id, "sh").unwrap());
    }
}
