//! `lapstrake import`

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_assemble::Document;
use lapstrake_build::usable;
use lapstrake_diag::{Context as _, Outcome, SourceFile, Usage};
use lapstrake_dockerfile::{Dialect, parse_as};
use lapstrake_graph::{Graph, HistoryDraft, ImageDraft, Op, Source, VertexMeta};
use lapstrake_lower::{BuildInputs, ImageRequest, ImageResolver, ResolveFailure, ResolvedImage, lower};
use lapstrake_oci::{ImageConfig, Platform, Reference};
use lapstrake_outputs::{Bundle, Encoding, Layer, Tars, assemble, keep};
use lapstrake_snapshot::import_layer;
use lapstrake_store::StackLayer;

use crate::args::images::Import;
use crate::env;
use crate::session;

/// Makes an image of a root file system's tar.
pub(crate) fn import(args: &Import) -> Outcome<ExitCode> {
    let parsed =
        |name: &String| Reference::new_name(name).map_err(|e| Usage(format!("invalid name `{name}`: {e}")));
    let names: Vec<Reference> = args.name.iter().map(parsed).collect::<Result<_, _>>()?;
    let platform = match &args.platform.clone().or_else(env::default_platform) {
        Some(text) => text.parse().map_err(|error| Usage(format!("--platform {text}: {error}")))?,
        None => Platform::host(),
    };
    let config = changed(&platform, &args.change)?;
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
    let vertex = Graph::new().add(Op::Source(Source::Scratch), Vec::new(), VertexMeta::default())?;
    let history = vec![HistoryDraft { created_by: "lapstrake import".to_owned(), layer: Some(vertex) }];
    let draft = ImageDraft { config, history, epoch: epoch()? };
    // Its tar is ours to write: the one that came need not be kept.
    let layers = [Layer { id: layer.clone(), diff_id: None, clamp: None }];
    let mut image = assemble(&session.store, &draft, (&[], &layers), Tars::default())?;
    for row in &mut image.config.history {
        row.comment = args.message.clone().unwrap_or_default();
    }
    image.document = Document::new(lapstrake_go::to_json(&image.config));
    let diff_id = image.layers.first().map(|(_, diff_id)| diff_id.clone());
    let stored = vec![StackLayer { id: layer, diff_id, clamp: None }];
    let bundle = Bundle::one(image, Encoding::default());
    keep(&session.store, &bundle, vec![stored], &names)?;
    let id = &bundle.main().image.document.digest;
    if args.json {
        say!("{}", serde_json::json!({"ID": id, "Name": names.first().map(Reference::familiar)}));
    } else {
        say!("{id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Knows no image: there is none to be asked for.
struct Nobody;

impl ImageResolver for Nobody {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        Err(Arc::new(std::io::Error::other(format!("{} cannot be set here", request.reference))))
    }
}

/// The instructions that `--change` takes: those that need no build.
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The config that these instructions make of that of `scratch`.
fn changed(platform: &Platform, changes: &[String]) -> Outcome<ImageConfig> {
    for change in changes {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if change.contains('\n') || !CHANGES.contains(&word.as_str()) {
            let known = CHANGES.join(", ");
            return Err(Usage(format!("--change `{change}`: expected a line with one of {known}")).into());
        }
    }
    let text: String = ["FROM scratch"]
        .into_iter()
        .chain(changes.iter().map(String::as_str))
        .flat_map(|l| [l, "\n"])
        .collect();
    let file = Arc::new(SourceFile::new("--change", text));
    let parsed = parse_as(&file, Dialect::BuildKit);
    usable(&parsed, &file)?;
    let inputs = BuildInputs { platforms: vec![platform.clone()], ..BuildInputs::new() };
    let plan = lower(&parsed.dockerfile, &inputs, &Nobody)?;
    Ok(plan.targets.into_iter().next().context("an import has one target")?.image.config)
}

/// `SOURCE_DATE_EPOCH`: two imports of the same tar then give the same image.
fn epoch() -> Result<Option<i64>, Usage> {
    let Some(text) = env::source_date_epoch() else { return Ok(None) };
    let bad = |_| Usage(format!("SOURCE_DATE_EPOCH is not a number of seconds: `{text}`"));
    text.parse().map(Some).map_err(bad)
}
