//! The distribution protocol: resolve and pull, anonymously.
//!
//! Streams bytes; the caller stores them. Everything is checked against its digest and size while it passes.
//! Follows the OCI distribution spec 1.1. Pushing and credentials are not here yet.

mod challenge;
mod client;
mod error;
mod resolve;

pub use client::{Client, Fetched};
pub use error::RegistryError;
pub use resolve::{Resolved, choose};
