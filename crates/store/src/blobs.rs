//! Blobs: immutable bytes by their SHA-256 digest.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use lapstrake_oci::{DiffId, Digest, Sha256};
use rusqlite::{OptionalExtension as _, params};

use crate::error::{StoreError, io_error};
use crate::files;
use crate::layout::Store;
use crate::tmp::TempDir;

/// A layer's tar as a blob, in one of its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Of the bytes as they are stored.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// How the bytes are to be read.
    pub media_type: String,
}

/// A blob being written. Dropping it without [`BlobWriter::finish`] leaves nothing behind.
pub struct BlobWriter<'a> {
    store: &'a Store,
    out: BufWriter<File>,
    path: PathBuf,
    /// `None` where somebody else has checked the bytes.
    hash: Option<Sha256>,
    size: u64,
    finished: bool,
}

impl Store {
    /// The file of a blob; it may not be there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether the blob is there. Who asks may rely on it for as long as it lives, whatever is pruned meanwhile.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        // Taken back first: what is there afterwards stays.
        self.protect_blob(digest).unwrap_or(false) && self.blob_path(digest).is_file()
    }

    /// All of a small blob (a config, a manifest). Its digest is checked.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = files::read(&path).map_err(io_error("read", &path))?;
        let found = Digest::sha256(&bytes);
        if found != *digest {
            return Err(StoreError::WrongDigest { expected: digest.to_string(), found: found.to_string() });
        }
        Ok(bytes)
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        files::open(&path).map_err(io_error("open", &path))
    }

    /// Stores `bytes`.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::sha256(bytes);
        if self.has_blob(&digest) {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(io_error("write", &self.blob_path(&digest)))?;
        Ok(writer.finish(Some(&digest))?.0)
    }

    /// Stores all that `input` gives.
    pub fn copy_blob(
        &self,
        mut input: impl Read,
        expected: Option<&Digest>,
    ) -> Result<(Digest, u64), StoreError> {
        let mut writer = self.blob_writer()?;
        let path = writer.path.clone();
        io::copy(&mut input, &mut writer).map_err(io_error("write", &path))?;
        writer.finish(expected)
    }

    /// Begins a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        self.writer(Some(Sha256::new()))
    }

    /// Begins a blob whose bytes are hashed by whoever writes them; see [`BlobWriter::finish_as`].
    pub fn unhashed_blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        self.writer(None)
    }

    fn writer(&self, hash: Option<Sha256>) -> Result<BlobWriter<'_>, StoreError> {
        let path = self.temp_path()?;
        let file = File::create_new(&path).map_err(io_error("create", &path))?;
        let out = BufWriter::with_capacity(256 << 10, file);
        Ok(BlobWriter { store: self, out, path, hash, size: 0, finished: false })
    }

    /// Remembers that the tar with `diff_id` is stored as `blob`, in the form `variant` (`gzip-4`, `original`).
    pub fn link_layer_blob(&self, diff_id: &DiffId, variant: &str, blob: &Blob) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO blobs (diff_id, variant, media_type, digest, size) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    diff_id.to_string(),
                    variant,
                    blob.media_type,
                    blob.digest.to_string(),
                    i64::try_from(blob.size).unwrap_or(i64::MAX)
                ])
                .map(drop)
        })?;
        // Somebody may have tombstoned it while nothing named it.
        self.protect_blob(&blob.digest).map(drop)
    }

    /// The blob of the tar with `diff_id` in the form `variant`, if it is there.
    pub fn layer_blob(&self, diff_id: &DiffId, variant: &str) -> Result<Option<Blob>, StoreError> {
        let known = self.known_layer_blob(diff_id, variant)?;
        Ok(known.filter(|blob| self.has_blob(&blob.digest)))
    }

    /// Like [`Store::layer_blob`], even if its bytes are not there any more.
    pub fn known_layer_blob(&self, diff_id: &DiffId, variant: &str) -> Result<Option<Blob>, StoreError> {
        let found: Option<(String, String, i64)> = self.with_db(|db| {
            db.prepare_cached(
                "SELECT digest, media_type, size FROM blobs WHERE diff_id = ?1 AND variant = ?2",
            )?
            .query_row([&diff_id.to_string(), variant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
        })?;
        Ok(found.and_then(|(digest, media_type, size)| {
            Some(Blob { digest: digest.parse().ok()?, size: u64::try_from(size).ok()?, media_type })
        }))
    }

    /// What is inside the blob `digest`, which is the form `variant` of it.
    pub fn diff_id_of(&self, digest: &Digest, variant: &str) -> Result<Option<DiffId>, StoreError> {
        let found: Option<String> = self.with_db(|db| {
            db.prepare_cached("SELECT diff_id FROM blobs WHERE digest = ?1 AND variant = ?2")?
                .query_row([&digest.to_string(), variant], |row| row.get(0))
                .optional()
        })?;
        Ok(found.and_then(|text| text.parse().ok()).map(DiffId))
    }

    /// Remembers that a repository of a registry has a blob, so that another one can take it over.
    pub fn set_blob_repository(
        &self,
        digest: &Digest,
        registry: &str,
        repository: &str,
    ) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO repositories (digest, registry, repository) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![digest.to_string(), registry, repository])
            .map(drop)
        })
    }

    /// A repository of `registry` that has a blob, as far as we know.
    pub fn blob_repository(&self, digest: &Digest, registry: &str) -> Result<Option<String>, StoreError> {
        self.with_db(|db| {
            db.prepare_cached("SELECT repository FROM repositories WHERE digest = ?1 AND registry = ?2")?
                .query_row([&digest.to_string(), registry], |row| row.get(0))
                .optional()
        })
    }
}

