//! `lapstrake inspect`

use std::io::Write as _;
use std::process::ExitCode;

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_go::Template;
use lapstrake_images::{Listed, find_for, inspect_document};
use lapstrake_oci::Reference;
use lapstrake_registry::Client;
use serde_json::json;

use crate::args::images::Inspect;
use crate::rows::show;
use crate::session::{self, registries};

/// Shows what images are.
pub(crate) fn inspect(args: &Inspect) -> Outcome<ExitCode> {
    let template = match args.format.as_deref() {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}").map_err(|error| Report::new(error.to_string()))?),
        Some(text) => Some(Template::parse(text).map_err(|error| Usage(format!("--format: {error}")))?),
    };
    if args.referrers {
        return referrers(&args.images);
    }
    let session = session::open()?;
    let mut shown = Vec::new();
    for name in &args.images {
        let row = find_for(&session.store, name, args.platform.as_deref())?;
        if args.raw {
            std::io::stdout().write_all(&session.store.read_blob(&row.id)?)?;
            continue;
        }
        shown.push(inspect_document(&Listed::new(&session.store, row)?)?);
    }
    match template {
        _ if args.raw => {}
        Some(template) => {
            for document in &shown {
                say!("{}", show(&template, document)?);
            }
        }
        None => say!("{}", String::from_utf8_lossy(&lapstrake_go::to_json_indented(&shown))),
    }
    Ok(ExitCode::SUCCESS)
}

/// The referrers of images in their registries. An empty index means none.
fn referrers(images: &[String]) -> Outcome<ExitCode> {
    let names = images
        .iter()
        .map(|text| text.parse::<Reference>().map_err(|error| Usage(format!("`{text}`: {error}"))));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let found = super::block_on(async {
        let client = Client::new(registries())?;
        let mut found = Vec::new();
        for name in &names {
            let digest = match name.digest() {
                Some(digest) => digest.clone(),
                None => client.manifest(name).await?.digest,
            };
            found.push(client.referrers(name, &digest).await?);
        }
        Ok(found)
    })?;
    for index in found {
        let empty = || lapstrake_go::to_json_indented(&json!({"schemaVersion": 2, "manifests": []}));
        say!("{}", String::from_utf8_lossy(&index.map_or_else(empty, |index| index.bytes)));
    }
    Ok(ExitCode::SUCCESS)
}
