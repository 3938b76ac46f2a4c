//! The arguments of `lapstrake run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as ClapArgs, Error};
use lapstrake_build::container::ContainerRequest;
use lapstrake_runtime::WindowSize;

use super::limits;

/// `lapstrake run`
#[derive(Debug, ClapArgs)]
#[command(disable_help_flag = true, override_usage = "lapstrake run [OPTIONS] IMAGE [COMMAND [ARGUMENT]...]")]
pub(crate) struct Run {
    /// Accepted for Docker's sake: containers never outlive the command
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input through
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal; with -i, it receives keys as they are typed
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// When to pull the image: `missing` (if the local store lacks it), `always` or `never`
    #[arg(long, value_name = "WHEN", value_enum, default_value = "missing", hide_possible_values = true)]
    pub(crate) pull: Pull,
    /// Show no progress of a pull
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The container's name; no other running container may have it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Set a variable; without a value, the environment provides it
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set variables from a file with a `KEY=VALUE` or `KEY` on each line; `--env` wins
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Mount a directory or file of the host
    #[arg(short, long, value_name = "SRC:DST[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Mount `type=bind,source=SRC,target=DST[,readonly]` or `type=tmpfs,target=DST[,tmpfs-size=64m]`
    #[arg(long, value_name = "type=TYPE,target=DST,…")]
    pub(crate) mount: Vec<String>,
    /// Mount an empty file system in memory: options are `size=`, `mode=`, `ro` and `exec`
    #[arg(long, value_name = "DST[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Run this instead of the image's entry point; `''` runs the command alone
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Select this platform of a multi-platform image (default: $DOCKER_DEFAULT_PLATFORM, else this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The network: `isolated` (a network of its own with a way out), `none`, `host`, or `default` ($LAPSTRAKE_NETWORK, else
    /// `isolated` if possible, else `host`)
    #[arg(long, visible_alias = "net", value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// The host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Make the root read-only; mounts stay as they are
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Run an init process first, which forwards signals and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Set a resource limit, `-1` for none
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Add a Linux capability, as `NET_ADMIN`
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability, or `ALL`
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    pub(crate) cap_drop: Vec<String>,
    #[command(flatten)]
    pub(crate) hold: limits::Hold,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, the command, and its arguments. All flags behind the image belong to the command
    #[arg(value_name = "IMAGE", required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

/// When an image is pulled to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pull {
    /// If the local store lacks the image.
    Missing,
    /// Before each run.
    Always,
    /// The image is never pulled.
    Never,
}

impl Run {
    /// The image's name or the beginning of its id.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The container that is asked for, with a terminal of the size `terminal`.
    pub(crate) fn request(&self, terminal: Option<WindowSize>) -> ContainerRequest {
        ContainerRequest {
            image: self.image().to_owned(),
            command: self.command().to_vec(),
            name: self.name.clone(),
            entrypoint: self.entrypoint.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            terminal,
            volumes: self.volume.clone(),
            mounts: self.mount.clone(),
            tmpfs: self.tmpfs.clone(),
            added_capabilities: self.cap_add.clone(),
            dropped_capabilities: self.cap_drop.clone(),
            ulimits: self.ulimit.clone(),
            hosts: self.add_host.clone(),
            shm_size: self.shm_size.clone(),
            hostname: self.hostname.clone(),
            readonly_root: self.read_only,
            init: self.init,
        }
    }

    /// The command and its arguments; nothing means the image's.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Flags of `docker run` that containers in the foreground lack, beside those of one letter.
const OF_DOCKER: [&str; 66] = [
    "annotation",
    "attach",
    "blkio-weight",
    "blkio-weight-device",
    "cgroupns",
    "cidfile",
    "cpu-count",
    "cpu-percent",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "detach",
    "detach-keys",
    "device",
    "device-cgroup-rule",
    "disable-content-trust",
    "dns",
    "dns-opt",
    "dns-option",
    "dns-search",
    "domainname",
    "expose",
    "gpus",
    "group-add",
    "health-cmd",
    "health-interval",
    "health-retries",
    "health-start-interval",
    "health-start-period",
    "health-timeout",
    "ip",
    "ip6",
    "ipc",
    "isolation",
    "kernel-memory",
    "label",
    "label-file",
    "link",
    "link-local-ip",
    "log-driver",
    "log-opt",
    "mac-address",
    "memory-reservation",
    "memory-swappiness",
    "net-alias",
    "network-alias",
    "no-healthcheck",
    "oom-kill-disable",
    "oom-score-adj",
    "pid",
    "privileged",
    "publish",
    "publish-all",
    "restart",
    "runtime",
    "sig-proxy",
    "stop-signal",
    "stop-timeout",
    "storage-opt",
    "sysctl",
    "use-api-socket",
    "userns",
    "uts",
    "volume-driver",
    "volumes-from",
    "io-maxbandwidth",
    "io-maxiops",
];
/// Those of one letter.
const LETTERS: [(&str, &str); 5] =
    [("-a", "attach"), ("-d", "detach"), ("-l", "label"), ("-p", "publish"), ("-P", "publish-all")];

/// An error about a flag of `docker run` that is not here says so. No error proposes to hand a flag to the image.
pub(super) fn explained(mut error: Error, words: &[OsString]) -> Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let of_run = words.get(1).is_some_and(|verb| verb == "run");
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg).cloned() else { return error };
    let letter = LETTERS.iter().find(|(letter, _)| *letter == flag);
    let long = letter.map(|(_, long)| *long).or_else(|| flag.strip_prefix("--"));
    let long = long.map(|long| long.split('=').next().unwrap_or(long));
    if of_run && let Some(long) = long.filter(|long| OF_DOCKER.contains(long)) {
        let why = format!(
            "`--{long}` is not supported yet: `lapstrake run` runs one command in the foreground, and nothing of its \
             container stays. Containers that stay, and their ports, names and networks, are to come\n"
        );
        return Error::raw(ErrorKind::UnknownArgument, why);
    }
    error.remove(ContextKind::Suggested);
    error
}

#[cfg(test)]
mod tests {
    use super::super::{Args, Command};
    use super::*;

