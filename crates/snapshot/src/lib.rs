//! Committed layers to a mountable root, and a changed root back to a layer.
//!
//! Runs no processes. A mount is only ever a descriptor: it is attached nowhere, so that it ends with the process that
//! holds it, however that ends.

mod active;
mod error;
mod export;
mod implicit_parents;
mod import;
mod legacy_mount;
mod mount;
mod partial_extract;
mod replica_cache;
mod stacking;
mod verify;
mod view;

pub use active::{Active, UpperAndLower};
pub use error::{OTHER_STATE, SnapshotError};
pub use export::{diff_id, write_tar};
pub use implicit_parents::{resolve_implicit_parents, resolve_stack};
pub use import::{Imported, adopt_layer, import_layer, import_lazy, read_file, unpack_lazy};
pub use mount::{MAX_LAYERS, bind, mount, use_legacy_mount};
pub use partial_extract::extract_files;
pub use replica_cache::is_copied;
pub use stacking::{Lower, copy, probe_stacking, stacking};
pub use verify::{damage, readopt};
pub use view::{View, ViewCopy};
