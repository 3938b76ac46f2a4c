//! Inputs of the Dockerfile frontend: definitions of the client in the place of contexts.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_build::{Build, load_bytes};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_lower::NamedContext;
use lapstrake_oci::{DiffId, Digest, ImageConfig};
use lapstrake_ops::SharedStack;
use lapstrake_proto::pb;
use lapstrake_tree::inroot::Root;

use crate::caller::Names;
use crate::definitions;
use crate::jobs::Job;
use crate::shared::Shared;

/// The name of the input that is the main context.
const CONTEXT: &str = "context";
/// The key of the config in the metadata of an input.
const CONFIG: &str = "containerimage.config";

/// Inputs that are solved.
#[derive(Default)]
pub(crate) struct Inputs {
    /// The main context.
    pub(crate) main: Option<SharedStack>,
    /// The files of the directory that has the Dockerfile: the Dockerfile and its ignore file.
    pub(crate) dockerfile: Option<BTreeMap<String, Vec<u8>>>,
    /// Named contexts.
    pub(crate) named: BTreeMap<String, NamedContext>,
}

/// Solves the inputs that the options `opt` use.
///
/// # Errors
/// An option names an input that is missing, a step fails, or the metadata of an input cannot be read.
pub(crate) async fn solve(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    (opt, inputs): (&BTreeMap<String, String>, &BTreeMap<String, pb::Definition>),
    names: &Names,
) -> Outcome<Inputs> {
    let mut found = Inputs::default();
    for (name, value) in opt.iter().filter_map(|(key, value)| Some((key.strip_prefix("context:")?, value))) {
        let Some(input) = value.strip_prefix("input:") else { continue };
        let definition = inputs.get(input).ok_or_else(|| {
            Report::new(format!("invalid frontend input {input} for context {name}")).with_fault(Fault::Usage)
        })?;
        let stack = solved(shared, job, definition).await?;
        let metadata = opt.get(&format!("input-metadata:{input}"));
        let config = metadata.map(|text| config(text)).transpose()?.flatten();
        let config = config.map(|config| fitted(config, &stack));
        let context = NamedContext::Solved { source: stack.as_source(), config: config.map(Box::new) };
        found.named.insert(name.to_owned(), context);
    }
    // An address is stronger than an input.
    if !opt.get("context").is_some_and(|address| address.contains("://")) {
        if let Some(definition) = inputs.get(CONTEXT) {
            found.main = Some(solved(shared, job, definition).await?);
        }
        if let Some(definition) = inputs.get(&names.dockerfile) {
            let stack = solved(shared, job, definition).await?;
            found.dockerfile = Some(dockerfiles(shared, &stack, names)?);
        }
    }
    Ok(found)
}

/// The tree of a definition.
///
/// # Errors
/// The definition is broken, or a step fails.
pub(crate) async fn solved(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    definition: &pb::Definition,
) -> Outcome<SharedStack> {
    let prepared = definitions::begin(shared, job, Some(definition), (&[], &[])).await?;
    let planned = prepared.planned.lock().await;
    let planned = planned.as_ref().ok_or_else(|| Report::new("the input is gone"))?;
    let this = Build { worker: &shared.worker, client: &*prepared.caller, progress: job.progress() };
    planned.evaluate_target(&this, 0).await
}

/// The config in the metadata of an input, if there is one.
///
/// # Errors
/// The metadata cannot be read.
pub(crate) fn config(metadata: &str) -> Outcome<Option<ImageConfig>> {
    let bad = |why: String| Report::new(format!("metadata of an input: {why}")).with_fault(Fault::Usage);
    let values: BTreeMap<String, Option<String>> =
        serde_json::from_str(metadata).map_err(|error| bad(error.to_string()))?;
    let Some(Some(text)) = values.get(CONFIG) else { return Ok(None) };
    let bytes = BASE64.decode(text).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| bad(error.to_string()))
}

/// `config` for the layers of an input.
fn fitted(mut config: ImageConfig, stack: &SharedStack) -> ImageConfig {
    // The digests of the layers are those of the tars, which nobody has made yet. Only their number counts until then.
    let unknown = |layer: &lapstrake_store::StackLayer| {
        layer.diff_id.clone().unwrap_or_else(|| DiffId(Digest::sha256(layer.id.as_str().as_bytes())))
    };
    config.rootfs.diff_ids = stack.layers.iter().map(unknown).collect();
    config
}

/// The Dockerfile and its ignore file in a tree.
fn dockerfiles(shared: &Shared, stack: &SharedStack, names: &Names) -> Outcome<BTreeMap<String, Vec<u8>>> {
    let view = stack.open(shared.worker.store(), shared.worker.single_id())?;
    let (fd, _copy) = view.into_parts();
    let root = Root::from_fd(fd.as_fd());
    let mut files = BTreeMap::new();
    let lower = Path::new(&names.file).with_file_name("dockerfile").to_string_lossy().into_owned();
    for name in [&names.file, &lower] {
        for path in [name.clone(), format!("{name}.dockerignore")] {
            if root.exists(path.as_bytes()) {
                let bytes =
                    load_bytes(&fd, Path::new(&path)).map_err(|why| Report::new(format!("{path}: {why}")))?;
                files.insert(path, bytes);
            }
        }
    }
    Ok(files)
}
