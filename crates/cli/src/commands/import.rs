//! `lapstrake import`

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::Context as _;
use lapstrake_graph::{Graph, HistoryDraft, ImageDraft, Op, Source, VertexMeta};
use lapstrake_oci::{ImageConfig, Platform, Reference};
use lapstrake_ops::StackLayer;
use lapstrake_outputs::{Layer, Tars, assemble, keep};
use lapstrake_snapshot::import_layer;

use crate::args::images::Import;
use crate::exit::Usage;
use crate::session;

/// Makes an image of a root file system's tar.
pub(crate) fn import(args: &Import) -> anyhow::Result<ExitCode> {
    let name: Reference =
        args.name.parse().map_err(|e| Usage(format!("invalid name `{}`: {e}", args.name)))?;
    let session = session::open()?;
    let tar: Box<dyn Read + Send> = if args.tar.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.tar).with_context(|| format!("cannot open `{}`", args.tar.display()))?)
    };
    let layer = import_layer(&session.store, tar, session.single_id)
        .with_context(|| {
            let (tar, state) = (args.tar.display(), session.store.root().display());
            format!("cannot import `{tar}` to the state directory `{state}`")
        })?
        .layer;
    let platform = Platform::host();
    let mut config =
        ImageConfig { architecture: platform.architecture, os: platform.os, ..ImageConfig::default() };
    config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let vertex = Graph::new().add(Op::Source(Source::Scratch), Vec::new(), VertexMeta::default())?;
    let history = vec![HistoryDraft { created_by: "lapstrake import".to_owned(), layer: Some(vertex) }];
    let draft = ImageDraft { config, history, epoch: epoch()? };
    // Its tar is ours to write: the one that came need not be kept.
    let layers = [Layer { id: layer.clone(), diff_id: None }];
    let image = assemble(&session.store, &draft, &layers, Tars::default())?;
    let diff_id = image.layers.first().map(|(_, diff_id)| diff_id.clone());
    let tokens = lapstrake_oci::to_json(&[StackLayer { id: layer, diff_id }]);
    let names = [name];
    keep(&session.store, &image, String::from_utf8_lossy(&tokens).into_owned(), &names)?;
    if args.json {
        say!("{}", serde_json::json!({"ID": image.document.digest, "Name": names[0].familiar()}));
    } else {
        say!("{}", image.document.digest);
    }
    Ok(ExitCode::SUCCESS)
}

/// `SOURCE_DATE_EPOCH`: two imports of the same tar then give the same image.
fn epoch() -> Result<Option<i64>, Usage> {
    let Some(text) = crate::env::source_date_epoch() else { return Ok(None) };
    let bad = |_| Usage(format!("SOURCE_DATE_EPOCH is no number of seconds: `{text}`"));
    text.parse().map(Some).map_err(bad)
}
