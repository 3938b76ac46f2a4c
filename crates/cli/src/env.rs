//! The one place that reads the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use lapstrake_http::Proxies;
use lapstrake_registry::DockerConfig;

/// The state directory.
const ROOT: &str = "LAPSTRAKE_ROOT";
/// No colours: <https://no-color.org>.
const NO_COLOR: &str = "NO_COLOR";
/// The directory of a user's data, by the XDG base directory specification.
const XDG_DATA_HOME: &str = "XDG_DATA_HOME";

/// The events that are logged.
const LOG: &str = "LAPSTRAKE_LOG";
/// `classic`: overlays are mounted as on kernels before 6.5. `copy`: none is mounted, layers are copied.
const IDS: &str = "LAPSTRAKE_IDS";
const MOUNTS: &str = "LAPSTRAKE_MOUNTS";

/// The value of a variable that a person named (`--build-arg NAME`, `--secret env=NAME`).
pub(crate) fn value(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The program's name and its arguments.
pub(crate) fn args() -> impl Iterator<Item = OsString> {
    std::env::args_os()
}

/// The environment of git: programs, certificates and proxies.
pub(crate) fn of_git() -> Vec<(OsString, OsString)> {
    let of_curl = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    let both = of_curl.into_iter().flat_map(|name| [name.to_owned(), name.to_lowercase()]);
    let names = ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"].map(str::to_owned);
    let all = names.into_iter().chain(both);
    all.filter_map(|name| Some((OsString::from(&name), std::env::var_os(&name)?))).collect()
}

/// The user's login name, if it is said.
pub(crate) fn login_name() -> Option<String> {
    value("USER")
}

/// A program on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// How many ids an ordinary user is to have, if it is said.
pub(crate) fn ids() -> Option<String> {
    value(IDS)
}

/// How overlays are to be mounted, if it is said.
pub(crate) fn mounts() -> Option<String> {
    value(MOUNTS)
}

/// The events that are logged, in the syntax of `EnvFilter`, if it is said.
pub(crate) fn log_filter() -> Option<String> {
    value(LOG).filter(|filter| !filter.is_empty())
}

/// The file that the log goes to; standard error where none is named.
pub(crate) fn log_file() -> Option<PathBuf> {
    set("LAPSTRAKE_LOG_FILE").map(PathBuf::from)
}

/// Whether colours are unwanted.
pub(crate) fn no_color() -> bool {
    set(NO_COLOR).is_some()
}

/// The state directory: `$LAPSTRAKE_ROOT`, else `/var/lib/lapstrake` for root, else in the user's data directory.
pub(crate) fn state_root(is_root: bool) -> Option<PathBuf> {
    if let Some(root) = set(ROOT) {
        return Some(PathBuf::from(root));
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/lapstrake"));
    }
    let data = set(XDG_DATA_HOME).map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")))?;
    Some(data.join("lapstrake"))
}

/// Docker's configuration: `$DOCKER_CONFIG/config.json`, else the one in the home directory; with the logins of
/// `$DOCKER_AUTH_CONFIG`.
pub(crate) fn docker_config() -> Option<DockerConfig> {
    let path = docker_config_file()?;
    Some(DockerConfig::new(path).with_given(std::env::var("DOCKER_AUTH_CONFIG").ok()))
}

fn docker_config_file() -> Option<PathBuf> {
    let dir = set("DOCKER_CONFIG").map(PathBuf::from);
    Some(dir.or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker")))?.join("config.json"))
}

/// The settings' file: `$LAPSTRAKE_CONFIG`, else the first that is there of the user's own and the machine's.
pub(crate) fn settings() -> Vec<PathBuf> {
    if let Some(file) = set("LAPSTRAKE_CONFIG") {
        return vec![PathBuf::from(file)];
    }
    config_dir()
        .into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|dir| dir.join("lapstrake/lapstrake.toml"))
        .collect()
}

/// The number of sockets that a service manager has opened for this process (`sd_listen_fds(3)`).
pub(crate) fn activated_sockets() -> usize {
    let of_us = value("LISTEN_PID").is_some_and(|id| id.parse() == Ok(std::process::id()));
    value("LISTEN_FDS").filter(|_| of_us).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The user's directory for settings.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let own = set("XDG_CONFIG_HOME").map(PathBuf::from);
    own.or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")))
}

/// The proxies for registries and files of the web. A variable in capital letters counts before the other one. A CGI
/// script has what a client sent in `HTTP_PROXY`: there the variable means nothing.
pub(crate) fn proxies() -> Proxies {
    let of = |name: &str| value(name).or_else(|| value(&name.to_lowercase())).unwrap_or_default();
    let http = if std::env::var_os("REQUEST_METHOD").is_some() { String::new() } else { of("HTTP_PROXY") };
    Proxies { http, https: of("HTTPS_PROXY"), all: of("ALL_PROXY"), direct: of("NO_PROXY") }
}

/// The platform that is meant where none is said.
pub(crate) fn default_platform() -> Option<String> {
    value("DOCKER_DEFAULT_PLATFORM").filter(|platform| !platform.is_empty())
}

/// The possible sockets of Docker, and whether `DOCKER_HOST` names them. The error is an address that is not a Unix socket.
pub(crate) fn docker_sockets() -> Result<(Vec<PathBuf>, bool), String> {
    if let Some(host) = value("DOCKER_HOST").filter(|host| !host.is_empty()) {
        let path = host.strip_prefix("unix://").map(PathBuf::from);
        return path.map(|path| (vec![path], true)).ok_or(host);
    }
    let own = set("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("docker.sock"));
    Ok((own.into_iter().chain([PathBuf::from("/var/run/docker.sock")]).collect(), false))
}

/// The socket of containerd, and whether `CONTAINERD_ADDRESS` names it.
pub(crate) fn containerd_socket() -> (PathBuf, bool) {
    let asked = value("CONTAINERD_ADDRESS").filter(|address| !address.is_empty());
    let plain = asked.as_deref().map(|address| address.strip_prefix("unix://").unwrap_or(address));
    (PathBuf::from(plain.unwrap_or("/run/containerd/containerd.sock")), asked.is_some())
}

/// `CONTAINERD_NAMESPACE`: whose images are meant there.
pub(crate) fn containerd_namespace() -> String {
    value("CONTAINERD_NAMESPACE").filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// `SOURCE_DATE_EPOCH`, which becomes a build argument.
pub(crate) fn source_date_epoch() -> Option<String> {
    value("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())
}

/// The state directory as it was given, for a process of ours that is to use the same one.
pub(crate) const STATE_ROOT: &str = ROOT;

/// How much the build cache may take: `$LAPSTRAKE_KEEP_STORAGE`, a size, or `off`: then nothing is removed by itself.
pub(crate) fn keep_storage() -> Option<String> {
    value("LAPSTRAKE_KEEP_STORAGE").filter(|value| !value.is_empty())
}

/// `LAPSTRAKE_NETWORK`: what `--network=default` means.
pub(crate) fn network() -> Option<String> {
    value("LAPSTRAKE_NETWORK").filter(|value| !value.is_empty())
}

/// `LAPSTRAKE_IGNORE_UNSUPPORTED`: whether a build goes on without what is not there yet, in Go's spelling of a boolean.
pub(crate) const IGNORE_UNSUPPORTED: &str = "LAPSTRAKE_IGNORE_UNSUPPORTED";

/// `BUILDKIT_PROGRESS`: the progress mode when no flag says.
pub(crate) fn progress() -> Option<String> {
    value("BUILDKIT_PROGRESS")
}

/// `BUILDKIT_STEP_LOG_MAX_SIZE`: how many bytes of each output of a step are shown. -1 is no limit; 2 MiB where it says
/// nothing that makes sense.
pub(crate) fn log_limit() -> Option<u64> {
    const USUAL: u64 = 2 << 20;
    match value("BUILDKIT_STEP_LOG_MAX_SIZE").as_deref() {
        Some("-1") => None,
        text => Some(text.and_then(|text| text.parse().ok()).unwrap_or(USUAL)),
    }
}

/// The directory for sockets: `/run` for root, else `XDG_RUNTIME_DIR`.
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run"));
    }
    value("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// The whole environment, for the variables of bake files. What is not UTF-8 is left out.
pub(crate) fn all() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The home directory; the root where none is set.
pub(crate) fn home() -> PathBuf {
    set("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Whether paths of bake files are relative to the files, in the words of buildx.
pub(crate) fn bake_relative_paths() -> Option<String> {
    value("BUILDX_BAKE_FILE_RELATIVE_PATHS").filter(|text| !text.is_empty())
}
