//! The delivery of a build's result to its outputs.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use lapstrake_diag::{Context as _, Outcome, Report, Usage};
use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_oci::{Digest, Platform, Reference};
use lapstrake_ops::{Images, SharedStack, Stack};
use lapstrake_outputs::{
    Bundle, Elsewhere, Encoding, Estargz, Finished, Flavour, Layer, LayerForm, Manifest, OutputError, Part,
    Push, Saved, Shape, SharedStep, Tars, Variant, assemble, keep, takes_indexes, with_inline_cache,
    write_archive, write_files, write_layout, write_rootfs,
};
use lapstrake_store::{StackLayer, Store};

use crate::client::{Addressee, Client, Engine, write_output};
use crate::described::Described;
use crate::metadata::Metadata;
use crate::notes::Notes;
use crate::output::{ImageOutput, Output, PushTo, RootOutput};
use crate::resolved::Resolved;
use crate::step_status::status;

/// An export: results, and the places that they go to.
pub(crate) struct Export<'a> {
    /// The request.
    pub request: &'a Resolved,
    /// The caller.
    pub client: &'a dyn Client,
    /// Sentences for the user once the build is over.
    pub notes: &'a Notes,
    /// The id of this build.
    pub build: &'a str,
    /// The layers.
    pub store: &'a Arc<Store>,
    /// The client of registries.
    pub images: &'a Images,
    /// The result for each platform.
    pub results: &'a [Built<'a>],
}

/// The result for one platform.
pub(crate) struct Built<'a> {
    /// The image without its layers.
    pub target: &'a Described,
    /// The platform as it was asked for.
    pub platform: &'a Platform,
    /// Layers that are not here, below those that are.
    pub below: Vec<Elsewhere>,
    /// The layers.
    pub stack: SharedStack,
    /// The steps that the image's config carries as an inline cache; nothing where there is to be none.
    pub inline: Option<Vec<SharedStep>>,
}

