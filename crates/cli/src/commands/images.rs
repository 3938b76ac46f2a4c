//! `lapstrake images`, `rmi`

use std::process::ExitCode;

use lapstrake_diag::{Outcome, Report};
use lapstrake_go::size::human as size;
use lapstrake_images::{Filters, Listed, NoImage, Removed, Removing, name_rows, remove_named};
use lapstrake_store::Store;
use serde_json::json;

use crate::args::images::{Images, Rmi};
use crate::rows::{Rows, ago, go_time};
use crate::session;

const HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Platform", "PLATFORM"),
];
const USUAL: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const NOT_KNOWN: &str = "N/A";

/// Lists images.
pub(crate) fn images(args: &Images) -> Outcome<ExitCode> {
    let session = session::open()?;
    let filters = Filters::parse(&session.store, &args.filter, args.pattern.as_deref())?;
    let mut listed = Listed::all(&session.store)?;
    listed.retain_mut(|image| filters.keep(image));
    if args.json {
        for row in listed.iter().flat_map(exact) {
            say!("{row}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        for row in listed.iter().flat_map(|image| rows(image, false, args.no_trunc)) {
            say!("{}", row["ID"].as_str().unwrap_or_default());
        }
        return Ok(ExitCode::SUCCESS);
    }
    // A template that shows digests wants a row for each of them.
    let digests = args.digests || args.format.as_deref().is_some_and(|format| format.contains(".Digest"));
    let rows = listed.iter().flat_map(|image| rows(image, digests, args.no_trunc)).collect();
    let rows = Rows { headings: HEADINGS, usual: if args.digests { WITH_DIGESTS } else { USUAL }, rows };
    crate::console::out(format_args!("{}", rows.text(args.format.as_deref())?))?;
    Ok(ExitCode::SUCCESS)
}

fn rows(image: &Listed, digests: bool, full: bool) -> Vec<serde_json::Value> {
    let created = image.config.created.as_deref();
    let id = if full { image.row.id.to_string() } else { image.row.id.short().to_owned() };
    let row = |(repository, tag, digest): (String, String, String)| {
        json!({"Repository": repository, "Tag": tag, "Digest": digest, "ID": id, "CreatedSince": ago(created),
            "CreatedAt": go_time(created), "Size": size(image.row.size),
            // What Docker's engine does not tell its client of either.
            "Containers": NOT_KNOWN, "SharedSize": NOT_KNOWN, "UniqueSize": NOT_KNOWN,
            "Platform": image.config.platform().to_string()})
    };
    name_rows(image, digests).into_iter().map(row).collect()
}

/// For programs: whole ids, bytes, and times as they are.
fn exact(image: &Listed) -> Vec<serde_json::Value> {
    let row = |(repository, tag, digest): (String, String, String)| {
        json!({"Repository": repository, "Tag": tag, "Digest": digest, "ID": image.row.id,
            "CreatedAt": image.config.created, "Size": image.row.size, "Platform": image.config.platform().to_string()})
    };
    name_rows(image, true).into_iter().map(row).collect()
}

/// Removes images, or names of them. What cannot be removed holds up none of the others.
pub(crate) fn rmi(args: &Rmi) -> Outcome<ExitCode> {
    let session = session::open_to_remove()?;
    let failed = args.images.iter().filter_map(|name| remove(&session.store, name, args).err());
    let (absent, mut failed): (Vec<Report>, Vec<Report>) =
        failed.partition(|error| args.force && error.code() == NoImage::CODE);
    // As in Docker, what is not there is gone already.
    absent.iter().for_each(|error| tell!("{error}"));
    let Some(last) = failed.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in failed {
        tell!("ERROR: {error:#}");
    }
    Err(last)
}

fn remove(store: &Store, name: &str, args: &Rmi) -> Outcome<()> {
    let (platform, mut gone) = (args.platform.as_deref(), Vec::new());
    let done = remove_named(store, name, Removing { platform, force: args.force }, &mut gone);
    for part in &gone {
        match part {
            Removed::Name(name) => tell_of("Untagged", name, args.json)?,
            Removed::Image(id) => tell_of("Deleted", &id.to_string(), args.json)?,
        }
    }
    done
}

fn tell_of(what: &str, name: &str, json: bool) -> Outcome<()> {
    if json {
        say!("{}", json!({ what: name }));
    } else {
        say!("{what}: {name}");
    }
    Ok(())
}
