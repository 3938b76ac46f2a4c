//! Where a build's result goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_graph::Target;
use lapstrake_oci::{Digest, Reference};
use lapstrake_ops::{Images, Stack};
use lapstrake_outputs::{
    Finished, Flavour, Layer, Push, Saved, assemble, keep, write_archive, write_files, write_rootfs,
};
use lapstrake_snapshot::mount;
use lapstrake_store::Store;

use super::options::{ImageOutput, Output, PushTo};
use super::push::status;
use super::wanted::Wanted;
use crate::args::Build;
use crate::exit::{Told, Usage};

/// What is exported.
pub(crate) struct Export<'a> {
    /// What was typed.
    pub(crate) args: &'a Build,
    /// What that means.
    pub(crate) wanted: &'a Wanted,
    /// Where the layers are.
    pub(crate) store: &'a Arc<Store>,
    /// Who talks to registries.
    pub(crate) images: &'a Images,
    /// The image without its layers.
    pub(crate) target: &'a Target,
    /// The layers.
    pub(crate) stack: &'a Stack,
}

impl Export<'_> {
    /// Exports to all outputs; gives the image id, if one of them is an image.
    pub(crate) fn run(&self, progress: &Progress) -> anyhow::Result<Option<Digest>> {
        if self.stack.below.is_some() || !self.stack.binds.is_empty() {
            let text =
                "the result stands on a `rootfs://` directory of this machine, which is no part of any image";
            let hint = "copy what is needed into a stage of its own: `FROM scratch` and `COPY --from=…`";
            return Err(Told { text: text.to_owned(), hint: Some(hint.to_owned()), status: 1 }.into());
        }
        let mut id = None;
        for (number, output) in self.wanted.outputs.iter().enumerate() {
            let step = progress.start(StepId(format!("internal:export:{number}")), title(output));
            let image = self.one(output, &step);
            step.complete(false, image.as_ref().err().map(ToString::to_string));
            id = id.or(image?);
        }
        Ok(id)
    }

    fn one(&self, output: &Output, step: &Step) -> anyhow::Result<Option<Digest>> {
        let Self { args, store, target, stack, .. } = *self;
        match output {
            Output::Image { image: asked, push } => {
                let image = self.image(asked, step)?;
                let names = self.names(&asked.names)?;
                let writing = format!("writing image {}", image.document.digest);
                during(step, &writing, || Ok(keep(store, &image, tokens(stack, &image), &names)?))?;
                for name in &names {
                    step.status(&format!("naming to {name}"), 0, 0, true);
                }
                let id = image.document.digest.clone();
                let manifest = match push {
                    Some(to) => Some(self.push(&Arc::new(image.clone()), asked, *to, step)?),
                    None => None,
                };
                metadata(args, &image, &names, manifest.as_ref())?;
                Ok(Some(id))
            }
            Output::Archive { docker, dest, image: asked } => {
                let image = self.image(asked, step)?;
                let names = self.names(&asked.names)?;
                let flavour = if *docker { Flavour::Docker } else { Flavour::Oci };
                step.status(&format!("exporting config {}", image.document.digest), 0, 0, true);
                let manifest = during(step, "sending tarball", || {
                    to_file(dest.as_deref(), |out| {
                        let saved = [Saved { image: &image, names: &names }];
                        Ok(write_archive(store, &saved, flavour, &asked.encoding, out)?)
                    })
                })?;
                let manifest = manifest.into_iter().next().context("nothing was written")?.digest;
                metadata(args, &image, &names, Some(&manifest))?;
                Ok(Some(image.document.digest))
            }
            Output::Tar(dest) => during(step, "sending tarball", || {
                let root = root(store, stack)?;
                to_file(dest.as_deref(), |out| Ok(write_rootfs(root.as_fd(), target.image.epoch, out)?))?;
                Ok(None)
            }),
            Output::Local(dest) => during(step, "copying files", || {
                fs::create_dir_all(dest).with_context(|| format!("cannot create `{}`", dest.display()))?;
                write_files(root(store, stack)?.as_fd(), dest)?;
                Ok(None)
            }),
        }
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
        during(step, "exporting layers", || Ok(assemble(self.store, &draft, &layers, asked.rewrite)?))
    }

    /// Pushes the image under all of its names, and gives the digest of its manifest.
    fn push(
        &self,
        image: &Arc<Finished>,
        asked: &ImageOutput,
        to: PushTo,
        step: &Step,
    ) -> anyhow::Result<Digest> {
        let names = self.names(&asked.names)?;
        if names.is_empty() {
            return Err(Usage("there is no name to push the image to: give one with `-t`".to_owned()).into());
        }
        let pushed = tokio::runtime::Handle::current().block_on(async {
            let client = self.images.client().await?;
            let (store, status) = (self.store, status(step));
            let push = Push { store, client, image, encoding: &asked.encoding, status };
            Ok::<_, anyhow::Error>(push.run(&names, to == PushTo::Digest).await?)
        });
        Ok(pushed?.digest)
    }

    fn names(&self, more: &[String]) -> anyhow::Result<Vec<Reference>> {
        let mut all = self.wanted.names.clone();
        for name in more {
            all.push(name.parse().map_err(|e| Usage(format!("invalid name `{name}`: {e}")))?);
        }
        Ok(all)
    }
}

