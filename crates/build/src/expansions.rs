//! Questions about the expansion of words, as data: for tests and tools that compare with other implementations.

use std::collections::BTreeMap;

use lapstrake_dockerfile::words::{self, Mode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A word to expand, and the variables.
#[derive(Deserialize)]
pub struct Expand {
    #[serde(default)]
    id: Value,
    word: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    escape: Option<char>,
    #[serde(default)]
    mode: Wanted,
    #[serde(default)]
    raw_quotes: bool,
    #[serde(default)]
    raw_escapes: bool,
    #[serde(default)]
    skip_process_quotes: bool,
    #[serde(default)]
    skip_unset_env: bool,
}

/// The requested form: the whole text, or the words that the text splits into.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    #[default]
    Word,
    Words,
}

/// The expansion of a word. The names of variables are there in `word` mode only.
#[derive(Default, Serialize)]
pub struct Expansion {
    id: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unmatched: Option<Vec<String>>,
    error: Option<String>,
}

/// Expands the word of `row`.
pub fn expansion(row: Expand) -> Expansion {
    let mode = Mode {
        escape: row.escape.unwrap_or('\\'),
        raw_quotes: row.raw_quotes,
        raw_escapes: row.raw_escapes,
        skip_process_quotes: row.skip_process_quotes,
        skip_unset_env: row.skip_unset_env,
    };
    let lookup = |name: &str| row.env.get(name).cloned();
    let expanded = match words::expand(&row.word, &lookup, mode) {
        Ok(expanded) => expanded,
        Err(error) => {
            return Expansion { id: row.id, error: Some(error.to_string()), ..Expansion::default() };
        }
    };
    match row.mode {
        Wanted::Words => Expansion { id: row.id, words: Some(expanded.words), ..Expansion::default() },
        Wanted::Word => Expansion {
            id: row.id,
            result: Some(expanded.text),
            matched: Some(expanded.matched.into_iter().collect()),
            unmatched: Some(expanded.unmatched.into_iter().collect()),
            ..Expansion::default()
        },
    }
}
