//! Where a build's result goes.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use lapstrake_assemble::Document;
use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_graph::Target;
use lapstrake_oci::{Digest, Reference};
use lapstrake_ops::{Images, Stack};
use lapstrake_outputs::{
    Containerd, Elsewhere, Encoding, Estargz, Files, Finished, Flavour, Layer, LayerForm, Push, Saved,
    SharedStep, Tars, assemble, descriptor_annotations, image_manifest, keep, with_inline_cache,
    write_archive, write_files, write_layout, write_rootfs,
};
use lapstrake_store::Store;

use super::file::to_file;
use super::metadata::Metadata;
use super::output::{ImageOutput, Output, PushTo};
use super::push::status;
use super::wanted::Wanted;
use crate::args::Build;
use crate::env;
use crate::exit::{Told, Usage};

/// What is exported.
pub(crate) struct Export<'a> {
    /// What was typed.
    pub(crate) args: &'a Build,
    /// What that means.
    pub(crate) wanted: &'a Wanted,
    /// The id of this build.
    pub(crate) build: &'a str,
    /// Where the layers are.
    pub(crate) store: &'a Arc<Store>,
    /// Who talks to registries.
    pub(crate) images: &'a Images,
    /// The image without its layers.
    pub(crate) target: &'a Target,
    /// Layers that are not here, below those that are.
    pub(crate) below: &'a [Elsewhere],
    /// The layers.
    pub(crate) stack: &'a Stack,
    /// The steps whose results images tell of in their configs, if they are to.
    pub(crate) inline: Option<Vec<SharedStep>>,
}

