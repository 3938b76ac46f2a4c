//! eStargz: a layer's tar as gzip members of its own for each piece of a file, and a table of where they are, so that
//! others can read single files of a layer that they have not pulled.
//!
//! ```text
//! member 0        headers up to the first file's content
//! member 1..n     a piece of a file (at most PIECE bytes), and all that follows it up to the next piece
//! TOC             a tar of one file, `stargz.index.json`, in a member of its own
//! footer          51 bytes: an empty member whose extra field says where the TOC begins
//! ```
//!
//! All members together are one gzip stream: the tar as it was, and the TOC's behind its end mark, where no reader of
//! tars looks. So the digest of what is inside is not that of the tar.

use std::io::{self, Read, Write};

use lapstrake_oci::{DiffId, Digest, Sha256};
use rayon::prelude::*;

use crate::gzip::member;
use crate::toc::{Entry, TOC_NAME, Toc, entry};

/// No piece of a file is longer.
const PIECE: u64 = 4 << 20;
/// This much waits until it is compressed side by side.
const BATCH: usize = 16 << 20;
const BLOCK: usize = 512;
/// Longer extended headers are refused, as where tars are unpacked.
const MAX_EXTENSION: u64 = 1 << 20;
/// How long the footer is.
const FOOTER: usize = 51;

/// What a finished blob is known by, besides its own digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Of all that is in it, the TOC too.
    pub(crate) diff_id: DiffId,
    /// Of the TOC's JSON.
    pub(crate) toc: Digest,
    /// The bytes of all that is in it.
    pub(crate) size: u64,
}

/// Writes the tar `tar` as eStargz; gives the writer back.
pub(crate) fn write<W: Write>(tar: impl Read, out: W, level: u32) -> io::Result<(W, Inside)> {
    let mut members =
        Members { out, level, waiting: vec![Vec::new()], held: 0, offsets: Vec::new(), written: 0 };
    let mut reader = Raw { inner: tar, hash: Sha256::new(), size: 0 };
    let mut toc = Toc::new();
    while let Some(head) = head(&mut reader)? {
        members.add(&head.raw)?;
        file(&mut reader, &mut members, &mut toc, head)?;
    }
    // The end mark and whatever is behind it stay as they are.
    let mut rest = vec![0; 64 << 10];
    members.add(&[0; BLOCK])?;
    loop {
        let got = reader.read(&mut rest)?;
        if got == 0 {
            break;
        }
        members.add(&rest[..got])?;
    }
    finish(members, reader, toc)
}

fn finish<W: Write, R: Read>(
    mut members: Members<W>,
    mut reader: Raw<R>,
    mut toc: Toc,
) -> io::Result<(W, Inside)> {
    members.flush()?;
    for entry in &mut toc.entries {
        if let Some(number) = entry.member {
            entry.offset = members.offsets[number];
        }
    }
    let json = toc.json()?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(json.len() as u64);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, TOC_NAME, json.as_slice())?;
    let tar = tar.into_inner()?;
    reader.note(&tar);
    let at = members.written;
    members.out.write_all(&member(&tar, members.level)?)?;
    members.out.write_all(&footer(at))?;
    let inside =
        Inside { diff_id: DiffId(reader.hash.finish()), toc: Digest::sha256(&json), size: reader.size };
    Ok((members.out, inside))
}

/// The content of a file, piece by piece, and its padding.
fn file<W: Write>(
    reader: &mut Raw<impl Read>,
    members: &mut Members<W>,
    toc: &mut Toc,
    head: Head,
) -> io::Result<()> {
    let (size, padding) = (head.size, head.size.next_multiple_of(BLOCK as u64) - head.size);
    let at = toc.entries.len();
    let (name, is_file) = (head.entry.name.clone(), head.entry.is_file());
    toc.entries.push(head.entry);
    let (mut whole, mut done) = (Sha256::new(), 0);
    while done < size {
        let piece = PIECE.min(size - done);
        let mut bytes = vec![0; usize::try_from(piece).map_err(io::Error::other)?];
        reader.read_exact(&mut bytes)?;
        whole.update(&bytes);
        if done > 0 {
            toc.entries.push(Entry::piece(&name));
        }
        let Some(entry) = toc.entries.last_mut() else { return Ok(()) };
        entry.chunk_offset = done;
        // The last piece goes to the end of the file, however long that is.
        entry.chunk_size = if piece == PIECE { piece } else { 0 };
        entry.chunk_digest = Some(Digest::sha256(&bytes));
        entry.member = Some(members.begin()?);
        members.add(&bytes)?;
        done += piece;
    }
    if is_file {
        toc.entries[at].digest = Some(whole.finish());
    }
    let mut bytes = [0; BLOCK];
    let bytes = &mut bytes[..usize::try_from(padding).map_err(io::Error::other)?];
    reader.read_exact(bytes)?;
    members.add(bytes)
}

/// A header with all that precedes it, as it stands in the tar.
struct Head {
    raw: Vec<u8>,
    entry: Entry,
    /// The bytes that follow.
    size: u64,
}