impl Export<'_> {
    /// Exports to all outputs.
    pub(crate) fn run(&self, progress: &Progress) -> Outcome<Delivered> {
        let leaves = self.request.outputs.iter().any(|output| *output != Output::Cache);
        let of_this_machine =
            |built: &Built<'_>| built.stack.below.is_some() || !built.stack.binds.is_empty();
        if leaves && self.results.iter().any(of_this_machine) {
            let text = "the result is based on a `rootfs://` directory of this machine, which cannot be part of an image";
            let hint = "copy the needed files into another stage: `FROM scratch` and `COPY --from=…`";
            return Err(Report::new(text).with_hint(hint));
        }
        let (mut delivered, mut metadata) = (Delivered::default(), Metadata::default());
        for (number, output) in self.request.outputs.iter().enumerate() {
            if *output == Output::Cache {
                continue;
            }
            let step = progress.start(StepId(format!("internal:export:{number}")), title(output));
            let image = match output {
                Output::Engine { image } => self.loaded(image, &mut metadata, &step).map(|loaded| {
                    loaded.note.into_iter().for_each(|note| self.notes.add(note));
                    Some(loaded.id)
                }),
                other => self.one(other, &mut metadata, &step),
            };
            step.complete(false, image.as_ref().err().map(|error| error.message().to_owned()));
            delivered.id = delivered.id.or(image?);
            let makes_image = matches!(
                output,
                Output::Image { .. } | Output::Archive { .. } | Output::Layout { .. } | Output::Engine { .. }
            );
            let made = metadata.descriptor().filter(|_| makes_image);
            delivered.descriptors.extend(made.map(|descriptor| (number, descriptor)));
        }
        metadata.build(self.build);
        delivered.documents = metadata.documents();
        delivered.metadata = metadata;
        Ok(delivered)
    }

    fn one(&self, output: &Output, metadata: &mut Metadata, step: &Step) -> Outcome<Option<Digest>> {
        match output {
            Output::Image { image: asked, push } => self.stored(asked, *push, metadata, step).map(Some),
            Output::Archive { docker, image: asked, .. } | Output::Layout { docker, image: asked, .. } => {
                let bundle = self.bundle(asked, step)?;
                let names = self.names(asked);
                let flavour = if *docker { Flavour::Docker } else { Flavour::Oci };
                for variant in &bundle.variants {
                    step.status(&format!("exporting config {}", variant.image.document.digest), 0, 0, true);
                }
                let saved = [Saved { bundle: &bundle, names: &names }];
                let manifests = during(step, "sending tarball", || match output {
                    Output::Layout { dest, .. } => {
                        let failed = || format!("cannot write `{}`", dest.display());
                        let place = self.client.layout(dest, None)?;
                        let manifests =
                            write_layout(self.store, &saved, flavour, &place).with_context(failed)?;
                        self.client.layout_written(dest)?;
                        Ok(manifests)
                    }
                    Output::Archive { dest, .. } => write_output(self.client, dest.as_deref(), |out| {
                        Ok(write_archive(self.store, &saved, flavour, out)?)
                    }),
                    _ => Ok(Vec::new()),
                })?;
                let manifest = manifests.first().context("nothing was written")?;
                metadata.image(&bundle, &names);
                self.tell(metadata, &bundle, manifest, bundle.descriptor_annotations())?;
                Ok(Some(id_of(&bundle, Some(manifest))))
            }
            Output::Tar { dest, root: asked } => during(step, "sending tarball", || {
                self.files(asked, |parts, shape| {
                    write_output(self.client, dest.as_deref(), |out| Ok(write_rootfs(parts, shape, out)?))
                })
            }),
            Output::Local { dest, root: asked, delete } => during(step, "copying files", || {
                self.files(asked, |parts, shape| {
                    let write = &mut |dir: &Path| Ok(write_files(parts, shape, dir, *delete)?);
                    self.client.output_directory(dest, write)
                })
            }),
            Output::Engine { .. } | Output::Cache => Ok(None),
        }
    }

    /// Hands over the roots as files. There is no id of that.
    fn files(
        &self,
        asked: &RootOutput,
        write: impl FnOnce(&[Part<'_>], Shape) -> Outcome<()>,
    ) -> Outcome<Option<Digest>> {
        let open = |built: &Built<'_>| Ok(built.stack.open(self.store, self.images.single_id())?);
        let roots = self.results.iter().map(open).collect::<Outcome<Vec<_>>>()?;
        let parts = self.results.iter().zip(&roots).map(|(built, root)| Part {
            platform: built.platform.to_string(),
            root: root.as_fd(),
            epoch: asked.epoch.unwrap_or(built.target.image.epoch),
        });
        let parts: Vec<Part<'_>> = parts.collect();
        let split = asked.split.unwrap_or(self.request.as_index);
        write(&parts, if split { Shape::Split } else { Shape::Merged })?;
        Ok(None)
    }

    /// The image for all platforms.
    fn bundle(&self, asked: &ImageOutput, step: &Step) -> Outcome<Bundle> {
        let platforms: Vec<Platform> = self.results.iter().map(|built| built.platform.clone()).collect();
        let encodings = platforms.iter().map(|platform| asked.encoding_for(platform, &platforms));
        let encodings = encodings.collect::<Result<Vec<_>, _>>()?;
        let without_epoch = |built: &Built<'_>| asked.epoch.unwrap_or(built.target.image.epoch).is_none();
        if asked.rewrite && self.results.iter().any(without_epoch) {
            self.notes.add("warning: rewrite-timestamp is specified, but no source-date-epoch was found");
        }
        let images = during(step, "exporting layers", || {
            self.results.iter().map(|built| self.image(built, asked)).collect::<Outcome<Vec<_>>>()
        })?;
        let variant = |((platform, encoding), image)| Variant { platform, image: Arc::new(image), encoding };
        let variants = platforms.into_iter().zip(encodings).zip(images).map(variant).collect();
        Ok(Bundle { variants, index: self.request.as_index.then(|| asked.index.clone()) })
    }

    fn image(&self, built: &Built<'_>, asked: &ImageOutput) -> Outcome<Finished> {
        let mut draft = built.target.image.clone();
        let clamp = asked.epoch.unwrap_or(draft.epoch);
        // The Dockerfile's epoch is the time of its rows, though the output has none; an output's own epoch only makes times earlier.
        draft.epoch = match (draft.epoch, clamp) {
            (Some(made), Some(clamp)) => Some(made.min(clamp)),
            (made, clamp) => made.or(clamp),
        };
        let layer = |layer: &StackLayer| {
            let StackLayer { id, diff_id, clamp } = layer.clone();
            Layer { id, diff_id, clamp }
        };
        let layers: Vec<Layer> = built.stack.layers.iter().map(layer).collect();
        let Encoding { level, force, form, .. } = asked.encoding;
        let estargz = (form == LayerForm::Estargz).then_some(Estargz { level, all: force });
        let tars = Tars { rewrite: clamp.filter(|_| asked.rewrite), estargz };
        let image = assemble(self.store, &draft, (&built.below, &layers), tars)?;
        match &built.inline {
            Some(steps) => Ok(with_inline_cache(self.store, image, steps)?),
            None => Ok(image),
        }
    }

    /// To the local store and to registries; gives the image id, or that of the index if that had to be made.
    fn stored(
        &self,
        asked: &ImageOutput,
        push: Option<PushTo>,
        metadata: &mut Metadata,
        step: &Step,
    ) -> Outcome<Digest> {
        let bundle = self.bundle(asked, step)?;
        let names = self.names(asked);
        if asked.store {
            self.keep(&bundle, &names, step)?;
        }
        if asked.unpack {
            let id = &bundle.main().image.document.digest;
            let part =
                format!("unpacking to {}", names.first().map_or_else(|| id.to_string(), ToString::to_string));
            let unpack = |built: &Built<'_>| -> Outcome<()> {
                Ok(built.stack.lowers(self.store, self.images.single_id()).map(drop)?)
            };
            during(step, &part, || self.results.iter().try_for_each(unpack))?;
        }
        let dangling = asked.dangling.as_ref().filter(|_| !asked.dangling_alone || names.is_empty());
        let mut manifest = None;
        // A name with a digest needs the manifest, and that needs the layers as they leave.
        if dangling.is_some() || asked.canonical || (asked.needs_manifest && push.is_none()) {
            let part = if bundle.index.is_some() { "exporting manifest list" } else { "exporting manifest" };
            manifest = Some(during(step, part, || Ok(bundle.manifest(self.store)?))?);
        }
        let pin = |(name, made): (&Reference, &Manifest)| name.pinned(made.document.digest.clone());
        let pinned = dangling.zip(manifest.as_ref()).map(pin);
        let all: Vec<Reference> = names.iter().cloned().chain(pinned.clone()).collect();
        if let Some(to) = push {
            manifest = Some(self.push(&bundle, asked, (&all, to), step)?);
        }
        metadata.image(&bundle, &all);
        if let Some(manifest) = &manifest {
            self.tell(metadata, &bundle, manifest, bundle.asked_annotations().clone())?;
            let named = names.iter().filter(|_| asked.canonical || push.is_some());
            let digests = named.map(|name| pin((name, manifest))).chain(pinned);
            for name in digests.filter(|_| asked.store) {
                self.store.set_digest(&name, &bundle.main().image.document.digest)?;
            }
        }
        Ok(id_of(&bundle, manifest.as_ref()))
    }

    fn keep(&self, bundle: &Bundle, names: &[Reference], step: &Step) -> Outcome<()> {
        let writing = format!("writing image {}", bundle.main().image.document.digest);
        let both = self.results.iter().zip(&bundle.variants);
        let layers = both.map(|(built, variant)| stored_layers(&built.stack, &variant.image)).collect();
        during(step, &writing, || Ok(keep(self.store, bundle, layers, names)?))?;
        for name in names {
            step.status(&format!("naming to {name}"), 0, 0, true);
        }
        Ok(())
    }

    /// To the local store and to a running Docker or containerd. Where neither runs and none was named, the store is enough.
    fn loaded(&self, asked: &ImageOutput, metadata: &mut Metadata, step: &Step) -> Outcome<Loaded> {
        let Addressee { engine, named } = self.client.engine()?;
        let bundle = self.bundle(asked, step)?;
        let names = self.names(asked);
        self.keep(&bundle, &names, step)?;
        let (manifests, note) = match self.hand_over(&bundle, &names, &engine, step) {
            Err(error) if !named && nobody_listens(&error) => (Vec::new(), Some(NO_ENGINE)),
            manifests => (manifests?, None),
        };
        metadata.image(&bundle, &names);
        if let Some(manifest) = manifests.first() {
            self.tell(metadata, &bundle, manifest, bundle.descriptor_annotations())?;
        }
        Ok(Loaded { id: id_of(&bundle, manifests.first()), note })
    }

    fn hand_over(
        &self,
        bundle: &Bundle,
        names: &[Reference],
        engine: &Engine,
        step: &Step,
    ) -> Outcome<Vec<Manifest>> {
        let saved = [Saved { bundle, names }];
        match engine {
            Engine::Docker(socket) => during(step, "sending tarball", || {
                Ok(lapstrake_outputs::load(socket, |out| {
                    write_archive(self.store, &saved, Flavour::Docker, out)
                })?)
            }),
            Engine::Containerd(_) if names.is_empty() => {
                let text = "containerd needs an image name: give one with `-t`";
                Err(Usage(text.to_owned()).into())
            }
            Engine::Containerd(to) => during(step, "sending blobs to containerd", || {
                let load = to.load(self.store, bundle, names);
                Ok(vec![tokio::runtime::Handle::current().block_on(load)?])
            }),
        }
    }

    /// Pushes the image under these names, and gives its manifest, or its index.
    fn push(
        &self,
        bundle: &Bundle,
        asked: &ImageOutput,
        (names, to): (&[Reference], PushTo),
        step: &Step,
    ) -> Outcome<Manifest> {
        if names.is_empty() {
            return Err(Usage("pushing needs an image name: give one with `-t`".to_owned()).into());
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
            let push = Push { store: self.store, client, bundle, status };
            Ok(push.run(names, to == PushTo::Digest).await?)
        })
    }

    /// The metadata has the manifest or the index, and all documents below it.
    fn tell(
        &self,
        metadata: &mut Metadata,
        bundle: &Bundle,
        manifest: &Manifest,
        annotations: BTreeMap<String, String>,
    ) -> Outcome<()> {
        metadata.manifest(bundle, manifest, annotations);
        metadata.add_document(&manifest.document);
        if bundle.index.is_some() {
            bundle.manifests(self.store)?.iter().for_each(|one| metadata.add_document(&one.document));
        }
        bundle.variants.iter().for_each(|variant| metadata.add_document(&variant.image.document));
        Ok(())
    }

    fn names(&self, asked: &ImageOutput) -> Vec<Reference> {
        self.request.names.iter().chain(&asked.names).cloned().collect()
    }
}

