//! Reading of tar streams: headers with their PAX and GNU extensions, bounded in every direction.
//!
//! Interprets nothing: names are as they came. Global PAX headers are skipped (nothing that writes layers means
//! anything by them). Sparse files are refused in layers, and read with their holes elsewhere.

mod number;
mod sparse;

use std::io::{self, BufReader, Read};

use tar::{EntryType, Header};

use crate::decompress::decompress;
use crate::entry::{Entry, Xattr};
use crate::error::TreeError;
use crate::layer_tar::{BLOCK, Pax, WHITEOUT, XATTR, parse_time};
use crate::length::{MAX_NAME, MAX_PATH, check_length};
use crate::path::lossy;
use number::number;
use sparse::{PaxForm, SparseMap};

/// Longest extension (PAX records, long name) that is believed.
const MAX_EXTENSION: u64 = 1 << 20;

/// Most bytes that one archive's entries may take in memory. Whoever reads a layer keeps them all, and a compressed
/// archive has room for a thousand times its own length.
pub(crate) const MAX_MEMORY: u64 = 208 << 20;

/// The longest value of an extended attribute, in bytes: the kernel's `XATTR_SIZE_MAX`.
const MAX_XATTR: usize = 64 << 10;

/// What an entry takes beside its name, its link and its attributes: some more than itself, for the ways to find it.
pub(crate) const ENTRY: u64 = 192;
const _: () = assert!(size_of::<Entry>() <= 112);

/// One header with all extensions applied.
#[derive(Debug)]
pub(crate) struct TarEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    /// All that the archive names, unfiltered, sorted.
    pub(crate) xattrs: Vec<Xattr>,
}

impl TarEntry {
    pub(crate) fn bad(&self, why: &'static str) -> TreeError {
        TreeError::BadArchive { name: lossy(&self.name), why }
    }
}

/// A tar stream; between two [`Self::next_entry`] it reads as the current entry's content.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    inner: R,
    /// Content of the current entry that was not read yet, and the padding after it.
    left: u64,
    padding: u64,
    entries: u64,
    max_entries: u64,
    /// What the entries so far take in memory.
    memory: u64,
    /// How many bytes of holes may come yet; nothing where sparse files are refused.
    holes: Option<u64>,
    /// Where the current entry's content has holes.
    sparse: Option<SparseMap>,
}