    fn read(line: &str) -> Result<Run, Error> {
        let words = std::iter::once("lapstrake").chain(line.split_whitespace());
        match Args::read(words)?.command {
            Command::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_end_at_the_image() {
        for (line, command) in [
            ("run busybox -u 1000 id", "-u 1000 id"),
            ("run -u 7 busybox -u 1000 id", "-u 1000 id"),
            ("run busybox -- -e X=1", "-- -e X=1"),
            ("run -- busybox -e X=1", "-e X=1"),
            ("run busybox --version", "--version"),
            ("run busybox -v", "-v"),
            ("run busybox --help", "--help"),
            ("run busybox -it -p --rm=maybe", "-it -p --rm=maybe"),
            ("run -e A=b --rm busybox sh -c true --", "sh -c true --"),
            ("run busybox ls -", "ls -"),
            ("run busybox", ""),
        ] {
            let run = read(line).unwrap();
            assert_eq!((run.image(), run.command().join(" ").as_str()), ("busybox", command), "{line}");
        }
        let run = read("run -u 7 --name=n busybox -u 1000").unwrap();
        assert_eq!((run.user.as_deref(), run.name.as_deref()), (Some("7"), Some("n")));
        assert_eq!(read("run -h me busybox").unwrap().hostname.as_deref(), Some("me"));
        assert!(read("run").is_err() && read("run -t").is_err());
    }

    #[test]
    fn flags_of_docker_are_refused_by_name() {
        for flags in
            ["-p 80:80", "-d", "-dp 80:80", "-itd", "--publish=80:80", "--restart always", "--gpus all", "-P"]
        {
            let error = read(&format!("run {flags} busybox")).unwrap_err().to_string();
            assert!(error.contains("is not supported yet") && error.contains("to come"), "{flags}: {error}");
            assert!(!error.contains("-- -"), "{flags}: {error}");
        }
        let unknown = read("run --nosuch busybox").unwrap_err().to_string();
        assert!(unknown.contains("--nosuch") && !unknown.contains("-- --"), "{unknown}");
        let near = read("run --volum x:/y busybox").unwrap_err().to_string();
        assert!(near.contains("--volume"), "{near}");
    }

    #[test]
    fn no_flag_that_is_here_is_refused() {
        use clap::CommandFactory as _;
        let command = Args::command();
        let run = command.find_subcommand("run").unwrap();
        let own: Vec<_> = run.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(OF_DOCKER.iter().all(|flag| !own.contains(flag)));
        assert!(LETTERS.iter().all(|(_, long)| OF_DOCKER.contains(long)));
    }
}
