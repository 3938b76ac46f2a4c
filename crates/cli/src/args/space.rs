//! The arguments of verbs about disk space.

use clap::Args as ClapArgs;

/// `lapstrake df`
#[derive(Debug, ClapArgs)]
pub(crate) struct Df {
    /// Print every image and every part of the build cache
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The form of rows: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, conflicts_with_all = ["verbose", "json"])]
    pub(crate) format: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `lapstrake prune`
#[derive(Debug, ClapArgs)]
pub(crate) struct Prune {
    /// Remove named images too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only images, or only the build cache
    #[arg(long, value_enum)]
    pub(crate) only: Option<Only>,
    /// Filter: `until=24h` (unused for so long), `type=regular|blob|exec.cachemount|source.local`, `id=…` or
    /// `description~=…`; of images `until=24h` (made before that), `label=KEY[=VALUE]` or `label!=KEY[=VALUE]`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// The amount of build cache to keep
    #[arg(long, alias = "reserved-space", value_name = "BYTES")]
    pub(crate) keep_storage: Option<String>,
    /// The most disk space that the build cache may take
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_used_space: Option<String>,
    /// The free space that the disk must have
    #[arg(long, value_name = "BYTES")]
    pub(crate) min_free_space: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Apply the default rules, quietly and with the lowest priority
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

impl Prune {
    /// Whether a flag limits the cache.
    pub(crate) fn has_limit(&self) -> bool {
        self.keep_storage.is_some() || self.max_used_space.is_some() || self.min_free_space.is_some()
    }
}

/// A part of the store that is removed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Images, and the layers that nothing else needs.
    Images,
    /// The build cache.
    Cache,
}
