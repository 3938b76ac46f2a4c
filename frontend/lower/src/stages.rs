//! Stages with their names resolved: who is based on whom, who copies from whom, and what a target needs.
//!
//! Invariant: the first nodes are the Dockerfile's stages, in order; behind them stand the images and contexts that
//! only `--from` and `from=` name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use lapstrake_diag::{Span, did_you_mean_exactly};
use lapstrake_dockerfile::words::{self, Expanded, Mode};
use lapstrake_dockerfile::{Checks, Command, Dialect, Dockerfile, Instruction, Stage, Word};
use lapstrake_go::quoted;
use lapstrake_graph::Lines;
use lapstrake_oci::{Platform, Reference};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::env::Env;
use crate::error::LowerError;
use crate::from_checks::{check_from_args, check_from_platform};
use crate::globals::Globals;
use crate::inputs::{BuildInputs, NamedContext};
use crate::names::Naming;
use crate::root::Root;
use crate::state::StageState;
use crate::used::Used;

/// Which node of a [`StageGraph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

impl NodeId {
    /// Its place among all nodes.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// The base of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// The empty tree.
    Scratch,
    /// A stage further up.
    Stage(NodeId),
    /// An image or a named context.
    Named(Reference),
}

/// An instruction with the nodes that it takes files from.
#[derive(Clone, Debug)]
pub(crate) struct Step<'d> {
    pub(crate) command: Cow<'d, Command>,
    /// COPY: its `--from`, if it has one. RUN: the `from` of each mount.
    pub(crate) sources: Vec<Option<NodeId>>,
    /// Global ARGs in those names, where the dialect has that.
    from_names: BTreeSet<String>,
    /// Where it stands; for a trigger, the FROM line that fired it.
    pub(crate) span: Span,
    pub(crate) lines: Lines,
    /// Whether it is a trigger.
    pub(crate) onbuild: bool,
}

/// A stage, or an image or context that only a `--from` names.
pub(crate) struct Node<'d> {
    pub(crate) stage: Option<&'d Stage>,
    /// The stage's name, in lower case.
    pub(crate) name: Option<String>,
    /// What messages call it: its name, `stage-N`, or the image.
    pub(crate) label: String,
    pub(crate) base: Base,
    /// The base as written, variables filled in.
    pub(crate) base_text: String,
    /// `--platform`
    pub(crate) platform: Option<Platform>,
    /// Whether a named context stands in its place that is no stage.
    pub(crate) replaced: bool,
    /// The stage that a named context (`target:…`) puts in its place.
    instead: Option<NodeId>,
    pub(crate) span: Span,
    pub(crate) lines: Option<Lines>,
    /// First and last line of the instruction that names it first: a stage's FROM, else the COPY or RUN.
    pub(crate) named_at: (u32, u32),
    pub(crate) steps: Vec<Step<'d>>,
    /// Stages that are done before it begins.
    pub(crate) after: Vec<NodeId>,
    /// Nodes that its steps take files from or that it waits for, and where they are named.
    pub(crate) needs: Vec<(NodeId, Span)>,
    pub(crate) naming: Naming,
    /// What it uses of what it may be given.
    pub(crate) used: Used,
    /// Whether its base's triggers were looked at.
    pub(crate) triggered: bool,
    /// What its base is, once that is known.
    pub(crate) root: Option<Root>,
    /// What became of it, once it is lowered.
    pub(crate) state: Option<StageState>,
}

/// All nodes.
pub(crate) struct StageGraph<'d> {
    nodes: Vec<Node<'d>>,
    /// How many of them are stages.
    stages: usize,
    by_name: BTreeMap<String, NodeId>,
    outside: BTreeMap<String, NodeId>,
    inputs: &'d BuildInputs,
    target_platform: &'d Platform,
    escape: char,
    multi_platform: bool,
    /// What `--from` and `from=` may name in their values; `None` where they have no variables.
    from_args: Option<Env>,
    /// The first name of an image that is none. BuildKit looks at these names when it asks for the images, behind all
    /// other names.
    no_image: Option<LowerError>,
}

