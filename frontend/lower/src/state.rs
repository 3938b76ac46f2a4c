//! What is known of a stage after some of its instructions.

use lapstrake_graph::{Edge, HistoryDraft};
use lapstrake_oci::{ImageConfig, Platform};

use crate::env::Env;

/// What a stage has become so far; what stages built on it start with.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    /// The tree.
    pub(crate) edge: Edge,
    /// What variables are expanded with and processes see: ENV and ARG in the order in which they were set.
    pub(crate) env: Env,
    pub(crate) config: ImageConfig,
    pub(crate) history: Vec<HistoryDraft>,
    /// The ARGs declared, in order, with doubles.
    pub(crate) args: Vec<(String, Option<String>)>,
    pub(crate) platform: Platform,
    /// Whether there may be variables that nobody knows of.
    pub(crate) guessed: bool,
    /// Whether there was a WORKDIR in the stages of this file.
    pub(crate) workdir_set: bool,
}

impl StageState {
    /// The working directory.
    pub(crate) fn cwd(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        self.env.get(name).map(str::to_owned)
    }

    /// The shell form of a command.
    pub(crate) fn with_shell(&self, line: &str) -> Vec<String> {
        let mut args = match (self.config.config.shell.as_slice(), self.config.os.as_str()) {
            ([], "windows") => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            ([], _) => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
            (shell, _) => shell.to_vec(),
        };
        args.push(line.to_owned());
        args
    }
}
