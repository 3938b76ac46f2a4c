//! One pattern as a small automaton: linear in pattern times path, whatever the stars.
//!
//! `*` and `?` stay within a component, `[a-z]` and `[^a-z]` are one character, a backslash takes the next character
//! literally. `**` is whole directories or nothing, its slash may be left out (`a**b` is `a**/b`); only at the end, and
//! in front of plain text, it is any text (`a**`, `**.c`).

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    steps: Vec<Step>,
    /// The whole pattern, when it has nothing special: most have not.
    literal: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**`
    Any,
    /// `**/`: whole directories or nothing; always followed by [`Step::InDirs`].
    Dirs,
    InDirs,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Compiles; `None` for bad syntax.
    pub(crate) fn new(text: &str) -> Option<Self> {
        Self::compile(text, true)
    }

    /// Compiles a pattern in which `**` is no more than `*`.
    pub(crate) fn shallow(text: &str) -> Option<Self> {
        Self::compile(text, false)
    }

    /// True when it matches one text only.
    pub(crate) fn is_literal(&self) -> bool {
        self.literal.is_some()
    }

    fn compile(text: &str, deep: bool) -> Option<Self> {
        let mut steps = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if deep && chars.next_if_eq(&'*').is_some() => {
                    let slash = chars.next_if_eq(&'/').is_some();
                    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
                    let suffix = steps.is_empty() && !slash && !chars.clone().any(special);
                    if suffix || chars.peek().is_none() {
                        steps.push(Step::Any);
                    } else {
                        steps.extend([Step::Dirs, Step::InDirs]);
                    }
                }
                '*' => steps.push(Step::Star),
                '?' => steps.push(Step::One),
                '\\' => steps.push(Step::Char(chars.next()?)),
                '[' => steps.push(class(&mut chars)?),
                c => steps.push(Step::Char(c)),
            }
        }
        let literal = steps.iter().all(|step| matches!(step, Step::Char(_)));
        let plain = || steps.iter().filter_map(|s| if let Step::Char(c) = s { Some(*c) } else { None });
        let literal = literal.then(|| plain().collect::<String>().into_bytes());
        Some(Self { steps, literal })
    }

    /// True when the pattern matches the whole path.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match &self.literal {
            Some(literal) => literal == path,
            None => self.run(path).is_some_and(|states| states[self.steps.len()]),
        }
    }

    /// True when some continuation of `start` would match.
    pub(crate) fn could_continue(&self, start: &[u8]) -> bool {
        match &self.literal {
            Some(literal) => literal.len() > start.len() && literal.starts_with(start),
            // A match that needs nothing more is none below.
            None => self.run(start).is_some_and(|states| states[..self.steps.len()].contains(&true)),
        }
    }

    /// Which steps may come next after `text`; one more than there are steps means the end.
    fn run(&self, text: &[u8]) -> Option<Vec<bool>> {
        let mut now = vec![false; self.steps.len() + 1];
        let mut next = now.clone();
        self.enter(&mut now, 0);
        let text = String::from_utf8_lossy(text);
        for c in text.chars() {
            next.fill(false);
            for (i, step) in self.steps.iter().enumerate().filter(|&(i, _)| now[i]) {
                match step {
                    Step::Char(want) if *want == c => self.enter(&mut next, i + 1),
                    Step::One if c != '/' => self.enter(&mut next, i + 1),
                    Step::Star if c != '/' => self.enter(&mut next, i),
                    Step::Any => self.enter(&mut next, i),
                    Step::InDirs => {
                        next[i] = true;
                        if c == '/' {
                            self.enter(&mut next, i + 1);
                        }
                    }
                    Step::Class { negated, ranges }
                        if c != '/'
                            && ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *negated =>
                    {
                        self.enter(&mut next, i + 1);
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut now, &mut next);
            if !now.contains(&true) {
                return None;
            }
        }
        Some(now)
    }

    fn enter(&self, states: &mut [bool], mut i: usize) {
        loop {
            states[i] = true;
            match self.steps.get(i) {
                Some(Step::Star | Step::Any) => i += 1,
                Some(Step::Dirs) => {
                    states[i + 1] = true;
                    i += 2;
                }
                _ => return,
            }
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Step> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Step::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}
