//! Ops behind the engine's seam.

pub(crate) mod context;

use std::sync::Arc;

use lapstrake_engine::{CacheMap, Dep, Done, Executor, Key, KeyHasher, Progress, Selector, Step, StepId};
use lapstrake_graph::{File, FileAction, Graph, MountKind, Op, Source, Vertex};
use lapstrake_runtime::Chosen;
use lapstrake_snapshot::SnapshotError;
use lapstrake_store::LayerId;
use serde::Serialize;

use crate::error::OpsError;
use crate::exec::mount_manifest;
use crate::file::base_view::base_view;
use crate::file::context_reads::ContextReads;
use crate::file::copy;
use crate::file::copy_reuse::PreviousCopy;
use crate::file::copy_source::context_key;
use crate::job::context::BuildContext;
use crate::settings::Settings;
use crate::source::image::Images;
use crate::source::rootfs;
use crate::stack::{SharedStack, Stack, StackResult};
use crate::worker::Worker;

/// One build: carries out its ops. Cheap to clone.
#[derive(Clone)]
pub struct Job(pub(crate) Arc<BuildContext>);

impl Job {
    /// A job of `worker`, which uses its own images and what `settings` allow.
    pub fn new(worker: Arc<Worker>, images: Arc<Images>, settings: Settings) -> Job {
        Job(Arc::new(BuildContext::new(worker, images, settings)))
    }

    /// Tells what is going to be built: images that no step needs files of are not unpacked.
    pub fn inspect_graph(&self, graph: &Graph) {
        self.0.inspect_graph(graph);
    }

    /// What the network of steps is, if one of them has run that does not say.
    pub fn network(&self) -> Option<&Chosen> {
        self.0.chosen_network()
    }

    /// Ends the build: keeps what was learnt about the files of its contexts, so that the next one need not read
    /// those that stay as they are, and how large its cache directories are now.
    pub fn finish(&self) -> Result<(), OpsError> {
        self.0.copy_sources.save();
        Ok(self.0.store.measure_mounts()?)
    }

    /// The work of [`Executor::execute`].
    async fn execute_op(
        &self,
        vertex: &Vertex,
        results: &[StackResult],
        step: &Step,
    ) -> Result<Done<SharedStack>, OpsError> {
        let inputs: Vec<SharedStack> = results.iter().map(|result| result.value.clone()).collect();
        let mut read = Vec::new();
        let stack = match vertex.op.clone() {
            Op::Source(Source::Image { manifest, reference, .. }) => {
                let files = self.0.unpack_mode(&manifest);
                self.0.images.fetch(&manifest, &reference, files, step).await?
            }
            Op::Source(source @ (Source::Http(_) | Source::Git(_) | Source::Archive { .. })) => {
                self.fetch(&source, step).await?
            }
            Op::Source(source) => {
                self.blocking(move |job| source_stack(job, &source)).await?.unwrap_or_default()
            }
            Op::Merge => merge(&inputs),
            Op::File(file) => {
                let (map, step) = (self.cache_map(vertex), step.clone());
                let work = move |job: &BuildContext| {
                    ContextReads::during(job, &step, (&map, &inputs), |reads| change(reads, &file, &inputs))
                };
                let (stack, found) = self.blocking(work).await?;
                read = found;
                stack
            }
            Op::Exec(exec) => {
                let (map, results) = (self.cache_map(vertex), results.to_vec());
                let (step, name) = (step.clone(), vertex.meta.name.clone());
                let (kill, cancel) = crate::exec::kill_switch();
                let ran = self
                    .blocking(move |job| {
                        mount_manifest::save(job, &map, &results);
                        ContextReads::during(job, &step, (&map, &inputs), |reads| {
                            crate::exec::run(reads, (&exec, &name), &inputs, &step, &cancel)
                        })
                    })
                    .await;
                drop(kill);
                let (stack, found) = ran?;
                read = found;
                stack
            }
        };
        Ok(Done { result: stack.into_result(&self.0.store)?, read })
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BuildContext) -> Result<T, OpsError> + Send + 'static,
    ) -> Result<T, OpsError> {
        let job = self.0.clone();
        tokio::task::spawn_blocking(move || work(&job)).await.map_err(|_| OpsError::Worker)?
    }
}

