//! `--cache-from` and `--cache-to`: the build cache shared with other machines.

use std::sync::Arc;

use lapstrake_diag::{Outcome, Report, Usage, text};
use lapstrake_engine::{Key, Progress, StepId};
use lapstrake_oci::{Digest, Reference};
use lapstrake_ops::{
    CacheFrom, CacheImports, Images, ImportedCache, SharedStack, Stack, StackReport, record, shared_key,
    shared_output_key,
};
use lapstrake_outputs::{CacheForm, CacheTo, Layer, LayerForm, SharedStep, export_cache};
use lapstrake_store::Store;

use crate::attrs::absolute;
use crate::client::Client;
use crate::output::{Keys, encoding};
use crate::step_status::status;

/// The part of the cache that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The steps that the result is made of.
    Result,
    /// All steps, those of other stages too.
    Everything,
}

/// A destination of a build's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into the image's config.
    Inline,
    /// To a place of its own.
    Place {
        /// The destination.
        to: CacheTo,
        /// How it is written down.
        form: CacheForm,
        /// The part that goes there.
        scope: Scope,
        /// Whether the build goes on if the cache cannot be written.
        ignore_error: bool,
    },
}

/// Kinds of caches that others have and we do not.
const NOT_YET: [&str; 4] = ["gha", "s3", "azblob", "gs"];

/// Why a cache cannot be used, where it is of a kind that is still to come.
pub(crate) fn not_there_yet(argument: &str) -> Option<String> {
    let (kind, _) = kind_of(argument).ok()?;
    NOT_YET.contains(&kind.as_str()).then(|| unknown(&kind))
}

/// `--cache-from`
pub(crate) fn from(argument: &String) -> Result<CacheFrom, Usage> {
    from_keys(argument).map_err(|why| Usage(format!("--cache-from {argument}: {why}")))
}

fn from_keys(argument: &str) -> Result<CacheFrom, String> {
    let (kind, mut keys) = kind_of(argument)?;
    let from = match kind.as_str() {
        "registry" => {
            let name = keys.take("ref").ok_or("`ref=NAME` is missing")?;
            let reference: Reference = name.parse().map_err(|error| format!("{error}"))?;
            check_insecure(&mut keys, &reference)?;
            CacheFrom::Registry(reference)
        }
        "local" => {
            let dir = keys.take("src").ok_or("`src=DIR` is missing")?;
            let digest = keys.take("digest").map(|digest| digest.parse::<Digest>()).transpose();
            let digest = digest.map_err(|error| error.to_string())?;
            let tag = keys.take("tag");
            if tag.as_deref() == Some("") {
                return Err("`tag=` has no value".to_owned());
            }
            CacheFrom::Local { dir: absolute(dir.as_ref()).map_err(|error| error.0)?, digest, tag }
        }
        "inline" => return Err("name the image that carries it: `type=registry,ref=IMAGE`".to_owned()),
        other => return Err(unknown(other)),
    };
    keys.end(&kind)?;
    Ok(from)
}

/// Takes the key for a registry without TLS. Those of this machine's loopback interface are asked without TLS anyway.
fn check_insecure(keys: &mut Keys, reference: &Reference) -> Result<(), String> {
    let is_asked = keys.flag("registry.insecure")?.unwrap_or(false);
    if !is_asked || lapstrake_registry::is_loopback(reference.registry()) {
        return Ok(());
    }
    let hint = "name other registries without TLS in the settings for registries";
    Err(format!("`registry.insecure` is for the loopback interface: {hint}"))
}

/// The type and the keys; a name alone is one in a registry.
fn kind_of(argument: &str) -> Result<(String, Keys), String> {
    if !argument.contains('=') {
        return Ok(("registry".to_owned(), Keys::parse(&format!("ref={argument}"))?));
    }
    let mut keys = Keys::parse(argument)?;
    let kind = keys.take("type").ok_or("`type=registry|local|inline` is missing")?;
    Ok((kind, keys))
}

/// `--cache-to`
pub(crate) fn to(argument: &String, warnings: &mut Vec<String>) -> Result<Target, Usage> {
    to_keys(argument, warnings).map_err(|why| Usage(format!("--cache-to {argument}: {why}")))
}

