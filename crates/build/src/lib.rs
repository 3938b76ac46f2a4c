//! A build, from a [`lapstrake_request::BuildRequest`] to its outputs. The command line is one caller; servers are others.
//!
//! ```text
//! BuildRequest → Resolved → Loaded → Planned → Solved → Delivered
//!                 values     text     graph    layers    outputs
//! ```
//! Knows no command line, no environment, no terminal and no exit status. The caller is a [`Client`]. Errors are
//! [`lapstrake_diag::Report`]s; what is to be said besides is in the [`Trace`].

pub mod attrs;
mod build_document;
mod cache;
mod check;
mod client;
pub mod container;
mod context_source;
mod deliver;
mod described;
pub mod doctor;
mod documents;
mod expansions;
mod explain;
pub mod format;
mod history;
mod import;
mod include;
mod journal;
mod judgements;
mod lock;
mod metadata;
mod notes;
mod output;
mod phases;
pub mod picture;
mod plan;
mod plan_document;
mod platforms;
mod pull;
mod remote_base;
mod resolve;
mod resolved;
mod sarif;
mod sink;
mod solve_status;
mod source;
mod step_status;
mod tails;
mod timeline;
mod unsupported;

pub use build_document::{build_document, build_summary, used_by_step};
pub use check::{BuildError, check, from_argument, options, outline, summary, wanted_rules};
pub use client::{Addressee, Client, Engine, Writing, WritingFiles};
pub use context_source::{Place, is_remote};
pub use deliver::{Delivered, check_engine};
pub use described::Described;
pub use documents::{
    CheckDocument, OutlineDocument, SUBREQUESTS, TargetsDocument, subrequests, targets_rows, written,
};
pub use expansions::expansion;
pub use explain::Comparison;
pub use history::{BuildRecord, Call, Part, Status, Subject, find_build, without_secrets};
pub use import::{Import, changed_config};
pub use include::{included, load_bytes, root_of};
pub use journal::Journal;
pub use judgements::ignored;
pub use metadata::Metadata;
pub use notes::Notes;
pub use phases::{Build, Loaded, Planned, Solved, Trace, build, export, finish, load, plan_loaded, prepare};
pub use picture::planned_steps;
pub use plan::plan;
pub use plan_document::plan_document;
pub use pull::pull_image;
pub use resolved::{Resolved, local_context};
pub use sarif::sarif;
pub use sink::to_file;
pub use solve_status::solve_status;
pub use source::{Machine, Tools, first_error, read, usable};
pub use step_status::status;
pub use tails::{Failure, Tails};
pub use timeline::timeline;
