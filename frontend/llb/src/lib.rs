//! Definitions of BuildKit's low-level build graph (LLB): from bytes to vertices of a [`Graph`](lapstrake_graph::Graph).
//!
//! A [`Definition`] is decoded and checked first. It tells which images have to be known. With these
//! [`Answers`], [`Definition::lower`] adds its ops to a graph. Nothing here fetches or runs anything.
//!
//! [`encode()`] goes the other way: it makes a definition of a part of a graph.
//!
//! An op is named by the SHA-256 of the bytes that the client sent. The names stay the names of the steps, so that a client finds
//! its own vertices in the progress of the build.

mod definition;
mod encode;
mod encode_exec;
mod encode_file;
mod encoded;
mod error;
mod exec;
mod file;
mod local;
mod lower;
mod names;
mod rewrite;
mod source;

pub use definition::{Definition, SourceMap};
pub use encode::encode;
pub use encoded::NotDefinable;
pub use error::LlbError;
pub use exec::CACHE_MODE;
pub use local::LocalSource;
pub use lower::{Answers, Lowered};
pub use rewrite::{Nested, Replacement};
pub use source::{ClientLayout, ImageQuestion, RemoteSource, ResolveMode, remote_source};
