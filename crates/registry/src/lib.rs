//! The distribution protocol: resolve, pull and push.
//!
//! Streams bytes; the caller stores them. Everything is checked against its digest and size while it passes.
//! Follows the OCI distribution spec 1.1. Credentials go to the registry that they are for and to the token server that it
//! names, never along with a redirect.

mod ask;
mod body;
mod challenge;
mod choose;
mod client;
mod credentials;
mod error;
mod hosts;
mod push;
mod referrers;
mod resolve;
mod search;
mod send;
mod settings;
mod tags;
mod token;

pub use challenge::{Bearer, Challenge, challenge};
pub use choose::{Candidate, Looked, Search, is_index};
pub use client::{Client, Fetched};
pub use credentials::{Asked, Credentials, DockerConfig, Login, registry_of};
pub use error::RegistryError;
pub use hosts::is_loopback;
pub use push::{Blob, Pushed};
pub use resolve::Resolved;
pub use search::{Found, SearchFilter, search_place};
pub use settings::Registries;
