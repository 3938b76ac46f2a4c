//! What can be typed about images that are built already.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `lapstrake images`
#[derive(Debug, ClapArgs)]
pub(crate) struct Images {
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A verb about one image.
#[derive(Debug, ClapArgs)]
pub(crate) struct Named {
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
}

/// `lapstrake history`
#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// Print instructions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
}

/// `lapstrake rmi`
#[derive(Debug, ClapArgs)]
pub(crate) struct Rmi {
    /// Remove an image with all of its names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The images: names or beginnings of ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `lapstrake import`
#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// The tar, plain or compressed; `-` is standard input
    pub(crate) tar: PathBuf,
    /// The image's name
    pub(crate) name: String,
}

/// `lapstrake load`
#[derive(Debug, ClapArgs)]
pub(crate) struct Load {
    /// The archive (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `lapstrake tag`
#[derive(Debug, ClapArgs)]
pub(crate) struct Tag {
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
    /// Its new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `lapstrake push`
#[derive(Debug, ClapArgs)]
pub(crate) struct PushImage {
    /// Print only the name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The image's name, which says where it goes
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: String,
}

/// `lapstrake pull`
#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    /// Print only the name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The platform of the image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The image's name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
}

/// `lapstrake login`
#[derive(Debug, ClapArgs)]
pub(crate) struct LoginArgs {
    /// The user's name (default: ask)
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Take the password from standard input (default: ask at the terminal)
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The registry (default: Docker Hub)
    pub(crate) server: Option<String>,
}

/// `lapstrake logout`
#[derive(Debug, ClapArgs)]
pub(crate) struct Logout {
    /// The registry (default: Docker Hub)
    pub(crate) server: Option<String>,
}

/// `lapstrake save`
#[derive(Debug, ClapArgs)]
pub(crate) struct Save {
    /// The archive (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Leave out the `manifest.json` that Docker needs
    #[arg(long)]
    pub(crate) oci: bool,
    /// The image: a name or the beginning of an id
    pub(crate) image: String,
}
