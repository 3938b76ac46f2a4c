//! Where a build's result goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lapstrake_graph::Target;
use lapstrake_oci::{Digest, Reference};
use lapstrake_ops::Stack;
use lapstrake_outputs::{Finished, Flavour, Layer, assemble, keep, write_archive, write_files, write_rootfs};
use lapstrake_snapshot::mount;
use lapstrake_store::Store;

use super::options::Output;
use super::wanted::Wanted;
use crate::args::Build;
use crate::exit::{Told, Usage};

/// Exports to all outputs; gives the image id, if one of them is an image.
pub(crate) fn export(
    args: &Build,
    wanted: &Wanted,
    store: &Store,
    target: &Target,
    stack: &Stack,
) -> anyhow::Result<Option<Digest>> {
    if stack.below.is_some() || !stack.binds.is_empty() {
        let text =
            "the result stands on a `rootfs://` directory of this machine, which is no part of any image";
        let hint = "copy what is needed into a stage of its own: `FROM scratch` and `COPY --from=…`";
        return Err(Told { text: text.to_owned(), hint: Some(hint.to_owned()), status: 1 }.into());
    }
    let mut id = None;
    for output in &wanted.outputs {
        let image = one(args, &wanted.names, store, target, stack, output)?;
        id = id.or(image);
    }
    Ok(id)
}

fn one(
    args: &Build,
    names: &[Reference],
    store: &Store,
    target: &Target,
    stack: &Stack,
    output: &Output,
) -> anyhow::Result<Option<Digest>> {
    let layers: Vec<Layer> = stack
        .layers
        .iter()
        .map(|layer| Layer { id: layer.id.clone(), diff_id: layer.diff_id.clone() })
        .collect();
    match output {
        Output::Image { names: more, rewrite } => {
            let image = assemble(store, &target.image, &layers, *rewrite)?;
            let names = named(names, more)?;
            keep(store, &image, tokens(stack, &image), &names)?;
            metadata(args, &image, &names, None)?;
            Ok(Some(image.document.digest))
        }
        Output::Archive { docker, dest, names: more, rewrite } => {
            let image = assemble(store, &target.image, &layers, *rewrite)?;
            let names = named(names, more)?;
            let flavour = if *docker { Flavour::Docker } else { Flavour::Oci };
            let manifest =
                to_file(dest.as_deref(), |out| Ok(write_archive(store, &image, &names, flavour, out)?))?;
            metadata(args, &image, &names, Some(&manifest))?;
            Ok(Some(image.document.digest))
        }
        Output::Tar(dest) => {
            let root = root(store, stack)?;
            to_file(dest.as_deref(), |out| Ok(write_rootfs(root.as_fd(), target.image.epoch, out)?))?;
            Ok(None)
        }
        Output::Local(dest) => {
            fs::create_dir_all(dest).with_context(|| format!("cannot create `{}`", dest.display()))?;
            write_files(root(store, stack)?.as_fd(), dest)?;
            Ok(None)
        }
    }
}

fn named(names: &[Reference], more: &[String]) -> anyhow::Result<Vec<Reference>> {
    let mut all = names.to_vec();
    for name in more {
        all.push(name.parse().map_err(|e| Usage(format!("invalid name `{name}`: {e}")))?);
    }
    Ok(all)
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
fn to_file<T>(
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