/// The image's id outside: an index has its own digest, one image the digest of its config, which our store knows. The
/// index of a bundle that went nowhere is not made.
fn id_of(bundle: &Bundle, manifest: Option<&Manifest>) -> Digest {
    match (&bundle.index, manifest) {
        (Some(_), Some(index)) => index.document.digest.clone(),
        _ => bundle.main().image.document.digest.clone(),
    }
}

/// The result of a build in its outputs.
#[derive(Default)]
pub struct Delivered {
    /// The image, or the index that was made, if one of the outputs is an image.
    pub id: Option<Digest>,
    /// The metadata of the build, as buildx writes it.
    pub metadata: Metadata,
    /// The descriptors of the images that outputs have made, as JSON, by the numbers of the outputs.
    pub descriptors: BTreeMap<usize, serde_json::Value>,
    /// The indexes, manifests and configs of these images.
    pub documents: Vec<String>,
}

/// The result of `--load`.
struct Loaded {
    id: Digest,
    note: Option<&'static str>,
}

/// The note of `--load` where no engine runs.
const NO_ENGINE: &str = "note: no Docker or containerd is running here: the image is in lapstrake's own store, where \
                         `lapstrake run` finds it; `lapstrake save` writes an archive for any engine";

/// Whether an engine is not there at all.
fn nobody_listens(error: &Report) -> bool {
    error.code() == OutputError::NO_ENGINE
}

