//! `lapstrake debug expand`: words in, what they expand to out, a JSON object a line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_dockerfile::words::{self, Mode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A question.
#[derive(Deserialize)]
struct Row {
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

/// An answer. Names are told in `word` mode only.
#[derive(Default, Serialize)]
struct Answer {
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

/// Answers every line of standard input.
pub(super) fn expand() -> Outcome<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_str(&line)?;
        serde_json::to_writer(&mut out, &answer(row))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn answer(row: Row) -> Answer {
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
        Err(error) => return Answer { id: row.id, error: Some(error.to_string()), ..Answer::default() },
    };
    match row.mode {
        Wanted::Words => Answer { id: row.id, words: Some(expanded.words), ..Answer::default() },
        Wanted::Word => Answer {
            id: row.id,
            result: Some(expanded.text),
            matched: Some(expanded.matched.into_iter().collect()),
            unmatched: Some(expanded.unmatched.into_iter().collect()),
            ..Answer::default()
        },
    }
}
