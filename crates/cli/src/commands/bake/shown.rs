//! `bake --list`.

use lapstrake_bake::Definition;
use lapstrake_diag::{Outcome, Usage};
use lapstrake_go::{TabWriter, csv};
use serde::Serialize;

use crate::args::bake::Bake;

/// The subject of a list.
#[derive(Clone, Copy)]
enum Subject {
    Targets,
    Variables,
}

/// A list that is asked for.
#[derive(Clone, Copy)]
pub(super) struct List {
    subject: Subject,
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

impl List {
    /// The list that the flags ask for.
    pub(super) fn asked(args: &Bake) -> Result<Option<List>, Usage> {
        let text = match (&args.list, args.list_targets, args.list_variables) {
            (Some(text), _, _) => text.as_str(),
            (None, true, _) => "targets",
            (None, false, true) => "variables",
            (None, false, false) => return Ok(None),
        };
        let bad = |why: String| Usage(format!("--list {text}: {why}"));
        let fields = csv::fields(text).map_err(|error| bad(error.to_string()))?;
        let (mut subject, mut format) = (String::new(), "table".to_owned());
        if fields.len() == 1 && !text.starts_with("type=") {
            text.clone_into(&mut subject);
        } else {
            for field in fields {
                match field.split_once('=') {
                    Some(("type", value)) => value.clone_into(&mut subject),
                    Some(("format", value)) => value.clone_into(&mut format),
                    _ => {
                        return Err(bad(format!(
                            "unexpected {field:?}: write type=targets|variables,format=table|json"
                        )));
                    }
                }
            }
        }
        let subject = match subject.as_str() {
            "targets" => Subject::Targets,
            "variables" => Subject::Variables,
            other => return Err(bad(format!("invalid list type {other:?}: targets or variables"))),
        };
        match format.as_str() {
            "table" | "json" => Ok(Some(List { subject, json: format == "json" })),
            other => Err(bad(format!("invalid list format {other:?}: table or json"))),
        }
    }

    /// Prints the list.
    pub(super) fn print(self, definition: &Definition) -> Outcome<()> {
        let text = match (self.subject, self.json) {
            (Subject::Targets, true) => json(&targets(definition)),
            (Subject::Targets, false) => {
                let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
                rows.extend(targets(definition).into_iter().map(|row| [row.name, row.description]));
                TabWriter::new(8, 1).rows(&rows)
            }
            (Subject::Variables, true) => json(&definition.variables),
            (Subject::Variables, false) => {
                let mut rows = vec![["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"].map(str::to_owned)];
                rows.extend(definition.variables.iter().cloned().map(|variable| {
                    let value = variable.value.unwrap_or_else(|| "<null>".to_owned());
                    [variable.name, variable.kind, value, variable.description]
                }));
                TabWriter::new(8, 1).rows(&rows)
            }
        };
        say!("{}", text.trim_end_matches('\n'));
        Ok(())
    }
}

fn json(rows: &impl Serialize) -> String {
    String::from_utf8_lossy(&lapstrake_go::to_json_indented(rows)).into_owned()
}

/// Targets and groups by name. Those whose names begin with `_` are private.
fn targets(definition: &Definition) -> Vec<Row> {
    let targets = definition.targets.iter().map(|target| Row {
        name: target.name.clone(),
        description: target.description.clone(),
        group: false,
    });
    let groups = definition.groups.iter().map(|group| {
        let mut members = group.targets.clone();
        members.sort();
        let members = members.join(", ");
        let description = match (group.description.is_empty(), members.is_empty()) {
            (true, _) => members,
            (false, true) => group.description.clone(),
            (false, false) => format!("{} ({members})", group.description),
        };
        Row { name: group.name.clone(), description, group: true }
    });
    let mut rows: Vec<Row> = targets.chain(groups).filter(|row| !row.name.starts_with('_')).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}
