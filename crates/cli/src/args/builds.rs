//! The arguments of verbs about earlier builds.

use clap::{Args as ClapArgs, Subcommand};

/// `lapstrake builds`
#[derive(Debug, Subcommand)]
pub(crate) enum Builds {
    /// List earlier builds, newest first
    Ls {
        /// Print only ids
        #[arg(short, long)]
        quiet: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a build and the results of its steps
    Inspect {
        /// Print the record as JSON
        #[arg(long)]
        json: bool,
        /// The build: the beginning of its id, or `^1` for the last but one (default: the last one)
        build: Option<String>,
    },
    /// Print the output of a build
    Logs {
        /// The build: the beginning of its id, or `^1` for the last but one (default: the last one)
        build: Option<String>,
    },
    /// Remove records of builds
    Rm {
        /// Remove all records
        #[arg(long, conflicts_with = "builds")]
        all: bool,
        /// The builds: beginnings of their ids
        #[arg(required_unless_present = "all")]
        builds: Vec<String>,
    },
    /// Draw a build on a time axis, as one HTML page
    Timeline {
        /// The build: the beginning of its id, or `^1` for the last but one (default: the last one)
        build: Option<String>,
        /// The page (default: standard output)
        #[arg(short, long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
}

/// `lapstrake explain`
#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The number of changed files that are named for each step
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub(crate) files: usize,
    /// The build: the beginning of its id, or `^1` for the last but one (default: the last one)
    pub(crate) build: Option<String>,
    /// The earlier build to compare with (default: the previous build of the same context, Dockerfile and target)
    pub(crate) earlier: Option<String>,
}
