//! What can be typed about images that are built already.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `lapstrake images`
#[derive(Debug, ClapArgs)]
pub(crate) struct Images {
    /// Accepted for habit's sake: there are no intermediate images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show the digests that registries know images by
    #[arg(long)]
    pub(crate) digests: bool,
    /// Only some: `dangling=BOOL`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `until=TIME` (or `until=24h`),
    /// `reference=PATTERN`
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// How rows are printed: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON, a line for each name
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pub(crate) json: bool,
    /// Only images with such a name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) pattern: Option<String>,
}

/// `lapstrake inspect`
#[derive(Debug, ClapArgs)]
pub(crate) struct Inspect {
    /// Print a template, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print the config as it is stored: its digest is the image's id
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// Ask the registry for the index of what refers to the image there: signatures, attestations
    #[arg(long, conflicts_with_all = ["format", "raw"])]
    pub(crate) referrers: bool,
    /// Accepted for habit's sake: it is JSON anyway
    #[arg(long)]
    pub(crate) json: bool,
    /// Of a name that images for several platforms have, the one for this
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
    /// Round sizes and times; `--human=false` prints bytes and the times themselves
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) human: bool,
    /// How rows are printed: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON, a line for each row
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pub(crate) json: bool,
    /// Of a name that images for several platforms have, the one for this
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
}

/// `lapstrake search`
#[derive(Debug, ClapArgs)]
pub(crate) struct Search {
    /// Only some: `stars=N`, `is-official=BOOL`, `is-automated=BOOL`
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// How rows are printed: `table`, `json`, `table TEMPLATE` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// The most that are asked for
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    /// Print descriptions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON, a line for each image
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// What to look for, on Docker Hub unless a registry's host stands before it: `REGISTRY/TERM`
    pub(crate) term: String,
}

/// `lapstrake rmi`
#[derive(Debug, ClapArgs)]
pub(crate) struct Rmi {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Remove an image that is given by its id with all of its names, and pass over what is not here
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Of a name that images for several platforms have, the one for this
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
    /// What its history says
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// What it is for (default: $DOCKER_DEFAULT_PLATFORM, else this machine)
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
    /// Of an archive with more than one platform, the images for this one (default: all)
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
    /// Its new name
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
    /// Push all tags that the name has here
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Of a name that images for several platforms have, the one for this
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image's name, which says where it goes
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
    /// Pull all tags that the repository has
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// The platform of the image (default: $DOCKER_DEFAULT_PLATFORM, else this machine)
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
    /// Of a name that images for several platforms have, the one for this
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The images: names or beginnings of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}