impl BlobWriter<'_> {
    /// Ends the blob. With `expected` given, other bytes are refused and nothing is stored.
    pub fn finish(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        // One that is not hashed has no name of its own: its bytes give it one now.
        let digest = match self.hash.take() {
            Some(hash) => hash.finish(),
            None => self.read_again()?,
        };
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(StoreError::WrongDigest {
                expected: expected.to_string(),
                found: digest.to_string(),
            });
        }
        let size = self.size;
        self.finish_as(&digest)?;
        Ok((digest, size))
    }

    /// Ends the blob under a digest that the caller has computed from the very bytes that it wrote.
    pub fn finish_as(mut self, digest: &Digest) -> Result<(), StoreError> {
        self.out.flush().map_err(io_error("write", &self.path))?;
        let target = self.store.blob_path(digest);
        self.store.protect_blob(digest)?;
        fs::rename(&self.path, &target).map_err(io_error("rename", &self.path))?;
        self.finished = true;
        Ok(())
    }

    /// Another file of the same bytes, for somebody who reads them while they come. What was not flushed is not there.
    pub fn reader(&self) -> Result<File, StoreError> {
        files::open(&self.path).map_err(io_error("open", &self.path))
    }

    fn read_again(&mut self) -> Result<Digest, StoreError> {
        self.out.flush().map_err(io_error("write", &self.path))?;
        let mut hash = Sha256::new();
        io::copy(&mut self.reader()?, &mut hash).map_err(io_error("read", &self.path))?;
        Ok(hash.finish())
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..written]);
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

impl TempDir {
    /// A directory below that does not exist yet.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_not_stored() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        let digest = store.put_blob(b"hello").unwrap();
        assert_eq!(store.read_blob(&digest).unwrap(), b"hello");
        let error = store.copy_blob(&b"other"[..], Some(&Digest::sha256(b"wanted"))).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { .. }));
        assert_eq!(fs::read_dir(root.path().join("s/blobs/sha256")).unwrap().count(), 1);
        fs::write(store.blob_path(&digest), "hellO").unwrap();
        assert!(matches!(store.read_blob(&digest), Err(StoreError::WrongDigest { .. })));
    }
}