fn to_keys(argument: &str, warnings: &mut Vec<String>) -> Result<Target, String> {
    let (kind, mut keys) = kind_of(argument)?;
    let scope = match keys.take("mode").as_deref() {
        None | Some("min") => Scope::Result,
        Some("max") => Scope::Everything,
        Some(other) => return Err(format!("mode `{other}` is neither min nor max")),
    };
    if kind == "inline" {
        keys.end(&kind)?;
        let own = "an image carries only its own layers: `mode=min`";
        return if scope == Scope::Result { Ok(Target::Inline) } else { Err(own.to_owned()) };
    }
    let to = match kind.as_str() {
        "registry" => {
            let name = keys.take("ref").ok_or("`ref=NAME` is missing")?;
            let reference = Reference::new_name(&name).map_err(|error| format!("{error}"))?;
            check_insecure(&mut keys, &reference)?;
            CacheTo::Registry(reference)
        }
        "local" => {
            let dir = keys.take("dest").ok_or("`dest=DIR` is missing")?;
            let tag = keys.take("tag").unwrap_or_else(|| "latest".to_owned());
            CacheTo::Local { dir: absolute(dir.as_ref()).map_err(|error| error.0)?, tag }
        }
        other => return Err(unknown(other)),
    };
    let ignore_error = keys.flag("ignore-error")?.unwrap_or(false);
    let manifest = keys.flag("image-manifest")?;
    let mut form = CacheForm::default();
    encoding(&mut keys, &mut form.encoding)?;
    warnings.extend(keys.end(&kind)?);
    if form.encoding.form == LayerForm::Estargz {
        return Err("`compression=estargz` is for images: a cache's layers keep their digests".to_owned());
    }
    if form.encoding.docker_types && manifest == Some(true) {
        return Err("an image manifest needs the types of the OCI".to_owned());
    }
    form.as_index = !manifest.unwrap_or(!form.encoding.docker_types);
    Ok(Target::Place { to, form, scope, ignore_error })
}

fn unknown(kind: &str) -> String {
    if NOT_YET.contains(&kind) {
        format!("caches of type `{kind}` are not supported yet: use `registry`, `local` or `inline`")
    } else {
        format!("unknown cache type `{kind}`: use `registry`, `local` or `inline`")
    }
}

/// Reads the caches, and says of each what it has, or why not: a build goes on without it.
pub(crate) async fn imports(
    from: &[CacheFrom],
    images: &Arc<Images>,
    (client, progress): (&dyn Client, &Progress),
) -> Option<CacheImports> {
    let mut found: Vec<ImportedCache> = Vec::new();
    for (number, from) in from.iter().enumerate() {
        let place = match from {
            CacheFrom::Registry(reference) => reference.familiar(),
            CacheFrom::Local { dir, .. } => dir.display().to_string(),
        };
        let name = format!("importing cache from {place}");
        let step = progress.start(StepId(format!("internal:import:{number}")), &name);
        let import = match placed(from, client) {
            Ok(from) => images.import_cache(&from).await.map_err(|error| text(&error)),
            Err(report) => Err(report.to_string()),
        };
        let told = match &import {
            Ok(import) => format!("found {} results", import.len()),
            Err(why) => format!("cannot be used: {why}"),
        };
        step.status(&told, 0, 0, true);
        step.complete(false, None);
        found.extend(import.ok());
    }
    (!found.is_empty()).then(|| CacheImports::new(images.clone(), found, progress.clone()))
}

/// The cache with its place on this machine.
fn placed(from: &CacheFrom, client: &dyn Client) -> Outcome<CacheFrom> {
    Ok(match from {
        CacheFrom::Local { dir, digest, tag } => {
            let dir = client.layout(dir, digest.as_ref())?;
            CacheFrom::Local { dir, digest: digest.clone(), tag: tag.clone() }
        }
        registry @ CacheFrom::Registry(_) => registry.clone(),
    })
}

