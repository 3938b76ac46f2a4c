//! The command line.

pub(crate) mod about;
pub(crate) mod bake;
pub(crate) mod builds;
pub(crate) mod debug;
#[cfg(test)]
mod documented;
mod habits;
pub(crate) mod images;
pub(crate) mod limits;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod space;
mod switches;
mod unused;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args as ClapArgs, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::images::{
    History, Images, Import, Inspect, Load, LoginArgs, Logout, Pull, PushImage, Rmi, Save, Search, Tag,
};
pub(crate) use self::run::Run;
use crate::progress::Mode;

/// Builds container images from Dockerfiles: one binary, no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "lapstrake", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads a command line.
    pub(crate) fn read<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Args, clap::Error> {
        let words = serve::of_buildkitd(words.into_iter().map(Into::into).collect());
        let words = habits::translated(words)?;
        if let Some(build) = Args::build(&words) {
            return Ok(build);
        }
        let mut command = switches::with_values(Args::all());
        let matches = command.try_get_matches_from_mut(&words);
        let mut matches = matches.map_err(|error| run::explained(help(error, &words), &words))?;
        unused::refuse(&mut command, &matches)?;
        Args::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }

    /// All verbs, with the flags that each of them has.
    pub(crate) fn all() -> clap::Command {
        let verbose = clap::Arg::new("verbose").short('v').long("verbose").action(clap::ArgAction::Count);
        // `log` takes the flag from in front of the verb before anything else is read.
        unused::hide(Args::command().arg(verbose.help(
            "Log retries, fallbacks and choices; -vv cache lookups too. $LAPSTRAKE_LOG is a filter as `lapstrake_store=debug`, \
             and $LAPSTRAKE_LOG_FILE a file for the log",
        )))
    }

    /// A `build` that there is nothing to say about. To make what all verbs take costs as much as a cached build's
    /// Dockerfile; whatever is wrong or is asked of the whole is left to that.
    fn build(words: &[OsString]) -> Option<Args> {
        words.get(1).filter(|verb| *verb == "build")?;
        let build = switches::with_values(Build::augment_args(clap::Command::new("build")));
        let command = clap::Command::new("lapstrake").subcommand(build);
        Args::from_arg_matches_mut(&mut command.try_get_matches_from(words).ok()?).ok()
    }
}

/// The help that was asked for shows switches without the values that they also take.
fn help(error: clap::Error, words: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::DisplayHelp {
        return error;
    }
    match Args::all().try_get_matches_from(words) {
        Err(plain) if plain.kind() == ErrorKind::DisplayHelp => plain,
        _ => error,
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<Build>),
    /// Build the targets of a bake file or a compose file
    Bake(Box<bake::Bake>),
    /// Check a Dockerfile without building anything
    Check(Box<Check>),
    /// Run a command in an image, in the foreground
    Run(Box<Run>),
    /// List the images in the local store
    Images(Images),
    /// Show images as JSON, or by a template
    Inspect(Inspect),
    /// Show how an image was made
    History(History),
    /// Remove images or names of images
    Rmi(Rmi),
    /// Give an image another name
    Tag(Tag),
    /// Push an image to a registry
    Push(PushImage),
    /// Pull an image from a registry
    Pull(Pull),
    /// Search for images on Docker Hub or in another registry
    Search(Search),
    /// Store a login for a registry
    Login(LoginArgs),
    /// Remove the login for a registry
    Logout(Logout),
    /// Write images to an archive, for `docker load` and other tools
    Save(Save),
    /// Make an image from the tar of a root file system
    Import(Import),
    /// Load images from an archive of `docker save`, or from an OCI layout
    Load(Load),
    /// Build for clients of BuildKit's API: `docker buildx`, `buildctl` and others
    Serve(serve::Serve),
    /// Connect standard input and output to a running server, for clients behind `ssh`
    DialStdio(serve::Dial),
    /// Draw the steps of a Dockerfile and mark the cached ones, without building
    Graph(Box<Graph>),
    /// Show why steps of a build ran again
    Explain(builds::Explain),
    /// List earlier builds, inspect them, and read their output
    #[command(subcommand, visible_alias = "history-of-builds")]
    Builds(builds::Builds),
    /// Show disk usage
    Df(space::Df),
    /// Remove images without a name, and build cache
    Prune(space::Prune),
    /// Check whether this machine can run builds
    Doctor(Doctor),
    /// Show the version, in Docker's form
    Version(about::Version),
    /// Show the machine and its store, in Docker's form; `doctor` finds what is missing
    Info(about::Info),
    /// Print completions for a shell, or write man pages
    Completion(about::Completion),
    /// The builder, as `buildx ls` and `buildx inspect` show it
    #[command(hide = true)]
    Builders(about::Builders),
    /// Show the builder's view of a text, as JSON
    #[command(subcommand)]
    Debug(debug::Debug),
}