/// Refuses an index for an engine that knows none, before anything is built.
///
/// # Errors
/// The engine knows no indexes.
pub fn check_engine(resolved: &Resolved, client: &dyn Client) -> Outcome<()> {
    let loads = resolved.outputs.iter().any(|output| matches!(output, Output::Engine { .. }));
    if !loads || !resolved.as_index {
        return Ok(());
    }
    match client.engine()? {
        Addressee { engine: Engine::Docker(socket), named } if named || socket.exists() => {
            if takes_indexes(&socket) {
                return Ok(());
            }
            Err(Usage("docker exporter does not currently support exporting manifest lists".to_owned())
                .into())
        }
        _ => Ok(()),
    }
}

/// BuildKit's name for the step of an output.
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
fn during<T>(step: &Step, part: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    step.status(part, 0, 0, false);
    let done = work()?;
    step.status(part, 0, 0, true);
    Ok(done)
}

/// The layers as the store remembers them: with the digests that the config has.
fn stored_layers(stack: &Stack, image: &Finished) -> Vec<StackLayer> {
    let mut layers = stack.layers.clone();
    for (number, (layer, (_, diff_id))) in layers.iter_mut().zip(&image.layers).enumerate() {
        (layer.diff_id, layer.clamp) = (Some(diff_id.clone()), image.rewritten(number));
    }
    layers
}
