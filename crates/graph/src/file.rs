//! Changes to a tree that need no process.

use serde::{Deserialize, Serialize};

/// Actions done in order on input 0. All of them together make one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct File {
    /// What is done, in order.
    pub actions: Vec<FileAction>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// Copies out of another input.
    Copy(Copy),
    /// Makes a directory.
    MakeDir(MakeDir),
    /// Makes a file with given content.
    MakeFile(MakeFile),
    /// Makes a symbolic link.
    Symlink(Symlink),
    /// Removes a file, or a directory with all that is below it.
    Remove(Remove),
}

/// Copies paths of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Copy {
    /// The index, in the vertex's inputs, of the tree that is copied from.
    pub input: usize,
    /// Paths or patterns from the input's root, as written after expansion.
    pub sources: Vec<String>,
    /// An absolute path in the tree; a trailing `/` (or `/.`) means "into this directory".
    pub dest: String,
    /// The new owner of everything copied and created; `None` keeps (stages, images) or resets to 0:0 (local contexts).
    pub chown: Option<Owner>,
    /// `--chmod`, octal or symbolic, as written.
    pub chmod: Option<String>,
    /// The mode is also for the directory that becomes of the sources, if it is made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chmod_made: bool,
    /// `--exclude` patterns, relative to each source.
    pub exclude: Vec<String>,
    /// Keep the sources' parent directories (`--parents`).
    pub parents: bool,
    /// Sources without wildcards may be missing too (`--optional`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What is done with archives.
    pub unpack: bool,
    /// The mtime of created parents, seconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    /// The ways in which the copy differs from the instruction `COPY`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub variant: CopyVariant,
}

/// The ways in which a copy differs from the instruction `COPY`. Clients of BuildKit's API ask for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyVariant {
    /// Characters of patterns have no meaning in sources.
    #[serde(skip_serializing_if = "is_default")]
    pub literal: bool,
    /// A pattern has to match something.
    #[serde(skip_serializing_if = "is_default")]
    pub needs_match: bool,
    /// A source that is a link is copied as a link.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_links: bool,
    /// A directory is copied itself, not only its entries.
    #[serde(skip_serializing_if = "is_default")]
    pub whole_directory: bool,
    /// The parent of the destination has to be there.
    #[serde(skip_serializing_if = "is_default")]
    pub needs_parent: bool,
    /// Only paths that match one of these patterns are copied, relative to each source; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Paths, relative to each source, that must be among the copied ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Files and directories in the way at the destination are removed, whatever their kinds.
    #[serde(skip_serializing_if = "is_default")]
    pub replace: bool,
    /// The timestamp is also for copied files and directories, not only for created parents.
    #[serde(skip_serializing_if = "is_default")]
    pub all_times: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Symlink {
    /// The absolute path of the link in the tree. Its parent has to be there.
    pub path: String,
    /// The text of the link.
    pub text: String,
    /// The owner; `None` is 0:0.
    pub owner: Option<Owner>,
    /// The mtime, seconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// Removes a file, or a directory with all that is below it. Links on the way are followed, the last one is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Remove {
    /// An absolute path in the tree.
    pub path: String,
    /// Whether the path may be missing.
    pub optional: bool,
    /// Whether the last part of the path is a pattern.
    pub wildcards: bool,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MakeDir {
    /// An absolute path in the tree.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Make missing parents too, and do nothing if it exists.
    pub parents: bool,
    /// The owner of what is made; `None` is 0:0.
    pub owner: Option<Owner>,
    /// The mtime of what is made, seconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
}

/// Makes a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MakeFile {
    /// An absolute path in the tree; with a trailing `/` the file is put into this directory under `name`.
    pub dest: String,
    /// The file's name when `dest` is a directory (a heredoc's delimiter).
    pub name: String,
    /// Permission bits; `chmod` overrides them.
    pub mode: u32,
    /// `--chmod`, octal or symbolic, as written.
    pub chmod: Option<String>,
    /// The content.
    pub data: Vec<u8>,
    /// The owner of what is made; `None` is 0:0.
    pub owner: Option<Owner>,
    /// The mtime of what is made, seconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    /// Whether the parent of `dest` has to be there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needs_parent: bool,
}

/// Who a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub user: OwnerPart,
    /// The group; `None`: the number of the user, or the group of the named user.
    pub group: Option<OwnerPart>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerPart {
    /// By number.
    Id(u32),
    /// By name, looked up in the `/etc/passwd` or `/etc/group` of the tree that is changed.
    Name(String),
}

impl OwnerPart {
    /// Numbers are ids, anything else is a name; `root` is 0 everywhere.
    pub fn parse(text: &str) -> OwnerPart {
        match text {
            "root" => OwnerPart::Id(0),
            _ => text.parse().map_or_else(|_| OwnerPart::Name(text.to_owned()), OwnerPart::Id),
        }
    }

    fn is_name(&self) -> bool {
        matches!(self, OwnerPart::Name(_))
    }
}

impl Owner {
    /// Parses `user[:group]`; a part that is empty is 0.
    pub fn parse(text: &str) -> Owner {
        match text.split_once(':') {
            None => Owner { user: OwnerPart::parse(text), group: None },
            Some((user, group)) => Owner {
                user: OwnerPart::parse(if user.is_empty() { "0" } else { user }),
                group: Some(OwnerPart::parse(if group.is_empty() { "0" } else { group })),
            },
        }
    }

    /// Whether looking it up reads the tree that is changed.
    pub fn needs_lookup(&self) -> bool {
        self.user.is_name() || self.group.as_ref().is_some_and(OwnerPart::is_name)
    }
}
