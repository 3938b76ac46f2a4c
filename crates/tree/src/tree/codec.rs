//! The binary form of a tree.
//!
//! ```text
//! "LSTREE"  u8 version  varint count  entries  16 bytes: blake3 of all before, cut
//! entry   = varint bytes shared with the previous path, varint length, rest of the path
//!           u8 kind
//!           hard link:  varint index of the file's entry              (and nothing more)
//!           whiteout:   nothing more
//!           others:     varint mode, uid, gid; zig-zag varint mtime
//!                       varint number of xattrs, each: varint length, name, varint length, value
//!                       file: varint size, 32 bytes digest; dir: u8 opaque; symlink: varint length, text;
//!                       devices: varint major, minor
//! ```
//! The format is derived data: another version means "not there", never a conversion.

use std::io;

use super::Tree;
use crate::entry::{ContentDigest, Entry, Kind, Meta, Xattr};
use crate::error::TreeError;
use crate::path::TreePath;
use crate::varint::{Cursor, put_bytes, put_signed, put_varint};

/// Version of the binary form; part of the name of whatever stores it.
pub const TREE_VERSION: u8 = 1;

const MAGIC: &[u8; 6] = b"LSTREE";
const CHECK: usize = 16;
/// How much is written at once.
const PIECE: usize = 64 << 10;
const WHAT: &str = "tree";

fn corrupt(why: &'static str) -> TreeError {
    TreeError::Corrupt { what: WHAT, why }
}

impl Tree {
    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 96);
        // A list takes whatever comes.
        self.write_to(&mut out).unwrap_or_default();
        out
    }

    /// Writes the binary form, with little of it in memory.
    ///
    /// # Errors
    /// What `to` refuses.
    pub fn write_to(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut check = blake3::Hasher::new();
        let mut out = Vec::with_capacity(PIECE + 4096);
        out.extend_from_slice(MAGIC);
        out.push(TREE_VERSION);
        put_varint(&mut out, self.entries.len() as u64);
        let mut previous: &[u8] = b"";
        for entry in &self.entries {
            let path = entry.path.as_bytes();
            let shared = previous.iter().zip(path).take_while(|(a, b)| a == b).count();
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, &path[shared..]);
            self.encode_entry(&mut out, entry);
            previous = path;
            if out.len() >= PIECE {
                check.update(&out);
                to.write_all(&out)?;
                out.clear();
            }
        }
        check.update(&out);
        out.extend_from_slice(&check.finalize().as_bytes()[..CHECK]);
        to.write_all(&out)
    }

    fn encode_entry(&self, out: &mut Vec<u8>, entry: &Entry) {
        let meta = |out: &mut Vec<u8>, tag: u8| {
            out.push(tag);
            put_meta(out, &entry.meta);
        };
        match &entry.kind {
            Kind::File { size, content } => {
                meta(out, 1);
                put_varint(out, *size);
                out.extend_from_slice(&content.0);
            }
            Kind::Hardlink { to } => {
                out.push(2);
                put_varint(out, self.position(to.as_bytes()).map_or(u64::MAX, |i| i as u64));
            }
            Kind::Dir { opaque } => {
                meta(out, 3);
                out.push(u8::from(*opaque));
            }
            Kind::Symlink { target } => {
                meta(out, 4);
                put_bytes(out, target);
            }
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                meta(out, if matches!(entry.kind, Kind::CharDev { .. }) { 5 } else { 6 });
                put_varint(out, u64::from(*major));
                put_varint(out, u64::from(*minor));
            }
            Kind::Fifo => meta(out, 7),
            Kind::Whiteout => out.push(8),
        }
    }

    /// Reads the binary form back; any byte sequence gives a tree that holds its invariants, or an error.
    ///
    /// # Errors
    /// [`TreeError::Version`] for another format version, [`TreeError::Corrupt`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not start as one"))?;
        let (&found, _) = rest.split_first().ok_or_else(|| corrupt("it is cut short"))?;
        if found != TREE_VERSION {
            return Err(TreeError::Version { what: WHAT, found, expected: TREE_VERSION });
        }
        let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or_else(|| corrupt("it is cut short"))?;
        if blake3::hash(body).as_bytes()[..CHECK] != check[..] {
            return Err(corrupt("its checksum does not match"));
        }
        let body = body.get(MAGIC.len() + 1..).ok_or_else(|| corrupt("it is cut short"))?;
        decode_body(&mut Cursor::new(body, WHAT))
    }
}

