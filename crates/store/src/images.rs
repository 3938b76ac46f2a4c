//! Images and their tags.
//!
//! An image is its config's digest; its layers are named by the tokens that whoever stored it chose.

use lapstrake_oci::{Digest, Reference};
use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};

use crate::db::now;
use crate::error::StoreError;
use crate::gc;
use crate::layout::Store;

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// The digest of its config: the image id.
    pub id: Digest,
    /// The digest of the manifest that it was pulled by.
    pub manifest: Option<Digest>,
    /// Its layers, lowest first, as whoever stored it named them.
    pub layers: String,
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
        let id = image.id.to_string();
        self.with_db(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = change
                .prepare_cached("INSERT INTO images (id, manifest, layers, size, stored) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest), layers = excluded.layers WHERE layers <> excluded.layers OR manifest IS NOT coalesce(excluded.manifest, manifest)")?
                .execute(params![
                    id,
                    image.manifest.as_ref().map(ToString::to_string),
                    image.layers,
                    i64::try_from(image.size).unwrap_or(i64::MAX),
                    now()
                ])?;
            for name in names {
                changed += change
                    .prepare_cached("INSERT INTO tags (reference, image, stored) VALUES (?1, ?2, ?3) ON CONFLICT (reference) DO UPDATE SET image = excluded.image, stored = excluded.stored WHERE image <> excluded.image")?
                    .execute(params![name.to_string(), id, now()])?;
            }
            gc::spare_named(&change, [image.layers.as_bytes()])?;
            change.commit()?;
            Ok(changed > 0)
        })
    }

    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageRow>, StoreError> {
        self.with_db(|db| {
            db.prepare("SELECT id, manifest, layers, size, stored FROM images ORDER BY stored DESC, id")?
                .query_map([], image_row)?
                .collect()
        })
    }

    /// The image `id`.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRow>, StoreError> {
        self.with_db(|db| {
            db.prepare_cached("SELECT id, manifest, layers, size, stored FROM images WHERE id = ?1")?
                .query_row([id.to_string()], image_row)
                .optional()
        })
    }

    /// The image pulled by the manifest `digest`.
    pub fn image_by_manifest(&self, digest: &Digest) -> Result<Option<ImageRow>, StoreError> {
        self.with_db(|db| {
            db.prepare_cached("SELECT id, manifest, layers, size, stored FROM images WHERE manifest = ?1")?
                .query_row([digest.to_string()], image_row)
                .optional()
        })
    }

    /// All names, sorted.
    pub fn tags(&self) -> Result<Vec<TagRow>, StoreError> {
        self.with_db(|db| {
            db.prepare("SELECT reference, image FROM tags ORDER BY reference")?
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

    /// Takes a name away, with a tag or a digest; says whether there was one.
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
            change.execute("DELETE FROM tags WHERE image = ?1", [id.to_string()])?;
            change.execute("DELETE FROM digests WHERE image = ?1", [id.to_string()])?;
            change.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])?;
            change.commit()
        })
    }
}

fn parsed<T: std::str::FromStr>(column: usize, text: &str) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn image_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    let manifest: Option<String> = row.get(1)?;
    Ok(ImageRow {
        id: parsed(0, &row.get::<_, String>(0)?)?,
        manifest: manifest.map(|text| parsed(1, &text)).transpose()?,
        layers: row.get(2)?,
        size: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        stored: row.get(4)?,
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
            ImageRow { id: Digest::sha256(b"i"), manifest: None, layers: "[]".into(), size: 1, stored: 0 };
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
    fn an_image_in_use_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let image =
            ImageRow { id: Digest::sha256(b"i"), manifest: None, layers: "[]".into(), size: 1, stored: 0 };
        store.put_image(&image, &[]).unwrap();
        let user = Store::open(&root.path().join("s")).unwrap();
        assert!(user.use_image(&image.id, "sh -c true").unwrap());
        let error = store.remove_unused_image(&image.id).unwrap_err();
        assert!(error.to_string().contains("sh -c true"), "{error}");
        drop(user);
        store.remove_unused_image(&image.id).unwrap();
        let late = Store::open(&root.path().join("s")).unwrap();
        assert!(!late.use_image(&image.id, "sh").unwrap());
    }
}
