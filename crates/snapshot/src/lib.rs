//! Committed layers to a mountable root, and a changed root back to a layer.
//!
//! Runs no processes. A mount is only ever a descriptor: it is attached nowhere, so that it ends with the process that
//! holds it, however that ends.

mod active;
mod classic;
mod error;
mod export;
mod implied;
mod import;
mod mount;
mod part;
mod ready;
mod stacking;
mod verify;
mod view;

pub use active::{Active, Halves};
pub use error::{OTHER_STATE, SnapshotError};
pub use export::{diff_id, write_tar};
pub use implied::{settle, settle_stack};
pub use import::{Imported, adopt_layer, import_layer, import_packed, read_file, unpack_packed};
pub use mount::{MAX_LAYERS, bind, mount, mount_classically};
pub use part::take_files;
pub use ready::is_copied;
pub use stacking::{Lower, copy, stacking, tried};
pub use verify::{damage, readopt};
pub use view::View;
