//! The table of crates in `crates/README.md`, and the workspace held to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// A crate's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Part of the program, in this row.
    Row(u32),
    /// For development only.
    Development,
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    place: Place,
    planned: bool,
}

/// The table by directories below the top of the workspace.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<String, Line>);

/// A package of the workspace.
#[derive(Debug)]
pub(super) struct Package {
    name: String,
    /// Below the top of the workspace.
    pub(super) dir: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    /// Whether the program itself needs it, and not only its tests or its build.
    ships: bool,
}

const HEADING: &str = "| row | crate | what it is |";

impl Table {
    /// The table in the text of the architecture document, and what is wrong with its form.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().skip_while(|line| *line != HEADING).skip(2);
        let mut table = BTreeMap::new();
        for line in lines.by_ref().take_while(|line| line.starts_with('|')) {
            let (dir, line) =
                row(line).ok_or_else(|| format!("crates/README.md: cannot read the row {line:?}"))?;
            if table.insert(dir.clone(), line).is_some() {
                return Err(format!("crates/README.md: `{dir}` has two rows"));
            }
        }
        if table.is_empty() {
            Err(format!("crates/README.md has no table `{HEADING}`"))
        } else {
            Ok(Self(table))
        }
    }

    /// Whether a file by its path below the top of the workspace is in a crate that ships.
    pub(super) fn ships(&self, file: &str) -> bool {
        let within = |dir: &str| file.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        self.0.iter().any(|(dir, line)| within(dir) && line.place != Place::Development)
    }

    /// Whether the crate in a directory is planned.
    pub(super) fn plans(&self, dir: &str) -> bool {
        self.0.get(dir).is_some_and(|line| line.planned)
    }

    /// What of the workspace the table does not allow, and what of the table is not there.
    pub(super) fn complaints(&self, packages: &[Package]) -> Vec<String> {
        let mut complaints = Vec::new();
        let by_name: BTreeMap<&str, &Package> =
            packages.iter().map(|package| (package.name.as_str(), package)).collect();
        for package in packages {
            let dir = &package.dir;
            match self.0.get(dir) {
                None => complaints.push(format!("`{dir}` is not in the table of crates/README.md")),
                Some(Line { planned: true, .. }) => {
                    complaints.push(format!("crates/README.md calls `{dir}` planned, and it is there"));
                }
                Some(line) => complaints.extend(self.arrows(package, line.place, &by_name)),
            }
        }
        for (dir, _) in self.0.iter().filter(|(_, line)| !line.planned) {
            if !packages.iter().any(|package| package.dir == *dir) {
                complaints.push(format!("crates/README.md has a row for `{dir}`, which is not there"));
            }
        }
        complaints
    }

    fn arrows(&self, package: &Package, place: Place, all: &BTreeMap<&str, &Package>) -> Vec<String> {
        let Place::Row(from) = place else { return Vec::new() };
        let shipped = package.dependencies.iter().filter(|dependency| dependency.ships);
        let ours = shipped.filter_map(|dependency| all.get(dependency.name.as_str()));
        ours.filter_map(|other| {
            let (name, dir) = (&package.dir, &other.dir);
            match self.0.get(dir)?.place {
                Place::Row(to) if to < from => None,
                Place::Row(to) => {
                    Some(format!("`{name}` (row {from}) must not depend on `{dir}` (row {to})"))
                }
                Place::Development => Some(format!("`{name}` ships and must not depend on `{dir}`")),
            }
        })
        .collect()
    }
}

/// A line of the table: `| 3 | `crates/graph` | ops |`, with ` (planned)` after the name of a crate that is to come.
fn row(line: &str) -> Option<(String, Line)> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let (number, name, meaning) = (cells.next()?, cells.next()?, cells.next()?);
    let (name, planned) = match name.strip_suffix(" (planned)") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let dir = name.strip_prefix('`')?.strip_suffix('`')?;
    let place = match number {
        "-" => Place::Development,
        number => Place::Row(number.parse().ok()?),
    };
    (!meaning.is_empty()).then(|| (dir.to_owned(), Line { place, planned }))
}

