//! Patterns of `.dockerignore` and of `--exclude`: which paths they hide, and which line decided it.
//!
//! The last pattern that matches wins; a pattern that matches a directory matches all below it; `!` takes back. As in
//! moby's matcher a pattern is only asked where it can change the answer, and only if it was asked about a directory does it
//! count for what is below: of `a/b` and `!a` the second is not asked about `a`, which nothing hides, and so `a/b` stays
//! hidden. Everything is anchored at the root (`foo` is not `**/foo`), case counts. Pure: no file is read here.

mod pattern;

use std::borrow::Cow;

use crate::error::TreeError;
use crate::path::TreePath;
pub(crate) use pattern::Pattern;
pub use pattern::path_match;

/// No file has a longer path, in bytes, and so nothing hides one: to ask about each directory on the way would take time
/// with the square of the length, and who writes a Dockerfile names what he likes.
const LONGEST_PATH: usize = 4096;

/// The longest line of an ignore file, comments included, in bytes without its end.
const LONGEST_LINE: usize = 65_535;

/// An ordered list of patterns.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    rules: Vec<Rule>,
    /// The file that they are from, for errors.
    file: Option<Box<str>>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    negated: bool,
    text: Box<str>,
    /// The text made simple, with its `!`, if that is not the text.
    clean: Option<Box<str>>,
    line: u32,
}

/// What the patterns say about one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The path is hidden.
    pub excluded: bool,
    /// Which pattern decided; `None` when none matched. An index for [`Patterns::rule`].
    pub rule: Option<usize>,
    /// A pattern that is none, and was asked: there is no verdict then. See [`Patterns::settled`].
    pub broken: Option<usize>,
}

/// Which patterns match a directory or one above it: what the verdict on its children starts from.
#[derive(Clone, Debug)]
pub struct DirState {
    matched: Box<[bool]>,
}

impl Patterns {
    /// Reads an ignore file: a byte order mark is dropped, `#` in the first column starts a comment, space around
    /// a pattern and empty lines do not count.
    ///
    /// # Errors
    /// [`TreeError::IllegalExclusion`] for a lone `!`, [`TreeError::LongLine`] for what BuildKit reads no further,
    /// [`TreeError::Pattern`] for bad syntax; but what only Go's regular
    /// expressions refuse is told by the verdict on the first path that is compared with it.
    pub fn parse(text: &str) -> Result<Self, TreeError> {
        let too_long = |line: &str| line.len() > LONGEST_LINE;
        if let Some((line, _)) = (1u32..).zip(text.split('\n')).find(|(_, line)| too_long(line)) {
            return Err(TreeError::LongLine { line, file: None });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (number, line) in (1u32..).zip(text.lines()) {
            if !line.starts_with('#') {
                rules.extend(rule(line, number)?);
            }
        }
        Ok(Self { rules, file: None })
    }

    /// Like [`Self::parse`], and errors say that they are about `file`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of_file(file: &str, text: &str) -> Result<Self, TreeError> {
        let named = Self::parse(text).map_err(|error| match error {
            TreeError::Pattern { pattern, line, .. } => {
                TreeError::Pattern { pattern, line, file: Some(file.into()) }
            }
            TreeError::IllegalExclusion { pattern, line, .. } => {
                TreeError::IllegalExclusion { pattern, line, file: Some(file.into()) }
            }
            TreeError::LongLine { line, .. } => TreeError::LongLine { line, file: Some(file.into()) },
            other => other,
        })?;
        Ok(Self { file: Some(file.into()), ..named })
    }

