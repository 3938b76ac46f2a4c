//! What stages start from, and the triggers that come with it.

use std::borrow::Cow;

use lapstrake_dockerfile::{Instruction, Place, Rule, parse_trigger};
use lapstrake_go::quoted;
use lapstrake_graph::{Edge, ImageStore, Op, Source, VertexMeta};
use lapstrake_oci::{ImageConfig, Platform, Reference};

use crate::error::LowerError;
use crate::inputs::NamedContext;
use crate::lowering::Lowering;
use crate::remote;
use crate::resolver::ImageRequest;
use crate::root::{Root, empty_image};
use crate::stages::{Base, Node, NodeId, hint};

/// Images that people often mean.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// What has to be known of a base.
enum Asked {
    Image(Box<ImageRequest>),
    Local { name: String },
    Rootfs { path: String },
    Remote(Source),
    Solved { name: String, source: Source, config: Option<Box<ImageConfig>> },
}

impl Lowering<'_> {
    /// What has to be known of `node`'s base; `None` for stages and `scratch`.
    fn asked(&self, node: &Node<'_>) -> Option<Asked> {
        let platform = node.platform.as_ref().unwrap_or(self.target_platform);
        let image = |reference: &Reference, store: ImageStore| {
            let platform = platform.clone();
            Asked::Image(Box::new(ImageRequest { reference: reference.clone(), store, platform }))
        };
        let replacement = match (&node.name, &node.base) {
            (Some(name), _) if node.replaced => self.inputs.context(name, platform),
            (_, Base::Named(reference)) => self.inputs.context(&reference.to_string(), platform),
            _ => return None,
        };
        Some(match (replacement, &node.base) {
            (Some((name, NamedContext::Local)), _) => Asked::Local { name: name.to_owned() },
            (Some((_, NamedContext::Rootfs { path })), _) => Asked::Rootfs { path: path.clone() },
            (Some((_, NamedContext::Remote(source))), _) => Asked::Remote(source.clone()),
            (Some((name, NamedContext::Solved { source, config })), _) => {
                Asked::Solved { name: name.to_owned(), source: source.clone(), config: config.clone() }
            }
            (Some((_, NamedContext::Image(reference))), _) => image(reference, ImageStore::Registry),
            // `StageGraph` has put the stage in the name's place.
            (Some((_, NamedContext::Target(_))), _) => return None,
            (Some((_, NamedContext::Layout { path, reference })), _) => {
                image(reference, ImageStore::Layout { path: path.clone() })
            }
            (None, Base::Named(reference)) => image(reference, ImageStore::Registry),
            (None, Base::Scratch | Base::Stage(_)) => return None,
        })
    }

    /// The images that must be known to go on with these nodes.
    pub(crate) fn requests(
        &self,
        ids: impl IntoIterator<Item = NodeId>,
    ) -> impl Iterator<Item = (NodeId, ImageRequest)> {
        ids.into_iter().filter_map(|id| match self.asked(&self.stages[id]) {
            Some(Asked::Image(request)) => Some((id, *request)),
            _ => None,
        })
    }

    /// The stage that may be meant by the name of an image that has neither host nor tag.
    pub(crate) fn stage_hint(&self, id: NodeId) -> String {
        let node = &self.stages[id];
        match &node.base {
            Base::Named(reference) if reference.familiar_name() == node.base_text => {
                hint(&node.base_text, self.stages.labels())
            }
            _ => String::new(),
        }
    }

    /// Makes sure that the base of `id` is known, unless that is a stage.
    pub(crate) fn resolve(&mut self, id: NodeId) -> Result<(), LowerError> {
        let node = &self.stages[id];
        if node.root.is_some() || (matches!(node.base, Base::Stage(_)) && !node.replaced) {
            return Ok(());
        }
        let platform = node.platform.as_ref().unwrap_or(self.target_platform).clone();
        let bare = |source: Source, title: String, platform: Platform| Root {
            source,
            title,
            numbered: false,
            config: empty_image(&platform),
            platform,
            guessed: false,
        };
        let root = match self.asked(node) {
            // An empty tree has the target's platform, whatever FROM says.
            None => bare(Source::Scratch, "FROM scratch".to_owned(), self.target_platform.clone()),
            Some(Asked::Local { name }) => {
                let title = format!("[context {name}] load from client");
                bare(self.inputs.local(&name), title, platform)
            }
            Some(Asked::Remote(source)) => {
                let title = remote::title(&source);
                bare(source, title, platform)
            }
            Some(Asked::Solved { name, source, config }) => {
                let root = bare(source, format!("[context {name}] load from an earlier result"), platform);
                match config {
                    Some(config) => Root { config: ImageConfig { created: None, ..*config }, ..root },
                    None => root,
                }
            }
            Some(Asked::Rootfs { path }) => {
                let title = format!("FROM rootfs://{path}");
                Root { numbered: true, ..bare(Source::Rootfs { path }, title, platform) }
            }
            Some(Asked::Image(request)) => self.image(node, *request)?,
        };
        self.stages[id].root = Some(root);
        Ok(())
    }

    fn image(&self, node: &Node<'_>, request: ImageRequest) -> Result<Root, LowerError> {
        let found = self.resolver.resolve(&request).map_err(|source| {
            let written = request.reference.familiar_name();
            let hint = hint(&written, self.stages.labels().chain(COMMON_IMAGES));
            LowerError::Resolve { reference: request.reference.to_string(), span: node.span, hint, source }
        })?;
        let mut config = found.config;
        config.created = None;
        let layers = !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|row| !row.empty_layer);
        if layers && !found.guessed {
            self.check_base_platform(node, &request, &config.platform());
        }
        let title = match request.reference.digest() {
            Some(_) => format!("FROM {}", request.reference),
            None => format!("FROM {}", request.reference.with_digest(found.manifest.clone())),
        };
        let source = if layers {
            Source::Image {
                reference: request.reference.to_string(),
                manifest: found.manifest,
                platform: request.platform.clone(),
                store: request.store,
            }
        } else {
            Source::Scratch
        };
        let guessed = found.guessed;
        Ok(Root { source, title, numbered: layers, config, platform: request.platform, guessed })
    }

    /// Whoever gives a context in an image's place knows what it is for; only images that the text names are judged.
    fn check_base_platform(&self, node: &Node<'_>, request: &ImageRequest, has: &Platform) {
        let asked = &request.platform;
        let named = matches!(&node.base, Base::Named(reference)
            if !node.replaced && self.inputs.context(&reference.to_string(), asked).is_none());
        if !named || (has.os == asked.os && has.architecture == asked.architecture) {
            return;
        }
        let has = if has.os.is_empty() { "unknown".to_owned() } else { has.to_string() };
        let detail = format!(
            "Base image {} was pulled with platform {}, expected {} for current build",
            node.base_text,
            quoted(&has),
            quoted(&asked.to_string())
        );
        let place = Place { span: node.span, lines: node.named_at };
        self.checks.report(&[], Rule::InvalidBaseImagePlatform, place, detail);
    }

    /// The tree that a resolved base is.
    pub(crate) fn root_edge(&mut self, id: NodeId) -> Result<Edge, LowerError> {
        let node = &mut self.stages[id];
        let root = node.root.as_ref().expect("bases are resolved before anything is lowered");
        let name = if root.numbered {
            node.naming.next(&root.title, &root.platform, &crate::env::Env::default(), false)
        } else {
            root.title.clone()
        };
        let meta = VertexMeta { name, lines: node.lines, ..VertexMeta::default() };
        Ok(self.graph.add(Op::Source(root.source.clone()), vec![], meta)?.into())
    }

    /// Puts the triggers of `id`'s base in front of its steps, once. Gives whether they need further nodes.
    pub(crate) fn fire_triggers(&mut self, id: NodeId) -> Result<bool, LowerError> {
        let node = &mut self.stages[id];
        if node.triggered || node.replaced || node.stage.is_none() {
            return Ok(false);
        }
        node.triggered = true;
        let (span, lines) = (node.span, node.lines);
        let triggers: Vec<String> = match (&mut node.root, &node.base) {
            (Some(root), _) => std::mem::take(&mut root.config.config.on_build),
            (None, Base::Stage(base)) => {
                let base = *base;
                self.stages[base]
                    .steps
                    .iter()
                    .filter_map(|step| match &step.command.instruction {
                        Instruction::Onbuild(onbuild) => Some(onbuild.expression.to_string()),
                        _ => None,
                    })
                    .collect()
            }
            (None, _) => Vec::new(),
        };
        if triggers.is_empty() {
            return Ok(false);
        }
        let lines = lines.expect("stages have lines");
        let own = std::mem::take(&mut self.stages[id].steps);
        let mut grown = false;
        for trigger in triggers {
            let command = parse_trigger(&trigger, self.dialect).map_err(|message| {
                LowerError::stage(message, span)
                    .hint(format!("in the ONBUILD trigger of the base: {trigger}"))
            })?;
            let step = self.stages.step(Cow::Owned(command), span, lines, true)?;
            grown |= !step.sources.is_empty();
            self.stages.push_step(id, step);
        }
        self.stages[id].steps.extend(own);
        Ok(grown)
    }
}
