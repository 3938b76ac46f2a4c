//! Images made of the tar of a root file system.

use std::io::Read;
use std::sync::Arc;

use lapstrake_assemble::Document;
use lapstrake_diag::{Context as _, Outcome, SourceFile, Usage};
use lapstrake_dockerfile::{Dialect, parse_as};
use lapstrake_graph::{Graph, HistoryDraft, ImageDraft, Op, Source, VertexMeta};
use lapstrake_lower::{BuildInputs, ImageRequest, ImageResolver, ResolveFailure, ResolvedImage, lower};
use lapstrake_oci::{Digest, ImageConfig, Platform, Reference};
use lapstrake_outputs::{Bundle, Encoding, Layer, Tars, assemble, keep};
use lapstrake_snapshot::import_layer;
use lapstrake_store::StackLayer;

use crate::source::{Machine, usable};

/// An image that is to be made of a tar.
pub struct Import {
    /// The config, but for the layer and the history.
    pub config: ImageConfig,
    /// The names of the image.
    pub names: Vec<Reference>,
    /// The comment in the history.
    pub message: Option<String>,
    /// The time of the image, in seconds since 1970; `None` for now.
    pub epoch: Option<i64>,
    /// The tar, as errors name it.
    pub tar: String,
}

impl Import {
    /// Makes the image of `tar` and stores it; gives its id.
    ///
    /// # Errors
    /// The tar cannot be read, or the state directory cannot be written.
    pub fn run(self, tar: impl Read + Send, machine: &Machine) -> Outcome<Digest> {
        let store = &*machine.store;
        let layer = import_layer(store, tar, machine.single_id)
            .with_context(|| {
                let state = store.root().display();
                format!("cannot import `{}` to the state directory `{state}`", self.tar)
            })?
            .layer;
        let vertex = Graph::new().add(Op::Source(Source::Scratch), Vec::new(), VertexMeta::default())?;
        let history = vec![HistoryDraft { created_by: "lapstrake import".to_owned(), layer: Some(vertex) }];
        let draft = ImageDraft { config: self.config, is_complete: false, history, epoch: self.epoch };
        // Its tar is ours to write: the one that came need not be kept.
        let layers = [Layer { id: layer.clone(), diff_id: None, clamp: None }];
        let mut image = assemble(store, &draft, (&[], &layers), Tars::default())?;
        for row in &mut image.config.history {
            row.comment = self.message.clone().unwrap_or_default();
        }
        image.document = Document::new(lapstrake_go::to_json(&image.config));
        let diff_id = image.layers.first().map(|(_, diff_id)| diff_id.clone());
        let stored = vec![StackLayer { id: layer, diff_id, clamp: None }];
        let bundle = Bundle::one(image, Encoding::default());
        keep(store, &bundle, vec![stored], &self.names)?;
        Ok(bundle.main().image.document.digest.clone())
    }
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

/// The config that the instructions `changes` make of that of `scratch`.
///
/// # Errors
/// An instruction that cannot change the config of an image whose files are there already.
pub fn changed_config(platform: &Platform, changes: &[String]) -> Outcome<ImageConfig> {
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