    /// Takes patterns one by one, as flags give them; their line numbers count from 1. A slash in front stays, unlike in
    /// a file, so that the pattern matches nothing.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_list<S: AsRef<str>>(list: &[S]) -> Result<Self, TreeError> {
        let mut rules = Vec::new();
        for (number, text) in (1u32..).zip(list) {
            let text = text.as_ref().trim();
            rules.extend(matcher(text, text, number)?);
        }
        Ok(Self { rules, file: None })
    }

    /// The patterns in their order, each made simple: no `.` or `..` that can go, no slash at an end.
    #[must_use]
    pub fn cleaned(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.clean.as_ref().unwrap_or(&rule.text).to_string()).collect()
    }

    /// True when nothing is ever hidden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True when some pattern starts with `!`.
    #[must_use]
    pub fn has_negation(&self) -> bool {
        self.rules.iter().any(|rule| rule.negated)
    }

    /// Text (as written, with its `!`) and line of a pattern that a verdict names.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<(&str, u32)> {
        self.rules.get(index).map(|rule| (&*rule.text, rule.line))
    }

    /// The state of the root, which is never hidden itself.
    #[must_use]
    pub fn root_state(&self) -> DirState {
        DirState { matched: vec![false; self.rules.len()].into() }
    }

    /// The verdict on a path whose parent has this state; for a directory also its own state.
    #[must_use]
    pub fn child(&self, parent: &DirState, path: &TreePath) -> (Verdict, DirState) {
        let mut verdict = Verdict::default();
        let mut matched = parent.matched.clone();
        for (index, (rule, matched)) in self.rules.iter().zip(&mut matched).enumerate() {
            if !*matched && rule.negated == verdict.excluded {
                *matched = rule.pattern.matches(path.as_bytes());
                if rule.pattern.is_broken() {
                    verdict.broken = verdict.broken.or(Some(index));
                }
            }
            if *matched {
                verdict = Verdict { excluded: !rule.negated, rule: Some(index), ..verdict };
            }
        }
        (verdict, DirState { matched })
    }

    /// The verdict, if there is one.
    ///
    /// # Errors
    /// [`TreeError::Pattern`] if it hangs on a pattern that is none.
    pub fn settled(&self, verdict: Verdict) -> Result<Verdict, TreeError> {
        match verdict.broken.and_then(|index| self.rules.get(index)) {
            Some(rule) => Err(TreeError::Pattern {
                pattern: rule.text.to_string(),
                line: rule.line,
                file: self.file.clone(),
            }),
            None => Ok(verdict),
        }
    }

    /// The verdict on any path, its parents included.
    #[must_use]
    pub fn excluded(&self, path: &TreePath) -> Verdict {
        let mut state = self.root_state();
        if self.is_empty() || path.is_root() || path.as_bytes().len() > LONGEST_PATH {
            return Verdict::default();
        }
        let mut broken = None;
        for dir in path.ancestors().skip(1) {
            let (verdict, below) = self.child(&state, &dir);
            state = below;
            broken = broken.or(verdict.broken);
        }
        let verdict = self.child(&state, path).0;
        Verdict { broken: broken.or(verdict.broken), ..verdict }
    }

    /// Whether a pattern matches `path`, or a directory that it names on the way. The path is clean but need not lie
    /// within the root: a slash or `..` in front stay, and what is in front of the first slash counts as a directory even if it is nothing. So `*` matches
    /// `/a`, though `a` does not. This is how BuildKit judges the sources of COPY, which are not walked.
    #[must_use]
    pub fn matches_or_parent(&self, path: &str) -> bool {
        if path.len() > LONGEST_PATH {
            return false;
        }
        let dirs = path.match_indices('/').map(|(end, _)| &path[..end]);
        let texts: Vec<&str> = dirs.chain([path]).collect();
        let mut matched = false;
        for rule in &self.rules {
            if rule.negated == matched && rule.pattern.is_broken() {
                // Who asks this way wants a warning, or none.
                return false;
            }
            if rule.negated == matched && texts.iter().any(|text| rule.pattern.matches(text.as_bytes())) {
                matched = !rule.negated;
            }
        }
        matched
    }

    /// True when something below the hidden directory `dir` could still be taken back by a negation.
    #[must_use]
    pub fn may_return_below(&self, dir: &TreePath) -> bool {
        let inside = [dir.as_bytes(), b"/"].concat();
        self.rules.iter().any(|rule| rule.negated && rule.pattern.could_continue(&inside))
    }
}

fn rule(line: &str, number: u32) -> Result<Option<Rule>, TreeError> {
    let text = line.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (negated, body) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
    let shown = match clean(body) {
        clean if !clean.is_empty() => clean,
        _ if body.starts_with('/') => Cow::Borrowed("/"),
        _ => Cow::Borrowed("."),
    };
    // What `!` takes back is decided once the text is simple: `./!x` takes back, and `!/` is a lone `!`.
    let simple = if negated && body.is_empty() { Cow::Borrowed("!") } else { shown };
    let simple = if negated && !body.is_empty() { Cow::Owned(format!("!{simple}")) } else { simple };
    matcher(text, &simple, number)
}

