//! `lapstrake load`: Docker archives, OCI archives, and OCI layouts in directories.

use std::io;
use std::process::ExitCode;

use lapstrake_diag::Outcome;
use lapstrake_images::{Destination, LoadedImage, Source, asked_platform};
use lapstrake_oci::Reference;

use crate::args::images::Load;
use crate::session;

/// Loads images from an archive.
pub(crate) fn load(args: &Load) -> Outcome<ExitCode> {
    let session = session::open()?;
    let store = &*session.store;
    let platform = args.platform.as_deref().map(asked_platform).transpose()?;
    let source = match &args.input {
        Some(path) => Source::of_path(path, platform, store)?,
        None => Source::of_stream(io::stdin(), platform, store)?,
    };
    for LoadedImage { id, names } in source.load(Destination { store, single_id: session.single_id })? {
        if args.json {
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            say!("{}", serde_json::json!({"ID": id, "Names": names}));
            continue;
        }
        if args.quiet {
            say!("{id}");
            continue;
        }
        if names.is_empty() {
            say!("Loaded image ID: {id}");
            continue;
        }
        for name in &names {
            say!("Loaded image: {}", name.familiar());
        }
    }
    Ok(ExitCode::SUCCESS)
}
