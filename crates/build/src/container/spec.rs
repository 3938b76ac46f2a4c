//! From a container's request and the image's config to the sandbox's settings.

use std::collections::BTreeMap;

use lapstrake_diag::{Outcome, Usage};
use lapstrake_oci::ContainerConfig;
use lapstrake_runtime::{Capabilities, Network, Resource, Rlimit, RunSpec, User};
use lapstrake_snapshot::Active;
use lapstrake_tree::inroot::Root;
use lapstrake_tree::users::resolve_user;

use super::ContainerRequest;
use crate::attrs;

/// Settings whose texts need no image to be read.
pub struct Overrides {
    capabilities: Capabilities,
    raw_sockets: bool,
    rlimits: Vec<Rlimit>,
    extra_hosts: Vec<(String, String)>,
    shm_size: Option<u64>,
    hostname: Option<String>,
    readonly_root: bool,
    init: bool,
}

impl Overrides {
    /// Reads the texts.
    ///
    /// # Errors
    /// A text that cannot be read.
    pub fn read(request: &ContainerRequest) -> Result<Self, Usage> {
        if let Some(name) = &request.name {
            container_name(name)?;
        }
        Ok(Self {
            capabilities: capabilities(&request.added_capabilities, &request.dropped_capabilities)?,
            raw_sockets: request
                .added_capabilities
                .iter()
                .any(|name| Capabilities::from_name(name) == Some(Capabilities::NET_RAW)),
            rlimits: request.ulimits.iter().map(rlimit).collect::<Result<_, _>>()?,
            extra_hosts: request.hosts.iter().map(attrs::host).collect::<Result<_, _>>()?,
            shm_size: request.shm_size.as_deref().map(attrs::size).transpose()?.filter(|size| *size > 0),
            hostname: request.hostname.clone().filter(|name| !name.is_empty()),
            readonly_root: request.readonly_root,
            init: request.init,
        })
    }

    /// Puts them into `spec`, which has its network.
    ///
    /// # Errors
    /// A capability is of no use in that network.
    pub fn apply(self, spec: &mut RunSpec) -> Result<(), Usage> {
        if self.raw_sockets && spec.network == Network::Host {
            let why = "the host's network gives no raw sockets: `--network isolated` does";
            return Err(Usage(format!("--cap-add NET_RAW: {why}")));
        }
        spec.capabilities = self.capabilities;
        spec.rlimits = self.rlimits;
        spec.extra_hosts = self.extra_hosts;
        spec.shm_size = self.shm_size.unwrap_or(spec.shm_size);
        spec.hostname = self.hostname.unwrap_or_else(|| spec.hostname.clone());
        spec.readonly_root = self.readonly_root;
        spec.init = self.init;
        Ok(())
    }
}

/// Docker's rule for names of containers.
fn container_name(name: &str) -> Result<(), Usage> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let other = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let good = plain.len() > 1
        && plain.len() <= 200
        && plain.starts_with(|c: char| c.is_ascii_alphanumeric())
        && plain.chars().all(other);
    let rule = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    if good { Ok(()) } else { Err(Usage(format!("invalid container name ({name}), {rule}"))) }
}

/// Capabilities whose calls the filter of system calls refuses, or that would leave files which nobody can remove.
const FILTERED: [&str; 14] = [
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
];

/// `--cap-add` and `--cap-drop`. As in Docker, `ALL` comes first and single names change it.
fn capabilities(add: &[String], drop: &[String]) -> Result<Capabilities, Usage> {
    let is_all = |name: &String| matches!(name.to_ascii_uppercase().as_str(), "ALL" | "CAP_ALL");
    let find = |flag: &str, name: &str| {
        let unknown = || Usage(format!("{flag} {name}: unknown capability"));
        Capabilities::from_name(name).ok_or_else(unknown)
    };
    let mut set = Capabilities::DEFAULT;
    if let Some(name) = add.iter().find(|name| is_all(name)) {
        let why = "the filter of system calls stays, so not all can be had: name those that are needed";
        return Err(Usage(format!("--cap-add {name}: {why}")));
    }
    if drop.iter().any(is_all) {
        set = Capabilities::NONE;
    }
    for name in add {
        let one = find("--cap-add", name)?;
        if FILTERED.iter().any(|name| Capabilities::from_name(name) == Some(one)) {
            let why = "the system call filter of `lapstrake run` refuses its calls";
            return Err(Usage(format!("--cap-add {name}: {why}")));
        }
        set = set.with(one);
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set = set.without(find("--cap-drop", name)?);
    }
    Ok(set)
}

