//! `lapstrake images`, `rmi`

use std::collections::BTreeSet;
use std::process::ExitCode;

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_go::size::human as size;
use lapstrake_oci::Reference;
use lapstrake_store::{ImageRow, Store};
use serde_json::json;

use super::listed::{Filters, Listed};
use crate::args::images::{Images, Rmi};
use crate::rows::{Rows, ago, go_time};
use crate::session::{self, NoImage, find_all, find_for};

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
const NONE: &str = "<none>";
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

/// Repository, tag and digest for each row of an image.
fn names(image: &Listed, digests: bool) -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    let of = |name: &Reference| name.digest().map_or(NONE.to_owned(), ToString::to_string);
    for tag in &image.tags {
        let repository = tag.familiar_name();
        let own: Vec<&Reference> =
            image.digests.iter().filter(|digest| digest.familiar_name() == repository).collect();
        let tag = tag.tag().unwrap_or(NONE).to_owned();
        match own.as_slice() {
            some @ [_, ..] if digests => {
                rows.extend(some.iter().map(|digest| (repository.clone(), tag.clone(), of(digest))));
            }
            _ => rows.push((repository, tag, NONE.to_owned())),
        }
    }
    let named =
        |digest: &&Reference| !image.tags.iter().any(|tag| tag.familiar_name() == digest.familiar_name());
    for digest in image.digests.iter().filter(named) {
        let row = (digest.familiar_name(), NONE.to_owned(), of(digest));
        if digests || !rows.contains(&row) {
            rows.push(row);
        }
    }
    if !digests {
        rows.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    }
    if rows.is_empty() {
        rows.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    rows
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
    names(image, digests).into_iter().map(row).collect()
}

/// For programs: whole ids, bytes, and times as they are.
fn exact(image: &Listed) -> Vec<serde_json::Value> {
    let row = |(repository, tag, digest): (String, String, String)| {
        json!({"Repository": repository, "Tag": tag, "Digest": digest, "ID": image.row.id,
            "CreatedAt": image.config.created, "Size": image.row.size, "Platform": image.config.platform().to_string()})
    };
    names(image, true).into_iter().map(row).collect()
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
    let all = find_all(store, name)?;
    match (&args.platform, all.len()) {
        (_, 1) => {}
        (None, _) => return remove_variants(store, name, all, args),
        (Some(platform), _) => {
            let image = Listed::new(store, find_for(store, name, Some(platform))?)?;
            if image.tags.len() > 1 && !args.force {
                let id = image.row.id.short();
                return Err(Report::new(format!(
                    "image {id} has more than one name: use --force to take it away from all of them"
                )));
            }
            store.remove_unused_image(&image.row.id)?;
            return tell_of("Deleted", &image.row.id.to_string(), args.json);
        }
    }
    let image = Listed::new(store, find_for(store, name, args.platform.as_deref())?)?;
    let all = || image.tags.iter().chain(&image.digests);
    let named = name.parse::<Reference>().ok().and_then(|name| all().find(|own| **own == name));
    match named {
        // As in Docker, force is for ids: a name takes itself away, and no other one.
        Some(reference) if all().count() > 1 && others(&image, reference) => {
            store.untag(reference)?;
            tell_of("Untagged", &reference.familiar(), args.json)?;
            // Digests of a repository go with its last tag.
            let own = |other: &&Reference| other.familiar_name() == reference.familiar_name();
            let last = !image.tags.iter().filter(own).any(|tag| tag != reference);
            for digest in image.digests.iter().filter(own).filter(|digest| last && *digest != reference) {
                store.untag(digest)?;
                tell_of("Untagged", &digest.familiar(), args.json)?;
            }
            Ok(())
        }
        None if image.tags.len() > 1 && !args.force => {
            let id = image.row.id.short();
            Err(Report::new(format!("image {id} has more than one name: name one of them, or use --force")))
        }
        _ => {
            store.remove_unused_image(&image.row.id)?;
            for name in all() {
                tell_of("Untagged", &name.familiar(), args.json)?;
            }
            tell_of("Deleted", &image.row.id.to_string(), args.json)
        }
    }
}

/// Takes a name away from the images for all platforms, and removes those that have no other.
fn remove_variants(store: &Store, name: &str, all: Vec<ImageRow>, args: &Rmi) -> Outcome<()> {
    let reference: Reference = name.parse().map_err(|error| Usage(format!("`{name}`: {error}")))?;
    let all = all.into_iter().map(|row| Listed::new(store, row)).collect::<Outcome<Vec<_>>>()?;
    let (gone, staying): (Vec<_>, Vec<_>) =
        all.iter().partition(|image| image.tags.iter().all(|tag| *tag == reference));
    if let Some(image) = gone.iter().find(|image| store.is_in_use(&image.row.id).unwrap_or(false)) {
        // Who runs something in it is told by this, before anything is taken away.
        store.remove_unused_image(&image.row.id)?;
    }
    for image in &gone {
        store.remove_unused_image(&image.row.id)?;
    }
    if !staying.is_empty() {
        store.untag(&reference)?;
    }
    let names = gone.iter().flat_map(|image| image.tags.iter().chain(&image.digests)).chain([&reference]);
    for name in names.map(Reference::familiar).collect::<BTreeSet<String>>() {
        tell_of("Untagged", &name, args.json)?;
    }
    gone.iter().try_for_each(|image| tell_of("Deleted", &image.row.id.to_string(), args.json))
}

/// Whether an image keeps a name that a person gave it when `gone` goes; the digests of a registry do not count.
fn others(image: &Listed, gone: &Reference) -> bool {
    if gone.digest().is_some() { !image.tags.is_empty() } else { image.tags.len() > 1 }
}

fn tell_of(what: &str, name: &str, json: bool) -> Outcome<()> {
    if json {
        say!("{}", json!({ what: name }));
    } else {
        say!("{what}: {name}");
    }
    Ok(())
}
