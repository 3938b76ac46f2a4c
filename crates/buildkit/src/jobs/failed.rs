//! The step that failed, as a detail of an error: its op, its inputs, and the trees that it has left.
//!
//! A client that drives a build makes containers of these trees, to look for the reason.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use lapstrake_graph::{FileAction, Mount, MountKind, Op};
use lapstrake_llb::{LocalSource, encode};
use lapstrake_oci::Digest;
use lapstrake_ops::{FailedTrees, SharedStack};
use lapstrake_proto::errdefs::{self, solve};
use lapstrake_proto::pb;
use lapstrake_proto::pb::file_action::Action;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::Any;

use super::{Job, Prepared};

/// The name of the detail.
const SOLVE: &str = "github.com/moby/buildkit/errdefs.Solve+json";
/// The message of the detail.
static MESSAGE: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(lapstrake_proto::DESCRIPTORS).ok()?;
    pool.get_message_by_name("errdefs.Solve")
});

/// The detail about the step with the digest `step`, if a client drives `job` and knows the op.
pub(super) fn detail(job: &Job, step: &str) -> Option<Any> {
    if !job.is_driven() {
        return None;
    }
    let op = job.prepared().iter().find_map(|prepared| op_of(prepared, step))?;
    let solve = match job.failed.find(step) {
        Some(trees) => with_trees(job, op, &trees),
        None => errdefs::Solve { op: Some(op), ..errdefs::Solve::default() },
    };
    let message = DynamicMessage::decode(MESSAGE.clone()?, solve.encode_to_vec().as_slice()).ok()?;
    Some(Any { type_url: SOLVE.to_owned(), value: serde_json::to_vec(&message).ok()? })
}

/// The op with this digest: an op of a definition of the client, or of a Dockerfile's graph.
fn op_of(prepared: &Prepared, step: &str) -> Option<pb::Op> {
    let definitions = prepared.definitions.get().into_iter().flat_map(|all| all.values());
    let given = definitions.flat_map(|definition| &definition.def);
    let given = given.filter(|bytes| Digest::sha256(bytes).to_string() == step);
    if let Some(op) = given.filter_map(|bytes| pb::Op::decode(bytes.as_slice()).ok()).next() {
        return Some(op);
    }
    let planned = prepared.planned.try_lock().ok()?;
    let graph = &planned.as_ref()?.plan().graph;
    let named = |id: &lapstrake_graph::VertexId| {
        graph.get(*id).is_some_and(|vertex| vertex.step_digest().to_string() == step)
    };
    let id = graph.topological().into_iter().find(named)?;
    let local = |name: &str| Some(LocalSource { name: name.to_owned(), ..LocalSource::default() });
    let definition = encode(graph, id.into(), &local).ok()?;
    // The last op only names the result.
    let bytes = definition.def.iter().rev().nth(1)?;
    pb::Op::decode(bytes.as_slice()).ok()
}

