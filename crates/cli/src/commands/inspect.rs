//! `lapstrake inspect`

use std::io::Write as _;
use std::process::ExitCode;

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_go::Template;
use lapstrake_oci::Reference;
use lapstrake_registry::Client;
use serde_json::{Value, json};

use super::listed::Listed;
use crate::args::images::Inspect;
use crate::rows::show;
use crate::session::{self, find_for, registries};

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
        shown.push(document(&Listed::new(&session.store, row)?)?);
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

/// An image in Docker's fields. Those of the config that are not set are there all the same, so that a template can name
/// them.
fn document(image: &Listed) -> Outcome<Value> {
    let config = &image.config;
    let names = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    let mut of_containers = json!({"User": "", "ExposedPorts": {}, "Env": [], "Entrypoint": [], "Cmd": [],
        "Volumes": {}, "WorkingDir": "", "Labels": {}, "StopSignal": "", "OnBuild": [], "Shell": [],
        "Healthcheck": null});
    if let (Value::Object(all), Value::Object(set)) =
        (&mut of_containers, serde_json::to_value(&config.config)?)
    {
        all.extend(set);
    }
    Ok(json!({
        "Id": image.row.id,
        "RepoTags": names(&image.tags),
        "RepoDigests": names(&image.digests),
        "Comment": config.history.last().map_or("", |row| &row.comment),
        "Created": config.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.row.size,
        "Config": of_containers,
        "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
    }))
}