/// What precedes a header and changes it.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// What is in an archive, plain or compressed, as far as so many entries and bytes go.
///
/// # Errors
/// [`TreeError::Stream`] if its beginning cannot be read.
pub(crate) fn entries<'r>(
    archive: impl Read + Send + 'r,
    (max_entries, max_bytes): (u64, u64),
) -> Result<TarReader<impl Read + Send + 'r>, TreeError> {
    let (_, plain) =
        decompress(BufReader::new(archive)).map_err(TreeError::stream("decompress the archive"))?;
    Ok(TarReader::new(plain.take(max_bytes), max_entries).with_holes(max_bytes))
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R, max_entries: u64) -> Self {
        Self { inner, left: 0, padding: 0, entries: 0, max_entries, memory: 0, holes: None, sparse: None }
    }

    /// Takes sparse files, with no more bytes of holes in all of them than this.
    pub(crate) fn with_holes(self, most: u64) -> Self {
        Self { holes: Some(most), ..self }
    }

    /// The next entry; `None` at the end mark or where the stream ends between entries.
    pub(crate) fn next_entry(&mut self) -> Result<Option<TarEntry>, TreeError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(TreeError::TooBig { what: "entries", limit: self.max_entries });
            }
            let bad = |why| TreeError::BadArchive { name: lossy(&header.path_bytes()), why };
            let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| bad("its size is not a number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    extensions.pax = Pax::decode(&records).map_err(bad)?;
                }
                EntryType::GNULongName => extensions.name = Some(cut_at_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(cut_at_nul(self.extension(size)?)),
                EntryType::XGlobalHeader => self.begin(size)?,
                _ => return self.finish_header(&header, extensions, size).map(Some),
            }
        }
    }

    fn begin(&mut self, size: u64) -> Result<(), TreeError> {
        // A length near u64::MAX would overflow whoever adds to it; no medium holds that much.
        if size > i64::MAX as u64 {
            return Err(TreeError::TooBig { what: "bytes in one entry", limit: i64::MAX as u64 });
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TreeError> {
        if size > MAX_EXTENSION {
            return Err(TreeError::TooBig { what: "bytes in an extended header", limit: MAX_EXTENSION });
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(TreeError::stream("read the archive"))?;
        Ok(bytes)
    }

    fn header(&mut self) -> Result<Option<Header>, TreeError> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let blank = |(i, &b): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { b };
        let sum: u32 = bytes.iter().enumerate().map(|pair| u32::from(blank(pair))).sum();
        let signed: i64 = bytes.iter().enumerate().map(|pair| i64::from(blank(pair).cast_signed())).sum();
        // Some old writers added signed bytes.
        match number(&header.as_old().cksum) {
            Some(found) if found == i64::from(sum) || found == signed => Ok(Some(header)),
            // What is no archive has no entry to name.
            _ if self.entries == 0 => Err(TreeError::NoArchive),
            _ => {
                Err(TreeError::BadArchive { name: lossy(&header.path_bytes()), why: "its checksum is wrong" })
            }
        }
    }

    /// Fills one block; false at a clean end.
    fn block(&mut self, block: &mut [u8]) -> Result<bool, TreeError> {
        let mut have = 0;
        while have < block.len() {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) if self.entries == 0 => return Err(TreeError::NoArchive),
                Ok(0) => {
                    return Err(TreeError::BadArchive {
                        name: String::new(),
                        why: "the archive is cut short",
                    });
                }
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TreeError::stream("read the archive")(e)),
            }
        }
        Ok(true)
    }

    fn skip_content(&mut self) -> Result<(), TreeError> {
        self.sparse = None;
        let want = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(want), &mut io::sink());
        match skipped.map_err(TreeError::stream("read the archive"))? {
            got if got == want => Ok(()),
            _ => Err(TreeError::BadArchive { name: String::new(), why: "the archive is cut short" }),
        }
    }

    fn finish_header(
        &mut self,
        header: &Header,
        extensions: Extensions,
        size: u64,
    ) -> Result<TarEntry, TreeError> {
        let Extensions { pax, name, link } = extensions;
        let named = pax.get(b"GNU.sparse.name").or_else(|| pax.get(b"path")).map(<[u8]>::to_vec);
        let name = named.or(name).unwrap_or_else(|| header.path_bytes().into_owned());
        let bad = |why| TreeError::BadArchive { name: lossy(&name), why };
        let link = pax.get(b"linkpath").map(<[u8]>::to_vec).or(link).unwrap_or_else(|| link_of(header));
        let said = |key: &[u8], field: Option<u64>| match pax.get(key) {
            Some(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()),
            None => field,
        };
        let id = |key, field: &[u8]| {
            let field = number(field).and_then(|id| u64::try_from(id).ok());
            said(key, field).and_then(|id| u32::try_from(id).ok())
        };
        let fields = header.as_old();
        let mut kind = header.entry_type();
        let is_sparse = kind.is_gnu_sparse() || pax.iter().any(|(key, _)| key.starts_with(b"GNU.sparse."));
        if is_sparse && self.holes.is_none() {
            return Err(bad("sparse files are not supported"));
        }
        // Before USTAR a directory was a file whose name ends in a slash.
        if kind == EntryType::Regular && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        check_lengths(&name, &link, kind)?;
        let mtime = match pax.get(b"mtime") {
            Some(text) => parse_time(text).ok_or_else(|| bad("its time is not a number"))?,
            None => header_time(header),
        };
        let stored = said(b"size", Some(size)).ok_or_else(|| bad("its size is not a number"))?;
        let stored = if has_content(kind) { stored } else { 0 };
        let size = match is_sparse && has_content(kind) {
            true => self.begin_sparse(header, &pax, &name, stored)?,
            false => self.begin(stored).map(|()| stored)?,
        };
        let xattrs = checked_xattrs(&name, &pax)?;
        let attributes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        self.memory += ENTRY + (name.len() + link.len() + attributes) as u64;
        check_memory(self.memory, MAX_MEMORY)?;
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        Ok(TarEntry {
            kind: if kind.is_gnu_sparse() { EntryType::Regular } else { kind },
            link,
            mode: mode(&fields.mode).ok_or_else(|| bad("its mode is not a number"))?,
            uid: id(b"uid", &fields.uid).ok_or_else(|| bad("its owner is out of range"))?,
            gid: id(b"gid", &fields.gid).ok_or_else(|| bad("its group is out of range"))?,
            size,
            mtime,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs,
            name,
        })
    }

    /// Begins a file with holes, of which `stored` bytes follow, and returns its length.
    fn begin_sparse(
        &mut self,
        header: &Header,
        pax: &Pax,
        name: &[u8],
        stored: u64,
    ) -> Result<u64, TreeError> {
        let bad = |why| TreeError::BadArchive { name: lossy(name), why };
        let length = pax.get(b"GNU.sparse.size").or_else(|| pax.get(b"GNU.sparse.realsize"));
        let length = match length {
            Some(text) => sparse::decimal(text).ok_or_else(|| bad("its size is not a number"))?,
            None => i64::try_from(stored).unwrap_or(i64::MAX),
        };
        let map = if header.entry_type().is_gnu_sparse() {
            let map = sparse::of_headers(header, bad, |block| match self.block(block)? {
                true => Ok(()),
                false => Err(bad("the archive is cut short")),
            })?;
            self.begin(stored)?;
            map
        } else {
            self.begin(stored)?;
            match PaxForm::of(pax) {
                Some(PaxForm::InRecords) => sparse::of_records(pax, length).map_err(bad)?,
                Some(PaxForm::InContent) => {
                    let read = sparse::of_content(self, length, SparseError::Bad);
                    read.map_err(|error| match error {
                        SparseError::Bad(why) => bad(why),
                        SparseError::Read(error) => TreeError::stream("read the archive")(error),
                    })?
                }
                // As Go: what is told in another way is a file without holes.
                None => return Ok(stored),
            }
        };
        if map.stored() > self.left {
            return Err(bad("its map has more data than follow"));
        }
        let holes = map.size - map.stored();
        let limit = self.holes.unwrap_or_default();
        let left = limit.checked_sub(holes).ok_or(TreeError::TooBig { what: "bytes in holes", limit })?;
        self.holes = Some(left);
        let size = map.size;
        self.sparse = Some(map);
        Ok(size)
    }

    /// The next bytes of what the archive has of an entry.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        self.left -= got as u64;
        Ok(got)
    }

    /// Reads the stream to its end (padding after the end mark included).
    pub(crate) fn drain(mut self) -> Result<(), TreeError> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(TreeError::stream("read the archive"))
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut map) = self.sparse.take() else { return self.read_stored(buffer) };
        let read = map.read(buffer, Stored(self));
        self.sparse = Some(map);
        read
    }
}

