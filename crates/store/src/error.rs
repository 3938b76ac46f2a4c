//! What can go wrong with the state directory.

use lapstrake_diag::{Code, Fault, Reported};
use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The database refused.
    #[error("the state database `{}` failed{}", path.display(), no_room(source))]
    Database {
        /// The database file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// Made by a newer lapstrake.
    #[error("the state directory `{}` has format {found}, and this lapstrake knows up to {known}", path.display())]
    TooNew {
        /// The state directory.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// The state directory is of an older version, and older processes are at work in it.
    #[error(
        "the state directory `{}` has an older format, and the older lapstrake that uses it could not read the new one: \
         wait for the end of {processes}, then try again", path.display()
    )]
    OlderInUse {
        /// The state directory.
        path: PathBuf,
        /// The processes by number and command.
        processes: String,
    },
    /// The superblock is not readable.
    #[error("`{}` is not a lapstrake state directory: its `state.json` is damaged", path.display())]
    Superblock {
        /// The state directory.
        path: PathBuf,
    },
    /// Bytes that do not have the digest or size that they should have.
    #[error("blob {expected} is damaged: its bytes give {found}")]
    WrongDigest {
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Something that is not in the store.
    #[error("{what} `{name}` is not in the store")]
    Missing {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Somebody runs it.
    #[error("image {image} is in use: process {process} runs `{command}` in it")]
    InUse {
        /// The image's short id.
        image: String,
        /// Who uses it.
        process: String,
        /// What it does.
        command: String,
    },
    /// Something in the state directory is a link or another user's.
    #[error(
        "`{}` is not what lapstrake put there, and somebody else could write to the state directory: remove it",
        path.display()
    )]
    Planted {
        /// What is there.
        path: PathBuf,
    },
    /// A directory that others may enter and that has other things in it.
    #[error(
        "`{}` is in use for other things, such as `{}`: a state directory is private, and needs a directory of its own",
        path.display(), name.display()
    )]
    InOtherUse {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        name: PathBuf,
    },
    /// Another user's directory.
    #[error("the state directory `{}` belongs to user {owner}, not to you", path.display())]
    Foreign {
        /// The state directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl StoreError {
    /// Whether the state directory is damaged, so that only dropping something helps.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Superblock { .. } | StoreError::WrongDigest { .. } => true,
            StoreError::Database { source, .. } => source.sqlite_error().is_some_and(|error| {
                matches!(error.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            }),
            _ => false,
        }
    }
}

/// Whether an error or one of its causes is that there was no room on a disk.
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let by_system = cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        });
        by_system || cause.downcast_ref::<rusqlite::Error>().is_some_and(is_database_full)
    })
}

/// SQLite has a code for a full disk, and another one for its shared memory file.
fn is_database_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// The system's words for a full disk, if a full disk is the cause. SQLite has other words.
fn no_room(error: &rusqlite::Error) -> &'static str {
    if is_database_full(error) { ": No space left on device" } else { "" }
}

pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

impl Reported for StoreError {
    fn code(&self) -> Code {
        Code::new("store", self.into())
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Database { source, .. } if is_database_full(source) => Fault::Environment,
            _ => Fault::Build,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Database { source, .. } if is_database_full(source) => {
                "free space, or set LAPSTRAKE_ROOT to a directory on another disk"
            }
            _ if self.is_damage() => {
                "`lapstrake doctor --repair` drops what is damaged in the state directory"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_the_same_words_everywhere() {
        let failed = |code| StoreError::Database {
            path: PathBuf::from("/s/state.db"),
            source: rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None),
        };
        let full = failed(rusqlite::ffi::SQLITE_FULL);
        assert_eq!(full.to_string(), "the state database `/s/state.db` failed: No space left on device");
        assert!(is_disk_full(&full));
        let damaged = failed(rusqlite::ffi::SQLITE_CORRUPT);
        assert_eq!(damaged.to_string(), "the state database `/s/state.db` failed");
        assert!(!is_disk_full(&damaged) && damaged.is_damage());
    }
}