impl Export<'_> {
    /// Exports to all outputs; gives the image id, if one of them is an image.
    pub(crate) fn run(&self, progress: &Progress) -> anyhow::Result<Option<Digest>> {
        let leaves = self.wanted.outputs.iter().any(|output| *output != Output::Cache);
        if leaves && (self.stack.below.is_some() || !self.stack.binds.is_empty()) {
            let text =
                "the result stands on a `rootfs://` directory of this machine, which is no part of any image";
            let hint = "copy what is needed into a stage of its own: `FROM scratch` and `COPY --from=…`";
            return Err(Told { text: text.to_owned(), hint: Some(hint.to_owned()), status: 1 }.into());
        }
        let (mut id, mut metadata) = (None, Metadata::default());
        for (number, output) in self.wanted.outputs.iter().enumerate() {
            if *output == Output::Cache {
                continue;
            }
            let step = progress.start(StepId(format!("internal:export:{number}")), title(output));
            let image = self.one(output, &mut metadata, &step);
            step.complete(false, image.as_ref().err().map(ToString::to_string));
            id = id.or(image?);
        }
        if let Some(path) = &self.args.metadata_file {
            metadata.write(self.build, path)?;
        }
        Ok(id)
    }

    fn one(&self, output: &Output, metadata: &mut Metadata, step: &Step) -> anyhow::Result<Option<Digest>> {
        let Self { store, target, stack, .. } = *self;
        match output {
            Output::Image { image: asked, push } => self.stored(asked, *push, metadata, step).map(Some),
            Output::Archive { docker, image: asked, .. } | Output::Layout { docker, image: asked, .. } => {
                let image = self.image(asked, step)?;
                let encoding = asked.encoding_for(&image.config.platform())?;
                let names = self.names(asked);
                let flavour = if *docker { Flavour::Docker } else { Flavour::Oci };
                step.status(&format!("exporting config {}", image.document.digest), 0, 0, true);
                let saved = [Saved { image: &image, names: &names }];
                let manifests = during(step, "sending tarball", || match output {
                    Output::Layout { dest, .. } => {
                        let failed = || format!("cannot write `{}`", dest.display());
                        write_layout(store, &saved, flavour, &encoding, dest).with_context(failed)
                    }
                    Output::Archive { dest, .. } => to_file(dest.as_deref(), |out| {
                        Ok(write_archive(store, &saved, flavour, &encoding, out)?)
                    }),
                    _ => Ok(Vec::new()),
                })?;
                let manifest = manifests.first().context("nothing was written")?;
                metadata.image(&image, &names);
                let annotations = descriptor_annotations(&image, &encoding);
                metadata.manifest(&image, manifest, encoding.manifest_type(), annotations);
                Ok(Some(image.document.digest))
            }
            Output::Engine { image: asked } => self.loaded(asked, metadata, step).map(Some),
            Output::Tar { dest, root: asked } => during(step, "sending tarball", || {
                let root = stack.open(store, self.images.single_id())?;
                let prefix = asked.split.then(|| self.platform());
                let epoch = asked.epoch.unwrap_or(target.image.epoch);
                to_file(dest.as_deref(), |out| {
                    Ok(write_rootfs(root.as_fd(), epoch, prefix.as_deref(), out)?)
                })?;
                Ok(None)
            }),
            Output::Local { dest, root: asked, delete } => during(step, "copying files", || {
                let epoch = asked.epoch.unwrap_or(target.image.epoch);
                let dest = if asked.split { dest.join(self.platform()) } else { dest.clone() };
                fs::create_dir_all(&dest).with_context(|| format!("cannot create `{}`", dest.display()))?;
                write_files(
                    stack.open(store, self.images.single_id())?.as_fd(),
                    &dest,
                    Files { delete: *delete, epoch },
                )?;
                Ok(None)
            }),
            Output::Cache => Ok(None),
        }
    }

    /// The platform as the name of a directory.
    fn platform(&self) -> String {
        self.target.platform.to_string().replace('/', "_")
    }

    fn image(&self, asked: &ImageOutput, step: &Step) -> anyhow::Result<Finished> {
        let mut draft = self.target.image.clone();
        draft.epoch = asked.epoch.unwrap_or(draft.epoch);
        if asked.rewrite && draft.epoch.is_none() {
            tell!("warning: rewrite-timestamp is specified, but no source-date-epoch was found");
        }
        let layers: Vec<Layer> = self
            .stack
            .layers
            .iter()
            .map(|layer| Layer { id: layer.id.clone(), diff_id: layer.diff_id.clone() })
            .collect();
        let Encoding { level, force, .. } = asked.encoding;
        let estargz = asked.encoding.form == LayerForm::Estargz;
        let estargz = estargz.then_some(Estargz { level, all: force });
        let tars = Tars { rewrite: asked.rewrite, estargz };
        let image = during(step, "exporting layers", || {
            Ok(assemble(self.store, &draft, (self.below, &layers), tars)?)
        })?;
        match &self.inline {
            Some(steps) => Ok(with_inline_cache(self.store, image, steps)?),
            None => Ok(image),
        }
    }

    /// To the local store and to registries; gives the image id.
    fn stored(
        &self,
        asked: &ImageOutput,
        push: Option<PushTo>,
        metadata: &mut Metadata,
        step: &Step,
    ) -> anyhow::Result<Digest> {
        let image = self.image(asked, step)?;
        let encoding = asked.encoding_for(&image.config.platform())?;
        let id = image.document.digest.clone();
        let names = self.names(asked);
        if asked.store {
            self.keep(&image, &names, step)?;
        }
        if asked.unpack {
            let part =
                format!("unpacking to {}", names.first().map_or_else(|| id.to_string(), ToString::to_string));
            during(step, &part, || Ok(self.stack.lowers(self.store, self.images.single_id()).map(drop)?))?;
        }
        let dangling = asked.dangling.as_ref().filter(|_| !asked.dangling_alone || names.is_empty());
        let mut manifest = None;
        // A name with a digest needs the manifest, and that needs the layers as they leave.
        if dangling.is_some() || asked.canonical {
            let made = || Ok(image_manifest(self.store, &image, &encoding)?);
            manifest = Some(during(step, "exporting manifest", made)?);
        }
        let pinned = dangling.zip(manifest.as_ref()).map(|(name, made)| name.pinned(made.digest.clone()));
        let all: Vec<Reference> = names.iter().cloned().chain(pinned.clone()).collect();
        let image = Arc::new(image);
        if let Some(to) = push {
            manifest = Some(self.push(&image, (asked, &encoding), (&all, to), step)?);
        }
        metadata.image(&image, &all);
        if let Some(manifest) = &manifest {
            let annotations = encoding.descriptor_annotations.clone();
            metadata.manifest(&image, manifest, encoding.manifest_type(), annotations);
            let named = names.iter().filter(|_| asked.canonical || push.is_some());
            let digests = named.map(|name| name.pinned(manifest.digest.clone())).chain(pinned);
            for name in digests.filter(|_| asked.store) {
                self.store.set_digest(&name, &id)?;
            }
        }
        Ok(id)
    }

    fn keep(&self, image: &Finished, names: &[Reference], step: &Step) -> anyhow::Result<()> {
        let writing = format!("writing image {}", image.document.digest);
        during(step, &writing, || Ok(keep(self.store, image, tokens(self.stack, image), names)?))?;
        for name in names {
            step.status(&format!("naming to {name}"), 0, 0, true);
        }
        Ok(())
    }

    /// To the local store and to a running Docker or containerd.
    fn loaded(&self, asked: &ImageOutput, metadata: &mut Metadata, step: &Step) -> anyhow::Result<Digest> {
        let engine = engine()?;
        let image = self.image(asked, step)?;
        let encoding = asked.encoding_for(&image.config.platform())?;
        let names = self.names(asked);
        self.keep(&image, &names, step)?;
        let saved = [Saved { image: &image, names: &names }];
        let manifests = match engine {
            Engine::Docker(socket) => during(step, "sending tarball", || {
                Ok(lapstrake_outputs::load(&socket, |out| {
                    write_archive(self.store, &saved, Flavour::Docker, &encoding, out)
                })?)
            })?,
            Engine::Containerd(_) if names.is_empty() => {
                let text = "containerd knows images by their names: give one with `-t`";
                return Err(Usage(text.to_owned()).into());
            }
            Engine::Containerd(to) => during(step, "sending blobs to containerd", || {
                let load = to.load(self.store, &image, &names, &encoding);
                Ok(vec![tokio::runtime::Handle::current().block_on(load)?])
            })?,
        };
        metadata.image(&image, &names);
        if let Some(manifest) = manifests.first() {
            let annotations = descriptor_annotations(&image, &encoding);
            metadata.manifest(&image, manifest, encoding.manifest_type(), annotations);
        }
        Ok(image.document.digest)
    }

    /// Pushes the image under these names, and gives its manifest.
    fn push(
        &self,
        image: &Arc<Finished>,
        (asked, encoding): (&ImageOutput, &Encoding),
        (names, to): (&[Reference], PushTo),
        step: &Step,
    ) -> anyhow::Result<Document> {
        if names.is_empty() {
            return Err(Usage("there is no name to push the image to: give one with `-t`".to_owned()).into());
        }
        let status = status(step);
        tokio::runtime::Handle::current().block_on(async {
            let insecure;
            let client = if asked.insecure {
                insecure = self.images.insecure_client()?;
                &insecure
            } else {
                self.images.client().await?
            };
            let push = Push { store: self.store, client, image, encoding, status };
            Ok(push.run(names, to == PushTo::Digest).await?)
        })
    }

    fn names(&self, asked: &ImageOutput) -> Vec<Reference> {
        self.wanted.names.iter().chain(&asked.names).cloned().collect()
    }
}

