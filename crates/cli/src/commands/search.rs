//! `lapstrake search`

use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_registry::{Client, SearchFilter, search_place};
use serde_json::json;

use crate::args::images::Search;
use crate::progress::printable;
use crate::rows::{Rows, shortened};
use crate::session::registries;

const HEADINGS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
const USUAL: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const WIDTH: usize = 45;

/// Asks a registry, Docker Hub unless the term begins with another one, for images.
pub(crate) fn search(args: &Search) -> Outcome<ExitCode> {
    let wanted = SearchFilter::parse(&args.filter)?;
    if wanted.automated.is_some() {
        tell!(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future."
        );
    }
    let (registry, term) = search_place(&args.term)?;
    let found = super::block_on(async {
        let client = Client::new(registries())?;
        Ok(client.search(&registry, &term, args.limit).await?)
    })?;
    let mut rows = Vec::new();
    // Where a row is written whole, Docker writes words for its marks and has nothing that is automated.
    let whole = args.format.as_deref().is_some_and(|format| matches!(format, "json" | "{{json .}}"));
    for found in found.iter().filter(|found| wanted.fits(found)) {
        let mark = |is: bool| match (whole, is) {
            (true, _) => {
                if is {
                    "true"
                } else {
                    "false"
                }
            }
            (false, true) => "[OK]",
            (false, false) => "",
        };
        // Whoever uploads an image writes this.
        let (name, text) =
            (printable(&found.name), printable(&found.description.replace(['\n', '\r', '\t'], " ")));
        if args.json {
            say!(
                "{}",
                json!({"Name": name, "Description": text, "StarCount": found.star_count,
                    "IsOfficial": found.is_official, "IsAutomated": found.is_automated})
            );
            continue;
        }
        let text = if args.no_trunc { text } else { shortened(&text, WIDTH) };
        let mut row = json!({"Name": name, "Description": text, "StarCount": found.star_count.to_string(),
            "IsOfficial": mark(found.is_official)});
        if !whole {
            row["IsAutomated"] = mark(found.is_automated).into();
        }
        rows.push(row);
    }
    if !args.json {
        let rows = Rows { headings: HEADINGS, usual: USUAL, rows };
        crate::console::out(format_args!("{}", rows.text(args.format.as_deref())?))?;
    }
    Ok(ExitCode::SUCCESS)
}
