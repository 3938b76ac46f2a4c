//! What can be typed to start a server.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

/// `lapstrake serve`
#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Address to listen at: `unix://PATH`, `tcp://IP:PORT` or `fd://`; may be given more than once
    #[arg(long = "addr", value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
    /// Group that may use the socket: a number, or a name of this machine
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Certificate for `tcp://` addresses
    #[arg(long, value_name = "FILE", requires = "tlskey")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Certificate that signs those of clients; a client without one is refused
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Allow `tcp://` without TLS on the loopback interface, which every user of this machine can reach
    #[arg(long)]
    pub(crate) allow_insecure_loopback: bool,
    /// Entitlement that clients may ask for: `network.host`, `security.insecure` or `device`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) allow_insecure_entitlement: Vec<String>,
    /// Run the images called `docker/dockerfile`, in place of the built-in frontend for Dockerfiles
    #[arg(long)]
    pub(crate) dockerfile_images: bool,
    /// Settings in the form of `buildkitd.toml`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Further socket for programs that send spans of traces: an absolute path
    #[arg(long, value_name = "PATH")]
    pub(crate) otel_socket_path: Option<PathBuf>,
    /// State directory, in place of `LAPSTRAKE_ROOT`
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Label of the worker (`KEY=VALUE`)
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) label: Vec<String>,
    /// The program was called by the name of BuildKit's daemon
    #[arg(long, hide = true)]
    pub(crate) as_buildkitd: bool,
    /// Flag of BuildKit's daemon that is not followed; a warning names the flag
    #[arg(long, value_name = "FLAG", hide = true)]
    pub(crate) ignored: Vec<String>,
}

/// `lapstrake dial-stdio`
#[derive(Debug, ClapArgs)]
pub(crate) struct Dial {
    /// Address of the server: `unix://PATH` or `tcp://IP:PORT` (default: $`BUILDKIT_HOST`, else the usual socket of `serve`)
    #[arg(long = "addr", value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// The builder; the only one is `default`
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) builder: Option<String>,
}

/// The name under which the program takes the words of BuildKit's daemon.
const DAEMON: &str = "buildkitd";
/// The daemon's own socket.
pub(crate) const BUILDKIT_SOCKET: &str = "unix:///run/buildkit/buildkitd.sock";

/// Flags of `buildkitd`, and the flag of `serve` that each one is. Those without one are about workers, snapshotters and logs
/// that are not here, and have nothing to change.
const FLAGS: [(&str, Option<&str>); 29] = [
    ("--addr", Some("--addr")),
    ("--group", Some("--group")),
    ("--tlscert", Some("--tlscert")),
    ("--tlskey", Some("--tlskey")),
    ("--tlscacert", Some("--tlscacert")),
    ("--config", Some("--config")),
    ("--root", Some("--root")),
    ("--allow-insecure-entitlement", Some("--allow-insecure-entitlement")),
    ("--oci-worker-labels", Some("--label")),
    ("--debug", None),
    ("--trace", None),
    ("--debugaddr", None),
    ("--log-format", None),
    ("--rootless", None),
    ("--oci-worker", None),
    ("--oci-worker-gc", None),
    ("--oci-worker-gc-keepstorage", None),
    ("--oci-worker-rootless", None),
    ("--oci-worker-no-process-sandbox", None),
    ("--oci-worker-snapshotter", None),
    ("--oci-worker-platform", None),
    ("--oci-worker-net", None),
    ("--oci-worker-binary", None),
    ("--oci-worker-apparmor-profile", None),
    ("--oci-worker-selinux", None),
    ("--containerd-worker", None),
    ("--otel-socket-path", Some("--otel-socket-path")),
    ("--cdi-disabled", None),
    ("--save-cache-debug", None),
];

/// Flags of `buildkitd` that ask for something else than what is done here.
const IGNORED: [&str; 8] = [
    "--oci-worker-net",
    "--oci-worker-platform",
    "--oci-worker-snapshotter",
    "--oci-worker-binary",
    "--oci-worker-apparmor-profile",
    "--oci-worker-selinux",
    "--oci-worker-no-process-sandbox",
    "--cdi-disabled",
];

/// Flags that are switches: no value follows as a word of its own.
const SWITCHES: [&str; 13] = [
    "--debug",
    "--trace",
    "--rootless",
    "--oci-worker",
    "--oci-worker-gc",
    "--oci-worker-rootless",
    "--oci-worker-no-process-sandbox",
    "--oci-worker-selinux",
    "--containerd-worker",
    "--cdi-disabled",
    "--save-cache-debug",
    "--help",
    "--version",
];

/// The words of `serve`, if the program was called `buildkitd`. A flag that is not known is left as it is, and refused by its
/// name.
pub(super) fn of_buildkitd(words: Vec<OsString>) -> Vec<OsString> {
    let called = words.first().and_then(|word| Path::new(word).file_name().map(OsStr::to_owned));
    if called.is_none_or(|name| name != DAEMON) {
        return words;
    }
    let mut made = vec!["lapstrake".into()];
    let mut rest = words.into_iter().skip(1);
    let mut serve: Vec<OsString> = vec!["serve".into(), "--as-buildkitd".into()];
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy().into_owned();
        let long = if text.starts_with("--") { text.clone() } else { text.replacen('-', "--", 1) };
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (long.clone(), None),
        };
        if matches!(name.as_str(), "--version" | "--v") {
            return vec!["lapstrake".into(), "--version".into()];
        }
        let Some((_, ours)) = FLAGS.iter().find(|(theirs, _)| *theirs == name) else {
            serve.push(word);
            continue;
        };
        let value = match value {
            Some(value) => Some(value.into()),
            None if SWITCHES.contains(&name.as_str()) => None,
            None => rest.next(),
        };
        if IGNORED.contains(&name.as_str()) {
            serve.extend([format!("--ignored={name}").into()]);
        }
        if let Some(ours) = ours {
            serve.push((*ours).into());
            serve.extend(value);
        }
    }
    made.append(&mut serve);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        let words = of_buildkitd(words.iter().map(Into::into).collect());
        words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn words_of_buildkitd() {
        let words =
            ["/x/buildkitd", "--oci-worker=true", "--containerd-worker=false", "--oci-worker-labels=a=b,c=d"];
        let words = [&words[..], &["--root", "/r", "--addr", "unix:///s", "--debug", "--config=/c"]].concat();
        let expected =
            "lapstrake serve --as-buildkitd --label a=b,c=d --root /r --addr unix:///s --config /c";
        assert_eq!(of(&words).join(" "), expected);
        assert_eq!(of(&["buildkitd", "--nosuch"]).join(" "), "lapstrake serve --as-buildkitd --nosuch");
        let ignored = of(&["buildkitd", "--oci-worker-net", "host", "--addr", "unix:///s"]).join(" ");
        assert_eq!(ignored, "lapstrake serve --as-buildkitd --ignored=--oci-worker-net --addr unix:///s");
        assert_eq!(of(&["buildkitd", "--version"]), ["lapstrake", "--version"]);
        assert_eq!(of(&["lapstrake", "build", "."]), ["lapstrake", "build", "."]);
    }
}