fn source_stack(job: &BuildContext, source: &Source) -> Result<Option<Stack>, OpsError> {
    match source {
        Source::Scratch => Ok(Some(Stack::default())),
        Source::Local { name } => {
            job.settings.context(name)?;
            Ok(Some(Stack { local: Some(name.clone()), ..Stack::default() }))
        }
        Source::Rootfs { path } => rootfs::stack(&job.store, path).map(Some),
        Source::Image { .. } | Source::Http(_) | Source::Git(_) | Source::Archive { .. } => Ok(None),
    }
}

fn change(reads: &ContextReads<'_>, file: &File, inputs: &[SharedStack]) -> Result<Stack, OpsError> {
    let base = copy::base_stack(reads, inputs)?;
    let layer = match changed(reads, file, inputs, &base, true) {
        Err(OpsError::Snapshot(SnapshotError::NotAPatch)) => changed(reads, file, inputs, &base, false),
        // A file that has gone may be in the layer that changes would lie on.
        Err(error) if error.is_of_change() => changed(reads, file, inputs, &base, false),
        made => made,
    }?;
    Ok(base.with(layer))
}

/// The layer that `file` makes on `base`: perhaps only what has changed since the last time, if `patch`.
fn changed(
    reads: &ContextReads<'_>,
    file: &File,
    inputs: &[SharedStack],
    base: &Stack,
    patch: bool,
) -> Result<LayerId, OpsError> {
    let job = reads.job;
    let single_id = job.worker.single_id();
    let actions = copy::prepare_actions(reads, &file.actions, inputs)?;
    let active = base_view(job, base, &actions)?;
    let mut earlier = PreviousCopy::find(job, file, inputs);
    let previous = earlier.as_ref().and_then(|earlier| earlier.previous(patch));
    let copied = copy::apply_all(reads, actions, &active, previous)?;
    if let Some(earlier) = &mut earlier {
        earlier.forget_tree();
    }
    let lies_on = earlier.as_ref().and_then(PreviousCopy::id);
    let layer = active.commit_on(&job.store, copied, lies_on, single_id)?;
    if let Some(earlier) = earlier {
        earlier.remember(&layer);
    }
    Ok(layer)
}

fn merge(inputs: &[SharedStack]) -> Stack {
    let mut merged = inputs.first().map(|first| Stack::clone(first)).unwrap_or_default();
    for stack in inputs.iter().skip(1) {
        merged.layers.extend(stack.layers.iter().cloned());
    }
    merged
}

/// The version of what file ops do, which is in their keys: it is raised whenever the same op makes another tree, so that
/// nobody gets what it made before.
const FILE_VERSION: u32 = 4;

/// What is in the key of a file op.
#[derive(Serialize)]
struct Versioned<'a> {
    #[serde(flatten)]
    file: &'a File,
    version: u32,
}

impl Executor for Job {
    type Output = SharedStack;
    type Error = OpsError;

