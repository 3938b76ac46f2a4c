//! What can be typed about room on the disk.

use clap::Args as ClapArgs;

/// `lapstrake df`
#[derive(Debug, ClapArgs)]
pub(crate) struct Df {
    /// Print every image and every part of the build cache
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How rows are printed: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, conflicts_with_all = ["verbose", "json"])]
    pub(crate) format: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `lapstrake prune`
#[derive(Debug, ClapArgs)]
pub(crate) struct Prune {
    /// Remove images that have names, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only images, or only the build cache
    #[arg(long, value_enum)]
    pub(crate) only: Option<Only>,
    /// Only this: `until=24h` (not used for so long), `type=regular|blob|exec.cachemount|source.local`, `id=…` or
    /// `description~=…`; of images `until=24h` (made before that), `label=KEY[=VALUE]` or `label!=KEY[=VALUE]`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// How much of the build cache stays
    #[arg(long, alias = "reserved-space", value_name = "BYTES")]
    pub(crate) keep_storage: Option<String>,
    /// How much the build cache may take at the most
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_used_space: Option<String>,
    /// How much is to be free on the disk
    #[arg(long, value_name = "BYTES")]
    pub(crate) min_free_space: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Remove what the default rules say, quietly and with the lowest priority
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

impl Prune {
    /// Whether it was said how much of the cache may stay.
    pub(crate) fn has_limit(&self) -> bool {
        self.keep_storage.is_some() || self.max_used_space.is_some() || self.min_free_space.is_some()
    }
}

/// What alone is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Images, and the layers that nothing else has.
    Images,
    /// The build cache.
    Cache,
}
