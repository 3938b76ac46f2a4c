//! The engine's executor: says how an op is cached, and hands it to `source`, `file` or `exec`.

pub(crate) mod context;

use std::sync::Arc;

use lapstrake_engine::{
    CacheMap, Dep, Execution, Executor, Key, KeyHasher, Progress, Selector, Step, StepId,
};
use lapstrake_graph::{Graph, ImageStore, Op, Source, Vertex};
use lapstrake_runtime::ChosenNetwork;

use crate::error::OpsError;
use crate::exec::mount_manifest;
use crate::failed::{FailedStep, FailedTrees};
use crate::file::context_reads::ContextReads;
use crate::file::copy_source::context_key;
use crate::job::context::BuildContext;
use crate::settings::Settings;
use crate::source::image::Images;
use crate::stack::{SharedStack, StackResult};
use crate::worker::Worker;
use crate::{difference, exec, file, source};

/// One build, which executes its ops. Cheap to clone.
#[derive(Clone)]
pub struct Job(pub(crate) Arc<BuildContext>);

impl Job {
    /// A job of `worker` with its own images and settings.
    pub fn new(worker: Arc<Worker>, images: Arc<Images>, settings: Settings) -> Job {
        Job(Arc::new(BuildContext::new(worker, images, settings)))
    }

    /// Learns from the graph of the build: layers of images whose files no step reads stay packed.
    pub fn inspect_graph(&self, graph: &Graph) {
        self.0.inspect_graph(graph);
    }

    /// The network chosen for steps that name none. `None` before the first of them has run.
    pub fn network(&self) -> Option<&ChosenNetwork> {
        self.0.chosen_network()
    }

    /// Ends the build. Saves the index of each local context, so that the next build reads changed files only, and the
    /// sizes of the cache directories.
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
    ) -> Result<Execution<SharedStack>, OpsError> {
        let inputs: Vec<SharedStack> = results.iter().map(|result| result.value.clone()).collect();
        let mut read = Vec::new();
        let stack = match vertex.op.clone() {
            Op::Source(Source::Image { manifest, reference, store, .. }) => {
                let unpack = self.0.unpack_mode(&manifest);
                let mut stack = self.0.images.fetch(&manifest, &reference, unpack, step).await?;
                if let ImageStore::LowestLayers(limit) = store {
                    stack.layers.truncate(limit);
                }
                stack
            }
            Op::Source(source @ (Source::Http(_) | Source::Git(_) | Source::Archive { .. })) => {
                self.fetch(&source, step).await?
            }
            Op::Source(source) => {
                self.blocking(move |job| source::local_stack(job, &source)).await?.unwrap_or_default()
            }
            Op::Merge => self.blocking(move |job| difference::merged(job, &inputs)).await?,
            Op::Diff => self.blocking(move |job| difference::difference(job, &inputs)).await?,
            Op::File(file) => {
                let (map, step) = (self.cache_map(vertex), step.clone());
                let work = move |job: &BuildContext| {
                    ContextReads::during(job, &step, (&map, &inputs), |reads| {
                        file::run(reads, &file, &inputs, &step)
                    })
                };
                let (stack, found) = self.blocking(work).await?;
                read = found;
                stack
            }
            Op::Exec(exec) => {
                let (map, results) = (self.cache_map(vertex), results.to_vec());
                let (step, meta) = (step.clone(), vertex.meta.clone());
                let (kill, cancel) = exec::kill_switch();
                let ran = self
                    .blocking(move |job| {
                        mount_manifest::save(job, &map, &results);
                        ContextReads::during(job, &step, (&map, &inputs), |reads| {
                            exec::run(reads, (&exec, &meta), &inputs, &step, &cancel)
                        })
                    })
                    .await;
                drop(kill);
                let (stack, found) = ran?;
                read = found;
                stack
            }
        };
        Ok(Execution { result: stack.into_result(&self.0.store)?, read })
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BuildContext) -> Result<T, OpsError> + Send + 'static,
    ) -> Result<T, OpsError> {
        let job = self.0.clone();
        tokio::task::spawn_blocking(move || work(&job)).await.map_err(|_| OpsError::Worker)?
    }
}

impl Executor for Job {
    type Output = SharedStack;
    type Error = OpsError;

    fn cache_map(&self, vertex: &Vertex) -> CacheMap {
        let inputs = vertex.inputs.len();
        let by_key = |op| CacheMap { op, deps: vec![Dep::ByKey; inputs] };
        match &vertex.op {
            Op::Source(source) => by_key(lapstrake_go::to_json(source)),
            Op::Merge => by_key(b"merge".to_vec()),
            Op::Diff => by_key(b"diff".to_vec()),
            Op::File(file) => file::cache_map(file, inputs),
            Op::Exec(exec) => exec::cache_map(exec, inputs),
        }
    }

    async fn source_key(&self, vertex: &Vertex) -> Result<Key, OpsError> {
        let Op::Source(source) = &vertex.op else { return Err(OpsError::Worker) };
        if let Source::Image { manifest, reference, store, .. } = source {
            let known = self.0.images.resolved(manifest, reference)?;
            let ImageStore::LowestLayers(limit) = store else { return Ok(known.key()) };
            let hasher = KeyHasher::new("lapstrake image layers 1").part("image", known.key().as_bytes());
            return Ok(hasher.part("limit", &limit.to_le_bytes()).finish());
        }
        let stack = match source {
            Source::Http(_) | Source::Git(_) | Source::Archive { .. } => {
                let silent = Progress::none().start(StepId(String::new()), "");
                self.fetch(source, &silent).await?
            }
            source => {
                let source = source.clone();
                self.blocking(move |job| source::local_stack(job, &source)).await?.unwrap_or_default()
            }
        };
        if stack.local.is_some() {
            let everything = Selector::everything();
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

    fn unread(&self, consumer: &Vertex, number: usize, result: &StackResult) {
        if let Some(steps) = &self.0.settings.failed {
            let (op, tree) = (consumer.op.clone(), result.value.clone());
            let trees = FailedTrees::Unread { op: Box::new(op), input: number, tree };
            steps.add(FailedStep { step: consumer.step_digest().to_string(), trees });
        }
    }

    fn output(&self, result: &StackResult, number: u32) -> StackResult {
        let stack = result.value.output(number).unwrap_or_default();
        let value: SharedStack = stack.into();
        // What cannot be told now is computed when a key needs it.
        let content = SharedStack::content_of(&value, &self.0.store);
        StackResult { value, content }
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        inputs: &[StackResult],
        step: &Step,
    ) -> Result<Execution<SharedStack>, OpsError> {
        let _room = match &self.0.worker.room {
            Some(room) => Some(room.acquire().await.map_err(|_| OpsError::Worker)?),
            None => None,
        };
        let done = self.execute_op(vertex, inputs, step).await;
        done.map_err(|error| error.blame_disk(&self.0.store))
    }
}
