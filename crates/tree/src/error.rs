//! What can go wrong with a file tree. Texts name the thing; causes are kept as sources and not repeated.

use lapstrake_diag::{Code, Reported};
use std::io;

use crate::path::{PathError, TreePath};

/// An error of this crate.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum TreeError {
    /// The kernel refused an operation on a path of the tree.
    #[error("cannot {action} {path}")]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The path.
        path: TreePath,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// An owner that does not exist in the user namespace.
    #[error("{path} belongs to {uid}:{gid}, and this user has no such id")]
    NoSuchId {
        /// The file.
        path: TreePath,
        /// The number of its user.
        uid: u32,
        /// The number of its group.
        gid: u32,
    },
    /// Reading or writing a stream failed.
    #[error("cannot {action}")]
    Stream {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A path that cannot be inside a tree.
    #[error(transparent)]
    BadPath(#[from] PathError),
    /// A stored tree or index could not be decoded.
    #[error("corrupt {what}: {why}")]
    Corrupt {
        /// What was decoded.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A stored tree or index has a format this program does not know.
    #[error("{what} has format version {found}, expected {expected}")]
    Version {
        /// What was decoded.
        what: &'static str,
        /// The version it carries.
        found: u8,
        /// The version understood here.
        expected: u8,
    },
    /// An archive breaks its format.
    #[error("invalid archive entry {name:?}: {why}")]
    BadArchive {
        /// The entry's name as it came; empty when there is none yet.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It does not begin like an archive.
    #[error("it is no tar archive, plain or compressed")]
    NoArchive,
    /// An archive is bigger than allowed.
    #[error("archive exceeds the limit of {limit} {what}")]
    TooBig {
        /// What is counted.
        what: &'static str,
        /// The limit in force.
        limit: u64,
    },
    /// A name, a path or a link text that no Linux kernel takes.
    #[error("{path:?}… is too long: {what} has {length} bytes, and the kernel takes {limit}")]
    TooLong {
        /// How the path begins.
        path: String,
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest that is possible.
        limit: usize,
    },
    /// A hard link whose target is not in the same layer.
    #[error("hard link {path} points to {target}, which is not a file of the same layer")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// Where it points to.
        target: TreePath,
    },
    /// A hard link of an archive whose target is missing.
    #[error(
        "hard link {path} points to {target}, which is neither in the archive so far nor in the destination"
    )]
    NoLinkTarget {
        /// The link.
        path: TreePath,
        /// Where it points to.
        target: TreePath,
    },
    /// A directory of an archive is a symbolic link that leads to nothing.
    #[error("{path} leads over a symbolic link to {target}, which does not exist")]
    DanglingLink {
        /// The directory as the archive names it.
        path: TreePath,
        /// What is missing.
        target: TreePath,
    },
    /// A file changed while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: TreePath,
    },
    /// Two entries have the same path.
    #[error("{path} appears twice")]
    Duplicate {
        /// The path.
        path: TreePath,
    },
    /// A path component is not a directory.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The component.
        path: TreePath,
    },
    /// More symbolic links than a resolution may follow.
    #[error("too many symbolic links in {path:?}")]
    Loop {
        /// The path that was resolved.
        path: String,
    },
    /// An overlay upper directory uses a feature that a layer cannot express.
    #[error("{path} uses overlayfs {feature}, which no layer can express")]
    Overlay {
        /// The path.
        path: TreePath,
        /// `redirect` or `metacopy`.
        feature: &'static str,
    },
    /// A user or group is not known in the tree.
    #[error("unable to find {kind} {name}: no matching entries in {file} file")]
    NoSuchUser {
        /// `user` or `group`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A user specification or a mode could not be understood.
    #[error("invalid {what}: {value:?}")]
    Invalid {
        /// What was parsed.
        what: &'static str,
        /// The text.
        value: String,
    },
    /// A file that is not what it has to be (a FIFO for a passwd file, say).
    #[error("{path} is not a regular file of at most {limit} bytes")]
    NotPlain {
        /// The file.
        path: TreePath,
        /// The limit in bytes.
        limit: u64,
    },
    /// A pattern of an ignore file or a source does not parse.
    #[error("syntax error in pattern {pattern:?}{}", in_file(file.as_deref(), *line))]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Its line in the ignore file, from 1; 0 when it comes from elsewhere.
        line: u32,
        /// The ignore file, if it has a name.
        file: Option<Box<str>>,
    },
    /// A line of an ignore file is too long.
    #[error("failed parsing .dockerignore: bufio.Scanner: token too long{}", in_file(file.as_deref(), *line))]
    LongLine {
        /// Its number, from 1.
        line: u32,
        /// The ignore file, if it has a name.
        file: Option<Box<str>>,
    },
    /// A lone `!` in an ignore file.
    #[error("illegal exclusion pattern: {pattern:?}{}", in_file(file.as_deref(), *line))]
    IllegalExclusion {
        /// The pattern.
        pattern: String,
        /// Its line, from 1.
        line: u32,
        /// The ignore file, if it has a name.
        file: Option<Box<str>>,
    },
    /// A named source does not exist.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path as `/a/b`.
        path: String,
        /// The ignore pattern and its line (from 1) which hides it, when one does.
        hidden_by: Option<(String, u32)>,
        /// The longest existing path above it, as `/a`.
        nearest: String,
    },
    /// A directory should be copied over something that is not one.
    #[error("cannot copy to non-directory: {path}")]
    CopyToNonDirectory {
        /// The destination.
        path: TreePath,
    },
    /// A file should be copied over a directory.
    #[error("cannot replace to directory {path} with file")]
    ReplaceDirectory {
        /// The destination.
        path: TreePath,
    },
}

/// Where a pattern stands.
fn in_file(file: Option<&str>, line: u32) -> String {
    file.map_or(String::new(), |file| format!(" (line {line} of {file})"))
}

impl TreeError {
    /// For `map_err`: an [`TreeError::Io`] with its noun.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &TreePath) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: path.clone(), source: source.into() }
    }

    /// For `map_err` where an owner is set, too: the kernel calls an id that is not mapped an invalid argument.
    pub(crate) fn owning(
        action: &'static str,
        path: &TreePath,
        (uid, gid): (u32, u32),
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| match errno {
            rustix::io::Errno::INVAL => Self::NoSuchId { path: path.clone(), uid, gid },
            errno => Self::io(action, path)(errno),
        }
    }

    /// For `map_err`: a [`TreeError::Stream`].
    pub(crate) fn stream<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Stream { action, source: source.into() }
    }

    /// The kernel's error number, where one is the cause.
    #[must_use]
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Io { source, .. } | Self::Stream { source, .. } => rustix::io::Errno::from_io_error(source),
            Self::TooLong { .. } => Some(rustix::io::Errno::NAMETOOLONG),
            _ => None,
        }
    }
}

impl Reported for TreeError {
    fn code(&self) -> Code {
        Code::new("tree", self.into())
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Corrupt { .. } => {
                "`lapstrake doctor --repair` drops what is damaged in the state directory"
            }
            Self::NoSuchId { .. } => {
                "give this user a range with that id in /etc/subuid and /etc/subgid, or set LAPSTRAKE_IDS=one with a \
                 LAPSTRAKE_ROOT of its own: with one id files can have any owner"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
