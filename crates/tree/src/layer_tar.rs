//! The canonical tar of a layer: its bytes are a pure function of the [`Tree`] (and of the options).
//!
//! USTAR headers; a PAX header goes before those whose values do not fit (long or non-ASCII names, sizes from
//! 8 GiB, big ids, times with a fraction or before 1970, attributes). Entries come in walk order; deletions are
//! `.wh.NAME`, an opaque directory is followed by `.wh..wh..opq`. Access and change times are never written, nor
//! names of owners. Entries become bytes on all cores, a few ahead of `out`, which takes them in order.

mod ahead;
mod hashed;
mod pax;

use std::fs::File;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::entry::{Entry, Kind, Meta};
use crate::error::TreeError;
use crate::path::TreePath;
use crate::tree::Tree;
pub use hashed::{HashStates, diff_id};
pub(crate) use pax::{Pax, XATTR, parse_time};

/// Name before which a deleted name stands.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Name of the mark of an opaque directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
pub(crate) const BLOCK: usize = 512;
const BUFFER: usize = 128 << 10;

const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;
/// Highest numbers the octal fields of a header hold.
const MAX_ID: u64 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// How a layer is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct TarOptions {
    /// Times later than this (nanoseconds) become this. The tar is BuildKit's then, to the byte, so that both make the
    /// same image: times are whole seconds, and the checksum of a header has six digits and a space. Others keep the form
    /// that they had from the beginning, as their digests are recorded.
    pub clamp_mtime: Option<i64>,
    /// Write every attribute of the tree, not only `security.capability`.
    pub all_xattrs: bool,
}

/// Writes the tar of `tree`. Returns the number of bytes written. Files are opened by several threads: `opener` makes for
/// each what opens its files, which it needs in walk order.
///
/// # Errors
/// [`TreeError::Io`] when a file cannot be opened or read, [`TreeError::Changed`] when it has not the length the
/// tree says, [`TreeError::Stream`] when `out` fails.
pub fn write_layer<O: FnMut(&TreePath) -> io::Result<File>>(
    tree: &Tree,
    opener: impl Fn() -> O + Sync,
    out: impl Write,
    options: &TarOptions,
) -> Result<u64, TreeError> {
    let mut writer = Writer::new(out, options);
    ahead::write(tree.entries(), &opener, &mut writer, |_, _| ())?;
    writer.end()?;
    Ok(writer.written)
}

struct Writer<W> {
    out: W,
    options: TarOptions,
    written: u64,
    buffer: Vec<u8>,
}

/// What a header says beyond the metadata.
#[derive(Clone, Copy)]
struct Item<'a> {
    name: &'a [u8],
    /// The directory of a name that is too long for its field.
    prefix: &'a [u8],
    kind: EntryType,
    size: u64,
    link: &'a [u8],
    device: (u32, u32),
}

impl<W: Write> Writer<W> {
    fn new(out: W, options: &TarOptions) -> Self {
        Self { out, options: *options, written: 0, buffer: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(TreeError::stream("write the layer"))
    }

    /// What stands at the end of every tar.
    fn end(&mut self) -> Result<(), TreeError> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(TreeError::stream("write the layer"))
    }