fn decode_body(cursor: &mut Cursor<'_>) -> Result<Tree, TreeError> {
    let count = cursor.length()?;
    // A record takes at least three bytes: a lying count cannot make us reserve more than the input's size.
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(cursor.remaining()));
    let mut path: Vec<u8> = Vec::new();
    for _ in 0..count {
        let shared = cursor.length()?;
        if shared > path.len() {
            return Err(corrupt("a path shares more than there is"));
        }
        path.truncate(shared);
        path.extend_from_slice(cursor.bytes()?);
        let path = TreePath::parse(&path).map_err(|_| corrupt("a path is not normal"))?;
        let entry = decode_entry(cursor, path, &entries)?;
        if entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(corrupt("its paths are not sorted"));
        }
        entries.push(entry);
    }
    if cursor.remaining() != 0 {
        return Err(corrupt("it has bytes after its end"));
    }
    let tree = Tree { entries };
    tree.check().map_err(|_| corrupt("its entries do not form a tree"))?;
    Ok(tree)
}

fn decode_entry(cursor: &mut Cursor<'_>, path: TreePath, before: &[Entry]) -> Result<Entry, TreeError> {
    let tag = cursor.byte()?;
    match tag {
        2 => {
            let file = before.get(cursor.length()?).ok_or_else(|| corrupt("a hard link points nowhere"))?;
            return Ok(Entry {
                path,
                kind: Kind::Hardlink { to: file.path.clone() },
                meta: file.meta.clone(),
            });
        }
        8 => return Ok(Entry::whiteout(path)),
        _ => {}
    }
    let meta = take_meta(cursor)?;
    let kind = match tag {
        1 => Kind::File { size: cursor.varint()?, content: ContentDigest(cursor.array()?) },
        3 => match cursor.byte()? {
            opaque @ (0 | 1) => Kind::Dir { opaque: opaque == 1 },
            _ => return Err(corrupt("a flag is neither 0 nor 1")),
        },
        4 => Kind::Symlink { target: cursor.bytes()?.into() },
        5 => Kind::CharDev { major: cursor.u32()?, minor: cursor.u32()? },
        6 => Kind::BlockDev { major: cursor.u32()?, minor: cursor.u32()? },
        7 => Kind::Fifo,
        _ => return Err(corrupt("an entry is of no known kind")),
    };
    Ok(Entry { path, kind, meta })
}

pub(crate) fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    for number in [meta.mode, meta.uid, meta.gid] {
        put_varint(out, u64::from(number));
    }
    put_signed(out, meta.mtime);
    put_varint(out, meta.xattrs.len() as u64);
    for xattr in &meta.xattrs {
        put_bytes(out, &xattr.name);
        put_bytes(out, &xattr.value);
    }
}

pub(crate) fn take_meta(cursor: &mut Cursor<'_>) -> Result<Meta, TreeError> {
    let (mode, uid, gid) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let mtime = cursor.signed()?;
    let count = cursor.length()?;
    let mut xattrs: Vec<Xattr> = Vec::with_capacity(count.min(cursor.remaining()));
    for _ in 0..count {
        xattrs.push(Xattr { name: cursor.bytes()?.into(), value: cursor.bytes()?.into() });
    }
    Ok(Meta { mode, uid, gid, mtime, xattrs })
}