/// The rule of a pattern that was `text` and is `simple` by now.
fn matcher(text: &str, simple: &str, number: u32) -> Result<Option<Rule>, TreeError> {
    // Space that stood behind a slash is at the edge now, and goes; and moby makes it simple once more, `!` and all.
    let edge = simple.trim();
    if edge.is_empty() {
        return Ok(None);
    }
    let whole = match (clean(edge), edge.starts_with('/')) {
        (cleaned, true) => Cow::Owned(format!("/{cleaned}")),
        (cleaned, false) if cleaned.is_empty() => Cow::Borrowed("."),
        (cleaned, false) => cleaned,
    };
    let (negated, wanted) = whole.strip_prefix('!').map_or((false, &*whole), |rest| (true, rest));
    if wanted.is_empty() {
        return Err(TreeError::IllegalExclusion { pattern: text.into(), line: number, file: None });
    }
    let pattern = Pattern::new(wanted).ok_or_else(|| TreeError::Pattern {
        pattern: text.into(),
        line: number,
        file: None,
    })?;
    let clean = (simple != text).then(|| simple.into());
    Ok(Some(Rule { pattern, negated, text: text.into(), clean, line: number }))
}

/// Lexical cleaning; unlike a path inside a tree a pattern may climb (`../x`), and then matches nothing.
fn clean(text: &str) -> Cow<'_, str> {
    if text.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        return Cow::Borrowed(text);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if text.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    Cow::Owned(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(patterns: &str, path: &str) -> bool {
        Patterns::parse(patterns).unwrap().excluded(&TreePath::clean(path.as_bytes()).unwrap()).excluded
    }

    #[test]
    fn table() {
        let cases: &[(&str, &str, bool)] = &[
            ("foo", "foo", true),
            ("foo", "foo/bar", true),
            ("foo", "a/foo", false),
            ("/foo/", "foo", true),
            ("./foo", "foo", true),
            ("a/../foo", "foo", true),
            ("../foo", "foo", false),
            ("  foo  ", "foo", true),
            ("#foo", "foo", false),
            (" #foo", "#foo", true),
            ("\u{feff}foo", "foo", true),
            ("*.md", "a.md", true),
            ("*.md", "d/a.md", false),
            ("*/*.md", "d/a.md", true),
            ("**/*.md", "a.md", true),
            ("**/*.md", "x/y/a.md", true),
            ("**", "a/b", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("**foo", "x/yfoo", true),
            ("fo?", "foo", true),
            ("fo?", "fo/", false),
            ("?", "ü", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a]", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("foo\n!foo/bar", "foo/bar", false),
            ("foo\n!foo/bar", "foo/baz", true),
            ("foo\n!foo/bar", "foo/bar/deep", false),
            ("!foo/bar\nfoo", "foo/bar", true),
            ("*\n!a", "a/b", false),
            ("*\n! a", "a", false),
            ("*\n!*.md\nREADME*.md", "README-x.md", true),
            ("*\n!*.md\nREADME*.md", "x.md", false),
            ("*\n./!a", "a", false),
            ("a.b", "axb", false),
            ("a+(b)", "a+(b)", true),
            // Not asked about `a`, so no word of what is in it.
            ("a/b\n!a", "a/b", true),
            ("a/b\n!a", "a/c", false),
            ("a\n!a/b\n!a", "a/c", false),
            ("a/b\n!a/*", "a/b", false),
        ];
        for &(patterns, path, want) in cases {
            assert_eq!(excluded(patterns, path), want, "{patterns:?} on {path:?}");
        }
    }

    #[test]
    fn the_deciding_line_is_named() {
        let patterns = Patterns::parse("# no\n\n*.log\n  !keep.log").unwrap();
        let rule = |path: &str| {
            let verdict = patterns.excluded(&TreePath::parse(path.as_bytes()).unwrap());
            verdict.rule.and_then(|rule| patterns.rule(rule)).map(|(text, line)| (text.to_owned(), line))
        };
        assert_eq!(rule("a.log"), Some(("*.log".into(), 3)));
        assert_eq!(rule("keep.log"), Some(("!keep.log".into(), 4)));
        assert_eq!(rule("x"), None);
    }

    #[test]
    fn nothing_hides_what_no_file_can_be_called() {
        let patterns = Patterns::parse("*").unwrap();
        let judged = |length: usize| {
            let path = "x/".repeat(length / 2 - 1) + "xy";
            let hidden = patterns.excluded(&TreePath::parse(path.as_bytes()).unwrap()).excluded;
            (path.len(), hidden, patterns.matches_or_parent(&path))
        };
        assert_eq!(judged(LONGEST_PATH), (4096, true, true));
        assert_eq!(judged(LONGEST_PATH + 2), (4098, false, false));
    }

    #[test]
    fn bad_patterns() {
        for lone in ["a\n!", "a\n! ", "!/", "!/..", "./!"] {
            let error = Patterns::parse(lone).unwrap_err();
            assert!(matches!(error, TreeError::IllegalExclusion { .. }), "{lone:?}: {error}");
        }
        for bad in ["[", "[a", "a\\", "[]", "[a-]", "[-a]", "x[]a]"] {
            assert!(matches!(Patterns::parse(bad), Err(TreeError::Pattern { line: 1, .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_no_expression_counts_once_it_is_asked() {
        let refused = |patterns: &str, path: &str| {
            let patterns = Patterns::parse(patterns).unwrap();
            let verdict = patterns.excluded(&TreePath::parse(path.as_bytes()).unwrap());
            match patterns.settled(verdict) {
                Ok(verdict) => Ok(verdict.excluded),
                Err(TreeError::Pattern { pattern, line, .. }) => Err((pattern, line)),
                Err(other) => panic!("{other}"),
            }
        };
        let told = Err(("[b-a]".to_owned(), 1));
        assert_eq!(refused("[b-a]", "x"), told);
        assert_eq!(refused("[b-a]", "x/y"), told);
        assert_eq!(refused("*\n[b-a]", "x/y"), Ok(true));
        assert_eq!(refused("![b-a]", "x"), Ok(false));
        assert_eq!(refused("x\n![b-a]", "y"), Ok(false));
        assert_eq!(refused("x\n![b-a]", "x"), Err(("![b-a]".to_owned(), 2)));
        assert!(!Patterns::parse("[b-a]").unwrap().matches_or_parent("x"));
        let told = |text: &str| {
            let patterns = Patterns::of_file("dir/x.dockerignore", text)?;
            patterns.settled(patterns.excluded(&TreePath::parse(b"x").unwrap()))
        };
        let told = |text: &str| told(text).unwrap_err().to_string();
        assert_eq!(told("# a\n["), "syntax error in pattern \"[\" (line 2 of dir/x.dockerignore)");
        assert_eq!(told("a\n[b-a]"), "syntax error in pattern \"[b-a]\" (line 2 of dir/x.dockerignore)");
        let long = |length: usize| Patterns::parse(&format!("a\n#{}\n", "b".repeat(length - 1)));
        assert!(long(65_535).is_ok());
        assert!(matches!(long(65_536), Err(TreeError::LongLine { line: 2, file: None })));
        assert_eq!(
            told(&"x".repeat(65_536)),
            "failed parsing .dockerignore: bufio.Scanner: token too long (line 1 of dir/x.dockerignore)"
        );
        assert_eq!(told("!"), "illegal exclusion pattern: \"!\" (line 1 of dir/x.dockerignore)");
    }

    #[test]
    fn where_a_walk_may_stop() {
        let may = |patterns: &str, dir: &str| {
            Patterns::parse(patterns).unwrap().may_return_below(&TreePath::parse(dir.as_bytes()).unwrap())
        };
        assert!(!may("node_modules", "node_modules"));
        assert!(!may("a\n!b/c", "a"));
        assert!(may("a\n!a/c", "a"));
        assert!(may("a\n!a/b/c", "a/b"));
        assert!(!may("a\n!a/b/c", "a/x"));
        assert!(may("a\n!*/c", "a"));
        assert!(may("a\n!**/c", "a/b/c/d"));
    }

    /// Go 1.27's own `path.Match`. It looks at the rest of a bad pattern only where it has to; here the pattern matches
    /// nothing in either case.
    #[test]
    fn path_match_as_go() {
        let rows =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/go/match.jsonl"))
                .unwrap();
        assert!(rows.lines().count() >= 250);
        for line in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let (pattern, name) = (row["pattern"].as_str().unwrap(), row["name"].as_str().unwrap());
            let expected = row["match"] == true && row["bad"] == false;
            assert_eq!(path_match(pattern, name), expected, "{line}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(40);
        assert!(!excluded(&pattern, &"a".repeat(30)));
        assert!(excluded(&"**/".repeat(60), "x/y") || !excluded(&"**/".repeat(60), "x/y"));
    }
}
