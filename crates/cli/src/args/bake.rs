//! The arguments of `bake`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::progress::Mode;

/// `lapstrake bake`
#[derive(Debug, ClapArgs)]
pub(crate) struct Bake {
    /// A bake file or a compose file; `-` is standard input (default: the usual names in this directory, or
    /// $BUILDX_BAKE_FILE)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
    /// Override a field of targets: `PATTERN.KEY=VALUE`; `+=` adds to a list
    #[arg(long, value_name = "PATTERN.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the files
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Print the targets as JSON, and build nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// List `targets` or `variables`; `type=targets,format=json` prints JSON
    #[arg(long, value_name = "targets|variables", conflicts_with = "print")]
    pub(crate) list: Option<String>,
    /// Short for `--list=targets`
    #[arg(long, hide = true)]
    pub(crate) list_targets: bool,
    /// Short for `--list=variables`
    #[arg(long, hide = true)]
    pub(crate) list_variables: bool,
    /// Tell of the Dockerfiles instead of building: `check`, `outline` or `targets`, with `,format=json` for JSON
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Short for `--call=check`
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// Push the images of all targets: short for `--set=*.push=true`
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the images of all targets into a running Docker or containerd: short for `--set=*.load=true`
    #[arg(long)]
    pub(crate) load: bool,
    /// Run every step of all targets, even if it is cached
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask registries even for base images in the local store
    #[arg(long)]
    pub(crate) pull: bool,
    /// Grant a permission: `network.host`, `security.insecure`, `device`, `ssh`, `fs=DIR`, `fs.read=DIR` or `fs.write=DIR`
    #[arg(long, value_name = "PERMISSION")]
    pub(crate) allow: Vec<String>,
    /// The form of progress
    #[arg(long, value_enum)]
    pub(crate) progress: Option<Mode>,
    /// Write a description of the results of all targets to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Warn of caches, attestations and builders that are not there yet, and build without them (also:
    /// $LAPSTRAKE_IGNORE_UNSUPPORTED)
    #[arg(long)]
    pub(crate) ignore_unsupported: bool,
    /// The builder; the only one is `default`, this process
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) builder: Option<String>,
    /// Attestations of all targets; `false` declines them, others are not there yet
    #[arg(long, value_name = "VALUE", hide = true)]
    pub(crate) provenance: Option<String>,
    /// As --provenance
    #[arg(long, value_name = "VALUE", hide = true)]
    pub(crate) sbom: Option<String>,
    /// The targets and groups, or patterns of their names (default: `default`). In front: the git repository or the address
    /// with the definition, and a second one for BAKE_CMD_CONTEXT
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}
