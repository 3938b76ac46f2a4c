//! `--name[=value]` words checked against what an instruction knows.

use lapstrake_diag::{Spanned, did_you_mean_exactly};
use lapstrake_go::to_lower;

use crate::syntax::Flag;
use crate::text::Word;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `true` or `false`; nothing means `true`.
    Bool,
    /// One value, once.
    Value,
    /// One value, any number of times.
    Values,
}

/// Flags that were accepted, in order.
#[derive(Debug)]
pub(crate) struct Flags {
    found: Vec<(&'static str, Word)>,
}

/// A flag that was not accepted.
pub(crate) struct BadFlag {
    pub(crate) message: String,
    pub(crate) flag: Flag,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Flags {
    /// Checks `flags` against `known`; a brief answer has no suggestion.
    pub(crate) fn check(
        flags: &[Flag],
        known: &[(&'static str, Takes)],
        brief: bool,
    ) -> Result<Flags, BadFlag> {
        let mut found: Vec<(&'static str, Word)> = Vec::new();
        for flag in flags {
            let bad = |message: String| BadFlag { message, flag: flag.clone(), hint: None };
            let (name, value) = match flag.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.text.as_str(), None),
            };
            let bare = &name[2..];
            let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == bare) else {
                if brief {
                    return Err(bad("unknown flag".to_owned()));
                }
                let hint = did_you_mean_exactly(bare, known.iter().map(|(name, _)| *name))
                    .map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
                return Err(bad(format!("unknown flag: {name}{hint}")));
            };
            if *takes != Takes::Values && found.iter().any(|(found, _)| found == known_name) {
                return Err(bad(format!("duplicate flag specified: {name}")));
            }
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".into(),
                (Takes::Bool, Some("")) | (_, None) => {
                    return Err(bad(format!("missing a value on flag: {name}")));
                }
                (Takes::Bool, Some(value)) => match to_lower(value) {
                    value if value == "true" || value == "false" => value.into(),
                    _ => {
                        return Err(bad(format!("expecting boolean value for flag {name}, not: {value}")));
                    }
                },
                (_, Some(value)) => value.into(),
            };
            found.push((known_name, Spanned::new(value, flag.span)));
        }
        Ok(Flags { found })
    }

    /// The value of a flag; an empty one counts as not given.
    pub(crate) fn value(&self, name: &str) -> Option<Word> {
        self.values(name).into_iter().next().filter(|word| !word.node.is_empty())
    }

    /// All values of a flag.
    pub(crate) fn values(&self, name: &str) -> Vec<Word> {
        self.found.iter().filter(|(found, _)| *found == name).map(|(_, word)| word.clone()).collect()
    }

    /// A boolean, if it was given.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.value(name).map(|word| word.node == "true")
    }
}
