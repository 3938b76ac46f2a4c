//! How a path leads through symbolic links inside a root: one algorithm for all that looks names up, be it in a directory,
//! in a [`crate::Tree`] or in what an archive has made so far.
//!
//! A path is followed as after a `chroot`: an absolute link begins at the root again, and `..` stops there. A [`Lookup`]
//! knows one directory at a time. The texts of links are kept whole and read from the front, so that a path costs as much
//! memory as its links have bytes.

/// Links that one resolution follows, as in Docker's `FollowSymlinkInScope`: images that build there build here.
pub const MAX_LINKS: u32 = 255;
/// The kernel's own limit (`MAXSYMLINKS`), for paths that the kernel resolves again: what it would refuse later is refused
/// at once.
pub const KERNEL_MAX_LINKS: u32 = 40;

/// Which links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// Whether a link is followed that nothing comes after.
    pub last: bool,
    /// How many are followed before the path counts as a loop.
    pub most: u32,
}

impl Links {
    /// All of them, as far as Docker goes.
    pub const ALL: Links = Links { last: true, most: MAX_LINKS };

    /// Those on the way, and the last one too if `last` says so.
    #[must_use]
    pub const fn and_last(last: bool) -> Links {
        Links { last, most: MAX_LINKS }
    }
}

/// Something that names can be looked up in. It stands in one directory, the root at first.
pub trait Lookup {
    /// Why a name cannot be looked up.
    type Error;

    /// Looks up the first of `names`, or several of them at once. Of directories that it finds it enters the last one.
    ///
    /// # Errors
    /// The lookup's own; they end the resolution.
    fn enter(&mut self, names: &Names<'_>) -> Result<Found, Self::Error>;

    /// The text of the link that was just found.
    ///
    /// # Errors
    /// As [`Self::enter`].
    fn read_link(&mut self) -> Result<Box<[u8]>, Self::Error>;

    /// Goes to the directory above. The root is above itself.
    fn up(&mut self);

    /// Goes to the root.
    fn back_to_root(&mut self);

    /// The error for more links than are followed.
    fn too_many_links(&self) -> Self::Error;
}

/// What a lookup has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A directory, or what counts as one. The lookup stands in it now.
    Directory {
        /// The length of the names that were looked up, with the slashes between them.
        taken: usize,
    },
    /// A symbolic link. The lookup stands in the directory that has it.
    Link {
        /// As above; the last of these names is the link.
        taken: usize,
    },
    /// Something else. The lookup stands in the directory that has it.
    Other {
        /// As above.
        taken: usize,
    },
    /// Nothing has the first name.
    Missing,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// To the directory that the lookup stands in.
    Directory,
    /// To something of this name that is no directory, or is a link that is not followed.
    Other(Box<[u8]>),
    /// Over something that is no directory.
    NotADirectory,
    /// To nothing.
    Missing {
        /// The names below the directory that the lookup stands in, taken literally. None if `..` has taken all of them
        /// away.
        names: Vec<Box<[u8]>>,
        /// Whether the first missing name was in the text of a link.
        by_link: bool,
    },
}

/// Names in a row that a lookup is asked for: at least one, none of them `.` or `..`.
#[derive(Debug)]
pub struct Names<'p> {
    pending: &'p Pending,
    run: &'p [u8],
}

impl Names<'_> {
    /// All of them, with one slash between two.
    #[must_use]
    pub fn all(&self) -> &[u8] {
        self.run
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> &[u8] {
        first(self.run)
    }

    /// Whether nothing at all comes after the first one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.pending.ends_after(self.first().len())
    }
}