/// What the step of an output is called, in BuildKit's words.
fn title(output: &Output) -> &'static str {
    match output {
        Output::Image { .. } => "exporting to image",
        Output::Archive { docker: true, .. } => "exporting to docker image format",
        Output::Archive { docker: false, .. } => "exporting to oci image format",
        Output::Tar(_) => "exporting to client tarball",
        Output::Local(_) => "exporting to client directory",
    }
}

/// Does a part of a step, and shows how long it takes.
fn during<T>(step: &Step, part: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    step.status(part, 0, 0, false);
    let done = work()?;
    step.status(part, 0, 0, true);
    Ok(done)
}

fn root(store: &Store, stack: &Stack) -> anyhow::Result<OwnedFd> {
    let mut lowers = stack.lowers(store);
    if lowers.is_empty() {
        let empty = store.root().join("empty");
        fs::create_dir_all(&empty).with_context(|| format!("cannot create `{}`", empty.display()))?;
        lowers.push(empty);
    }
    Ok(mount(&lowers, None)?)
}

/// The layers as the store remembers them: with the digests that the config has.
fn tokens(stack: &Stack, image: &Finished) -> String {
    let mut layers = stack.layers.clone();
    if image.clamp.is_none() {
        for (layer, (_, diff_id)) in layers.iter_mut().zip(&image.layers) {
            layer.diff_id.get_or_insert_with(|| diff_id.clone());
        }
    }
    String::from_utf8_lossy(&lapstrake_oci::to_json(&layers)).into_owned()
}

/// Writes a file whole or not at all; without a path, to standard output.
pub(super) fn to_file<T>(
    dest: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(dest) = dest else {
        let mut out = BufWriter::new(io::stdout().lock());
        let result = write(&mut out)?;
        out.flush()?;
        return Ok(result);
    };
    let mut partial = dest.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = || format!("cannot write `{}`", dest.display());
    let result = (|| {
        let mut out = BufWriter::with_capacity(256 << 10, File::create(&partial).with_context(failed)?);
        let result = write(&mut out).with_context(failed)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&partial, dest).with_context(failed)?;
        Ok(result)
    })();
    if result.is_err() {
        // What is half-written must not stay; if it cannot go, the first error is the one to tell.
        fs::remove_file(&partial).unwrap_or_default();
    }
    result
}

fn metadata(
    args: &Build,
    image: &Finished,
    names: &[Reference],
    manifest: Option<&Digest>,
) -> anyhow::Result<()> {
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    found.insert("containerimage.config.digest", image.document.digest.to_string());
    if let Some(manifest) = manifest {
        found.insert("containerimage.digest", manifest.to_string());
    }
    if !names.is_empty() {
        found.insert("image.name", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    }
    let bytes = lapstrake_oci::to_json_indented(&found);
    fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}
