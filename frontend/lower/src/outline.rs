//! What a target may be given: arguments, secrets, SSH agents.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Checks, Dockerfile, Instruction};

use crate::epoch::EPOCH;
use crate::error::LowerError;
use crate::globals::{Globals, is_platform_arg};
use crate::inputs::BuildInputs;
use crate::lowering::{Lowering, Scope};
use crate::resolver::ImageResolver;
use crate::stages::{Base, Node, NodeId};
use crate::used::{OutlineArg, OutlineItem, described};

/// What a target may be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What the comments say of it.
    pub description: String,
    /// Arguments, in the order in which they are declared.
    pub args: Vec<OutlineArg>,
    /// Secrets, in the order in which they are first used.
    pub secrets: Vec<OutlineItem>,
    /// SSH agents, in the order in which they are first used.
    pub ssh: Vec<OutlineItem>,
}

/// A global ARG with the names that its default is made of.
struct Global {
    arg: OutlineArg,
    made_of: BTreeSet<String>,
}

/// Tells what the target may be given, with the values that it has now. What the rules find goes to `checks`.
///
/// # Errors
/// As for [`lower`](crate::lower).
pub fn outline(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    resolver: &dyn ImageResolver,
    checks: &Checks,
) -> Result<Outline, LowerError> {
    let mut graph = lapstrake_graph::Graph::new();
    let platform = inputs.platforms.first().unwrap_or(&inputs.build_platform);
    let (target, mut lowering) = Lowering::new(dockerfile, inputs, (resolver, checks), platform, &mut graph)?;
    lowering.lower_needed(target, Scope::Target)?;
    let globals = globals(dockerfile, &lowering.globals);
    let stage = lowering.stages[target].stage;
    let mut found = Outline {
        name: stage.and_then(|stage| stage.from.name()),
        description: stage.map(|stage| stage.doc.to_string()).unwrap_or_default(),
        ..Outline::default()
    };
    collect(&lowering, target, &globals, &mut found);
    found.args.sort_by_key(|arg| arg.lines);
    found.secrets.sort_by_key(|item| item.lines);
    found.ssh.sort_by_key(|item| item.lines);
    Ok(found)
}

/// Goes through the stages that `id` needs. What several declare counts as it is first met.
fn collect(lowering: &Lowering<'_>, target: NodeId, globals: &BTreeMap<String, Global>, found: &mut Outline) {
    let (mut seen, mut args) = (BTreeSet::new(), BTreeMap::new());
    let below = names_below(lowering);
    let (mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new());
    // A list of its own: a chain of stages can be longer than a stack is deep.
    let mut open = vec![target];
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = &lowering.stages[id];
        for name in with_parts(node, &below[id.index()], globals) {
            let own = node.used.args.get(&name);
            if let Some(arg) = own.or_else(|| globals.get(&name).map(|global| &global.arg)) {
                args.entry(name).or_insert_with(|| arg.clone());
            }
        }
        for (from, to) in [(&node.used.secrets, &mut secrets), (&node.used.ssh, &mut ssh)] {
            for (id, item) in from {
                to.entry(id.clone()).or_insert_with(|| item.clone());
            }
        }
        open.extend(node.needs.iter().rev().map(|(need, _)| *need));
        open.extend(base(node));
    }
    found.args = args.into_values().collect();
    found.secrets = secrets.into_values().collect();
    found.ssh = ssh.into_values().collect();
}

fn base(node: &Node<'_>) -> Option<NodeId> {
    match (&node.base, node.replaced) {
        (Base::Stage(base), false) => Some(*base),
        _ => None,
    }
}

/// The names that a stage uses and all that their defaults are made of. What the FROMs below it use, `below`, counts as
/// used here too, so that a stage in between that declares such a name anew does not hide the global one.
fn with_parts(
    node: &Node<'_>,
    below: &BTreeSet<String>,
    globals: &BTreeMap<String, Global>,
) -> BTreeSet<String> {
    let mut open: Vec<&String> = node.used.names.iter().chain(below).collect();
    let mut all = BTreeSet::new();
    while let Some(name) = open.pop() {
        if all.insert(name.clone()) && !node.used.args.contains_key(name) {
            open.extend(globals.get(name).into_iter().flat_map(|global| &global.made_of));
        }
    }
    all
}

/// For each stage, the names in the FROMs of the stages that it is based on. Stages share a set where nothing is added,
/// so that a long chain costs no more than its length.
fn names_below(lowering: &Lowering<'_>) -> Vec<Rc<BTreeSet<String>>> {
    let mut below: Vec<Rc<BTreeSet<String>>> = Vec::new();
    for id in lowering.stages.ids() {
        // A base is always further up.
        let names = match base(&lowering.stages[id]) {
            None => Rc::default(),
            Some(base) => {
                let (own, rest) = (&lowering.stages[base].used.from, &below[base.index()]);
                if own.iter().all(|name| rest.contains(name)) {
                    Rc::clone(rest)
                } else {
                    Rc::new(own.iter().chain(rest.iter()).cloned().collect())
                }
            }
        };
        below.push(names);
    }
    below
}

fn globals(dockerfile: &Dockerfile, known: &Globals) -> BTreeMap<String, Global> {
    let mut found: BTreeMap<String, Global> = BTreeMap::new();
    let declared = || {
        dockerfile.global_args.iter().filter_map(|command| match &command.instruction {
            Instruction::Arg(args) => Some(args),
            _ => None,
        })
    };
    let names: BTreeSet<&str> = declared().flatten().map(|arg| arg.name.as_str()).collect();
    for command in &dockerfile.global_args {
        let Instruction::Arg(declared) = &command.instruction else { continue };
        for arg in declared {
            let given = known.build_args.contains_key(arg.name.as_str());
            // What is declared further down is not set yet, unless the platform sets it.
            let lookup = |name: &str| {
                let set = found.contains_key(name) || !names.contains(name) || is_platform_arg(name);
                known.args.get(name).filter(|_| set).map(str::to_owned)
            };
            let default = arg.value.as_ref().filter(|_| !given);
            let expanded =
                default.and_then(|text| words::expand(text, &lookup, Mode::plain(dockerfile.escape)).ok());
            let (written, mut made_of) =
                expanded.map(|expanded| (expanded.text, expanded.matched)).unwrap_or_default();
            if made_of.remove(arg.name.as_str())
                && let Some(earlier) = found.get(arg.name.as_str())
            {
                made_of.extend(earlier.made_of.iter().cloned());
            }
            // A declaration without a default has no value of its own, though the platform may give the name one.
            let arg_value = known.args.get(&arg.name).filter(|_| given || arg.value.is_some());
            // A time that comes from a source is told by the source's name, as BuildKit does.
            let arg_value = if arg.name == EPOCH && !given { Some(&*written) } else { arg_value };
            let global = Global { arg: described(arg, arg_value, command.lines), made_of };
            found.insert(arg.name.to_string(), global);
        }
    }
    found
}
