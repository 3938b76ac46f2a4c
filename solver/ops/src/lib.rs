//! What each op does: sources, processes, file changes, merges.
//!
//! Parses no text. A result is a [`Stack`]: layers, lowest first, or a directory of the host.

mod arriving;
mod brought;
mod cache;
mod cdi;
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
mod inner;
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

pub use cache::{Cache, record};
pub use debug::{Debug, HandOver, Turn};
pub use error::OpsError;
pub use executor::Ops;
pub use images::{Files, Images, Known, There};
pub use imports::{CacheFrom, Import, Imports, shared_key};
pub use loopback::unreached;
pub use remote::host as host_of;
pub use seen::seen;
pub use settings::{LocalContext, Secret, Settings};
pub use stack::{SharedStack, Stack, StackReport, StackResult, settle};
