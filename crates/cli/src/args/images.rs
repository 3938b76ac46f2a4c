//! The arguments of verbs about images.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `lapstrake images`
#[derive(Debug, ClapArgs)]
pub(crate) struct Images {
    /// Accepted for Docker's sake: there are no intermediate images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show the digests by which registries know the images
    #[arg(long)]
    pub(crate) digests: bool,
    /// Filter: `dangling=BOOL`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `until=TIME` (or `until=24h`),
    /// `reference=PATTERN`
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// The form of rows: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON, one line for each name
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pub(crate) json: bool,
    /// Only images with this name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) pattern: Option<String>,
}

/// `lapstrake inspect`
#[derive(Debug, ClapArgs)]
pub(crate) struct Inspect {
    /// Print by a Go template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print the stored config, whose digest is the image's id
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// Ask the registry for the index of the image's referrers: signatures, attestations
    #[arg(long, conflicts_with_all = ["format", "raw"])]
    pub(crate) referrers: bool,
    /// Accepted for symmetry: the output is always JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Select this platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The images: names or beginnings of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `lapstrake history`
#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// Print ids and instructions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Round sizes and times; `--human=false` prints bytes and exact times
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) human: bool,
    /// The form of rows: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON, one line for each row
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pub(crate) json: bool,
    /// Select this platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
}

/// `lapstrake search`
#[derive(Debug, ClapArgs)]
pub(crate) struct Search {
    /// Filter: `stars=N`, `is-official=BOOL`, `is-automated=BOOL`
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// The form of rows: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// The number of results
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    /// Print descriptions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON, one line for each image
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// The term; `REGISTRY/TERM` searches another registry than Docker Hub
    pub(crate) term: String,
}

/// `lapstrake rmi`
#[derive(Debug, ClapArgs)]
pub(crate) struct Rmi {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Remove an image that is given by its id with all of its names, and ignore missing images
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Select this platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The images: names or beginnings of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `lapstrake import`
#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Apply an instruction to the config: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// The comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// The platform of the image (default: $DOCKER_DEFAULT_PLATFORM, else this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The tar, plain or compressed; `-` is standard input
    pub(crate) tar: PathBuf,
    /// The image's name
    pub(crate) name: Option<String>,
}

/// `lapstrake load`
#[derive(Debug, ClapArgs)]
pub(crate) struct Load {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The archive (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Load only the images for this platform (default: all)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Print only ids
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

/// `lapstrake tag`
#[derive(Debug, ClapArgs)]
pub(crate) struct Tag {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `lapstrake push`
#[derive(Debug, ClapArgs)]
pub(crate) struct PushImage {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the name
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Push all tags of the name
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Select this platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image's name, with the registry
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: String,
}

/// `lapstrake pull`
#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the name
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Pull all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// The platform of the image (default: $DOCKER_DEFAULT_PLATFORM, else this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image's name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
}

/// `lapstrake login`
#[derive(Debug, ClapArgs)]
pub(crate) struct LoginArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The user's name (default: ask)
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// The password or token, `-` for standard input; others can read it in the list of processes
    #[arg(short, long)]
    pub(crate) password: Option<String>,
    /// Take the password from standard input (default: ask at the terminal)
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The registry (default: Docker Hub)
    pub(crate) server: Option<String>,
}

/// `lapstrake logout`
#[derive(Debug, ClapArgs)]
pub(crate) struct Logout {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The registry (default: Docker Hub)
    pub(crate) server: Option<String>,
}

/// `lapstrake save`
#[derive(Debug, ClapArgs)]
pub(crate) struct Save {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The archive (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Leave out the `manifest.json` that Docker needs
    #[arg(long)]
    pub(crate) oci: bool,
    /// Select this platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The images: names or beginnings of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}
