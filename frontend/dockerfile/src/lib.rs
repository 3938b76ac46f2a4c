//! Dockerfile text to a spanned syntax tree and diagnostics.
//!
//! Pure: never touches the file system, never fails as a whole. [`parse()`] gives whatever could be read together with
//! what is wrong; a tree whose diagnostics have an error is good for tools and must not be built. Nothing is expanded
//! here except by [`words::expand`], which the lowering calls with the environment that it keeps.
//!
//! Text flows one way: physical lines ([`SourceFile`](lapstrake_diag::SourceFile)) → logical lines → split lines
//! (keyword, flags, arguments) → typed [`Instruction`]s → [`Stage`]s.

mod check;
mod directives;
mod docs;
mod flags;
mod git_ref;
mod heredoc;
mod include;
mod instruction;
mod json;
mod json_array;
mod lines;
mod mount;
mod parse;
mod port;
mod print;
mod split;
mod syntax;
mod text;
pub mod words;

pub use check::{CheckOptions, Checks, Finding, Place, Rule, check_syntax};
pub use directives::{Directive, detect_syntax};
pub use git_ref::{GitRef, parse_git_ref, percent_decoded};
pub use heredoc::{Heredoc, chomp, is_heredoc_word};
pub use include::{BadInclude, Load, with_includes};
pub use json::parse_json;
pub use mount::{Mount, MountType, Sharing};
pub use parse::{
    EmptyContinuation, Fault, Include, Parsed, Phase, Refused, code, dialect, parse, parse_as, parse_trigger,
};
pub use port::{Port, PortStyle, parse_port, port_style};
pub use print::print;
pub use syntax::{
    Add, Arg, Around, Attempts, Command, CommandLine, Copy, Device, Dialect, Dockerfile, Flag, From,
    Healthcheck, InlineFile, Instruction, Keyword, MountFlag, Network, Onbuild, Pair, Run, RunFlags,
    Security, Stage, Transfer,
};
pub use text::{Text, Word};
