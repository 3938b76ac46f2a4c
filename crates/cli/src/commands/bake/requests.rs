//! A target as a build request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_bake::{OutputEntry, Target};
use lapstrake_build::{Client, attrs, is_remote};
use lapstrake_diag::{Context as _, Outcome, Report, Usage};
use lapstrake_go::path::clean;
use lapstrake_request::{BuildRequest, CacheRequest, PinRequest, StepRequest};

use crate::args::bake::Bake;
use crate::client::{self, LocalClient};
use crate::env;

/// The prefix of a directory of the command line, where the definition is elsewhere.
const HERE: &str = "cwd://";

/// The scheme of a context that is another target.
const TARGET: &str = "target:";

/// Settles the main context of `target`: a directory, a repository, or a part of the repository `remote` of the definition.
pub(super) fn place(target: &mut Target, remote: Option<&str>) -> Outcome<()> {
    let name = &target.name;
    let context = target.context.clone().unwrap_or_else(|| ".".to_owned());
    if context == "-" || target.dockerfile.as_deref() == Some("-") {
        return Err(Report::new(format!(
            "target {name}: context and Dockerfile cannot come from standard input in bake"
        )));
    }
    target.context = Some(placed(&context, remote));
    for value in target.contexts.values_mut() {
        let special = value.contains("://") && !value.starts_with(HERE) || value.starts_with(TARGET);
        if remote.is_some() && !special {
            *value = placed(value, remote);
        }
    }
    Ok(())
}

fn placed(path: &str, remote: Option<&str>) -> String {
    match (path.strip_prefix(HERE), remote) {
        (Some(here), _) => clean(here),
        (None, _) if is_remote(path) => path.to_owned(),
        (None, Some(remote)) => below(remote, &clean(path)),
        (None, None) => clean(path),
    }
}

/// The directory `dir` of a repository: `REMOTE#REFERENCE:DIR`.
fn below(remote: &str, dir: &str) -> String {
    if dir == "." {
        return remote.to_owned();
    }
    let (address, fragment) = remote.split_once('#').unwrap_or((remote, ""));
    let (reference, outer) = fragment.split_once(':').unwrap_or((fragment, ""));
    let dir = if outer.is_empty() { dir.to_owned() } else { clean(&format!("{outer}/{dir}")) };
    format!("{address}#{reference}:{dir}")
}

/// A target that is ready to be built.
pub(super) struct Baking {
    pub(super) request: BuildRequest,
    pub(super) client: Arc<dyn Client>,
    /// The names of the targets that are contexts of this one.
    pub(super) links: Vec<String>,
}

/// The name of the image of a target that is a context of others. Names below `.invalid` are in no registry (RFC 2606).
pub(super) fn linked_name(target: &str) -> String {
    format!("bake.invalid/process-{}/{}:latest", std::process::id(), target.to_lowercase())
}

impl Baking {
    /// The request and the client of `target`.
    ///
    /// # Errors
    /// A field has no meaning here, or a secret is not there.
    pub(super) fn of(args: &Bake, target: &Target) -> Outcome<Baking> {
        let name = &target.name;
        let in_target = |error: Report| error.context(format!("target {name}"));
        if target.policy.as_ref().is_some_and(|policy| !policy.is_empty()) {
            let text =
                format!("target {name}: `policy` is not supported yet: remove it, or build with buildx");
            return Err(Report::new(text));
        }
        let context = target.context.clone().unwrap_or_else(|| ".".to_owned());
        let (dockerfile, inline) = dockerfile(target, &context).map_err(in_target)?;
        let texts = |list: Option<Vec<String>>| list.unwrap_or_default();
        let secrets = texts(
            target.secret.as_ref().map(|all| all.iter().map(lapstrake_bake::SecretEntry::text).collect()),
        );
        let agents =
            texts(target.ssh.as_ref().map(|all| all.iter().map(lapstrake_bake::SshEntry::text).collect()));
        let client = LocalClient::with(&secrets, &agents, inline).map_err(|error| in_target(error.into()))?;
        let given = |pairs: &lapstrake_bake::Pairs| {
            pairs.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
        };
        let platforms = target.platforms.as_ref().filter(|list| !list.is_empty()).map(|list| list.join(","));
        let request = BuildRequest {
            context: PathBuf::from(&context),
            dockerfile,
            target: target.target.clone(),
            build_args: given(&target.args),
            labels: given(&target.labels),
            platforms: platforms.or_else(env::default_platform),
            contexts: contexts(target),
            tags: texts(target.tags.clone()),
            outputs: target.output.iter().flatten().map(OutputEntry::text).collect(),
            annotations: texts(target.annotations.clone()),
            attestations: target.attest.iter().flatten().map(lapstrake_bake::AttestEntry::text).collect(),
            cache: CacheRequest {
                disabled: target.no_cache == Some(true),
                disabled_stages: texts(target.no_cache_filter.clone()),
                from: target.cache_from.iter().flatten().map(lapstrake_bake::CacheEntry::text).collect(),
                to: target.cache_to.iter().flatten().map(lapstrake_bake::CacheEntry::text).collect(),
                ..CacheRequest::default()
            },
            pull: target.pull == Some(true),
            steps: steps(target),
            pins: PinRequest::default(),
            ignore_unsupported: args.ignore_unsupported || client::ignores_unsupported()?,
            builder: args.builder.clone(),
            ..BuildRequest::default()
        };
        let links =
            target.contexts.values().filter_map(|value| value.strip_prefix(TARGET)).map(str::to_owned);
        Ok(Baking { request, client, links: links.collect() })
    }
}