/// The next header; `None` once the first block of the end mark was read.
fn head(reader: &mut Raw<impl Read>) -> io::Result<Option<Head>> {
    let (mut raw, mut pax, mut name, mut link) = (Vec::new(), Vec::new(), None, None);
    loop {
        let mut header = tar::Header::new_old();
        reader.read_exact(header.as_mut_bytes())?;
        if raw.is_empty() && header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        raw.extend(header.as_bytes());
        let kind = header.entry_type();
        use tar::EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
        if !matches!(kind, XHeader | XGlobalHeader | GNULongName | GNULongLink) {
            let (entry, size) = entry(&header, &pax, name, link)?;
            return Ok(Some(Head { raw, entry, size }));
        }
        let size = header.entry_size()?;
        if size > MAX_EXTENSION {
            return Err(io::Error::other("an extended header of the layer's tar is too long"));
        }
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let mut bytes = vec![0; length.next_multiple_of(BLOCK)];
        reader.read_exact(&mut bytes)?;
        raw.extend(&bytes);
        bytes.truncate(length);
        match kind {
            XHeader => pax = bytes,
            GNULongName => name = Some(bytes),
            GNULongLink => link = Some(bytes),
            _ => {}
        }
    }
}

/// Reads, and knows what was read.
struct Raw<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R> Raw<R> {
    fn note(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.note(&buffer[..got]);
        Ok(got)
    }
}

/// The members, compressed some at a time.
struct Members<W> {
    out: W,
    level: u32,
    waiting: Vec<Vec<u8>>,
    /// How many bytes wait.
    held: usize,
    /// Where each finished member begins.
    offsets: Vec<u64>,
    written: u64,
}

impl<W: Write> Members<W> {
    /// Begins a member, and gives its number.
    fn begin(&mut self) -> io::Result<usize> {
        if self.held >= BATCH {
            self.flush()?;
        }
        self.waiting.push(Vec::new());
        Ok(self.offsets.len() + self.waiting.len() - 1)
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Only where something follows that is no file's content: then it may be cut anywhere.
        if self.waiting.is_empty() {
            self.waiting.push(Vec::new());
        }
        self.held += bytes.len();
        if let Some(last) = self.waiting.last_mut() {
            last.extend_from_slice(bytes);
        }
        if self.held >= 4 * BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let level = self.level;
        let packed = std::mem::take(&mut self.waiting).into_par_iter().map(|bytes| member(&bytes, level));
        for bytes in packed.collect::<io::Result<Vec<_>>>()? {
            self.out.write_all(&bytes)?;
            self.offsets.push(self.written);
            self.written += bytes.len() as u64;
        }
        self.held = 0;
        Ok(())
    }
}

/// An empty member that says where the TOC is.
fn footer(toc: u64) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    bytes.extend(format!("{toc:016x}STARGZ").into_bytes());
    // An empty stored block that is the last, no checksum, no length.
    bytes.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Where the TOC of a blob begins by its last bytes, if it is eStargz.
fn toc_offset(footer_bytes: &[u8]) -> Option<u64> {
    let hex = std::str::from_utf8(footer_bytes.get(16..32)?).ok()?;
    let offset = u64::from_str_radix(hex, 16).ok()?;
    let expected = footer(offset);
    // Header bytes about the compressor and the system differ from writer to writer.
    let same = |range: std::ops::Range<usize>| footer_bytes.get(range.clone()) == expected.get(range);
    (footer_bytes.len() == FOOTER && same(0..4) && same(10..38)).then_some(offset)
}

/// What a blob's descriptor says of it, if it is eStargz. Reads the TOC, and all of it for its size.
pub(crate) fn look(mut blob: std::fs::File) -> io::Result<Option<(Digest, u64)>> {
    use std::io::{Seek as _, SeekFrom};
    let length = blob.metadata()?.len();
    let Some(start) = length.checked_sub(FOOTER as u64) else { return Ok(None) };
    let mut last = [0; FOOTER];
    blob.seek(SeekFrom::Start(start))?;
    blob.read_exact(&mut last)?;
    let Some(offset) = toc_offset(&last).filter(|offset| *offset < start) else { return Ok(None) };
    blob.seek(SeekFrom::Start(offset))?;
    let packed = io::BufReader::new((&mut blob).take(start - offset));
    let mut archive = tar::Archive::new(flate2::bufread::GzDecoder::new(packed));
    let Some(Ok(mut toc)) = archive.entries()?.next() else { return Ok(None) };
    if &*toc.path_bytes() != TOC_NAME.as_bytes() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    io::copy(&mut toc, &mut hash)?;
    drop(toc);
    drop(archive);
    blob.seek(SeekFrom::Start(0))?;
    let mut plain = flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, blob));
    let size = io::copy(&mut plain, &mut io::sink())?;
    Ok(Some((hash.finish(), size)))
}

#[cfg(test)]
mod tests;