    fn entry(
        &mut self,
        entry: &Entry,
        open: &mut impl FnMut(&TreePath) -> io::Result<File>,
    ) -> Result<(), TreeError> {
        let path = &entry.path;
        let plain =
            |kind| Item { name: path.as_bytes(), prefix: b"", kind, size: 0, link: b"", device: (0, 0) };
        let item = match &entry.kind {
            Kind::Dir { opaque } => return self.directory(entry, *opaque),
            Kind::Whiteout => {
                let dir = path.parent().unwrap_or_default();
                let mark = dir.join_name(&[WHITEOUT, path.name()].concat());
                let item = Item { name: mark.as_bytes(), ..plain(EntryType::Regular) };
                return self.header(&item, &Meta::default());
            }
            Kind::File { size, .. } => Item { size: *size, ..plain(EntryType::Regular) },
            Kind::Hardlink { to } => Item { link: to.as_bytes(), ..plain(EntryType::Link) },
            Kind::Symlink { target } => Item { link: target, ..plain(EntryType::Symlink) },
            Kind::CharDev { major, minor } => Item { device: (*major, *minor), ..plain(EntryType::Char) },
            Kind::BlockDev { major, minor } => Item { device: (*major, *minor), ..plain(EntryType::Block) },
            Kind::Fifo => plain(EntryType::Fifo),
        };
        self.header(&item, &entry.meta)?;
        if item.size > 0 {
            let file = open(path).map_err(TreeError::io("open", path))?;
            self.content(path, file, item.size)?;
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, opaque: bool) -> Result<(), TreeError> {
        let name = match entry.path.as_bytes() {
            b"" => b"./".to_vec(),
            path => [path, b"/"].concat(),
        };
        let item =
            Item { name: &name, prefix: b"", kind: EntryType::Directory, size: 0, link: b"", device: (0, 0) };
        self.header(&item, &entry.meta)?;
        if opaque {
            let mark = entry.path.join_name(OPAQUE);
            let item = Item {
                name: mark.as_bytes(),
                prefix: b"",
                kind: EntryType::Regular,
                size: 0,
                link: b"",
                device: (0, 0),
            };
            self.header(&item, &Meta::default())?;
        }
        Ok(())
    }

    fn content(&mut self, path: &TreePath, mut file: File, size: u64) -> Result<(), TreeError> {
        let mut left = size;
        self.buffer.resize(BUFFER, 0);
        while left > 0 {
            // One byte more would mean that the file is not the one the tree was made from.
            let want = usize::try_from(left).map_or(usize::MAX, |left| left.saturating_add(1)).min(BUFFER);
            let got = match file.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(TreeError::Changed { path: path.clone() }),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(TreeError::io("read", path)(e)),
            };
            if got as u64 > left {
                return Err(TreeError::Changed { path: path.clone() });
            }
            self.out.write_all(&self.buffer[..got]).map_err(TreeError::stream("write the layer"))?;
            self.written += got as u64;
            left -= got as u64;
        }
        // Where the buffer ended with the file nobody has asked for more yet.
        if size.is_multiple_of(BUFFER as u64)
            && file.read(&mut [0]).map_err(TreeError::io("read", path))? != 0
        {
            return Err(TreeError::Changed { path: path.clone() });
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), TreeError> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn header(&mut self, item: &Item<'_>, meta: &Meta) -> Result<(), TreeError> {
        let whole = |time: i64| time.div_euclid(1_000_000_000) * 1_000_000_000;
        let mtime = self.options.clamp_mtime.map_or(meta.mtime, |max| whole(meta.mtime.min(max)));
        let (seconds, fraction) = (mtime.div_euclid(1_000_000_000), mtime.rem_euclid(1_000_000_000));
        let mut pax = Pax::default();
        if item.link.len() > NAME_FIELD || !item.link.is_ascii() {
            pax.add(b"linkpath", item.link);
        }
        for (key, value, max) in [
            (&b"size"[..], item.size, MAX_SIZE),
            (b"uid", u64::from(meta.uid), MAX_ID),
            (b"gid", u64::from(meta.gid), MAX_ID),
        ] {
            if value > max {
                pax.add(key, value.to_string().as_bytes());
            }
        }
        if fraction != 0 || seconds < 0 {
            pax.add(b"mtime", pax::format_time(mtime).as_bytes());
        }
        for xattr in &meta.xattrs {
            if self.options.all_xattrs || &*xattr.name == b"security.capability" {
                pax.add(&[pax::XATTR, &xattr.name].concat(), &xattr.value);
            }
        }
        let seconds = u64::try_from(seconds).unwrap_or(0);
        if item.name.len() > NAME_FIELD || !item.name.is_ascii() {
            if self.as_buildkit()
                && pax.is_empty()
                && let Some((prefix, name)) = split(item.name)
            {
                return self.ustar(&Item { name, prefix, ..*item }, meta, seconds);
            }
            pax.add(b"path", item.name);
        }
        if !pax.is_empty() {
            self.pax(item.name, &pax.encode())?;
        }
        self.ustar(item, meta, seconds)
    }

    fn as_buildkit(&self) -> bool {
        self.options.clamp_mtime.is_some()
    }

    fn ustar(&mut self, item: &Item<'_>, meta: &Meta, seconds: u64) -> Result<(), TreeError> {
        let mut header = ustar(item, meta, seconds);
        if !self.as_buildkit() {
            return self.put(header.as_bytes());
        }
        if item.kind == EntryType::XHeader
            && let Some(ustar) = header.as_ustar_mut()
        {
            ustar.dev_major = [0; 8];
            ustar.dev_minor = [0; 8];
        }
        header.set_cksum();
        if let Ok(sum) = header.cksum() {
            let digits = format!("{sum:06o}\0 ");
            header.as_old_mut().cksum.copy_from_slice(digits.as_bytes());
        }
        self.put(header.as_bytes())
    }

    fn pax(&mut self, name: &[u8], records: &[u8]) -> Result<(), TreeError> {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let split = name.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let name = [&name[..split], b"PaxHeaders.0/", &name[split..]].concat();
        let size = records.len() as u64;
        let item =
            Item { name: &name, prefix: b"", kind: EntryType::XHeader, size, link: b"", device: (0, 0) };
        self.ustar(&item, &Meta::default(), 0)?;
        self.put(records)?;
        self.pad(size)
    }
}

/// A USTAR header; what does not fit is cut or zero, and a PAX record has said it before.
fn ustar(item: &Item<'_>, meta: &Meta, seconds: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(item.kind);
    header.set_mode(meta.mode);
    header.set_uid(if u64::from(meta.uid) > MAX_ID { 0 } else { u64::from(meta.uid) });
    header.set_gid(if u64::from(meta.gid) > MAX_ID { 0 } else { u64::from(meta.gid) });
    header.set_size(if item.size > MAX_SIZE { 0 } else { item.size });
    header.set_mtime(seconds);
    if let Some(ustar) = header.as_ustar_mut() {
        fill(&mut ustar.name, item.name);
        fill(&mut ustar.prefix, item.prefix);
        fill(&mut ustar.linkname, item.link);
        ustar.set_device_major(item.device.0);
        ustar.set_device_minor(item.device.1);
    }
    header.set_cksum();
    header
}

/// A long name as directory and name, as Go's writer puts it into a header's two fields if it fits.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let within = &name[..name.len().min(PREFIX_FIELD + 1)];
    let within = within.strip_suffix(b"/").filter(|_| within.len() == name.len()).unwrap_or(within);
    let at = within.iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0)?;
    let fits = name.is_ascii() && at <= PREFIX_FIELD && (1..=NAME_FIELD).contains(&(name.len() - at - 1));
    fits.then(|| (&name[..at], &name[at + 1..]))
}

fn fill(field: &mut [u8], text: &[u8]) {
    let ascii = text.iter().copied().filter(u8::is_ascii);
    for (slot, byte) in field.iter_mut().zip(ascii) {
        *slot = byte;
    }
}

#[cfg(test)]
mod tests;
