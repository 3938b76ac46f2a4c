//! Bases that stay where they are: an image that is only pushed needs no byte of layers that its registry has, or can take
//! over from another repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapstrake_diag::{Outcome, SourceFile};
use lapstrake_engine::{CacheIndex, Executor, Solver};
use lapstrake_graph::{Edge, Graph, Op, Source, Target, VertexId};
use lapstrake_oci::{Digest, Reference};
use lapstrake_ops::{Images, SharedStack, Stack};
use lapstrake_outputs::Elsewhere;
use lapstrake_registry::Client;
use lapstrake_store::{Blob, Store};

use crate::output::{ImageOutput, Output};
use crate::resolved::Resolved;
use crate::source::{Tools, step_failed};

/// A base that need not be fetched.
pub(crate) struct RemoteBase<'w> {
    base: Reference,
    /// Its layers, lowest first.
    layers: Vec<Elsewhere>,
    /// The parts that lie on the base, lowest first.
    rest: Vec<Edge>,
    /// The destination of the image.
    outputs: Vec<&'w ImageOutput>,
}

impl<'w> RemoteBase<'w> {
    /// The base of `target`, if nothing that was asked for needs its bytes. Nobody is asked.
    pub(crate) fn find(
        resolved: &'w Resolved,
        tools: &Tools,
        (graph, target): (&Graph, &Target),
    ) -> Outcome<Option<RemoteBase<'w>>> {
        let Some(outputs) = only_pushed(resolved) else { return Ok(None) };
        let Some((source, rest)) = base_of(graph, target.edge) else { return Ok(None) };
        let Op::Source(Source::Image { manifest, reference, .. }) = &graph[source].op else {
            return Ok(None);
        };
        let Some(base) = tools.images.remote_layers(manifest, reference)? else { return Ok(None) };
        let mut layers = Vec::new();
        for (diff_id, descriptor) in base.layers {
            let media_type = descriptor.media_type().to_string();
            let digest: Digest = descriptor.digest().as_ref().parse()?;
            let annotations = descriptor.annotations().iter().flatten();
            let annotations = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
            let blob = Blob { digest, size: descriptor.size(), media_type };
            layers.push(Elsewhere { diff_id, blob, annotations });
        }
        let fits = |layer: &Elsewhere| {
            outputs.iter().all(|output| output.encoding.fitting(layer.blob.clone()).is_some())
        };
        Ok(layers.iter().all(fits).then_some(RemoteBase { base: base.name, layers, rest, outputs }))
    }

    /// Solves what lies on the base, and gives that, with the base's layers apart. Only then are the places that the image
    /// goes to asked to take the base's layers over: a build that fails leaves nothing there. `None` if one of them will
    /// not; then all of the target has to be solved.
    pub(crate) async fn solve<E: Executor<Output = SharedStack>, C: CacheIndex<Output = SharedStack>>(
        self,
        solver: &Solver<'_, E, C>,
        target: Edge,
        (resolved, tools): (&Resolved, &Tools),
        file: &Arc<SourceFile>,
    ) -> Outcome<Option<(SharedStack, Vec<Elsewhere>)>> {
        let solving = self.rest.iter().map(|edge| solver.solve(*edge));
        let solved = futures_util::future::try_join_all(solving).await;
        let solved = solved.map_err(|failed| step_failed(&failed, file, &resolved.secrets()))?;
        for output in &self.outputs {
            let at = (&*tools.images, &*tools.store);
            if !there(resolved, output, at, (&self.base, &self.layers)).await? {
                return Ok(None);
            }
        }
        let mut all = Stack::default();
        for stack in solved {
            let stack = &stack.result.value;
            all.layers.extend(stack.layers.iter().cloned());
            all.below = all.below.or_else(|| stack.below.clone());
            all.binds.extend(stack.binds.iter().cloned());
        }
        solver.pass_over(target);
        Ok(Some((all.into(), self.layers)))
    }
}

/// The outputs, if all of them only push and no cache needs the layers.
fn only_pushed(resolved: &Resolved) -> Option<Vec<&ImageOutput>> {
    let pushed = |output| match output {
        &Output::Image { ref image, push: Some(_) } if image.needs_no_layers() => Some(image),
        _ => None,
    };
    let outputs: Option<Vec<&ImageOutput>> = resolved.outputs.iter().map(pushed).collect();
    outputs.filter(|_| resolved.cache_to.is_empty())
}

/// The image that a result lies on, and what lies on it without looking at it.
fn base_of(graph: &Graph, edge: Edge) -> Option<(VertexId, Vec<Edge>)> {
    let vertex = graph.get(edge.vertex).filter(|vertex| vertex.after.is_empty())?;
    match (&vertex.op, vertex.inputs.split_first()) {
        (Op::Source(Source::Image { .. }), _) => Some((edge.vertex, Vec::new())),
        (Op::Merge, Some((below, on))) => {
            let (base, mut rest) = base_of(graph, *below)?;
            rest.extend(on);
            Some((base, rest))
        }
        _ => None,
    }
}

/// Whether all repositories that an image goes to have these layers of `base`.
async fn there(
    resolved: &Resolved,
    output: &ImageOutput,
    (images, store): (&Images, &Store),
    (base, layers): (&Reference, &[Elsewhere]),
) -> Outcome<bool> {
    let insecure;
    let client = if output.insecure {
        insecure = images.insecure_client()?;
        &insecure
    } else {
        images.client().await?
    };
    let names = resolved.names.iter().chain(&output.names);
    let names: BTreeMap<_, _> = names.map(|name| ((name.registry(), name.repository()), name)).collect();
    for name in names.values() {
        for layer in layers {
            if !has(client, name, (base, &layer.blob)).await? {
                return Ok(false);
            }
            store.set_blob_repository(&layer.blob.digest, name.registry(), name.repository())?;
        }
    }
    Ok(!names.is_empty())
}

async fn has(client: &Client, name: &Reference, (base, blob): (&Reference, &Blob)) -> Outcome<bool> {
    if client.has_blob(name, &blob.digest).await? {
        return Ok(true);
    }
    let remote_layers = name.registry() == base.registry() && name.repository() != base.repository();
    Ok(remote_layers && client.mount_blob(name, &blob.digest, base.repository()).await?)
}