impl<'d> StageGraph<'d> {
    /// Resolves what stages are based on. [`StageGraph::add_steps`] does the rest: BuildKit looks for the target between
    /// the two.
    pub(crate) fn new(
        dockerfile: &'d Dockerfile,
        globals: &Globals,
        inputs: &'d BuildInputs,
        target_platform: &'d Platform,
        checks: &Checks,
    ) -> Result<StageGraph<'d>, LowerError> {
        check_targets(dockerfile, inputs)?;
        let mut graph = StageGraph {
            nodes: Vec::new(),
            stages: dockerfile.stages.len(),
            by_name: BTreeMap::new(),
            outside: BTreeMap::new(),
            inputs,
            target_platform,
            escape: dockerfile.escape,
            multi_platform: inputs.platforms.len() > 1,
            from_args: (dockerfile.dialect == Dialect::Lapstrake).then(|| globals.args.clone()),
            no_image: None,
        };
        let declared = declared(dockerfile);
        for stage in &dockerfile.stages {
            graph.check_from(stage, globals, &declared, checks);
            graph.add_stage(stage, globals)?;
        }
        Ok(graph)
    }

    /// Resolves what instructions take files from.
    pub(crate) fn add_steps(&mut self, dockerfile: &'d Dockerfile) -> Result<(), LowerError> {
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            for command in &stage.instructions {
                let lines = Lines { first: command.lines.0, last: command.lines.1 };
                let step = self.step(Cow::Borrowed(command), command.span, lines, false)?;
                self.push_step(NodeId(index), step);
            }
        }
        self.refuse_cycles()?;
        if self.nodes.len() == 1 {
            self.nodes[0].naming.label = String::new();
        }
        Ok(())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The wanted stage: by name in whatever case, else the last one.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<NodeId, LowerError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            let last = self.stages.checked_sub(1).map(NodeId);
            return last.map(|last| self.standing_for(last)).ok_or(LowerError::NoStages);
        };
        self.by_name.get(&name.to_lowercase()).copied().ok_or_else(|| {
            let hint = hint(name, self.labels());
            LowerError::NoTarget { target: name.to_owned(), hint }
        })
    }

    /// What messages call the stages.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.nodes[..self.stages].iter().map(|node| node.label.as_str())
    }

    /// `target` and everything it needs.
    pub(crate) fn reachable(&self, target: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            if !found.insert(id) {
                continue;
            }
            let node = &self[id];
            if let (Base::Stage(base), false) = (&node.base, node.replaced) {
                open.push(*base);
            }
            if !node.replaced {
                open.extend(node.needs.iter().map(|(need, _)| *need));
            }
        }
        found
    }

    /// The stage itself, or the one that a named context puts in its place.
    fn standing_for(&self, id: NodeId) -> NodeId {
        self[id].instead.unwrap_or(id)
    }

    /// The stage that a named context of this name is: one further up, as everything in a Dockerfile.
    fn stage_as_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
        span: Span,
    ) -> Result<Option<NodeId>, LowerError> {
        let context = self.inputs.context(name, platform.unwrap_or(self.target_platform));
        let Some((context, NamedContext::Target(stage))) = context else { return Ok(None) };
        self.by_name.get(&stage.to_lowercase()).copied().map(Some).ok_or_else(|| {
            let message =
                format!("{name} is the stage {stage} (--build-context {context}=target:{stage}), which does not stand further up");
            LowerError::stage(message, span)
        })
    }

    fn add_stage(&mut self, stage: &'d Stage, globals: &Globals) -> Result<(), LowerError> {
        let id = NodeId(self.nodes.len());
        let base = &stage.from.base;
        let text = self.expand_global(&base.node, globals, stage.span)?.text;
        if text.is_empty() {
            let message = format!("base name ({}) should not be blank", base.node);
            return Err(LowerError::stage(message, base.span));
        }
        let platform = |word: &Word| self.platform(word, globals, stage.span);
        let platform = stage.from.platform.as_deref().map(platform).transpose()?;
        let name = stage.from.name();
        let context = |name: &str| self.stage_as_context(name, platform.as_ref(), base.span);
        let instead = name.as_deref().map_or(Ok(None), context)?;
        let of_platform = platform.as_ref().unwrap_or(self.target_platform);
        let given = |name: &String| self.inputs.context(name, of_platform).is_some();
        let replaced = instead.is_none() && name.as_ref().is_some_and(given);
        let label = name.clone().unwrap_or_else(|| format!("stage-{}", id.0));
        let earlier = match self.by_name.get(&text) {
            Some(earlier) => Some(*earlier),
            None if replaced => None,
            None => context(&text)?,
        };
        let base = match earlier {
            Some(earlier) => Base::Stage(earlier),
            None if replaced || text == "scratch" => Base::Scratch,
            None => self.image(&text, base.span),
        };
        let earlier = |word: &Word| self.earlier(word, globals);
        let after = stage.from.after.iter().map(earlier).collect::<Result<Vec<_>, _>>()?;
        let used = Used::by_from(self.names_in_from(stage, globals));
        let naming = self.naming(label.clone(), usize::from(matches!(base, Base::Named(_))));
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), instead.unwrap_or(id));
        }
        self.nodes.push(Node {
            stage: Some(stage),
            name,
            label,
            base,
            base_text: text,
            platform,
            replaced,
            instead,
            span: stage.span,
            lines: Some(Lines { first: stage.lines.0, last: stage.lines.1 }),
            named_at: stage.lines,
            steps: Vec::new(),
            needs: after.iter().map(|id| (*id, stage.span)).collect(),
            after,
            naming,
            used,
            triggered: false,
            root: None,
            state: None,
        });
        Ok(())
    }

    fn naming(&self, label: String, total: usize) -> Naming {
        Naming { label, total, done: 0, with_platform: self.multi_platform }
    }

    /// The arguments that a FROM is made of.
    fn names_in_from(&self, stage: &Stage, globals: &Globals) -> BTreeSet<String> {
        let words = std::iter::once(&stage.from.base).chain(stage.from.platform.as_deref());
        words
            .filter_map(|word| self.expand_global(&word.node, globals, stage.span).ok())
            .flat_map(|expanded| expanded.matched)
            .collect()
    }

    /// What the rules say of a FROM, before it is looked at whether it is right.
    fn check_from(&self, stage: &Stage, globals: &Globals, declared: &BTreeSet<&str>, checks: &Checks) {
        let expand = |text: &str| {
            let lookup = |name: &str| globals.args.get(name).map(str::to_owned);
            let expanded = words::expand(text, &lookup, Mode::plain(self.escape));
            let unmatched = match &expanded {
                Ok(expanded) => &expanded.unmatched,
                Err(error) => &error.unmatched,
            };
            check_from_args(stage, unmatched, globals, declared, checks);
            expanded.ok()
        };
        let Some(base) = expand(&stage.from.base.node) else { return };
        let Some(word) = stage.from.platform.as_ref().filter(|_| !base.text.is_empty()) else { return };
        if let Some(platform) = expand(&word.node) {
            check_from_platform(stage, word, &platform, globals, checks);
        }
    }

    /// The stage that `--after` names, by name or number: one further up.
    fn earlier(&self, word: &Word, globals: &Globals) -> Result<NodeId, LowerError> {
        let name = self.expand_global(&word.node, globals, word.span)?.text;
        let numbered = || name.parse().ok().filter(|index| *index < self.nodes.len()).map(NodeId);
        let numbered = || numbered().map(|id| self.standing_for(id));
        self.by_name.get(&name.to_lowercase()).copied().or_else(numbered).ok_or_else(|| {
            let hint = hint(&name, self.nodes.iter().map(|node| node.label.as_str()));
            let message = format!("--after={name}: there is no such stage further up{hint}");
            LowerError::stage(message, word.span)
        })
    }

    fn expand_global(&self, text: &str, globals: &Globals, span: Span) -> Result<Expanded, LowerError> {
        words::expand(text, &|name| globals.args.get(name).map(str::to_owned), Mode::plain(self.escape))
            .map_err(|error| LowerError::stage(error.to_string(), span))
    }

    fn platform(&self, word: &Word, globals: &Globals, span: Span) -> Result<Platform, LowerError> {
        let expanded = self.expand_global(&word.node, globals, span)?;
        let hint = || {
            let found =
                expanded.unmatched.iter().find_map(|name| did_you_mean_exactly(name, globals.args.keys()));
            found.map_or(String::new(), |name| format!(" (did you mean {name}?)"))
        };
        if expanded.text.is_empty() {
            let message = format!("empty platform value from expression {}{}", word.node, hint());
            return Err(LowerError::stage(message, word.span));
        }
        expanded.text.parse::<Platform>().map_err(|error| {
            let message = format!("failed to parse platform {}: {}{}", word.node, error, hint());
            LowerError::stage(message, word.span)
        })
    }

    /// An instruction with its sources found.
    pub(crate) fn step(
        &mut self,
        command: Cow<'d, Command>,
        span: Span,
        lines: Lines,
        onbuild: bool,
    ) -> Result<Step<'d>, LowerError> {
        let (mut sources, mut from_names) = (Vec::new(), BTreeSet::new());
        match &command.instruction {
            Instruction::Copy(copy) => {
                if let Some(from) = &copy.from {
                    let from = if onbuild { Word::new(from.node.clone(), span) } else { from.clone() };
                    let expanded = self.expand_from(&from.node, from.span)?;
                    sources.push(Some(self.copy_source(&from, &expanded.text, lines)?));
                    from_names.extend(expanded.matched);
                }
            }
            Instruction::Run(run) => {
                for mount in &run.flags().mounts {
                    let place = if onbuild { span } else { mount.text.span };
                    sources.push(match &mount.from {
                        Some(name) => {
                            let expanded = self.expand_from(name, place)?;
                            from_names.extend(expanded.matched);
                            Some(self.source(&expanded.text, place, lines)?)
                        }
                        None => None,
                    });
                }
            }
            _ => {}
        }
        Ok(Step { command, sources, from_names, span, lines, onbuild })
    }

    /// Puts a step at the end of a node's.
    pub(crate) fn push_step(&mut self, id: NodeId, step: Step<'d>) {
        let node = &mut self.nodes[id.0];
        let named = step.sources.iter().flatten().map(|source| (*source, step.span));
        node.needs.extend(named);
        node.used.names.extend(step.from_names.iter().cloned());
        let numbered = matches!(
            step.command.instruction,
            Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
        );
        node.naming.total += usize::from(numbered);
        node.steps.push(step);
    }

    /// `COPY --from`, global ARGs filled in: a number is the index of a stage.
    fn copy_source(&mut self, written: &Word, text: &str, lines: Lines) -> Result<NodeId, LowerError> {
        let from = &Word::new(text.into(), written.span);
        let expanded = words::expand(&from.node, &|_| None, Mode::plain(self.escape))
            .map_err(|error| LowerError::instruction(error.to_string(), from.span))?;
        if expanded.text != from.node && self.from_args.is_none() {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
            return Err(LowerError::instruction(message, from.span));
        }
        let Ok(index) = from.node.parse::<i64>() else { return self.source(&from.node, from.span, lines) };
        match usize::try_from(index) {
            Ok(index) if index < self.stages => Ok(self.standing_for(NodeId(index))),
            _ => Err(LowerError::stage(format!("invalid stage index {index}"), from.span)),
        }
    }

    /// The value of `--from` or `from=`, global ARGs filled in where the dialect has that.
    fn expand_from(&self, text: &str, span: Span) -> Result<Expanded, LowerError> {
        let Some(args) = &self.from_args else {
            return Ok(Expanded { text: text.to_owned(), ..Expanded::default() });
        };
        let known = |name: &str| args.get(name).map(str::to_owned);
        let expanded = words::expand(text, &known, Mode::plain(self.escape))
            .map_err(|error| LowerError::instruction(error.to_string(), span))?;
        let Some(name) = expanded.unmatched.iter().next() else { return Ok(expanded) };
        let message =
            format!("`{text}` needs a value for ${name}, which is no ARG in front of the first FROM");
        Err(LowerError::instruction(message, span))
    }

    /// A stage by name, the last of that name, or else an image or context.
    fn source(&mut self, name: &str, span: Span, lines: Lines) -> Result<NodeId, LowerError> {
        if let Some(id) = self.by_name.get(&name.to_lowercase()).or_else(|| self.outside.get(name)) {
            return Ok(*id);
        }
        if let Some(id) = self.stage_as_context(name, None, span)? {
            return Ok(id);
        }
        let base = if name == "scratch" { Base::Scratch } else { self.image(name, span) };
        let id = NodeId(self.nodes.len());
        self.outside.insert(name.to_owned(), id);
        self.nodes.push(Node {
            stage: None,
            name: None,
            label: name.to_owned(),
            base,
            base_text: name.to_owned(),
            platform: None,
            replaced: false,
            instead: None,
            span,
            lines: None,
            named_at: (lines.first, lines.last),
            steps: Vec::new(),
            after: Vec::new(),
            needs: Vec::new(),
            naming: self.naming(String::new(), 0),
            used: Used::default(),
            triggered: false,
            root: None,
            state: None,
        });
        Ok(id)
    }

    fn image(&mut self, name: &str, span: Span) -> Base {
        match reference(name, span) {
            Ok(reference) => Base::Named(reference),
            Err(error) => {
                self.no_image.get_or_insert(error);
                Base::Scratch
            }
        }
    }

    /// Fails if some image's name is none.
    pub(crate) fn refuse_names(&mut self) -> Result<(), LowerError> {
        self.no_image.take().map_or(Ok(()), Err)
    }

    /// Whether the stages' `--from`s lead in a circle, be they needed or not.
    fn refuse_cycles(&self) -> Result<(), LowerError> {
        let mut edges: DiGraph<(), ()> = DiGraph::new();
        for _ in &self.nodes {
            edges.add_node(());
        }
        for (index, node) in self.nodes.iter().enumerate() {
            for (need, _) in &node.needs {
                edges.add_edge(NodeIndex::new(index), NodeIndex::new(need.0), ());
            }
        }
        let mut cycles: Vec<Vec<usize>> = kosaraju_scc(&edges)
            .into_iter()
            .map(|part| part.into_iter().map(NodeIndex::index).collect::<Vec<usize>>())
            .filter(|part| {
                part.len() > 1 || self.nodes[part[0]].needs.iter().any(|(need, _)| need.0 == part[0])
            })
            .collect();
        for cycle in &mut cycles {
            cycle.sort_unstable();
        }
        cycles.sort();
        let Some(cycle) = cycles.first() else { return Ok(()) };
        let message = format!("circular dependency detected on stage: {}", self.nodes[cycle[0]].label);
        let inside = |id: &NodeId| cycle.contains(&id.0);
        let mut places = cycle
            .iter()
            .flat_map(|index| &self.nodes[*index].needs)
            .filter(|(need, _)| inside(need))
            .map(|(need, span)| (self.nodes[need.0].label.as_str(), *span));
        let Some((_, first)) = places.next() else { return Ok(()) };
        let error = LowerError::stage(message, first);
        Err(places.fold(error, |error, (label, span)| {
            let note = format!("needs `{label}`");
            error.also_at(span, &note)
        }))
    }
}