/// `lapstrake build`
#[derive(Debug, ClapArgs)]
pub(crate) struct Build {
    /// Name of the image (`NAME[:TAG]`); may be given more than once
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// The Dockerfile: a path, `-` for standard input, or an `https` address (default: `CONTEXT/Dockerfile`)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Answer a question instead of building: `check`, `outline`, `targets` or `subrequests.describe`, with `,format=json` as JSON
    #[arg(long, value_name = "METHOD", conflicts_with = "check")]
    pub(crate) call: Option<String>,
    /// Check the Dockerfile instead of building: short for `--call check`
    #[arg(long)]
    pub(crate) check: bool,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set an ARG; without a value, the environment provides it
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Set ARGs from a file with a `KEY=VALUE` or `KEY` on each line; `--build-arg` wins
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// The language of the Dockerfile, instead of its `# syntax=` line: `lapstrake` adds to Docker's
    #[arg(long, value_name = "NAME")]
    pub(crate) syntax: Option<String>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Run every step, even if it is cached
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages, even if they are cached
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// The files of contexts that are read: those whose size or times changed, or all
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) checksum: Checksum,
    /// Ask registries even for base images in the local store
    #[arg(long)]
    pub(crate) pull: bool,
    /// The platforms of the image, separated by commas; several make an index (default: $DOCKER_DEFAULT_PLATFORM, else
    /// this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Vec<String>,
    /// Set a limit by its name in buildx, as `memory=2g`: `memory`, `memory-swap`, `cpu-shares`, `cpu-period`, `cpu-quota`,
    /// `cpuset-cpus` or `cpuset-mems`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) resource: Vec<String>,
    /// Warn of caches, attestations and builders that are not there yet, and build without them (also:
    /// $LAPSTRAKE_IGNORE_UNSUPPORTED)
    #[arg(long)]
    pub(crate) ignore_unsupported: bool,
    /// The builder; the only one is `default`, this process
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) builder: Option<String>,
    /// Attestations; `false` declines them, others are not there yet
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    pub(crate) attest: Vec<String>,
    /// As --attest
    #[arg(long, value_name = "VALUE", hide = true)]
    pub(crate) provenance: Option<String>,
    /// As --attest
    #[arg(long, value_name = "VALUE", hide = true)]
    pub(crate) sbom: Option<String>,
    /// Add a named context: a directory, a git repository, `https://…`, `docker-image://REF`,
    /// `oci-layout://DIR[:TAG]` or `rootfs://DIR`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Give RUN a secret: `id=ID[,src=FILE|,env=VARIABLE]`
    #[arg(long, value_name = "id=ID[,src=FILE]")]
    pub(crate) secret: Vec<String>,
    /// Give RUN an SSH agent: `default` or `ID=SOCKET`
    #[arg(long, value_name = "default|ID=SOCKET")]
    pub(crate) ssh: Vec<String>,
    /// Write the result to `type=oci|docker|tar|local,dest=PATH`, `type=image|registry,name=NAME`, `type=cacheonly`, or
    /// a directory
    #[arg(short, long, value_name = "DIR|type=TYPE,dest=PATH")]
    pub(crate) output: Vec<String>,
    /// Import results of steps from `NAME` in a registry (a cache, or an image that carries one) or `type=local,src=DIR`
    #[arg(long, value_name = "NAME|type=TYPE,…")]
    pub(crate) cache_from: Vec<String>,
    /// Export results of steps to `type=registry,ref=NAME`, `type=local,dest=DIR` (`mode=max` for all stages), or
    /// `type=inline` in the image
    #[arg(long, value_name = "NAME|type=TYPE,…")]
    pub(crate) cache_to: Vec<String>,
    /// Push the image to the registries of its names: short for `-o type=registry`
    #[arg(long)]
    pub(crate) push: bool,
    /// Also load the image into a running Docker or containerd
    #[arg(long)]
    pub(crate) load: bool,
    /// Add an annotation to the manifest: `[manifest|manifest-descriptor[[PLATFORM]]:]KEY=VALUE`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// The form of progress
    #[arg(long, value_enum)]
    pub(crate) progress: Option<Mode>,
    /// Print only the image id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Draw the build on a time axis, as one HTML page in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,
    /// Write the image id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write a description of the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// The network of RUN: `isolated` (a network of its own with a way out), `none`, `host` (needs `--allow`), or `default`
    /// ($LAPSTRAKE_NETWORK, else `isolated` if possible, else `host`)
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// Grant an entitlement: `network.host`, `security.insecure`, `device` or `device=NAME`
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// The directory of CDI device specifications (default: /etc/cdi and /var/run/cdi)
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Set a resource limit of RUN
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    #[command(flatten)]
    pub(crate) hold: limits::Hold,
    /// Give RUN no network, and use pinned sources only: images by `lapstrake.lock` beside the Dockerfile; a missing lock
    /// file is written
    #[arg(long, conflicts_with = "network")]
    pub(crate) hermetic: bool,
    /// Fail if `lapstrake.lock` is missing or would change
    #[arg(long)]
    pub(crate) locked: bool,
    /// Open a shell where a step fails, or before the steps whose names contain STEP
    #[arg(long, value_name = "STEP", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) debug: Option<String>,
    /// The build context: a directory, a git repository, the `https` address of an archive or Dockerfile, or `-` for
    /// standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: PathBuf,
}

/// The choice of files of contexts that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Checksum {
    /// Files that may have changed.
    Auto,
    /// All files.
    Always,
}

/// `lapstrake check`
#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// The form of findings
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) build: Build,
}

/// `lapstrake graph`
#[derive(Debug, ClapArgs)]
pub(crate) struct Graph {
    /// Draw in the language of Graphviz
    #[arg(long, conflicts_with = "svg")]
    pub(crate) dot: bool,
    /// Draw an SVG picture
    #[arg(long)]
    pub(crate) svg: bool,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) build: Build,
}

/// `lapstrake doctor`
#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Read and verify everything in the state directory
    #[arg(long)]
    pub(crate) state: bool,
    /// Drop damaged objects from the state directory; builds make them again
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A form of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// BuildKit's JSON document.
    Json,
    /// SARIF 2.1.0, for code scanners.
    Sarif,
}