/// The packages of the workspace, as cargo tells them.
pub(super) fn packages(top: &Path) -> Result<Vec<Package>, String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(top)
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().into_iter().flatten().map(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let manifest = text(&package["manifest_path"]);
        let dir = Path::new(&manifest).parent().and_then(|dir| dir.strip_prefix(top).ok());
        Package {
            name: text(&package["name"]),
            dir: dir.map_or(manifest.clone(), |dir| dir.display().to_string()),
            dependencies: dependencies
                .map(|other| Dependency { name: text(&other["name"]), ships: other["kind"].is_null() })
                .collect(),
        }
    });
    Ok(packages.collect())
}

impl Package {
    /// Whether anything of it, its tests too, uses a crate whose name begins so.
    pub(super) fn uses(&self, prefix: &str) -> bool {
        self.dependencies.iter().any(|dependency| dependency.name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "text\n\n| row | crate | what it is |\n|---|---|---|\n| 2 | `crates/top` | it |\n| 1 | `crates/new` (planned) | x |\n\
                        | 1 | `crates/low` | it |\n| - | `crates/aid` | tests |\n\nmore\n| 7 | no row |\n";

    fn package(name: &str, needs: &[(&str, bool)]) -> Package {
        let dependency =
            |(name, ships): &(&str, bool)| Dependency { name: (*name).to_owned(), ships: *ships };
        Package {
            name: name.to_owned(),
            dir: format!("crates/{name}"),
            dependencies: needs.iter().map(dependency).collect(),
        }
    }

    fn complaints(packages: &[Package]) -> String {
        Table::parse(TEXT).unwrap().complaints(packages).join("\n")
    }

    #[test]
    fn arrows_lead_downwards() {
        let [low, aid] =
            [package("low", &[("serde", true), ("aid", false)]), package("aid", &[("top", true)])];
        let top = package("top", &[("low", true)]);
        assert_eq!(complaints(&[top, low, aid]), "");
        let wrong = [package("top", &[("aid", true)]), package("low", &[("top", true)]), package("aid", &[])];
        assert_eq!(
            complaints(&wrong),
            "`crates/top` ships and must not depend on `crates/aid`\n\
             `crates/low` (row 1) must not depend on `crates/top` (row 2)"
        );
        let even = [package("top", &[]), package("low", &[("low", true)]), package("aid", &[])];
        assert_eq!(complaints(&even), "`crates/low` (row 1) must not depend on `crates/low` (row 1)");
    }

    #[test]
    fn the_table_and_the_workspace_have_the_same_crates() {
        let all = [package("top", &[]), package("new", &[]), package("aid", &[]), package("more", &[])];
        assert_eq!(
            complaints(&all),
            "crates/README.md calls `crates/new` planned, and it is there\n\
             `crates/more` is not in the table of crates/README.md\n\
             crates/README.md has a row for `crates/low`, which is not there"
        );
    }

    #[test]
    fn a_table_that_cannot_be_read_is_an_error() {
        assert!(Table::parse("no table").is_err());
        for row in
            ["| x | `a` | b |", "| 1 | a | b |", "| 1 | `a` | |", "| 1 | `a` (soon) | b |", "| 1 | `a`"]
        {
            assert!(Table::parse(&format!("{HEADING}\n|---|---|---|\n{row}\n")).is_err(), "{row}");
        }
        let twice = format!("{HEADING}\n|---|---|---|\n| 1 | `a` | b |\n| 2 | `a` | b |\n");
        assert!(Table::parse(&twice).is_err());
        assert!(Table::parse(TEXT).unwrap().ships("crates/low/src/lib.rs"));
        assert!(!Table::parse(TEXT).unwrap().ships("crates/lower/src/lib.rs"));
        assert!(!Table::parse(TEXT).unwrap().ships("crates/aid/src/lib.rs"));
    }
}
