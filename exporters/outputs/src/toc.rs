//! The table of contents of an eStargz layer, and what it says of a tar's headers.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapstrake_oci::{Digest, rfc3339};
use serde::Serialize;
use tar::EntryType;

/// The name of the table in its tar.
pub(crate) const TOC_NAME: &str = "stargz.index.json";
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The table.
#[derive(Serialize)]
pub(crate) struct Toc {
    version: u32,
    pub(crate) entries: Vec<Entry>,
}

impl Toc {
    pub(crate) fn new() -> Toc {
        Toc { version: 1, entries: Vec::new() }
    }

    /// As it is written down: indented by tabs.
    pub(crate) fn json(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
        Ok(out)
    }
}

/// An entry of the tar, or a further piece of a file.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    modtime: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group_name: String,
    /// Where the member with its content begins.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk_digest: Option<Digest>,
    /// The number of that member: where it begins is known once it is compressed.
    #[serde(skip)]
    pub(crate) member: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// A piece of the file `name` that is not its first.
    pub(crate) fn piece(name: &str) -> Entry {
        Entry { name: name.to_owned(), kind: "chunk", ..Entry::default() }
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == "reg"
    }
}

/// What a header says with its extensions (the records of a PAX header, long names), and how many bytes follow it.
pub(crate) fn entry(
    header: &tar::Header,
    pax: &[u8],
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
) -> io::Result<(Entry, u64)> {
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for record in tar::PaxExtensions::new(pax) {
        let record = record?;
        records.insert(record.key_bytes().to_vec(), record.value_bytes().to_vec());
    }
    let number = |key: &str, field: io::Result<u64>| match records.get(key.as_bytes()) {
        Some(value) => {
            let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            parsed.ok_or_else(|| io::Error::other(format!("`{key}` in the layer's tar is no number")))
        }
        None => field,
    };
    let text = |key: &str, long: Option<Vec<u8>>, field: &[u8]| {
        let bytes = records.get(key.as_bytes()).cloned().or(long).unwrap_or_else(|| field.to_vec());
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let name = text("path", name, &header.path_bytes());
    let kind = kind_of(header.entry_type(), &name)?;
    if name.trim_matches('/') == TOC_NAME {
        return Err(io::Error::other(format!("eStargz keeps the name `{TOC_NAME}` for itself")));
    }
    let size = if kind == "reg" { number("size", header.entry_size())? } else { 0 };
    let devices = matches!(kind, "char" | "block");
    let device =
        |field: io::Result<Option<u32>>| field.ok().flatten().filter(|_| devices).map_or(0, u64::from);
    let owner = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    let xattrs = records.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(XATTR)?;
        Some((String::from_utf8_lossy(name).into_owned(), STANDARD.encode(value)))
    });
    let is_link = matches!(kind, "symlink" | "hardlink");
    let link_field = header.link_name_bytes().unwrap_or_default();
    let entry = Entry {
        kind,
        size,
        modtime: modtime(records.get(b"mtime".as_slice()).map(Vec::as_slice), header),
        link_name: if is_link { text("linkpath", link, &link_field) } else { String::new() },
        mode: u64::from(header.mode()?),
        uid: number("uid", header.uid())?,
        gid: number("gid", header.gid())?,
        user_name: owner(header.username_bytes()),
        group_name: owner(header.groupname_bytes()),
        dev_major: device(header.device_major()),
        dev_minor: device(header.device_minor()),
        xattrs: xattrs.collect(),
        name,
        ..Entry::default()
    };
    Ok((entry, size))
}

/// What the table calls an entry of this kind.
fn kind_of(kind: EntryType, name: &str) -> io::Result<&'static str> {
    Ok(match kind {
        EntryType::Regular if name.ends_with('/') => "dir",
        EntryType::Regular | EntryType::Continuous => "reg",
        EntryType::Directory => "dir",
        EntryType::Symlink => "symlink",
        EntryType::Link => "hardlink",
        EntryType::Char => "char",
        EntryType::Block => "block",
        EntryType::Fifo => "fifo",
        other => return Err(io::Error::other(format!("eStargz knows no entries like `{name}` ({other:?})"))),
    })
}

/// To the nearest second; nothing for 1970's first.
fn modtime(record: Option<&[u8]>, header: &tar::Header) -> String {
    let text = record.and_then(|record| std::str::from_utf8(record).ok());
    let seconds = match text {
        Some(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let whole: i64 = whole.parse().unwrap_or_default();
            // Of a time before 1970 the fraction is taken away.
            let round = fraction.as_bytes().first().is_some_and(|digit| *digit >= b'5');
            whole + i64::from(round) * if text.starts_with('-') { -1 } else { 1 }
        }
        None => header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or_default(),
    };
    if seconds == 0 { String::new() } else { rfc3339(seconds, 0) }
}