/// `--ulimit`
fn rlimit(text: &String) -> Result<Rlimit, Usage> {
    let limit = attrs::ulimit(text)?;
    let resource = Resource::from_name(&limit.name)
        .ok_or_else(|| Usage(format!("--ulimit {text}: unknown limit `{}`", limit.name)))?;
    let value = |number: i64| u64::try_from(number).ok();
    Ok(Rlimit { resource, soft: value(limit.soft), hard: value(limit.hard) })
}

/// The command, its directory, its user and its variables. `env` gives the caller's variables, which win over the image's.
///
/// # Errors
/// There is no command or no such user, or `env` fails.
pub fn spec(
    request: &ContainerRequest,
    config: &ContainerConfig,
    env: impl FnOnce() -> Result<BTreeMap<String, String>, Usage>,
    active: &Active,
) -> Outcome<RunSpec> {
    let command = command(request, config);
    if command.is_empty() {
        return Err(Usage(format!("image `{}` has no command: name one", request.image)).into());
    }
    let root = active.root();
    let ids = resolve_user(&Root::new(&root), request.user.as_ref().unwrap_or(&config.user))?;
    let mut spec = RunSpec::new(command);
    if !config.env.is_empty() {
        spec.env.clone_from(&config.env);
    }
    for (key, value) in env()? {
        spec.env.retain(|pair| pair.split('=').next() != Some(&key));
        spec.env.push(format!("{key}={value}"));
    }
    if !spec.env.iter().any(|pair| pair.starts_with("HOME=")) {
        spec.env.push(format!("HOME={}", ids.home));
    }
    if request.terminal.is_some() && !spec.env.iter().any(|pair| pair.starts_with("TERM=")) {
        spec.env.push("TERM=xterm".to_owned());
    }
    let cwd = request.workdir.as_ref().unwrap_or(&config.working_dir);
    spec.cwd = if cwd.is_empty() { "/".to_owned() } else { cwd.clone() };
    spec.user = User { uid: ids.uid, gid: ids.gid, groups: ids.groups };
    spec.terminal = request.terminal;
    spec.hostname = "lapstrake".to_owned();
    Ok(spec)
}

/// The entry point and its arguments. One that the command line names takes the image's command away, as in Docker.
fn command(request: &ContainerRequest, config: &ContainerConfig) -> Vec<String> {
    let mut command: Vec<String> = match request.entrypoint.as_deref() {
        Some("") => Vec::new(),
        Some(entrypoint) => vec![entrypoint.to_owned()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    if request.command.is_empty() && request.entrypoint.is_none() {
        command.extend(config.cmd.clone().unwrap_or_default());
    } else {
        command.extend(request.command.iter().cloned());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Result<Capabilities, String> {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        capabilities(&all(add), &all(drop)).map_err(|error| error.0)
    }

    fn one(name: &str) -> Capabilities {
        Capabilities::from_name(name).unwrap()
    }

    #[test]
    fn capabilities_as_docker_reads_them() {
        assert_eq!(set(&[], &[]), Ok(Capabilities::DEFAULT));
        assert_eq!(set(&[], &["all"]), Ok(Capabilities::NONE));
        assert_eq!(set(&["net_bind_service"], &["ALL"]), Ok(one("CAP_NET_BIND_SERVICE")));
        assert!(set(&["CAP_NET_ADMIN"], &[]).unwrap().contains(one("NET_ADMIN")));
        assert!(!set(&[], &["cap_chown"]).unwrap().contains(one("CHOWN")));
        assert!(set(&["SYS_ADMIN"], &[]).unwrap_err().contains("system call filter"));
        assert!(set(&["ALL"], &[]).unwrap_err().contains("name those that are needed"));
        assert!(set(&["NOSUCH"], &[]).unwrap_err().contains("unknown capability"));
        assert!(set(&[], &["NOSUCH"]).unwrap_err().contains("unknown capability"));
    }

    #[test]
    fn names_of_containers() {
        for good in ["web", "/web", "a1", "a_b.c-d"] {
            assert!(container_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-ab", ".ab", "a/b", "a b", "ab\n", "../x"] {
            assert!(container_name(bad).is_err(), "{bad}");
        }
    }
}