/// The step with references of its trees.
fn with_trees(job: &Job, op: pb::Op, trees: &FailedTrees) -> errdefs::Solve {
    let hold = |stack: Option<&SharedStack>| stack.map(|stack| job.hold(stack.clone())).unwrap_or_default();
    let (mut input_ids, mut mount_ids, mut subject) = (Vec::new(), Vec::new(), None);
    match (trees, &op.op) {
        (FailedTrees::Exec { before, after }, Some(pb::op::Op::Exec(exec))) => {
            for mount in &exec.mounts {
                let target = place_of(mount);
                let had = before.get(&target).filter(|_| mount.input >= 0);
                let input = hold(had);
                mount_ids
                    .push(after.get(&target).map_or_else(|| input.clone(), |tree| job.hold(tree.clone())));
                input_ids.push(input);
            }
        }
        (FailedTrees::Unread { op: step, input, tree }, _) => {
            input_ids.push(job.hold(tree.clone()));
            let index = number_of(&op, step, *input).unwrap_or(0);
            subject = Some(solve::Subject::Cache(errdefs::ContentCache { index }));
        }
        (FailedTrees::File { actions, failed, inputs, made }, Some(pb::op::Op::File(file))) => {
            let chain = Chain::of(file, op.inputs.len(), actions);
            let number = chain.actions.get(*failed).copied().unwrap_or(0);
            let trees = chain.trees(file, inputs);
            input_ids.extend((0..op.inputs.len()).map(|input| hold(trees.get(&input).copied())));
            mount_ids.extend((0..file.actions.len()).map(|action| {
                let of_action = trees.get(&(op.inputs.len() + action)).copied();
                if action == number { job.hold(made.clone()) } else { hold(of_action) }
            }));
            let index = i64::try_from(number).unwrap_or(i64::MAX);
            subject = Some(solve::Subject::File(errdefs::FileAction { index }));
        }
        _ => {}
    }
    errdefs::Solve { input_ids, mount_ids, op: Some(op), subject, ..errdefs::Solve::default() }
}

/// The number that `op` has for the input `input` of `step`, which was made from it.
fn number_of(op: &pb::Op, step: &Op, input: usize) -> Option<i64> {
    match (&op.op, step) {
        (Some(pb::op::Op::Exec(exec)), Op::Exec(step)) => {
            let is_of = |mount: &&Mount| matches!(&mount.kind, MountKind::Bind(bind) if bind.input == input);
            let target = step.mounts.iter().find(is_of).map_or("/", |mount| &mount.target);
            exec.mounts.iter().find(|mount| place_of(mount) == target).map(|mount| mount.input)
        }
        (Some(pb::op::Op::File(file)), Op::File(step)) => {
            let chain = Chain::of(file, op.inputs.len(), &step.actions);
            chain.numbers(file).get(input).copied()
        }
        _ => None,
    }
}

/// The place of a mount, as our graph has it.
fn place_of(mount: &pb::Mount) -> String {
    format!("/{}", mount.dest.trim_matches('/'))
}

/// The actions of an op that are one step here: each stands on the one before.
struct Chain {
    /// The numbers of the actions in the op.
    actions: Vec<usize>,
}

impl Chain {
    /// The actions of `file` that have become the step with the actions `made`.
    fn of(file: &pb::FileOp, inputs: usize, made: &[FileAction]) -> Chain {
        let has_output = |action: &(usize, &pb::FileAction)| action.1.output >= 0;
        let back_from = |last: usize| {
            let mut actions = vec![last];
            while actions.len() < made.len()
                && let Some(action) = actions.last().and_then(|number| file.actions.get(*number))
                && let Some(before) = usize::try_from(action.input).ok().and_then(|n| n.checked_sub(inputs))
            {
                actions.push(before);
            }
            actions.reverse();
            actions
        };
        let ends = file.actions.iter().enumerate().filter(has_output).map(|(number, _)| number);
        let fits = ends.map(back_from).find(|actions| actions.len() == made.len());
        Chain { actions: fits.unwrap_or_default() }
    }

    /// The numbers that the op has for the inputs of the step: first the tree that is changed, then the source of each copy.
    fn numbers(&self, file: &pb::FileOp) -> Vec<i64> {
        let actions = self.actions.iter().filter_map(|number| file.actions.get(*number));
        let copies = actions.clone().filter(|action| matches!(action.action, Some(Action::Copy(_))));
        let base = actions.take(1).map(|action| action.input);
        base.chain(copies.map(|action| action.secondary_input)).collect()
    }

    /// The trees of the step by the numbers that the op has for them.
    fn trees<'t>(&self, file: &pb::FileOp, inputs: &'t [SharedStack]) -> BTreeMap<usize, &'t SharedStack> {
        let known = self.numbers(file).into_iter().zip(inputs);
        known.filter_map(|(number, tree)| Some((usize::try_from(number).ok()?, tree))).collect()
    }
}
