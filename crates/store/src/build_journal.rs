//! Builds that are over and not in the database yet: `builds.recent`.
//!
//! A cached build changes nothing else, and a row in the database is dear to it: SQLite writes six pages to its log, and
//! whoever opens the database next reads them all again. So a build appends its record to a file, in one write; and who
//! wants to know of builds takes that file into the database first.
//!
//! ```text
//! entry  MAGIC, length of the body (u32, little endian), SHA-256 of the body in hex, body
//! body   started (i64, little endian); id, line, record and log: each its length (u32, little endian) and its bytes
//! ```
//!
//! A process that is killed while it writes leaves a part of an entry. What is no entry is passed over.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use lapstrake_oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::error::{StoreError, io_error};
use crate::files;

const MAGIC: &[u8; 8] = b"\nLSBUILD";
/// Hex digits of a SHA-256 digest.
const DIGITS: usize = 64;
const HEAD: usize = MAGIC.len() + size_of::<u32>() + DIGITS;

/// A build that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRow {
    /// Its name: letters and digits.
    pub id: String,
    /// When it began, milliseconds since the Unix epoch.
    pub started: i64,
    /// What it has in common with earlier and later builds of the same thing.
    pub line: String,
    /// What became of it.
    pub record: Vec<u8>,
}

/// A build, and what was said in it.
pub(crate) type Build = (BuildRow, Vec<u8>);

/// A build as an entry; `None` if it is too large for one.
pub(crate) fn entry(build: &BuildRow, log: &[u8]) -> Option<Vec<u8>> {
    let mut body = build.started.to_le_bytes().to_vec();
    for part in [build.id.as_bytes(), build.line.as_bytes(), &build.record, log] {
        body.extend(u32::try_from(part.len()).ok()?.to_le_bytes());
        body.extend(part);
    }
    let mut entry = MAGIC.to_vec();
    entry.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
    entry.extend(Digest::sha256(&body).hex().as_bytes());
    entry.append(&mut body);
    Some(entry)
}

/// Appends an entry to the file at `path`, and says how long it is then.
pub(crate) fn append(path: &Path, entry: &[u8]) -> Result<u64, StoreError> {
    let mut file = files::append(path).map_err(io_error("open", path))?;
    // Whoever empties the file has read what it removes.
    lock(&file, FlockOperation::LockShared, path)?;
    file.write_all(entry).map_err(io_error("write", path))?;
    Ok(file.metadata().map_err(io_error("look at", path))?.len())
}

/// All builds of the file, with what was said in them. Nobody appends while this is held.
pub(crate) struct BuildJournal {
    file: File,
    pub(crate) builds: Vec<Build>,
}

impl BuildJournal {
    /// Those in the file at `path`; `None` if there are none.
    pub(crate) fn read(path: &Path) -> Result<Option<BuildJournal>, StoreError> {
        let mut file = match files::open_to_change(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error)),
        };
        if file.metadata().map_err(io_error("look at", path))?.len() == 0 {
            return Ok(None);
        }
        lock(&file, FlockOperation::LockExclusive, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
        Ok(Some(BuildJournal { file, builds: decode(&bytes) }))
    }

    /// Empties the file: the builds are in the database.
    pub(crate) fn empty(self, path: &Path) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(io_error("shorten", path))
    }
}

fn lock(file: &File, how: FlockOperation, path: &Path) -> Result<(), StoreError> {
    flock(file, how).map_err(|errno| io_error("lock", path)(errno.into()))
}

fn decode(mut bytes: &[u8]) -> Vec<Build> {
    let mut builds = Vec::new();
    while bytes.len() >= HEAD {
        match whole(bytes) {
            Some((build, rest)) => {
                builds.push(build);
                bytes = rest;
            }
            None => bytes = &bytes[1..],
        }
    }
    builds
}

/// The entry that `bytes` begin with, and what follows it.
fn whole(bytes: &[u8]) -> Option<(Build, &[u8])> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let length = number(&mut rest)?;
    let digest = rest.split_off(..DIGITS)?;
    let mut body = rest.split_off(..length)?;
    if Digest::sha256(body).hex().as_bytes() != digest {
        return None;
    }
    let started = i64::from_le_bytes(body.split_off(..size_of::<i64>())?.try_into().ok()?);
    let mut part = || {
        let length = number(&mut body)?;
        Some(body.split_off(..length)?.to_vec())
    };
    let (id, line) = (String::from_utf8(part()?).ok()?, String::from_utf8(part()?).ok()?);
    let (record, log) = (part()?, part()?);
    Some(((BuildRow { id, started, line, record }, log), rest))
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(id: &str) -> Build {
        let row = BuildRow { id: id.to_owned(), started: -7, line: "line".to_owned(), record: vec![0, 1, 2] };
        (row, b"said".to_vec())
    }

    #[test]
    fn what_is_appended_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recent");
        assert!(BuildJournal::read(&path).unwrap().is_none());
        for id in ["a", "b"] {
            let (row, log) = build(id);
            append(&path, &entry(&row, &log).unwrap()).unwrap();
        }
        let recent = BuildJournal::read(&path).unwrap().unwrap();
        assert_eq!(recent.builds, [build("a"), build("b")]);
        recent.empty(&path).unwrap();
        assert!(BuildJournal::read(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_torn_or_damaged_is_passed_over() {
        let entry = |id| {
            let (row, log) = build(id);
            entry(&row, &log).unwrap()
        };
        let (first, second) = (entry("a"), entry("b"));
        for cut in 0..first.len() {
            let torn = [&first[..cut], &second].concat();
            assert_eq!(decode(&torn), [build("b")], "cut at {cut}");
        }
        for at in 0..first.len() {
            let mut damaged = [&first[..], &second].concat();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), [build("b")], "damaged at {at}");
        }
        assert_eq!(decode(&vec![0; 500]), []);
    }
}
