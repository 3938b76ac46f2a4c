//! Relative paths inside a tree, as bytes.
//!
//! A [`TreePath`] never starts with a slash, has no empty, `.` or `..` component and no NUL; the empty path is
//! the root. It knows nothing of any disk: whether a component is a symbolic link is somebody else's question.
//!
//! Order is that of a depth-first walk (a slash sorts before every other byte), so that everything below a
//! directory follows it without a gap.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use lapstrake_go::path;

/// A path that cannot be inside a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad path {path:?}: {why}")]
pub struct PathError {
    /// The path as it came, not-UTF-8 bytes replaced.
    path: String,
    /// What is wrong with it.
    why: &'static str,
}

/// A normal, relative path of bytes inside a tree; the empty one is the root. Clones share the bytes: a build has the same
/// paths in several lists at once.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Arc<[u8]>);

impl TreePath {
    /// The root of a tree.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path that is already normal.
    ///
    /// # Errors
    /// When it is absolute or holds an empty, `.`, `..` component or a NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let bad = |why| PathError { path: lossy(bytes), why };
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.contains(&0) {
            return Err(bad("it contains a NUL byte"));
        }
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" => return Err(bad("it has an empty component")),
                b"." | b".." => return Err(bad("it has a dot component")),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Makes any path normal without looking at a disk; `..` stops at the root, as `cd ..` does there.
    ///
    /// # Errors
    /// When it contains a NUL.
    pub fn clean(bytes: &[u8]) -> Result<Self, PathError> {
        Self::clean_counting(bytes).map(|(path, _)| path)
    }

    /// Like [`Self::clean`], but a path that climbs above the root is an error.
    ///
    /// # Errors
    /// On a NUL, or when `..` leads out of the root.
    pub fn clean_strict(bytes: &[u8]) -> Result<Self, PathError> {
        match Self::clean_counting(bytes)? {
            (path, false) => Ok(path),
            (_, true) => Err(PathError { path: lossy(bytes), why: "it leads out of the root" }),
        }
    }

    fn clean_counting(bytes: &[u8]) -> Result<(Self, bool), PathError> {
        if bytes.contains(&0) {
            return Err(PathError { path: lossy(bytes), why: "it contains a NUL byte" });
        }
        // As a relative path, so that what leads out is left in front.
        let below = bytes.iter().position(|byte| *byte != b'/').map_or(&bytes[..0], |start| &bytes[start..]);
        let cleaned = path::clean_bytes(below);
        let mut rest = cleaned.as_slice();
        while let Some(above) = rest.strip_prefix(b"..").filter(|above| matches!(above, [] | [b'/', ..])) {
            rest = above.strip_prefix(b"/").unwrap_or(above);
        }
        let climbed = rest.len() < cleaned.len();
        Ok((Self(if rest == b"." { Arc::default() } else { rest.into() }), climbed))
    }

    /// Appends one name that a directory listing returned.
    ///
    /// # Panics
    /// In debug builds when `name` is not a single component.
    #[must_use]
    pub fn join_name(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..");
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        Self(out.into())
    }

    /// Appends a whole path.
    #[must_use]
    pub fn join(&self, other: &TreePath) -> Self {
        match (self.is_root(), other.is_root()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => Self([&self.0, &b"/"[..], &other.0].concat().into()),
        }
    }

