//! The arguments of `lapstrake debug`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The pure halves of the builder, one question each.
#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Print a Dockerfile's syntax tree
    Parse(Parse),
    /// Expand words: JSON lines on standard input, JSON lines on standard output
    Expand,
    /// Find the paths that an ignore file hides: JSON lines in and out, or `--why PATH` in a context
    Ignore(DebugIgnore),
    /// Print the steps of a build
    Plan(DebugPlan),
}

/// `lapstrake debug parse`
#[derive(Debug, Args)]
pub(crate) struct Parse {
    /// Print JSON, schema `lapstrake-parse/1` (the only form)
    #[arg(long, required = true)]
    pub(crate) json: bool,
    /// The Dockerfile; `-` is standard input
    pub(crate) file: PathBuf,
}

/// `lapstrake debug plan`
#[derive(Debug, Args)]
pub(crate) struct DebugPlan {
    /// Print JSON, schema `lapstrake-plan/1` (the only form)
    #[arg(long, required = true)]
    pub(crate) json: bool,
    /// Use a made-up image for every image that the Dockerfile names
    #[arg(long)]
    pub(crate) fake_images: bool,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set an ARG; without a value, the environment provides it
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// The language of the Dockerfile, instead of its `# syntax=` line
    #[arg(long, value_name = "NAME")]
    pub(crate) syntax: Option<String>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// The platform of the image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The Dockerfile; `-` is standard input
    pub(crate) file: PathBuf,
}

/// `lapstrake debug ignore`
#[derive(Debug, Args)]
pub(crate) struct DebugIgnore {
    /// Name the line that decides about this path of the context
    #[arg(long, value_name = "PATH")]
    pub(crate) why: Option<String>,
    /// The Dockerfile, whose own ignore file wins (default: `CONTEXT/Dockerfile`)
    #[arg(short, long, value_name = "FILE", requires = "why")]
    pub(crate) file: Option<PathBuf>,
    /// The directory to build from (default: the current one)
    #[arg(requires = "why")]
    pub(crate) context: Option<PathBuf>,
}
