//! "Did you mean …?"

/// Distances from here on are no resemblance.
const TOO_FAR: usize = 3;

/// The candidate nearest to `word`, less than three edits away, without regard to case; in upper case if `word` is, else
/// in lower case. Nothing when `word` is itself a candidate: then its spelling is not what is wrong.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let folded = lower(word);
    let lowered = near(&folded, candidates).map(|candidate| (lower(candidate), candidate));
    let found = nearest(&folded, lowered)?;
    let shouted = word != folded && word == word.to_uppercase();
    Some(if shouted { found.to_uppercase() } else { found.to_lowercase() })
}

/// Lower case, character by character.
fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// Like [`did_you_mean`], with regard to case.
pub fn did_you_mean_exactly<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, near(word, candidates).map(|candidate| (candidate.to_owned(), candidate)))
        .map(str::to_owned)
}

/// Those that may be near enough, by their lengths alone: most are not, and cost nothing more.
fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let length = word.chars().count();
    let fits = move |candidate: &&str| !candidate.is_ascii() || candidate.len().abs_diff(length) < TOO_FAR;
    candidates.into_iter().filter(fits)
}

fn nearest<'a>(word: &str, candidates: impl Iterator<Item = (String, &'a str)>) -> Option<&'a str> {
    let mut best = None;
    let mut limit = TOO_FAR;
    for (folded, candidate) in candidates {
        if folded == word {
            return None;
        }
        if let Some(distance) = distance_below(word, &folded, limit) {
            limit = distance;
            best = Some(candidate);
        }
    }
    best
}

/// The Levenshtein distance if it is below `limit`. Words whose lengths differ more are not compared at all, so that
/// a hostile word costs no more than its length.
fn distance_below(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) >= limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    let distance = row[b.len()];
    (distance < limit).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let names = ["RUN", "COPY", "ENTRYPOINT", "ENV"];
        let table = [
            ("FNTRYPOINT", Some("ENTRYPOINT")),
            ("fntrypoint", Some("entrypoint")),
            ("Fntrypoint", Some("entrypoint")),
            ("CPY", Some("COPY")),
            ("RUM", Some("RUN")),
            ("run", None),
            ("COMPLETELY", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(did_you_mean(word, names).as_deref(), expected, "{word}");
        }
        assert_eq!(did_you_mean_exactly("Typ", ["type"]).as_deref(), Some("type"));
    }
}
