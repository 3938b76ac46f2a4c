//! `testdata/README.md` names the tests of the language: each must be there.

use std::collections::BTreeSet;

/// What the last column of each table names in backticks and is not there. `is_file` looks in `testdata`; other names are
/// functions of `sources`.
pub(super) fn missing<'t>(
    told: &str,
    is_file: impl Fn(&str) -> bool,
    sources: impl Iterator<Item = &'t str>,
) -> Vec<String> {
    let functions: BTreeSet<&str> = sources.flat_map(functions).collect();
    let named: Vec<&str> = told.lines().filter_map(last_column).flat_map(quoted).collect();
    let mut missing: Vec<String> = named
        .iter()
        .filter(|name| if name.contains('/') { !is_file(name) } else { !functions.contains(**name) })
        .map(|name| format!("testdata/README.md: there is no test `{name}`"))
        .collect();
    if named.is_empty() {
        missing.push("testdata/README.md: no test is named".to_owned());
    }
    missing
}

/// The last column of a table's row; ` | ` between columns, since texts have bars.
fn last_column(line: &str) -> Option<&str> {
    line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | ").map(|(_, last)| last)
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.split("fn ").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_must_be_there() {
        let told = "| text `x` | tests |\n|---|---|\n| `a | b` | `one` `dir/two` and `three` |\n";
        let missing = |files: &str, source: &'static str| {
            missing(told, |name| name == files, [source].into_iter()).join("\n")
        };
        assert_eq!(missing("dir/two", "fn one() {} fn three(x: u8) {}"), "");
        assert_eq!(missing("dir/two", "fn one() {}"), "testdata/README.md: there is no test `three`");
        assert_eq!(
            missing("", "fn one() {} fn three() {}"),
            "testdata/README.md: there is no test `dir/two`"
        );
        assert!(!super::missing("| a | b |", |_| true, [].into_iter()).is_empty());
    }
}