impl<'d> std::ops::Index<NodeId> for StageGraph<'d> {
    type Output = Node<'d>;

    fn index(&self, id: NodeId) -> &Node<'d> {
        &self.nodes[id.0]
    }
}

impl std::ops::IndexMut<NodeId> for StageGraph<'_> {
    fn index_mut(&mut self, id: NodeId) -> &mut Self::Output {
        &mut self.nodes[id.0]
    }
}

/// Fails if a named context is a stage that is not there, be it used or not.
fn check_targets(dockerfile: &Dockerfile, inputs: &BuildInputs) -> Result<(), LowerError> {
    let names: Vec<String> = dockerfile.stages.iter().filter_map(|stage| stage.from.name()).collect();
    for (context, what) in &inputs.contexts {
        if let NamedContext::Target(target) = what
            && !names.iter().any(|name| name.eq_ignore_ascii_case(target))
        {
            let hint = hint(target, names.iter().map(String::as_str));
            let (context, target) = (context.clone(), target.clone());
            return Err(LowerError::NoContextTarget { context, target, hint });
        }
    }
    Ok(())
}

/// The names of all ARGs in front of the first FROM.
fn declared(dockerfile: &Dockerfile) -> BTreeSet<&str> {
    let args = dockerfile.global_args.iter().filter_map(|command| match &command.instruction {
        Instruction::Arg(args) => Some(args),
        _ => None,
    });
    args.flatten().map(|arg| arg.name.as_str()).collect()
}

fn reference(text: &str, span: Span) -> Result<Reference, LowerError> {
    text.parse().map_err(|error| {
        LowerError::stage(format!("failed to parse stage name {}: {error}", quoted(text)), span)
    })
}

/// ` (did you mean …?)`, or nothing.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean_exactly(word, candidates).map_or(String::new(), |found| format!(" (did you mean {found}?)"))
}