/// What the archive has of an entry, without its holes.
struct Stored<'r, R>(&'r mut TarReader<R>);

impl<R: Read> Read for Stored<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_stored(buffer)
    }
}

/// Why a map in front of the data cannot be read.
enum SparseError {
    Bad(&'static str),
    Read(io::Error),
}

impl From<io::Error> for SparseError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// What a header alone says that its entry links to.
fn link_of(header: &Header) -> Vec<u8> {
    header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// The permissions of a header; other bits of the field mean nothing.
fn mode(field: &[u8]) -> Option<u32> {
    number(field).and_then(|mode| u32::try_from(mode & 0o7777).ok())
}

/// Refuses more memory than `limit`.
pub(crate) fn check_memory(memory: u64, limit: u64) -> Result<(), TreeError> {
    let what = "bytes of entries, names and attributes";
    if memory > limit { Err(TreeError::TooBig { what, limit }) } else { Ok(()) }
}

/// Refuses names, link texts and targets that the kernel does not take. The mark of a deletion is none of the name.
fn check_lengths(name: &[u8], link: &[u8], kind: EntryType) -> Result<(), TreeError> {
    // A directory's name may end in a slash.
    let path = name.strip_suffix(b"/").unwrap_or(name);
    check_length(name, "its path", path, MAX_PATH + WHITEOUT.len())?;
    for part in path.split(|&byte| byte == b'/') {
        check_length(name, "a name in it", part.strip_prefix(WHITEOUT).unwrap_or(part), MAX_NAME)?;
    }
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        check_length(name, "what it links to", link, MAX_PATH)?;
    }
    Ok(())
}

/// Time field in nanoseconds; GNU writes times before 1970 as negative base-256 numbers.
fn header_time(header: &Header) -> i64 {
    number(&header.as_old().mtime).unwrap_or(0).saturating_mul(1_000_000_000)
}

fn cut_at_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Whether bytes follow the header. What is not known is taken for a file.
fn has_content(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    !matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

/// The extended attributes among the records, sorted by name, if the kernel takes them.
fn checked_xattrs(entry: &[u8], pax: &Pax) -> Result<Vec<Xattr>, TreeError> {
    let xattrs = xattrs(pax);
    for xattr in &xattrs {
        check_length(entry, "the name of an attribute", &xattr.name, MAX_NAME)?;
        check_length(entry, "an attribute", &xattr.value, MAX_XATTR)?;
    }
    Ok(xattrs)
}

/// The extended attributes among the records, sorted by name.
fn xattrs(pax: &Pax) -> Vec<Xattr> {
    let mut xattrs: Vec<Xattr> = pax
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(XATTR)?;
            Some(Xattr { name: name.into(), value: value.into() })
        })
        .collect();
    xattrs.sort();
    xattrs
}
