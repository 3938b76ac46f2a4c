//! Which paths sources name.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::TreeError;
use crate::ignore::Patterns;
use crate::inroot::Root;
use crate::path::TreePath;
use crate::scan::read_names;

/// What a copy leaves out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// The ignore file of the source's root: paths from the root.
    pub ignore: Option<&'a Patterns>,
    /// `--exclude`: paths from each picked directory.
    pub exclude: Option<&'a Patterns>,
}

impl Filter<'_> {
    /// Whether the entry is left out, with all below it.
    pub(super) fn hides(&self, from_root: &TreePath, from_picked: &TreePath, is_dir: bool) -> bool {
        let hidden = |patterns: Option<&Patterns>, path: &TreePath| {
            patterns.is_some_and(|p| p.excluded(path).excluded && !(is_dir && p.may_return_below(path)))
        };
        hidden(self.ignore, from_root) || hidden(self.exclude, from_picked)
    }

    /// Whether a directory that is entered is itself left out: then only what comes back below it makes it appear.
    pub(super) fn only_passes(&self, from_root: &TreePath) -> bool {
        self.ignore.is_some_and(|patterns| patterns.excluded(from_root).excluded)
    }
}

/// A path that a source names.
#[derive(Debug)]
pub struct Picked {
    /// As it was matched, from the root.
    pub path: TreePath,
    /// Where it really is: links followed.
    pub real: TreePath,
    /// Opened: a directory for reading, anything else as a place only.
    pub fd: OwnedFd,
    /// What it is.
    pub kind: FileType,
    /// With `--parents`: the part of the path that is kept.
    pub kept: TreePath,
}

/// The paths that `sources` name, in order. No sources is the whole root.
///
/// # Errors
/// [`TreeError::NotFound`] for a missing path; patterns may match nothing.
pub fn select(root: &Root<'_>, sources: &[String], filter: &Filter<'_>) -> Result<Vec<Picked>, TreeError> {
    let everything = [String::from("/")];
    let sources = if sources.is_empty() { &everything[..] } else { sources };
    let mut found = Vec::new();
    for source in sources {
        let (strip, rest) = source.split_once("/./").unwrap_or(("", source));
        let strip = TreePath::clean(strip.as_bytes())?;
        let path = strip.join(&TreePath::clean(rest.as_bytes())?);
        if is_pattern(path.as_bytes()) {
            let mut matched = Vec::new();
            expand(root, &TreePath::root(), &path.components().collect::<Vec<_>>(), &mut matched)?;
            for path in matched {
                if !hidden(filter, &path) {
                    found.push(pick(root, path, &strip)?);
                }
            }
        } else {
            let picked = pick(root, path.clone(), &strip).map_err(|error| missing(root, &path, error))?;
            if hidden(filter, &path) && !may_return(filter, &path, picked.kind) {
                return Err(hidden_error(filter, &path));
            }
            found.push(picked);
        }
    }
    Ok(found)
}

fn pick(root: &Root<'_>, path: TreePath, strip: &TreePath) -> Result<Picked, TreeError> {
    let real = root.place(path.as_bytes(), true)?.path();
    let probe = root.open_plain(&real, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&probe).map_err(TreeError::io("look at", &path))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let fd = match kind {
        FileType::Directory => root.open_plain(&real, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?,
        _ => probe,
    };
    let kept = path.relative_to(strip).unwrap_or_else(|| path.clone());
    Ok(Picked { path, real, fd, kind, kept })
}

fn hidden(filter: &Filter<'_>, path: &TreePath) -> bool {
    !path.is_root() && filter.ignore.is_some_and(|patterns| patterns.excluded(path).excluded)
}

fn may_return(filter: &Filter<'_>, path: &TreePath, kind: FileType) -> bool {
    kind == FileType::Directory && filter.ignore.is_some_and(|patterns| patterns.may_return_below(path))
}

fn hidden_error(filter: &Filter<'_>, path: &TreePath) -> TreeError {
    let rule = filter.ignore.and_then(|patterns| {
        let verdict = patterns.excluded(path);
        patterns.rule(verdict.rule?).map(|(text, line)| (text.to_owned(), line))
    });
    TreeError::NotFound { path: format!("/{path}"), hidden_by: rule, nearest: format!("/{path}") }
}

fn missing(root: &Root<'_>, path: &TreePath, error: TreeError) -> TreeError {
    if !matches!(error.errno(), Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)) {
        return error;
    }
    let mut nearest = path.parent().unwrap_or_default();
    while !nearest.is_root() && !root.exists(nearest.as_bytes()) {
        nearest = nearest.parent().unwrap_or_default();
    }
    let slashed = |path: &TreePath| if path.is_root() { "/".to_owned() } else { format!("/{path}") };
    TreeError::NotFound { path: slashed(path), hidden_by: None, nearest: slashed(&nearest) }
}

fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Goes down one component after the other; `**` is any number of directories.
fn expand(
    root: &Root<'_>,
    at: &TreePath,
    rest: &[&[u8]],
    found: &mut Vec<TreePath>,
) -> Result<(), TreeError> {
    let Some((first, below)) = rest.split_first() else {
        if !found.contains(at) {
            found.push(at.clone());
        }
        return Ok(());
    };
    if !is_pattern(first) {
        let next = at.join_name(first);
        return if root.exists(next.as_bytes()) { expand(root, &next, below, found) } else { Ok(()) };
    }
    let Ok(dir) = root.open_dir(at.as_bytes()) else { return Ok(()) };
    let mut names = read_names(dir.as_fd()).map_err(TreeError::io("list", at))?;
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, _) in names {
        if matches(first, &name)? {
            expand(root, &at.join_name(&name), below, found)?;
        }
    }
    Ok(())
}

/// Go's `filepath.Match` for one component.
fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, TreeError> {
    let bad = || TreeError::Pattern { pattern: String::from_utf8_lossy(pattern).into_owned(), line: 0 };
    let Some((first, rest)) = pattern.split_first() else { return Ok(name.is_empty()) };
    match first {
        b'*' => {
            let rest = &pattern[pattern.iter().take_while(|byte| **byte == b'*').count()..];
            for at in 0..=name.len() {
                if matches(rest, &name[at..])? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        b'?' => match std::str::from_utf8(name).ok().and_then(|text| text.chars().next()) {
            Some(c) => matches(rest, &name[c.len_utf8()..]),
            None => Ok(!name.is_empty() && matches(rest, &name[1..])?),
        },
        b'[' => {
            let (class, after) = class(rest).ok_or_else(bad)?;
            let Some((byte, name)) = name.split_first() else { return Ok(false) };
            Ok(class.contains(*byte) && matches(after, name)?)
        }
        b'\\' => {
            let (literal, rest) = rest.split_first().ok_or_else(bad)?;
            Ok(name.first() == Some(literal) && matches(rest, &name[1..])?)
        }
        literal => Ok(name.first() == Some(literal) && matches(rest, &name[1..])?),
    }
}

struct Class {
    negated: bool,
    ranges: Vec<(u8, u8)>,
}

impl Class {
    fn contains(&self, byte: u8) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != self.negated
    }
}

/// The class behind a `[`, and what follows its `]`.
fn class(text: &[u8]) -> Option<(Class, &[u8])> {
    let (negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        let (mut low, mut after) = rest.split_first().map(|(b, r)| (*b, r))?;
        if low == b']' && !ranges.is_empty() {
            return Some((Class { negated, ranges }, after));
        }
        if low == b'\\' {
            (low, after) = after.split_first().map(|(b, r)| (*b, r))?;
        }
        let mut high = low;
        if let Some(range) = after.strip_prefix(b"-") {
            (high, after) = range.split_first().map(|(b, r)| (*b, r))?;
        }
        ranges.push((low, high));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn components() {
        for (pattern, name, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt2", false),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("**", "anything", true),
            ("package*.json", "package-lock.json", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()).unwrap(), expected, "{pattern} {name}");
        }
        assert!(matches(b"[a", b"a").is_err());
    }
}
