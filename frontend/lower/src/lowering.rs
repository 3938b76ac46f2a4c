//! From a Dockerfile to a plan: the order of things.

use std::collections::BTreeSet;

use std::sync::Arc;

use lapstrake_dockerfile::{Checks, Dialect, Dockerfile};
use lapstrake_graph::{Graph, ImageDraft, Plan, Target};
use lapstrake_oci::Platform;

use crate::error::LowerError;
use crate::from_checks::check_default_bases;
use crate::globals::Globals;
use crate::inputs::BuildInputs;
use crate::resolver::{ImageRequest, ImageResolver, ResolveFailure, ResolvedImage};
use crate::stages::{NodeId, StageGraph};
use crate::state::StageState;

/// Everything that is at hand while one platform is lowered.
pub(crate) struct Lowering<'d> {
    pub(crate) inputs: &'d BuildInputs,
    pub(crate) resolver: &'d dyn ImageResolver,
    pub(crate) target_platform: &'d Platform,
    pub(crate) escape: char,
    pub(crate) dialect: Dialect,
    pub(crate) globals: Globals,
    pub(crate) stages: StageGraph<'d>,
    pub(crate) graph: &'d mut Graph,
    pub(crate) checks: &'d Checks,
}

/// Which stages are lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The target and what it needs.
    Target,
    /// All of them, to check them all.
    All,
}

/// Makes the plan for `dockerfile`, whose diagnostics must have no error.
///
/// Stages that the target does not need are neither resolved nor lowered. The platforms share one graph, so that what
/// is the same for several of them is done once.
pub fn lower(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    resolver: &dyn ImageResolver,
) -> Result<Plan, LowerError> {
    lower_checked(dockerfile, inputs, resolver, &Checks::default(), Scope::Target)
}

/// Like [`lower`], and reports what the rules find on the way, for the first platform.
pub fn lower_checked(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
    resolver: &dyn ImageResolver,
    checks: &Checks,
    scope: Scope,
) -> Result<Plan, LowerError> {
    let mut graph = Graph::new();
    let targets = lower_into(&mut graph, &LowerRequest { dockerfile, inputs, resolver, checks }, scope)?;
    Ok(Plan { graph, targets })
}

/// One Dockerfile of [`lower_all`], with the inputs of its build.
#[derive(Clone, Copy)]
pub struct LowerRequest<'d> {
    /// The Dockerfile, whose diagnostics must have no error.
    pub dockerfile: &'d Dockerfile,
    /// The target, the platforms and the arguments.
    pub inputs: &'d BuildInputs,
    /// The answers about images.
    pub resolver: &'d dyn ImageResolver,
    /// The rules, and what they find for the first platform.
    pub checks: &'d Checks,
}

/// Several builds in one graph.
#[derive(Clone, Debug)]
pub struct JointPlan {
    /// The steps of all builds. A step that several of them need is one vertex.
    pub graph: Graph,
    /// The wanted results of each build, one for each platform, in the order of the requests.
    pub targets: Vec<Vec<Target>>,
}

/// Lowers the requests into one graph, as a bake file's group of targets needs.
///
/// Local contexts of one name are one context. Where two requests mean different directories by a name,
/// [`BuildInputs::local_names`] has to tell them apart.
///
/// # Errors
/// The number of the first request that cannot be lowered, and why.
pub fn lower_all(requests: &[LowerRequest<'_>]) -> Result<JointPlan, (usize, LowerError)> {
    let (mut graph, mut targets) = (Graph::new(), Vec::new());
    for (number, request) in requests.iter().enumerate() {
        let lowered = lower_into(&mut graph, request, Scope::Target);
        targets.push(lowered.map_err(|error| (number, error))?);
    }
    Ok(JointPlan { graph, targets })
}

/// Adds the steps of a request to `graph`; gives its targets, one for each platform.
fn lower_into(
    graph: &mut Graph,
    request: &LowerRequest<'_>,
    scope: Scope,
) -> Result<Vec<Target>, LowerError> {
    let LowerRequest { dockerfile, inputs, resolver, checks } = *request;
    let mut targets = Vec::new();
    let unheard = Checks::default();
    for (number, platform) in platforms(inputs).into_iter().enumerate() {
        let checks = if number == 0 { checks } else { &unheard };
        let (target, mut lowering) = Lowering::new(dockerfile, inputs, (resolver, checks), platform, graph)?;
        lowering.lower_needed(target, scope)?;
        targets.push(lowering.finish(target)?);
    }
    Ok(targets)
}

/// An image that will be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredImage {
    /// The question.
    pub request: ImageRequest,
    /// ` (did you mean …?)`, where a bare name looks like that of a stage; else nothing.
    pub hint: String,
}

