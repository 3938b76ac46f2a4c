//! `semvercmp`: whether a version is within a constraint, as Masterminds' semver for Go says.

use super::Param::Text;
use super::{Call, Function, row};
use crate::value::Value;

pub(super) const TABLE: &[Function] = &[row("semvercmp", &[Text, Text], compare)];

/// A version, some of whose parts may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    parts: [u64; 3],
    /// The number of parts that are there.
    given: usize,
    pre: String,
}

fn parse(text: &str) -> Result<Version, String> {
    let bad = || format!("invalid semantic version: {text:?}");
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split_once('+').map_or(text, |(text, _)| text);
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    let mut version = Version { parts: [0; 3], given: 0, pre: pre.to_owned() };
    for part in numbers.split('.') {
        if matches!(part, "x" | "X" | "*") {
            break;
        }
        let slot = version.parts.get_mut(version.given).ok_or_else(bad)?;
        *slot = part.parse().map_err(|_| bad())?;
        version.given += 1;
    }
    Ok(version)
}

impl Version {
    fn key(&self) -> ([u64; 3], bool, Vec<(bool, u64, String)>) {
        let identifiers = self.pre.split('.').filter(|part| !part.is_empty());
        let key = |part: &str| match part.parse::<u64>() {
            Ok(number) => (false, number, String::new()),
            Err(_) => (true, 0, part.to_owned()),
        };
        (self.parts, self.pre.is_empty(), identifiers.map(key).collect())
    }

    /// The first version behind all that have the same first `parts` parts.
    fn next(&self, parts: usize) -> Version {
        let mut next = Version { parts: [0; 3], given: 3, pre: String::new() };
        for at in 0..parts {
            next.parts[at] = self.parts[at];
        }
        match parts.checked_sub(1) {
            Some(last) => next.parts[last] = next.parts[last].saturating_add(1),
            None => next.parts = [u64::MAX; 3],
        }
        next
    }
}

fn compare(call: &Call<'_>) -> Result<Value, String> {
    let version = parse(call.text(0))?;
    if version.given == 0 {
        return Err(format!("invalid semantic version: {:?}", call.text(0)));
    }
    for any in call.text(1).split("||") {
        if all(any, &version)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// Whether all of the constraints between commas and spaces hold.
fn all(text: &str, version: &Version) -> Result<bool, String> {
    let words: Vec<&str> = text.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let mut at = 0;
    let mut holds = true;
    while let Some(word) = words.get(at) {
        if words.get(at + 1) == Some(&"-") {
            let end = words.get(at + 2).ok_or_else(|| format!("improper constraint: {text:?}"))?;
            holds &= one(">=", word, version)? && one("<=", end, version)?;
            at += 3;
            continue;
        }
        let split = word.find(|c: char| !"=!<>~^".contains(c)).unwrap_or(word.len());
        let (operator, mut wanted) = word.split_at(split);
        if wanted.is_empty() {
            at += 1;
            wanted = words.get(at).copied().ok_or_else(|| format!("improper constraint: {text:?}"))?;
        }
        holds &= one(operator, wanted, version)?;
        at += 1;
    }
    Ok(holds)
}

fn one(operator: &str, wanted: &str, version: &Version) -> Result<bool, String> {
    let bound = parse(wanted)?;
    // A pre-release is only meant where the constraint has one.
    if !version.pre.is_empty() && bound.pre.is_empty() {
        return Ok(false);
    }
    let (at, key) = (version.key(), bound.key());
    let below = |end: Version| version.key() < end.key();
    let partial = bound.given < 3;
    Ok(match operator {
        "" | "=" | "==" if partial => at >= key && below(bound.next(bound.given)),
        "" | "=" | "==" => at == key,
        "!=" if partial => at < key || !below(bound.next(bound.given)),
        "!=" => at != key,
        ">" if partial => !below(bound.next(bound.given)),
        ">" => at > key,
        ">=" | "=>" => at >= key,
        "<" => at < key,
        "<=" | "=<" if partial => below(bound.next(bound.given)),
        "<=" | "=<" => at <= key,
        "~" | "~>" => at >= key && below(bound.next(bound.given.min(2))),
        "^" => {
            let first = bound.parts.iter().take(bound.given).position(|part| *part != 0);
            let kept = first.map_or(bound.given, |first| first + 1);
            at >= key && below(bound.next(kept))
        }
        other => return Err(format!("improper constraint: {other:?} is not an operator")),
    })
}