/// The named contexts as `--build-context` takes them. Other targets are images.
fn contexts(target: &Target) -> Vec<String> {
    let context =
        |(name, value): (&String, &String)| match (value.strip_prefix(TARGET), value.strip_prefix(HERE)) {
            (Some(other), _) => format!("{name}=docker-image://{}", linked_name(other)),
            (None, Some(here)) => format!("{name}={}", clean(here)),
            (None, None) => format!("{name}={value}"),
        };
    target.contexts.iter().map(context).collect()
}

fn steps(target: &Target) -> StepRequest {
    let host = |(name, addresses): (&String, &Option<String>)| -> Vec<String> {
        let addresses = addresses.iter().flat_map(|all| all.split(','));
        addresses.map(|address| format!("{name}:{address}")).collect()
    };
    StepRequest {
        network: target.network.clone().unwrap_or_else(|| "default".to_owned()),
        default_network: env::network(),
        allowed: target.entitlements.clone().unwrap_or_default(),
        hosts: target.extra_hosts.iter().flat_map(host).collect(),
        shm_size: target.shm_size.clone(),
        ulimits: target.ulimits.clone().unwrap_or_default(),
        resources: target.resources.as_ref().map(lapstrake_bake::Resources::texts).unwrap_or_default(),
        output_limit: env::log_limit(),
        ..StepRequest::default()
    }
}

/// The Dockerfile as `--file` names it, and its text where it comes from here.
fn dockerfile(target: &Target, context: &str) -> Outcome<(Option<PathBuf>, Option<String>)> {
    if let Some(text) = &target.dockerfile_inline {
        return Ok((Some(PathBuf::from("-")), Some(text.clone())));
    }
    let name = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    let remote = is_remote(context);
    if let Some(here) = name.strip_prefix(HERE) {
        let path = attrs::absolute(Path::new(&clean(here)))?;
        if !remote {
            return Ok((Some(path), None));
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        return Ok((Some(PathBuf::from("-")), Some(text)));
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Ok((Some(PathBuf::from(name)), None));
    }
    match clean(name) {
        name if name == "Dockerfile" => Ok((None, None)),
        name if remote || Path::new(&name).is_absolute() => Ok((Some(PathBuf::from(name)), None)),
        name => Ok((Some(Path::new(context).join(name)), None)),
    }
}

/// The output that keeps the image of a target for others.
pub(super) fn keep_for_others(request: &mut BuildRequest, target: &Target) {
    let kept = OutputEntry {
        attributes: [("name".to_owned(), linked_name(&target.name))].into(),
        ..OutputEntry::of_kind("image")
    };
    if target.linked {
        request.outputs.clear();
    } else if request.outputs.is_empty() && !request.push && !request.load {
        request.outputs.push("type=image".to_owned());
    }
    if target.linked {
        // The target's own names are for its own outputs.
        request.tags.clear();
    }
    request.outputs.push(kept.text());
}

/// A value that cannot be.
pub(super) fn usage(text: String) -> Report {
    Usage(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_contexts() {
        for (path, remote, wanted) in [
            ("./a/../b", None, "b"),
            ("cwd://", Some("https://host/x.git"), "."),
            ("cwd://dir", None, "dir"),
            (".", Some("https://host/x.git#main"), "https://host/x.git#main"),
            ("sub", Some("https://host/x.git#main"), "https://host/x.git#main:sub"),
            ("sub", Some("https://host/x.git#main:top"), "https://host/x.git#main:top/sub"),
            ("sub", Some("https://host/x.git"), "https://host/x.git#:sub"),
            ("https://host/y.git", Some("https://host/x.git"), "https://host/y.git"),
        ] {
            assert_eq!(placed(path, remote), wanted, "{path} {remote:?}");
        }
    }
}
