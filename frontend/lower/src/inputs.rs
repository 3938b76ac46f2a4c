//! What a build is asked for, besides the Dockerfile.

use std::collections::{BTreeMap, BTreeSet};

use lapstrake_graph::{NetworkMode, Source, Ulimit};
use lapstrake_oci::{ImageConfig, Platform, Reference};
use lapstrake_tree::ignore::Patterns;

/// Everything that the command line says and that can change the graph. All of it is resolved: nothing here is looked
/// up in an environment or a file any more.
#[derive(Clone, Debug)]
pub struct BuildInputs {
    /// The wanted stage; `None` is the last one.
    pub target: Option<String>,
    /// The wanted platforms; none asked for means the build platform, and images keep the platform they have.
    pub platforms: Vec<Platform>,
    /// What the builder itself runs on.
    pub build_platform: Platform,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// When the source is from that `SOURCE_DATE_EPOCH` names, in seconds since 1970: the answer to
    /// [`epoch_source`](crate::epoch_source). `None`: it has no time.
    pub source_epoch: Option<i64>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--build-context`, by name or by `name::platform`.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`, `--no-cache-filter`
    pub no_cache: NoCache,
    /// `--add-host`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes; 0 is the default.
    pub shm_size: u64,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--network`: what RUN has that does not say.
    pub network: NetworkMode,
    /// The host name that RUN sees; empty is `buildkitsandbox`. `BUILDKIT_SANDBOX_HOSTNAME` wins over it.
    pub hostname: String,
    /// Where the main context is, if it is no directory of the client.
    pub main: Option<Source>,
    /// The directory in [`BuildInputs::main`] that is the context; empty is all of it.
    pub main_subdir: String,
    /// What hides files of the main context.
    pub ignore: Patterns,
    /// The names that local contexts have in the graph, where those are not their own: `context` is the main one. A name is a
    /// part of the keys of steps.
    pub local_names: BTreeMap<String, String>,
}

impl BuildInputs {
    /// Nothing asked for, on this machine.
    pub fn new() -> BuildInputs {
        BuildInputs {
            target: None,
            platforms: Vec::new(),
            build_platform: Platform::host(),
            build_args: BTreeMap::new(),
            source_epoch: None,
            labels: BTreeMap::new(),
            contexts: BTreeMap::new(),
            no_cache: NoCache::No,
            extra_hosts: Vec::new(),
            shm_size: 0,
            ulimits: Vec::new(),
            network: NetworkMode::Default,
            hostname: String::new(),
            main: None,
            main_subdir: String::new(),
            ignore: Patterns::default(),
            local_names: BTreeMap::new(),
        }
    }

    /// The source that the local context `name` is in the graph.
    pub(crate) fn local(&self, name: &str) -> Source {
        Source::Local { name: self.local_names.get(name).map_or(name, String::as_str).to_owned() }
    }

    pub(crate) fn hostname(&self) -> String {
        let argument = self.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty());
        match argument {
            Some(name) => name.clone(),
            None if self.hostname.is_empty() => "buildkitsandbox".to_owned(),
            None => self.hostname.clone(),
        }
    }

    /// The id of a cache mount within the namespace of this build.
    pub(crate) fn cache_id(&self, id: &str) -> String {
        let namespace = self.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        format!("{namespace}/{id}")
    }

    /// The named context that stands for `name`, with its own name. `scratch` and `context` cannot be replaced.
    pub(crate) fn context(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let wanted = familiar(name);
        let mut general = None;
        for (key, context) in &self.contexts {
            match key.split_once("::") {
                Some((name, suffix)) => {
                    let fits = suffix.parse::<Platform>().is_ok_and(|p| p == *platform);
                    if fits && familiar(name) == wanted {
                        return Some((key, context));
                    }
                }
                None if familiar(key) == wanted => general = Some((key.as_str(), context)),
                None => {}
            }
        }
        general
    }
}

impl Default for BuildInputs {
    fn default() -> BuildInputs {
        BuildInputs::new()
    }
}

/// The short form of an image name, without the tag `latest`; other names as they are.
fn familiar(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) => {
            let text = reference.familiar();
            text.strip_suffix(":latest").map(str::to_owned).unwrap_or(text)
        }
        Err(_) => name.to_owned(),
    }
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedContext {
    /// A directory of the client; the source op has the context's name.
    Local,
    /// `docker-image://…`
    Image(Reference),
    /// `oci-layout://…`: a directory of the host, and which image in it.
    Layout {
        /// The directory, absolute.
        path: String,
        /// The tag or digest to look for; the repository has no meaning.
        reference: Reference,
    },
    /// A repository, or a file of the web.
    Remote(Source),
    /// `target:…`: a stage of the same Dockerfile, by name.
    Target(String),
    /// `rootfs://…`: a directory of the host, used as a read-only base.
    Rootfs {
        /// The directory, absolute.
        path: String,
    },
    /// The result of an earlier build.
    Solved {
        /// The result.
        source: Source,
        /// The config of the image that the result is, with all of its history; `None` where it is no image.
        config: Option<Box<ImageConfig>>,
    },
}

/// Which steps run again even if they are cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None of them.
    #[default]
    No,
    /// All of them.
    All,
    /// Those of these stages.
    Stages(BTreeSet<String>),
}

impl NoCache {
    /// Whether it names this stage, in whatever case.
    pub(crate) fn covers(&self, stage: Option<&str>) -> bool {
        match (self, stage) {
            (NoCache::No, _) | (NoCache::Stages(_), None) => false,
            (NoCache::All, _) => true,
            (NoCache::Stages(names), Some(stage)) => {
                names.iter().any(|name| name.eq_ignore_ascii_case(stage))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_found_by_familiar_names() {
        let mut inputs = BuildInputs::new();
        let linux = Platform::new("linux", "amd64", "");
        inputs.contexts.insert("alpine".into(), NamedContext::Local);
        inputs.contexts.insert("base::linux/arm64".into(), NamedContext::Local);
        inputs.contexts.insert("scratch".into(), NamedContext::Local);
        let found = |name: &str| inputs.context(name, &linux).map(|(name, _)| name);
        assert_eq!(found("docker.io/library/alpine:latest"), Some("alpine"));
        assert_eq!(found("alpine:3"), None);
        assert_eq!(found("base"), None);
        assert_eq!(found("Scratch"), None);
        let arm = Platform::new("linux", "arm64", "");
        assert_eq!(inputs.context("base", &arm).map(|(name, _)| name), Some("base::linux/arm64"));
    }
}
