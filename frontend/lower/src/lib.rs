//! Syntax tree and build inputs to the build graph.
//!
//! Fetches nothing: it asks one question, what a base image is ([`ImageResolver`]), and only for the stages that the
//! target needs. [`required_images`] tells beforehand most of what will be asked, so that a caller can find the
//! answers at once instead of one after the other; images that ONBUILD triggers bring in are only known later. Where
//! `SOURCE_DATE_EPOCH` names a source, [`epoch_source`] tells which one the caller has to ask for its time.
//!
//! How a Dockerfile becomes a graph: global ARGs and the epoch (`globals`) → stages with names and edges (`stages`) →
//! their bases, and triggers (`bases`) → one stage after the other, instruction by instruction (`stage`, `run`,
//! `transfer`) → [`Plan`](lapstrake_graph::Plan).

mod bases;
mod checks;
mod dump;
mod env;
mod epoch;
mod error;
mod from_checks;
mod globals;
mod inputs;
mod lowering;
mod names;
mod outline;
mod paths;
mod remote;
mod resolver;
mod root;
mod run;
mod signals;
mod stage;
mod stages;
mod state;
mod text;
mod transfer;
mod used;

pub use dump::dump;
pub use error::LowerError;
pub use globals::epoch_source;
pub use inputs::{BuildInputs, NamedContext, NoCache};
pub use lowering::{
    JointPlan, LowerRequest, RequiredImage, Scope, lower, lower_all, lower_checked, required_images,
};
pub use outline::{Outline, outline};
pub use remote::{git_source, http_context, title as source_title};
pub use resolver::{ImageRequest, ImageResolver, ResolveFailure, ResolvedImage};
pub use used::{OutlineArg, OutlineItem};