/// The images that [`lower`] will ask for first, for all platforms, without doubles.
pub fn required_images(
    dockerfile: &Dockerfile,
    inputs: &BuildInputs,
) -> Result<Vec<RequiredImage>, LowerError> {
    let mut graph = Graph::new();
    let mut required: Vec<RequiredImage> = Vec::new();
    for platform in platforms(inputs) {
        let unheard = Checks::default();
        let (target, lowering) =
            Lowering::new(dockerfile, inputs, (&Nobody, &unheard), platform, &mut graph)?;
        let reachable = lowering.stages.reachable(target);
        for (id, request) in lowering.requests(reachable) {
            if !required.iter().any(|known| known.request == request) {
                required.push(RequiredImage { hint: lowering.stage_hint(id), request });
            }
        }
    }
    Ok(required)
}

fn platforms(inputs: &BuildInputs) -> Vec<&Platform> {
    if inputs.platforms.is_empty() { vec![&inputs.build_platform] } else { inputs.platforms.iter().collect() }
}

/// Knows no image, and is never asked.
struct Nobody;

impl ImageResolver for Nobody {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        Err(Arc::new(std::io::Error::other(format!("nobody knows {}", request.reference))))
    }
}

impl<'d> Lowering<'d> {
    pub(crate) fn new(
        dockerfile: &'d Dockerfile,
        inputs: &'d BuildInputs,
        (resolver, checks): (&'d dyn ImageResolver, &'d Checks),
        target_platform: &'d Platform,
        graph: &'d mut Graph,
    ) -> Result<(NodeId, Lowering<'d>), LowerError> {
        check_default_bases(dockerfile, inputs, target_platform, checks);
        let globals = Globals::new(dockerfile, inputs, target_platform)?;
        let mut stages = StageGraph::new(dockerfile, &globals, inputs, target_platform, checks)?;
        let target = stages.target(inputs.target.as_deref())?;
        stages.add_steps(dockerfile)?;
        stages.refuse_names()?;
        let escape = dockerfile.escape;
        let dialect = dockerfile.dialect;
        Ok((
            target,
            Lowering { inputs, resolver, target_platform, escape, dialect, globals, stages, graph, checks },
        ))
    }

    /// Lowers the target and what it needs, from top to bottom.
    pub(crate) fn lower_needed(&mut self, target: NodeId, scope: Scope) -> Result<(), LowerError> {
        let needed = self.settle(target, scope)?;
        let stages = self.stages.ids().filter(|id| needed.contains(id)).collect::<Vec<_>>();
        stages.into_iter().try_for_each(|id| self.lower_stage(id))
    }

    /// Resolves what the target needs, over again as long as triggers bring in something new.
    fn settle(&mut self, target: NodeId, scope: Scope) -> Result<BTreeSet<NodeId>, LowerError> {
        loop {
            self.stages.refuse_names()?;
            let needed = match scope {
                Scope::Target => self.stages.reachable(target),
                Scope::All => self.stages.ids().collect(),
            };
            for id in &needed {
                self.resolve(*id)?;
            }
            let mut grown = false;
            for id in &needed {
                grown |= self.fire_triggers(*id)?;
            }
            if !grown {
                return Ok(needed);
            }
        }
    }

    fn finish(self, target: NodeId) -> Result<Target, LowerError> {
        let StageState { edge, mut config, history, platform, .. } =
            self.stages[target].state.clone().ok_or(LowerError::NoStages)?;
        config.config.labels.extend(self.inputs.labels.clone());
        let platform = if self.inputs.platforms.is_empty() {
            if config.os.is_empty() || config.architecture.is_empty() { platform } else { config.platform() }
        } else {
            asked_platform(self.target_platform, &config.platform())
        };
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        config.os_version.clone_from(&platform.os_version);
        config.os_features.clone_from(&platform.os_features);
        config.created = None;
        Ok(Target {
            edge,
            platform,
            image: ImageDraft { config, is_complete: false, history, epoch: self.globals.epoch },
        })
    }
}

/// What was asked for, filled up with what the image says if both are of the same system and processor.
fn asked_platform(asked: &Platform, has: &Platform) -> Platform {
    let mut platform = asked.clone();
    if asked.os == has.os && asked.architecture == has.architecture {
        if platform.variant.is_empty() {
            platform.variant.clone_from(&has.variant);
        }
        if platform.os_version.is_empty() {
            platform.os_version.clone_from(&has.os_version);
        }
    }
    if platform.os_features.is_empty() {
        platform.os_features.clone_from(&has.os_features);
    }
    platform
}

#[cfg(test)]
mod tests;
