//! What each op does: sources, processes, file changes, merges.
//!
//! A [`Worker`] holds what belongs to the machine; a [`Job`] is one build of it. A worker has any number of jobs at once.
//!
//! Parses no text. A result is a [`Stack`]: layers, lowest first, or a directory of the host.

mod arriving;
mod brought;
mod cache;
mod cdi;
mod context;
mod counting;
mod debug;
mod earlier;
mod error;
mod exec;
mod executor;
mod files;
mod foreign;
mod ground;
mod host;
mod images;
mod imports;
mod loopback;
mod mounts;
mod origin;
mod output;
mod part;
mod passes;
mod reading;
mod remote;
mod seen;
mod settings;
mod stack;
mod turns;
mod worker;

pub use cache::{Cache, record};
pub use debug::{Debug, HandOver, Turn};
pub use error::OpsError;
pub use executor::Job;
pub use images::{Files, Images, Known, There};
pub use imports::{CacheFrom, Import, Imports, shared_key};
pub use loopback::unreached;
pub use remote::host as host_of;
pub use seen::seen;
pub use settings::{LocalContext, Secret, Settings};
pub use stack::{SharedStack, Stack, StackReport, StackResult, settle};
pub use worker::Worker;
