//! What each op does: sources, processes, file changes, merges.
//!
//! A [`Worker`] holds what belongs to the machine; a [`Job`] is one build of it. A worker has any number of jobs at once.
//!
//! Parses no text. A result is a [`Stack`]: layers, lowest first, or a directory of the host.

mod cache;
mod context_parts;
mod difference;
mod error;
mod exec;
mod failed;
mod file;
mod job;
mod settings;
mod source;
mod stack;
mod worker;

pub use cache::imports::{CacheFrom, CacheImports, ImportedCache, shared_key, shared_output_key};
pub use cache::{Cache, record};
pub use context_parts::{ContextPart, context_parts};
pub use error::OpsError;
pub use exec::agent::bind_short;
pub use exec::cdi::{KnownDevice, USUAL_DIRS, known_devices};
pub use exec::container::{Container, ProcessRequest, Streams};
pub use exec::debug::{Debug, HandOver, Turn};
pub use exec::loopback::unreached_service;
pub use exec::mount_manifest::mount_manifest;
pub use failed::{FailedStep, FailedSteps, FailedTrees, LeftTree};
pub use job::Job;
pub use settings::{Ask, LocalContext, Secret, Settings};
pub use source::facts::{Algorithm, FileFacts, GitFacts};
pub use source::image::{ImageRules, Images, LocatedImage, RemoteLayers, Unpack};
pub use source::remote::host as host_of;
pub use stack::{SharedStack, Stack, StackReport, StackResult};
pub use worker::{Worker, WorkerSettings};
