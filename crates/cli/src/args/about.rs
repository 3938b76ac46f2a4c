//! The arguments of verbs about the program and the machine.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `lapstrake version`
#[derive(Debug, ClapArgs)]
pub(crate) struct Version {
    /// Print by a Go template, as `{{.Server.Version}}`, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `lapstrake info`
#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// Print by a Go template, as `{{.DockerRootDir}}`, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `lapstrake completion`
#[derive(Debug, ClapArgs)]
pub(crate) struct Completion {
    /// The shell: `bash`, `zsh`, `fish`, `elvish` or `powershell`; or `man` for man pages
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Option<Pages>,
    /// The directory for man pages, one file for each verb
    #[arg(long, value_name = "DIR", required_if_eq("shell", "man"))]
    pub(crate) to: Option<PathBuf>,
}

/// A form of the verbs and their flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pages {
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
    /// Completions for Elvish.
    Elvish,
    /// Completions for `PowerShell`.
    Powershell,
    /// Man pages.
    Man,
}

/// `lapstrake builders`, for `buildx ls`, `buildx inspect` and `buildx version`
#[derive(Debug, ClapArgs)]
pub(crate) struct Builders {
    /// The question
    pub(crate) what: About,
    /// The builder; the only one is `default`
    pub(crate) name: Option<String>,
    /// Accepted for Docker's sake: the builder needs no start
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// The form of a row of `ls`: a Go template, or `json`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// A question to the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum About {
    /// The builders, a row each.
    Ls,
    /// One builder.
    Inspect,
    /// Its version.
    Version,
}
