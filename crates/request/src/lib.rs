//! A build request as data: what a command line, a bake file or a client of BuildKit's API asks for.
//!
//! Knows no command line, no environment and no terminal. Values that have a syntax of Docker's (`type=oci,dest=x`) are
//! texts here, because all callers have them as texts. The crate `build` reads them.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A build request. [`BuildRequest::default`] builds the current directory's `Dockerfile` and keeps the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildRequest {
    /// The main context: a directory, a git repository, an address, or `-` for standard input.
    pub context: PathBuf,
    /// The directory in a context from elsewhere that is the context.
    pub context_subdir: Option<String>,
    /// Whether the Dockerfile is a file of the client's, though the context is elsewhere.
    pub local_dockerfile: bool,
    /// The Dockerfile: a path, `-` for standard input, or an address. `Dockerfile` in the context where it is not given.
    pub dockerfile: Option<PathBuf>,
    /// The language of the Dockerfile in place of the one in its first line.
    pub syntax: Option<String>,
    /// The stage to build; the last one where it is not given.
    pub target: Option<String>,
    /// Values of `ARG`, with `SOURCE_DATE_EPOCH` and `BUILDKIT_…` among them.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Platforms with commas between them; this machine's where they are not given.
    pub platforms: Option<String>,
    /// Further contexts, each `NAME=VALUE`.
    pub contexts: Vec<String>,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Outputs in the syntax of `--output`.
    pub outputs: Vec<String>,
    /// Whether images are pushed.
    pub push: bool,
    /// Whether a running Docker or containerd gets the image too.
    pub load: bool,
    /// Whether the caller needs the image's id, which files alone do not have.
    pub needs_id: bool,
    /// Annotations in the syntax of `--annotation`.
    pub annotations: Vec<String>,
    /// Attestations in the syntax of `--attest`, of which none are made yet.
    pub attestations: Vec<String>,
    /// How results of earlier builds are used.
    pub cache: CacheRequest,
    /// Whether registries are asked for base images that are here.
    pub pull: bool,
    /// Permissions and resources of steps.
    pub steps: StepRequest,
    /// How images and downloads are pinned.
    pub pins: PinRequest,
    /// Whether unsupported caches, attestations and builders are left out with a warning, not refused.
    pub ignore_unsupported: bool,
    /// The name of the builder, of which there is one: `default`.
    pub builder: Option<String>,
}

/// How results of earlier builds are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRequest {
    /// Whether all steps run.
    pub disabled: bool,
    /// The stages whose steps run.
    pub disabled_stages: Vec<String>,
    /// Whether all files of contexts are read, not only those whose times or sizes have changed.
    pub read_all_files: bool,
    /// Caches to take results from, in the syntax of `--cache-from`.
    pub from: Vec<String>,
    /// Caches to leave results in, in the syntax of `--cache-to`.
    pub to: Vec<String>,
}

/// Permissions and resources of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRequest {
    /// The network mode of `RUN` without one, in the syntax of `--network`; empty for the default.
    pub network: String,
    /// The meaning of the default mode: `host` or `isolated`; the best that can be had where it is not given.
    pub default_network: Option<String>,
    /// The granted entitlements, by name.
    pub allowed: Vec<String>,
    /// Directories with specs of CDI devices; the usual ones where it is empty.
    pub cdi_dirs: Vec<PathBuf>,
    /// Lines for `/etc/hosts`, each `NAME:ADDRESS`.
    pub hosts: Vec<String>,
    /// The host name that steps see; BuildKit's `buildkitsandbox` where it is not given.
    pub hostname: Option<String>,
    /// The size of `/dev/shm`, in bytes or with a unit.
    pub shm_size: Option<String>,
    /// Limits of processes, each `NAME=SOFT[:HARD]`.
    pub ulimits: Vec<String>,
    /// Limits of containers.
    pub limits: LimitRequest,
    /// Limits of containers as buildx names them, each `KEY=VALUE`.
    pub resources: Vec<String>,
    /// The most bytes of each output of a step that are kept.
    pub output_limit: Option<u64>,
}

/// How images and downloads are pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinRequest {
    /// Whether steps have no network and everything is pinned.
    pub hermetic: bool,
    /// Whether the lock file must have everything already.
    pub locked: bool,
}

/// Limits of a container, as texts in the syntax of `docker run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRequest {
    /// The most memory, in bytes or with a unit.
    pub memory: Option<String>,
    /// Memory and swap together; `-1` for any amount of swap.
    pub memory_swap: Option<String>,
    /// The most processors.
    pub cpus: Option<String>,
    /// The part of the processors' time.
    pub cpu_shares: Option<String>,
    /// The period of [`LimitRequest::cpu_quota`], in microseconds.
    pub cpu_period: Option<String>,
    /// The most time of processors in a period, in microseconds.
    pub cpu_quota: Option<String>,
    /// The processors, as `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes, as `0-3,5`.
    pub cpuset_mems: Option<String>,
    /// The most processes and threads.
    pub pids_limit: Option<u64>,
    /// The control group that the container's group is made in.
    pub cgroup_parent: Option<PathBuf>,
    /// The most bytes a second from a disk, each `DEVICE:BYTES`.
    pub device_read_bps: Vec<String>,
    /// The most bytes a second to a disk, each `DEVICE:BYTES`.
    pub device_write_bps: Vec<String>,
    /// The most reads a second from a disk, each `DEVICE:NUMBER`.
    pub device_read_iops: Vec<String>,
    /// The most writes a second to a disk, each `DEVICE:NUMBER`.
    pub device_write_iops: Vec<String>,
    /// Security options: `no-new-privileges`.
    pub security_opt: Vec<String>,
}

/// The arguments of a file of arguments: a line each, values as they stand, without empty lines and those that begin with `#`.
///
/// # Errors
/// The number of a line that has no name.
pub fn argument_lines(text: &str) -> Result<Vec<String>, usize> {
    let mut found = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or(line);
        if name.is_empty() || name.trim_end().contains(char::is_whitespace) {
            return Err(number + 1);
        }
        found.push(if name.len() == line.len() { line.trim_end().to_owned() } else { line.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_argument_file() {
        let text = "\u{feff}# comment\nA=1 # kept \n\n  B=\"x\"=y\r\nPATHLESS \n";
        let lines = argument_lines(text).unwrap();
        assert_eq!(lines, ["A=1 # kept ", "B=\"x\"=y", "PATHLESS"]);
        assert_eq!(argument_lines("A=1\n=x\n"), Err(2));
        assert_eq!(argument_lines("export A=1"), Err(1));
    }
}