    /// True for the empty path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading slash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library spells it; `.` for the root, so that it can be handed to an `*at` call.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        &self.0[start..]
    }

    /// The directory it lies in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// Its components from the root down; none for the root itself.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// All directories above it, from the root (which is included) down; none for the root itself.
    pub fn ancestors(&self) -> impl Iterator<Item = TreePath> + '_ {
        let root = (!self.is_root()).then(TreePath::root);
        let slashes = self.0.iter().enumerate().filter(|&(_, &b)| b == b'/');
        root.into_iter().chain(slashes.map(|(i, _)| TreePath(self.0[..i].into())))
    }

    /// Where those of its beginnings end that are paths longer than `above`, which it lies below; the last is itself.
    pub(crate) fn ends_below(&self, above: &TreePath) -> Vec<usize> {
        let slashes = self.0.iter().enumerate().skip(above.0.len() + 1).filter(|&(_, &b)| b == b'/');
        let mut ends: Vec<usize> = slashes.map(|(at, _)| at).collect();
        if self.0.len() > above.0.len() {
            ends.push(self.0.len());
        }
        ends
    }

    /// Its beginning that ends there, one of [`Self::ends_below`].
    pub(crate) fn beginning(&self, end: usize) -> TreePath {
        Self(self.0[..end].into())
    }

    /// True when `self` is `other` or lies below it.
    #[must_use]
    pub fn starts_with(&self, other: &TreePath) -> bool {
        self.strip_prefix(other).is_some()
    }

    /// What remains below `base`; the empty slice when both are equal, `None` when it does not lie there.
    #[must_use]
    pub fn strip_prefix(&self, base: &TreePath) -> Option<&[u8]> {
        if base.is_root() {
            return Some(&self.0);
        }
        match self.0.strip_prefix(base.as_bytes())? {
            b"" => Some(b""),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    /// As [`Self::strip_prefix`], as a path of its own.
    #[must_use]
    pub fn relative_to(&self, base: &TreePath) -> Option<TreePath> {
        self.strip_prefix(base).map(|rest| Self(rest.into()))
    }
}

/// Bytes for a message, with what is not UTF-8 replaced.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that are compared one by one.
const STRETCH: usize = 32;

/// Walk order on raw bytes.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |b: u8| if b == b'/' { 0 } else { b };
    let common = a.len().min(b.len());
    // Long paths begin alike more often than not: where they differ is found by comparing halves as memory.
    let (mut from, mut to) = (0, common);
    while to - from > STRETCH {
        let middle = usize::midpoint(from, to);
        if a[from..middle] == b[from..middle] { from = middle } else { to = middle }
    }
    match a[from..to].iter().zip(&b[from..to]).find(|(x, y)| x != y) {
        Some((&x, &y)) => rank(x).cmp(&rank(y)),
        None => a.len().cmp(&b.len()),
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        walk_order(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl AsRef<Path> for TreePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths_only() {
        for good in ["", "a", "a/b", "a b/..c", "...", "a/.b"] {
            assert_eq!(TreePath::parse(good.as_bytes()).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in ["/a", "a/", "a//b", ".", "..", "a/./b", "a/..", "a\0b"] {
            assert!(TreePath::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cleaning() {
        let cases = [
            ("/", "", false),
            ("./a//b/", "a/b", false),
            ("a/../b", "b", false),
            ("a/b/../../c", "c", false),
            ("../a", "a", true),
            ("a/../../b", "b", true),
            ("/..", "", true),
        ];
        for (input, want, climbs) in cases {
            assert_eq!(TreePath::clean(input.as_bytes()).unwrap().as_bytes(), want.as_bytes(), "{input}");
            assert_eq!(TreePath::clean_strict(input.as_bytes()).is_err(), climbs, "{input}");
        }
    }

    #[test]
    fn children_follow_their_directory() {
        let mut paths: Vec<_> =
            ["a-b", "a/c", "a", "a/b/z", "ab", "a/b"].map(|p| TreePath::parse(p.as_bytes()).unwrap()).into();
        paths.sort();
        let text: Vec<_> = paths.iter().map(|p| lossy(p.as_bytes())).collect();
        assert_eq!(text, ["a", "a/b", "a/b/z", "a/c", "a-b", "ab"]);
        let long = "x".repeat(STRETCH - 1);
        for (less, more) in [("", "/"), ("", "a"), ("/", "-"), ("/b", "a"), ("a", "aa"), ("a/b", "a-b")] {
            let (less, more) = (format!("{long}{less}"), format!("{long}{more}"));
            assert_eq!(walk_order(less.as_bytes(), more.as_bytes()), Ordering::Less, "{less} {more}");
            assert_eq!(walk_order(more.as_bytes(), less.as_bytes()), Ordering::Greater);
            assert_eq!(walk_order(more.as_bytes(), more.as_bytes()), Ordering::Equal);
        }
    }

    #[test]
    fn relations() {
        let path = TreePath::parse(b"a/b/c").unwrap();
        assert_eq!(path.name(), b"c");
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(path.ancestors().map(|p| p.to_string()).collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
        assert_eq!(path.strip_prefix(&TreePath::parse(b"a").unwrap()), Some(&b"b/c"[..]));
        assert_eq!(path.strip_prefix(&TreePath::parse(b"a/bb").unwrap()), None);
        assert!(path.starts_with(&TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
    }
}
