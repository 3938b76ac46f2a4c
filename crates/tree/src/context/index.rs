//! The stat index on disk.
//!
//! ```text
//! "LSCTXT"  u8 version  records to the end  16 bytes: blake3 of all before, cut
//! record = varint bytes shared with the previous path, varint length, rest of the path
//!          varint size, mode, device, inode, 1 or (for several names) 2; zig-zag varint mtime, ctime
//!          32 bytes digest; varint number of xattrs, each: varint length, name, varint length, value
//! ```
//! Derived data: whatever does not decode counts as not there.

use super::{Content, Stamp};
use crate::entry::{ContentDigest, Xattr};
use crate::error::TreeError;
use crate::path::TreePath;
use crate::varint::{Cursor, put_bytes, put_signed, put_varint};

const MAGIC: &[u8; 7] = b"LSCTXT\x02";
const CHECK: usize = 16;
const WHAT: &str = "stat index";

/// What is known of a file.
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) content: Content,
}

pub(super) fn encode<'a>(entries: impl Iterator<Item = (&'a TreePath, &'a Stamp, &'a Content)>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let mut previous: &[u8] = b"";
    for (path, stamp, content) in entries {
        let path = path.as_bytes();
        let shared = previous.iter().zip(path).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, shared as u64);
        put_bytes(&mut out, &path[shared..]);
        for number in [stamp.size, u64::from(stamp.mode), stamp.dev, stamp.ino, stamp.links] {
            put_varint(&mut out, number);
        }
        put_signed(&mut out, stamp.mtime);
        put_signed(&mut out, stamp.ctime);
        out.extend_from_slice(&content.digest.0);
        put_varint(&mut out, content.xattrs.len() as u64);
        for xattr in &content.xattrs {
            put_bytes(&mut out, &xattr.name);
            put_bytes(&mut out, &xattr.value);
        }
        previous = path;
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(&check.as_bytes()[..CHECK]);
    out
}

/// The records of an index, one after the other. Nothing of those that are passed over is kept.
pub(super) struct Records<'b> {
    cursor: Cursor<'b>,
    path: Vec<u8>,
}

impl<'b> Records<'b> {
    /// # Errors
    /// [`TreeError::Corrupt`] for what is no index, or is not whole.
    pub(super) fn of(bytes: &'b [u8]) -> Result<Self, TreeError> {
        let corrupt = |why| TreeError::Corrupt { what: WHAT, why };
        let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or_else(|| corrupt("it is cut short"))?;
        if blake3::hash(body).as_bytes()[..CHECK] != check[..] {
            return Err(corrupt("its checksum does not match"));
        }
        let records = body.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not start as one"))?;
        Ok(Self { cursor: Cursor::new(records, WHAT), path: Vec::new() })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// [`TreeError::Corrupt`].
    pub(super) fn next(&mut self) -> Result<Option<Known>, TreeError> {
        let cursor = &mut self.cursor;
        if cursor.remaining() == 0 {
            return Ok(None);
        }
        let shared = cursor.length()?;
        if shared > self.path.len() {
            return Err(TreeError::Corrupt { what: WHAT, why: "a path shares more than there is" });
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(cursor.bytes()?);
        let (size, mode, dev, ino) = (cursor.varint()?, cursor.u32()?, cursor.varint()?, cursor.varint()?);
        let links = cursor.varint()?;
        let (mtime, ctime) = (cursor.signed()?, cursor.signed()?);
        let digest = ContentDigest(cursor.array()?);
        let mut xattrs = Vec::new();
        for _ in 0..cursor.length()? {
            xattrs.push(Xattr { name: cursor.bytes()?.into(), value: cursor.bytes()?.into() });
        }
        let stamp = Stamp { size, mode, dev, ino, links, mtime, ctime };
        Ok(Some(Known { stamp, content: Content { digest, xattrs } }))
    }

    /// The path of the record that came last.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }
}
