//! `lapstrake save`

use std::process::ExitCode;

use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_images::{Selected, select};
use lapstrake_oci::Reference;
use lapstrake_outputs::{Flavour, Saved, write_archive};
use serde_json::json;

use super::file::to_file;
use crate::args::images::Save;
use crate::session;

/// Writes images to an archive. One that is asked for by several names is there once.
pub(crate) fn save(args: &Save) -> Outcome<ExitCode> {
    let session = session::open()?;
    if args.output.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Usage("an archive is nothing for a terminal: use `-o FILE`".to_owned()).into());
    }
    if args.output.is_none() && args.json {
        return Err(Usage("--json needs `-o FILE`: the archive would go to the same place".to_owned()).into());
    }
    let images = select(&session.store, &args.images, args.platform.as_deref())?;
    let saved: Vec<Saved<'_>> =
        images.iter().map(|Selected { bundle, names }| Saved { bundle, names }).collect();
    let flavour = if args.oci { Flavour::Oci } else { Flavour::Docker };
    let written =
        to_file(args.output.as_deref(), |out| Ok(write_archive(&session.store, &saved, flavour, out)?))
            .with_context(|| format!("cannot save `{}`", args.images.join("`, `")))?;
    if args.json {
        for (Selected { bundle, names }, manifest) in images.iter().zip(written) {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            let id = &bundle.main().image.document.digest;
            say!("{}", json!({"ID": id, "Names": names, "Digest": manifest.document.digest}));
        }
    }
    Ok(ExitCode::SUCCESS)
}
