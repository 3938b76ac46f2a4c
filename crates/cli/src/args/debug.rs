//! What can be typed behind `lapstrake debug`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The pure halves of the builder, one question each.
#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Print a Dockerfile's syntax tree
    Parse(Parse),
    /// Expand words: JSON lines on standard input, JSON lines on standard output
    Expand,
}

/// `lapstrake debug parse`
#[derive(Debug, Args)]
pub(crate) struct Parse {
    /// Print JSON, schema `lapstrake-parse/1` (the only form there is)
    #[arg(long, required = true)]
    pub(crate) json: bool,
    /// The Dockerfile; `-` is standard input
    pub(crate) file: PathBuf,
}