/// Follows `path` from where `lookup` stands.
///
/// # Errors
/// Those of the lookup.
pub fn resolve<L: Lookup>(lookup: &mut L, path: &[u8], links: Links) -> Result<End, L::Error> {
    let mut pending = Pending { texts: Vec::new() };
    pending.push(path.into(), false);
    let mut followed = 0;
    while let Some(step) = pending.next() {
        let Step::Names(run) = step else {
            pending.take(2);
            lookup.up();
            continue;
        };
        match lookup.enter(&Names { pending: &pending, run })? {
            Found::Directory { taken } => pending.take(taken),
            Found::Link { taken } if links.last || !pending.ends_after(taken) => {
                pending.take(taken);
                followed += 1;
                if followed > links.most {
                    return Err(lookup.too_many_links());
                }
                let target = lookup.read_link()?;
                if target.starts_with(b"/") {
                    lookup.back_to_root();
                }
                pending.push(target, true);
            }
            Found::Link { taken } | Found::Other { taken } => {
                let name = run[..taken].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let end = End::Other(name.into());
                return Ok(if pending.ends_after(taken) { end } else { End::NotADirectory });
            }
            Found::Missing => {
                let by_link = pending.is_in_link();
                return Ok(End::Missing { names: literally(lookup, pending), by_link });
            }
        }
    }
    Ok(End::Directory)
}

/// The names that are left; `..` takes one away, or leads `lookup` up where none is left.
fn literally<L: Lookup>(lookup: &mut L, mut pending: Pending) -> Vec<Box<[u8]>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    while let Some(step) = pending.next() {
        let length = match step {
            Step::Names(run) => {
                names.push(first(run).into());
                first(run).len()
            }
            Step::Up => {
                if names.pop().is_none() {
                    lookup.up();
                }
                2
            }
        };
        pending.take(length);
    }
    names
}

fn first(run: &[u8]) -> &[u8] {
    run.split(|byte| *byte == b'/').next().unwrap_or_default()
}

/// What is still to be followed: a path, and on it the texts of links that it goes over.
#[derive(Debug)]
struct Pending {
    texts: Vec<Text>,
}

/// A path that is read from its beginning to its end.
#[derive(Debug)]
struct Text {
    bytes: Box<[u8]>,
    at: usize,
    /// Whether a link has it.
    of_link: bool,
}

/// The next part of a path.
enum Step<'p> {
    /// `..`
    Up,
    /// Names, each in the one before.
    Names(&'p [u8]),
}

/// The place of the next name in `bytes` from `at` on, or their end.
fn skipped(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match &bytes[at..] {
            [b'/', ..] | [b'.', b'/', ..] | [b'.'] => at += 1,
            _ => return at,
        }
    }
}

impl Pending {
    fn push(&mut self, bytes: Box<[u8]>, of_link: bool) {
        self.texts.push(Text { bytes, at: 0, of_link });
        self.settle();
    }

    /// Goes to where something comes: over slashes and `.`, and back from texts that have ended.
    fn settle(&mut self) {
        while let Some(text) = self.texts.last_mut() {
            text.at = skipped(&text.bytes, text.at);
            if text.at < text.bytes.len() {
                break;
            }
            self.texts.pop();
        }
    }

    /// The next names, as many as come before the end of their text, a `.`, a `..` or a second slash.
    fn next(&self) -> Option<Step<'_>> {
        let text = self.texts.last()?;
        let rest = &text.bytes[text.at..];
        let mut end = 0;
        for name in rest.split(|byte| *byte == b'/') {
            match name {
                b".." if end == 0 => return Some(Step::Up),
                b"" | b"." | b".." => break,
                // With the slash in front of it, if it is not the first one.
                name => end += name.len() + usize::from(end > 0),
            }
        }
        Some(Step::Names(&rest[..end]))
    }

    /// Passes over `length` bytes of what came.
    fn take(&mut self, length: usize) {
        if let Some(text) = self.texts.last_mut() {
            text.at += length;
        }
        self.settle();
    }

    /// Whether nothing comes after `length` bytes more.
    fn ends_after(&self, length: usize) -> bool {
        let mut length = length;
        self.texts.iter().rev().all(|text| {
            let at = text.at + std::mem::take(&mut length);
            skipped(&text.bytes, at) == text.bytes.len()
        })
    }

    /// Whether what comes next is from the text of a link.
    fn is_in_link(&self) -> bool {
        self.texts.last().is_some_and(|text| text.of_link)
    }
}

#[cfg(test)]
mod tests;
