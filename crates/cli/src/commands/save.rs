//! `lapstrake save`

use std::process::ExitCode;

use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_oci::Reference;
use lapstrake_outputs::{Bundle, Flavour, Saved, write_archive};
use lapstrake_store::{ImageRow, Store};
use serde_json::json;

use super::file::to_file;
use crate::args::images::Save;
use crate::session::{self, bundle, find_all, find_for};

/// Writes images to an archive. One that is asked for by several names is there once.
pub(crate) fn save(args: &Save) -> Outcome<ExitCode> {
    let session = session::open()?;
    if args.output.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Usage("an archive is nothing for a terminal: use `-o FILE`".to_owned()).into());
    }
    if args.output.is_none() && args.json {
        return Err(Usage("--json needs `-o FILE`: the archive would go to the same place".to_owned()).into());
    }
    let mut images: Vec<(Vec<ImageRow>, Bundle, Vec<Reference>)> = Vec::new();
    for text in &args.images {
        let rows = match &args.platform {
            Some(_) => vec![find_for(&session.store, text, args.platform.as_deref())?],
            None => find_all(&session.store, text)?,
        };
        let number = match images.iter().position(|(known, ..)| *known == rows) {
            Some(number) => number,
            None => {
                let bundle = bundle(&session.store, &rows)?;
                images.push((rows, bundle, Vec::new()));
                images.len() - 1
            }
        };
        let names = &mut images[number].2;
        names.extend(named(&session.store, text)?.filter(|name| !names.contains(name)));
    }
    let saved: Vec<Saved<'_>> = images.iter().map(|(_, bundle, names)| Saved { bundle, names }).collect();
    let flavour = if args.oci { Flavour::Oci } else { Flavour::Docker };
    let written =
        to_file(args.output.as_deref(), |out| Ok(write_archive(&session.store, &saved, flavour, out)?))
            .with_context(|| format!("cannot save `{}`", args.images.join("`, `")))?;
    if args.json {
        for ((_, bundle, names), manifest) in images.iter().zip(written) {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            let id = &bundle.main().image.document.digest;
            say!("{}", json!({"ID": id, "Names": names, "Digest": manifest.document.digest}));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An id is no name, and an image saved by it has none.
fn named(store: &Store, text: &str) -> Outcome<Option<Reference>> {
    let Some(name) = text.parse::<Reference>().ok().filter(|name| name.digest().is_none()) else {
        return Ok(None);
    };
    Ok(store.tagged(&name)?.map(|_| name))
}
