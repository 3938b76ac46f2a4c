//! What the tests share. Never ships.
//!
//! [`main`] runs tests as root and as ordinary users: each in a process of its own that has become what its [`Mode`]
//! says before it starts a thread, which a test harness with threads cannot do. It speaks the part of libtest's
//! language that cargo and nextest use.

pub mod buildkit;
mod harness;
mod mode;
mod registry;
mod web;

pub use harness::{Case, NO_SKIPS, Test, main, run, skip, skipped};
pub use mode::{ALL, MANY, Mode};
pub use registry::Registry;
pub use web::{Files, Request, Response, WebServer};
