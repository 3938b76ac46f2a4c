//! Bake files: `docker-bake.hcl`, `docker-bake.json` and compose files to targets that can be built.
//!
//! Pure: texts and variables go in, and targets come out. No file, environment or terminal is read here.

mod compose;
mod convert;
mod definition;
mod dotenv;
mod entries;
mod error;
mod eval;
mod file;
mod functions;
mod heredocs;
mod items;
mod module;
mod number;
mod overrides;
mod patterns;
mod syntax;
mod target;
mod types;
mod value;

pub use definition::{Definition, TargetSet};
pub use entries::{AttestEntry, CacheEntry, OutputEntry, SecretEntry, SshEntry, attestation};
pub use error::{BakeError, Baked, Place};
pub use file::File;
pub use functions::Host;
pub use module::{Outside, Variable};
pub use overrides::{Granted, Overrides};
pub use target::{Group, Pairs, Resources, Target};
