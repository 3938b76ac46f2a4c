//! Questions about ignore files, as data: for tests and tools that compare with other implementations.

use std::collections::{BTreeMap, BTreeSet};

use lapstrake_tree::TreePath;
use lapstrake_tree::ignore::Patterns;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An ignore file, and paths to judge.
#[derive(Deserialize)]
pub struct Judge {
    #[serde(default)]
    id: Value,
    dockerignore: String,
    /// A `/` at the end marks a directory.
    paths: Vec<String>,
}

/// The verdicts of an ignore file.
#[derive(Default, Serialize)]
pub struct Judgement {
    id: Value,
    patterns: Vec<String>,
    ignored: BTreeMap<String, bool>,
    sent: Vec<String>,
    error: Option<String>,
}

/// Judges the paths of `question`.
pub fn ignored(question: Judge) -> Judgement {
    let patterns = match Patterns::parse(&question.dockerignore) {
        Ok(patterns) => patterns,
        Err(error) => {
            return Judgement { id: question.id, error: Some(error.to_string()), ..Judgement::default() };
        }
    };
    let mut answer = Judgement { id: question.id, patterns: patterns.cleaned(), ..Judgement::default() };
    let mut tree = BTreeMap::new();
    for path in &question.paths {
        let clean = match TreePath::clean(path.as_bytes()) {
            Ok(clean) => clean,
            Err(error) => return Judgement { error: Some(error.to_string()), ..answer },
        };
        match patterns.settled(patterns.excluded(&clean)) {
            Ok(verdict) => drop(answer.ignored.insert(path.clone(), verdict.excluded)),
            Err(error) => return Judgement { error: Some(error.to_string()), ..answer },
        }
        for parent in clean.ancestors().filter(|parent| !parent.is_root() && *parent != clean) {
            tree.insert(parent, true);
        }
        let is_dir = path.ends_with('/') || tree.get(&clean) == Some(&true);
        tree.insert(clean, is_dir);
    }
    answer.sent = sent(&patterns, &tree);
    answer
}

/// The paths of a tree that a walk carries: those that are not hidden, and the directories above them. The tree says
/// which paths are directories.
fn sent(patterns: &Patterns, tree: &BTreeMap<TreePath, bool>) -> Vec<String> {
    let mut carried: BTreeSet<TreePath> = BTreeSet::new();
    for path in tree.keys().filter(|path| !patterns.excluded(path).excluded) {
        carried.extend(path.ancestors().filter(|parent| !parent.is_root()));
        carried.insert(path.clone());
    }
    let text = |path: &TreePath| {
        let slash = if tree.get(path) == Some(&true) { "/" } else { "" };
        format!("{}{slash}", path.as_path().display())
    };
    carried.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let ask = |text: &str| ignored(serde_json::from_str(text).expect("a question"));
        let found = ask(
            r##"{"id": 1, "dockerignore": "# x\n/a/\n!a/keep\n*.o", "paths": ["a/keep", "a/x", "b/", "c.o"]}"##,
        );
        assert_eq!(found.patterns, ["a", "!a/keep", "*.o"]);
        assert_eq!(found.ignored.values().copied().collect::<Vec<_>>(), [false, true, false, true]);
        assert_eq!(found.sent, ["a/", "a/keep", "b/"]);
        assert!(ask(r#"{"dockerignore": "!", "paths": []}"#).error.is_some());
    }
}
