//! An environment that knows in which order its names were last set.

use std::collections::{BTreeMap, HashMap};

/// Names with values. Setting a name again moves it to the end, as in BuildKit's environment lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env {
    /// By turn. A Dockerfile may set a hundred thousand names: no step looks through all of them.
    pairs: BTreeMap<u64, (String, String)>,
    turns: HashMap<String, u64>,
    next: u64,
}

impl Env {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.turns.get(name).and_then(|turn| self.pairs.get(turn)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.turns.insert(name.to_owned(), self.next);
        self.pairs.insert(self.next, (name.to_owned(), value.to_owned()));
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(turn) = self.turns.remove(name) {
            self.pairs.remove(&turn);
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.values().map(|(key, _)| key.as_str())
    }

    /// `KEY=value`, in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.pairs.values().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// Name and value of a `KEY=value` line.
pub(crate) fn split_line(line: &str) -> (&str, &str) {
    line.split_once('=').unwrap_or((line, ""))
}

/// Sets a name in an image config's list: in place, or at the end.
pub(crate) fn set_line(lines: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match lines.iter_mut().find(|line| split_line(line).0 == name) {
        Some(old) => *old = line,
        None => lines.push(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order() {
        let mut env = Env::default();
        env.set("a", "1");
        env.set("b", "2");
        env.set("a", "3");
        assert_eq!(env.lines(), ["b=2", "a=3"]);
        let mut lines = vec!["a=1".to_owned(), "b=2".to_owned()];
        set_line(&mut lines, "a", "3");
        set_line(&mut lines, "c", "4");
        assert_eq!(lines, ["a=3", "b=2", "c=4"]);
    }
}