    fn cache_map(&self, vertex: &Vertex) -> CacheMap {
        let mut deps = vec![Dep::ByKey; vertex.inputs.len()];
        let op = match &vertex.op {
            Op::Source(source) => lapstrake_go::to_json(source),
            Op::Merge => b"merge".to_vec(),
            Op::File(file) => {
                for (input, selector) in selectors(file) {
                    if let Some(dep) = deps.get_mut(input).filter(|_| input > 0) {
                        *dep = Dep::ByContent(selector);
                    }
                }
                lapstrake_go::to_json(&Versioned { file, version: FILE_VERSION })
            }
            Op::Exec(exec) => {
                for mount in &exec.mounts {
                    if let MountKind::Bind(bind) = &mount.kind
                        && let Some(dep) = deps.get_mut(bind.input).filter(|_| bind.input > 0)
                    {
                        let whole = matches!(bind.source.as_str(), "" | "/" | ".");
                        let paths = if whole { Vec::new() } else { vec![bind.source.clone()] };
                        // Two mounts of one input: all of it counts.
                        let paths = if matches!(dep, Dep::ByContent(_)) { Vec::new() } else { paths };
                        *dep = Dep::ByContent(Selector {
                            paths,
                            exclude: Vec::new(),
                            parents: false,
                            wildcards: false,
                            optional: false,
                        });
                    }
                }
                lapstrake_go::to_json(&exec.for_key())
            }
        };
        CacheMap { op, deps }
    }

    async fn source_key(&self, vertex: &Vertex) -> Result<Key, OpsError> {
        let Op::Source(source) = &vertex.op else { return Err(OpsError::Worker) };
        if let Source::Image { manifest, reference, .. } = source {
            let known = self.0.images.resolved(manifest, reference)?;
            return Ok(known.key());
        }
        let stack = match source {
            Source::Http(_) | Source::Git(_) | Source::Archive { .. } => {
                let unheard = Progress::none().start(StepId(String::new()), "");
                self.fetch(source, &unheard).await?
            }
            source => source_stack(&self.0, source)?.unwrap_or_default(),
        };
        if stack.local.is_some() {
            let everything = everything(false);
            let key = self.blocking(move |job| job.copy_sources.content_key(&stack, &everything)).await?;
            return Ok(context_key(source, &key));
        }
        let op = lapstrake_go::to_json(source);
        let mut hasher = KeyHasher::new("lapstrake source 1").part("op", &op);
        if let Some(content) = stack.into_result(&self.0.store)?.content {
            hasher = hasher.part("content", content.as_bytes());
        }
        Ok(hasher.finish())
    }

    async fn content_key(&self, result: &StackResult, selector: &Selector) -> Result<Key, OpsError> {
        let (stack, selector) = (result.value.clone(), selector.clone());
        self.blocking(move |job| job.copy_sources.content_key(&stack, &selector)).await
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[StackResult],
        step: &Step,
    ) -> Result<Done<SharedStack>, OpsError> {
        let done = self.execute_op(vertex, inputs, step).await;
        done.map_err(|error| error.blame_disk(&self.0.store))
    }
}

fn everything(wildcards: bool) -> Selector {
    Selector { paths: Vec::new(), exclude: Vec::new(), parents: false, wildcards, optional: false }
}

/// What a file op reads of its inputs. Several copies from one input count as one selection.
fn selectors(file: &File) -> Vec<(usize, Selector)> {
    let mut found: Vec<(usize, Selector)> = Vec::new();
    for action in &file.actions {
        let FileAction::Copy(copy) = action else { continue };
        match found.iter_mut().find(|(input, _)| *input == copy.input) {
            Some((_, selector))
                if selector.exclude == copy.exclude
                    && selector.parents == copy.parents
                    && selector.optional == copy.optional =>
            {
                selector.paths.extend(copy.sources.iter().cloned());
            }
            Some((_, selector)) => *selector = everything(true),
            None => found.push((
                copy.input,
                Selector {
                    paths: copy.sources.clone(),
                    exclude: copy.exclude.clone(),
                    parents: copy.parents,
                    wildcards: true,
                    optional: copy.optional,
                },
            )),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a file op's key, to the byte. Who changes what the same op makes raises [`FILE_VERSION`].
    #[test]
    fn keys_of_file_ops_have_a_version() {
        let file = File { actions: Vec::new() };
        let written = lapstrake_go::to_json(&Versioned { file: &file, version: FILE_VERSION });
        assert_eq!(String::from_utf8(written).unwrap(), r#"{"actions":[],"version":4}"#);
    }
}
