//! The one table of measurements: the newest line of each case of the runs in `crates/xtask/bench/runs`.
//!
//! A run is what `cargo xtask bench` prints, in a file whose name begins with the date. Columns are two spaces or more
//! apart: the case and who was measured, then figures and the budget.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The page with the table, and the directory of the runs.
const PAGE: &str = "crates/xtask/bench/README.md";
const RUNS: &str = "crates/xtask/bench/runs";
const BEGIN: &str = "<!-- begin of the table: cargo xtask bench table -->\n";
const END: &str = "<!-- end of the table -->";

/// A line of a run.
struct Line {
    case: String,
    who: String,
    figures: Vec<String>,
    run: String,
}

/// Writes the table into its page.
pub(crate) fn write(top: &Path) -> Result<(), String> {
    let (page, table) = (read(&top.join(PAGE))?, of_runs(top)?);
    let page =
        replaced(&page, &table).ok_or_else(|| format!("{PAGE}: the marks of the table are missing"))?;
    fs::write(top.join(PAGE), page).map_err(|error| format!("{PAGE}: {error}"))
}

/// Whether the page has the table of the runs that are there.
pub(crate) fn check(top: &Path) -> Result<Vec<String>, String> {
    let page = read(&top.join(PAGE))?;
    let same = replaced(&page, &of_runs(top)?).is_some_and(|new| new == page);
    let stale = || format!("{PAGE}: the table is not that of the runs: `cargo xtask bench table`");
    Ok((!same).then(stale).into_iter().collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn of_runs(top: &Path) -> Result<String, String> {
    let dir = top.join(RUNS);
    let entries = fs::read_dir(&dir).map_err(|error| format!("{RUNS}: {error}"))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut runs = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "txt")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        runs.push((name, read(file)?));
    }
    Ok(table(&runs))
}

/// The table of runs by name, oldest first.
fn table(runs: &[(String, String)]) -> String {
    let mut newest: BTreeMap<(String, String), Line> = BTreeMap::new();
    for line in runs.iter().flat_map(|(run, text)| text.lines().filter_map(|line| self::line(run, line))) {
        newest.insert((line.case.clone(), line.who.clone()), line);
    }
    let mut table = "| case | measured | figures | run |\n|---|---|---|---|\n".to_owned();
    for Line { case, who, figures, run } in newest.into_values() {
        let date = run.get(..10).unwrap_or(&run);
        table += &format!("| {case} | {who} | {} | [{date}](runs/{run}) |\n", figures.join(", "));
    }
    table
}

fn line(run: &str, text: &str) -> Option<Line> {
    let (case, rest) = text.split_once(": ").filter(|_| !text.starts_with('#'))?;
    let mut columns = rest.split("  ").map(str::trim).filter(|column| !column.is_empty() && *column != "-");
    let who = columns.next()?.to_owned();
    let figures: Vec<String> = columns.map(str::to_owned).collect();
    (!figures.is_empty()).then(|| Line { case: case.to_owned(), who, figures, run: run.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_line_of_each_case_counts() {
        let run = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let runs = [
            run(
                "2026-01-01-a.txt",
                "# x: y  1 ms\ncase  median\nfast: we, 20   5 ms   -  <= 6 ms: met\nslow: we  1 s\n",
            ),
            run("2026-01-02-b.txt", "fast: we, 20  4 ms\na note: without a figure\n"),
        ];
        let rows = "| fast | we, 20 | 4 ms | [2026-01-02](runs/2026-01-02-b.txt) |\n\
                    | slow | we | 1 s | [2026-01-01](runs/2026-01-01-a.txt) |\n";
        assert_eq!(table(&runs), format!("| case | measured | figures | run |\n|---|---|---|---|\n{rows}"));
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("a\n{BEGIN}new\n{END}\nb\n")));
        assert_eq!(replaced("no marks", ""), None);
    }
}
