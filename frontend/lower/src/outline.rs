//! What a target may be given: arguments, secrets, SSH agents.

use std::collections::{BTreeMap, BTreeSet};

use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{Dockerfile, Instruction};

use crate::error::LowerError;
use crate::globals::Globals;
use crate::inputs::BuildInputs;
use crate::lowering::{Lowering, Scope};
use crate::resolver::ImageResolver;
use crate::stages::{Base, NodeId};
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

/// Tells what the target may be given, with the values that it has now.
///
/// # Errors
/// As for [`lower`](crate::lower).
pub fn outline(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    resolver: &dyn ImageResolver,
) -> Result<Outline, LowerError> {
    let mut graph = lapstrake_graph::Graph::new();
    let checks = lapstrake_dockerfile::Checks::default();
    let platform = inputs.platforms.first().unwrap_or(&inputs.build_platform);
    let (target, mut lowering) =
        Lowering::new(dockerfile, inputs, (resolver, &checks), platform, &mut graph)?;
    lowering.lower_needed(target, Scope::Target)?;
    let globals = globals(dockerfile, &lowering.globals);
    let stage = lowering.stages[target].stage;
    let mut found = Outline {
        name: stage.and_then(|stage| stage.from.name()),
        description: stage.map(|stage| stage.doc.clone()).unwrap_or_default(),
        ..Outline::default()
    };
    let mut seen = BTreeSet::new();
    collect(&lowering, target, &globals, &mut seen, &mut found);
    found.args.sort_by_key(|arg| arg.lines);
    found.secrets.sort_by_key(|item| item.lines);
    found.ssh.sort_by_key(|item| item.lines);
    Ok(found)
}

/// Goes through the stages that `id` needs. What several declare counts as it is first met.
fn collect(
    lowering: &Lowering<'_>,
    id: NodeId,
    globals: &BTreeMap<String, Global>,
    seen: &mut BTreeSet<NodeId>,
    found: &mut Outline,
) {
    if !seen.insert(id) {
        return;
    }
    let node = &lowering.stages[id];
    for name in with_parts(&node.used.names, globals) {
        let own = node.used.args.get(&name);
        let arg = own.or_else(|| globals.get(&name).map(|global| &global.arg));
        if let Some(arg) = arg.filter(|arg| found.args.iter().all(|known| known.name != arg.name)) {
            found.args.push(arg.clone());
        }
    }
    for (from, to) in [(&node.used.secrets, &mut found.secrets), (&node.used.ssh, &mut found.ssh)] {
        let new = from.values().filter(|item| to.iter().all(|known| known.name != item.name)).cloned();
        let new: Vec<OutlineItem> = new.collect();
        to.extend(new);
    }
    if let (Base::Stage(base), false) = (&node.base, node.replaced) {
        collect(lowering, *base, globals, seen, found);
    }
    for (need, _) in &node.needs {
        collect(lowering, *need, globals, seen, found);
    }
}

/// `names` and all that their defaults are made of.
fn with_parts(names: &BTreeSet<String>, globals: &BTreeMap<String, Global>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open: Vec<&String> = names.iter().collect();
    while let Some(name) = open.pop() {
        if all.insert(name.clone()) {
            open.extend(globals.get(name).into_iter().flat_map(|global| &global.made_of));
        }
    }
    all
}

fn globals(dockerfile: &Dockerfile, known: &Globals) -> BTreeMap<String, Global> {
    let mut found: BTreeMap<String, Global> = BTreeMap::new();
    for command in &dockerfile.global_args {
        let Instruction::Arg(declared) = &command.instruction else { continue };
        for arg in declared {
            let given = known.build_args.contains_key(&arg.name);
            let lookup = |name: &str| known.args.get(name).map(str::to_owned);
            let default = arg.value.as_ref().filter(|_| !given);
            let expanded =
                default.and_then(|text| words::expand(text, &lookup, Mode::plain(dockerfile.escape)).ok());
            let mut made_of = expanded.map(|expanded| expanded.matched).unwrap_or_default();
            if made_of.remove(&arg.name)
                && let Some(earlier) = found.get(&arg.name)
            {
                made_of.extend(earlier.made_of.iter().cloned());
            }
            let arg_value = known.args.get(&arg.name);
            let global = Global { arg: described(arg, arg_value, command.lines), made_of };
            found.insert(arg.name.clone(), global);
        }
    }
    found
}
