//! `lapstrake search`

use std::process::ExitCode;

use lapstrake_diag::{Outcome, Usage};
use lapstrake_oci::Reference;
use lapstrake_registry::{Client, Found};
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

/// The filters of results.
#[derive(Default)]
struct Wanted {
    stars: u64,
    official: Option<bool>,
    automated: Option<bool>,
}

/// Asks a registry, Docker Hub unless the term begins with another one, for images.
pub(crate) fn search(args: &Search) -> Outcome<ExitCode> {
    let wanted = wanted(&args.filter)?;
    if wanted.automated.is_some() {
        tell!(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future."
        );
    }
    let (registry, term) = place(&args.term)?;
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

impl Wanted {
    fn fits(&self, found: &Found) -> bool {
        found.star_count >= self.stars
            && self.official.is_none_or(|wanted| wanted == found.is_official)
            && self.automated.is_none_or(|wanted| wanted == found.is_automated)
    }
}

fn wanted(filters: &[String]) -> Result<Wanted, Usage> {
    let mut wanted = Wanted::default();
    for text in filters {
        let bad = |why: &str| Usage(format!("--filter {text}: {why}"));
        let flag = |value: &str| match value {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(bad("neither true nor false")),
        };
        match text.split_once('=') {
            Some(("stars", value)) => wanted.stars = value.parse().map_err(|_| bad("not a number"))?,
            Some(("is-official", value)) => wanted.official = flag(value)?,
            Some(("is-automated", value)) => wanted.automated = flag(value)?,
            _ => return Err(bad("not one of stars=N, is-official=BOOL, is-automated=BOOL")),
        }
    }
    Ok(wanted)
}

/// The registry and the term: `registry.example/term` asks there.
fn place(term: &str) -> Result<(Reference, String), Usage> {
    let bad = || Usage(format!("`{term}` cannot be searched for"));
    let (host, rest) = term.split_once('/').unwrap_or(("", term));
    let is_host = host.contains(['.', ':']) || host == "localhost";
    let (host, term) = if is_host { (host, rest) } else { ("docker.io", term) };
    // Any name of the registry will do: only the registry itself is asked.
    let probe: Reference = format!("{host}/lapstrake/search").parse().map_err(|_| bad())?;
    if term.is_empty() { Err(bad()) } else { Ok((probe, term.to_owned())) }
}
