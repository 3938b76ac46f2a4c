//! Entries of a tree as the wire has them, checked.

use lapstrake_proto::fsutil::types::Stat;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::TransferError;

/// Bits of Go's `fs::FileMode`.
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;
/// The longest path, in bytes.
const LONGEST_PATH: usize = 4096;

/// The kind of an entry, with the value that the kind has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A regular file, of this many bytes.
    File(u64),
    /// A further name of the regular file at this path of the tree.
    HardLink(String),
    /// A symbolic link with this target.
    Symlink(String),
    /// A named pipe.
    Fifo,
    /// Something that is not copied: a socket, or a device.
    Other,
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The path from the root, without `.` and `..`, never empty.
    pub(super) path: String,
    /// The kind.
    pub(super) kind: Kind,
    /// Permission bits of Unix, with set-id and sticky bits.
    pub(super) mode: u32,
    /// The time of the last change, nanoseconds since the Unix epoch.
    pub(super) mtime: i64,
}

impl Entry {
    /// Checks what another process says.
    ///
    /// # Errors
    /// A path that is not plain, or a mode that no file has.
    pub(super) fn read(stat: &Stat) -> Result<Entry, TransferError> {
        let path = plain(&stat.path)?;
        let type_bits = GO_DIR | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_SOCKET | GO_CHAR | GO_IRREGULAR;
        let kind = match stat.mode & type_bits {
            GO_DIR => Kind::Directory,
            GO_SYMLINK => Kind::Symlink(stat.linkname.clone()),
            GO_FIFO => Kind::Fifo,
            0 if stat.linkname.is_empty() => {
                let negative = |_| TransferError::Protocol(format!("`{path}` with a negative size"));
                Kind::File(u64::try_from(stat.size).map_err(negative)?)
            }
            0 => Kind::HardLink(plain(stat.linkname.trim_start_matches('/'))?),
            _ => Kind::Other,
        };
        Ok(Entry { path, kind, mode: unix_mode(stat.mode), mtime: stat.mod_time })
    }

    /// The name for the wire, with the mode of Go.
    pub(super) fn stat(path: String, stat: &rustix::fs::Stat, linkname: String) -> Stat {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => GO_DIR,
            FileType::Symlink => GO_SYMLINK,
            FileType::Fifo => GO_FIFO,
            FileType::Socket => GO_SOCKET,
            FileType::CharacterDevice => GO_DEVICE | GO_CHAR,
            FileType::BlockDevice => GO_DEVICE,
            FileType::RegularFile | FileType::Unknown => 0,
        };
        let is_file = kind == 0;
        let mut wire = Stat {
            path,
            mode: kind | go_mode(stat.st_mode),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if is_file { stat.st_size } else { 0 },
            mod_time: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add_unsigned(stat.st_mtime_nsec),
            linkname,
            ..Stat::default()
        };
        if kind & GO_DEVICE != 0 {
            wire.devmajor = i64::from(rustix::fs::major(stat.st_rdev));
            wire.devminor = i64::from(rustix::fs::minor(stat.st_rdev));
        }
        wire
    }

    /// The path of the directory that has the entry; empty for the root.
    pub(super) fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

/// The path, if it is a plain one: relative, without empty parts, `.`, `..` and NUL.
fn plain(path: &str) -> Result<String, TransferError> {
    let bad = |part: &str| matches!(part, "" | "." | "..");
    if path.len() > LONGEST_PATH || path.contains('\0') || path.split('/').any(bad) {
        return Err(TransferError::Protocol(format!("the path {path:?}, which is not plain")));
    }
    Ok(path.to_owned())
}

fn unix_mode(go: u32) -> u32 {
    let bit = |from: u32, to: u32| if go & from == 0 { 0 } else { to };
    go & 0o777 | bit(GO_SETUID, 0o4000) | bit(GO_SETGID, 0o2000) | bit(GO_STICKY, 0o1000)
}

fn go_mode(unix: u32) -> u32 {
    let bit = |from: u32, to: u32| if unix & from == 0 { 0 } else { to };
    unix & 0o777 | bit(0o4000, GO_SETUID) | bit(0o2000, GO_SETGID) | bit(0o1000, GO_STICKY)
}

/// The order of entries on the wire: that of their path's parts.
pub(super) fn in_order(before: &str, after: &str) -> bool {
    before.split('/').lt(after.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str) -> Stat {
        Stat { path: path.to_owned(), mode: 0o644, ..Stat::default() }
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/", "a\0b"] {
            let error = Entry::read(&stat(path)).unwrap_err();
            assert!(matches!(error, TransferError::Protocol(_)), "{path:?}");
            let link = Stat { linkname: path.to_owned(), ..stat("a") };
            let read = Entry::read(&link);
            assert!(path.is_empty() || path == "/etc/passwd" || read.is_err(), "{path:?}: {read:?}");
        }
        assert_eq!(Entry::read(&stat("a/..b")).unwrap().parent(), "a");
        assert!(Entry::read(&stat(&"a/".repeat(4000))).is_err());
    }

    #[test]
    fn modes_are_those_of_go() {
        let read = |mode| Entry::read(&Stat { mode, ..stat("a") }).unwrap();
        assert_eq!(read(GO_DIR | GO_STICKY | 0o777).mode, 0o1777);
        assert_eq!(read(GO_DIR | 0o755).kind, Kind::Directory);
        assert_eq!(read(GO_SETUID | 0o755).mode, 0o4755);
        assert_eq!(read(GO_SOCKET | 0o755).kind, Kind::Other);
        assert_eq!(read(GO_DEVICE | GO_CHAR | 0o666).kind, Kind::Other);
        assert_eq!(go_mode(0o106_755), GO_SETUID | GO_SETGID | 0o755);
    }

    #[test]
    fn order_is_that_of_parts() {
        assert!(in_order("a", "a/b"));
        assert!(in_order("a/b", "a-b"));
        assert!(!in_order("a-b", "a/b"));
        assert!(!in_order("a", "a"));
    }
}