/// Who can be given an image.
enum Engine {
    /// The Docker at this socket.
    Docker(PathBuf),
    /// This containerd.
    Containerd(Containerd),
}

/// Who is to have it: whom `DOCKER_HOST` or `CONTAINERD_ADDRESS` names, else the Docker at the user's own socket or the
/// machine's, else the machine's containerd.
fn engine() -> Result<Engine, Usage> {
    let (sockets, named) = env::docker_sockets().map_err(|host| {
        Usage(format!("DOCKER_HOST is `{host}`: only `unix://` sockets can be loaded into"))
    })?;
    let (socket, asked) = env::containerd_socket();
    let there = sockets.iter().find(|socket| socket.exists());
    if !named && (asked || there.is_none() && socket.exists()) {
        return Ok(Engine::Containerd(Containerd { socket, namespace: env::containerd_namespace() }));
    }
    let docker = there.or(sockets.last()).cloned().map(Engine::Docker);
    docker.ok_or_else(|| Usage("there is no place where Docker could listen".to_owned()))
}

/// What the step of an output is called, in BuildKit's words.
fn title(output: &Output) -> &'static str {
    match output {
        Output::Image { .. } => "exporting to image",
        Output::Archive { docker: true, .. }
        | Output::Layout { docker: true, .. }
        | Output::Engine { .. } => "exporting to docker image format",
        Output::Archive { .. } | Output::Layout { .. } => "exporting to oci image format",
        Output::Tar { .. } => "exporting to client tarball",
        Output::Local { .. } | Output::Cache => "exporting to client directory",
    }
}

/// Does a part of a step, and shows how long it takes.
fn during<T>(step: &Step, part: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    step.status(part, 0, 0, false);
    let done = work()?;
    step.status(part, 0, 0, true);
    Ok(done)
}

/// The layers as the store remembers them: with the digests that the config has.
fn tokens(stack: &Stack, image: &Finished) -> String {
    let mut layers = stack.layers.clone();
    if image.clamp.is_none() {
        for (layer, (_, diff_id)) in layers.iter_mut().zip(&image.layers) {
            layer.diff_id = Some(diff_id.clone());
        }
    }
    String::from_utf8_lossy(&lapstrake_oci::to_json(&layers)).into_owned()
}