/// The steps of a build that others may take, in the order of the report.
pub(crate) fn shared(
    store: &Store,
    report: &[StackReport],
    results: &[&Stack],
    scope: Scope,
) -> Vec<SharedStep> {
    // What stands on a directory of this machine is of no use elsewhere.
    let here = |stack: &Stack| stack.below.is_some() || !stack.binds.is_empty() || stack.local.is_some();
    let in_result = |stack: &Stack| results.iter().any(|result| result.layers.starts_with(&stack.layers));
    let wanted = |stack: &Stack| !here(stack) && (scope == Scope::Everything || in_result(stack));
    let mut steps = Vec::with_capacity(report.len());
    let mut outputs = Vec::new();
    for (place, step) in report.iter().enumerate() {
        let key = step.key.as_ref().map_or_else(|| Digest::sha256(step.digest.as_bytes()), shared_key);
        let stack =
            step.key.as_ref().filter(|_| !step.inputs.is_empty()).and_then(|key| stack(store, step, key));
        let layers = match stack {
            Some(stack) if stack.outputs.is_empty() && wanted(&stack) => shared_layers(&stack),
            Some(stack) if !stack.outputs.is_empty() => {
                let all: Vec<&Stack> = std::iter::once(&*stack).chain(&stack.outputs).collect();
                // A cache has all outputs of a step, or none.
                if !all.iter().any(|output| here(output)) && all.iter().any(|output| wanted(output)) {
                    outputs.extend((0..).zip(&all).map(|(number, output)| SharedStep {
                        key: shared_output_key(&key, number),
                        inputs: vec![place],
                        layers: shared_layers(output),
                    }));
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        steps.push(SharedStep { key, inputs: step.inputs.clone(), layers });
    }
    // Behind the others, whose places are the inputs of steps.
    steps.extend(outputs.into_iter().filter(|output| !output.layers.is_empty()));
    steps
}

fn shared_layers(stack: &Stack) -> Vec<Layer> {
    let layers = stack.layers.iter().cloned();
    layers.map(|layer| Layer { id: layer.id, diff_id: layer.diff_id, clamp: layer.clamp }).collect()
}

/// The result of a step; of one that was passed over because a later one was cached, what its record says.
fn stack(store: &Store, step: &StackReport, key: &Key) -> Option<SharedStack> {
    let recorded = || Some(record(store, key)?.result.value);
    let stack = step.result.clone().or_else(recorded)?;
    stack.layer_ids().iter().all(|id| store.has_layer(id)).then_some(stack)
}

/// Writes the cache everywhere it is to go.
pub(crate) async fn export(
    targets: &[Target],
    (store, images): (&Arc<Store>, &Images),
    (report, results): (&[StackReport], &[&Stack]),
    (caller, progress): (&dyn Client, &Progress),
) -> Outcome<()> {
    for (number, target) in targets.iter().enumerate() {
        let Target::Place { to, form, scope, ignore_error } = target else { continue };
        let name = match to {
            CacheTo::Registry(name) => format!("exporting cache to registry {}", name.familiar()),
            CacheTo::Local { dir, .. } => format!("exporting cache to {}", dir.display()),
        };
        let step = progress.start(StepId(format!("internal:cache-export:{number}")), &name);
        let steps = shared(store, report, results, *scope);
        let client = match to {
            CacheTo::Registry(_) => Some(images.client().await?),
            CacheTo::Local { .. } => None,
        };
        let exporting = async {
            let to = &match to {
                CacheTo::Local { dir, tag } => {
                    CacheTo::Local { dir: caller.layout(dir, None)?, tag: tag.clone() }
                }
                registry @ CacheTo::Registry(_) => registry.clone(),
            };
            Ok::<_, Report>(export_cache(store, client, &steps, to, form, status(&step)).await?)
        };
        let mut done = exporting.await;
        if let CacheTo::Local { dir, .. } = to {
            done = done.and_then(|told| caller.layout_written(dir).map(|()| told));
        }
        if let Ok((digest, count)) = &done {
            step.status(&format!("writing cache manifest {digest} of {count} results"), 0, 0, true);
        }
        step.complete(false, done.as_ref().err().map(ToString::to_string));
        match done {
            Err(error) if !ignore_error => {
                let hint = "`ignore-error=true` in --cache-to lets the build go on without it";
                return Err(error.context(name).with_hint(hint));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_of(text: &str) -> Result<Target, String> {
        to(&text.to_owned(), &mut Vec::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn places() {
        let from = |text: &str| from(&text.to_owned()).map_err(|error| error.to_string());
        assert!(matches!(from("localhost:5000/c:x"), Ok(CacheFrom::Registry(_))));
        assert!(matches!(from("type=registry,ref=c"), Ok(CacheFrom::Registry(_))));
        assert!(
            matches!(from("type=local,src=/c,tag=t"), Ok(CacheFrom::Local { tag, .. }) if tag.as_deref() == Some("t"))
        );
        for bad in
            ["type=local", "type=registry", "type=gha", "type=nosuch", "type=local,src=/c,x=y", "type=inline"]
        {
            assert!(from(bad).unwrap_err().starts_with("--cache-from"), "{bad}");
        }
    }

    #[test]
    fn targets() {
        assert_eq!(to_of("type=inline"), Ok(Target::Inline));
        let Ok(Target::Place { form, scope, ignore_error, .. }) =
            to_of("type=local,dest=/c,mode=max,compression=zstd,image-manifest=false,ignore-error=true")
        else {
            panic!()
        };
        assert_eq!((scope, ignore_error, form.as_index), (Scope::Everything, true, true));
        for bad in [
            "type=inline,mode=max",
            "type=inline,ref=x",
            "mode=max",
            "type=local",
            "type=s3,ref=x",
            "type=registry,ref=x,mode=all",
            "type=registry,ref=x,oci-mediatypes=false,image-manifest=true",
            "type=registry,ref=x,no=thing",
        ] {
            assert!(to_of(bad).unwrap_err().starts_with("--cache-to"), "{bad}");
        }
    }
}
