//! The state directory: content, records, references, locks.
//!
//! Does not know what a blob means. The layout on disk is described in [`layout`].
//!
//! Invariants:
//! - Any number of processes use one root at once. Objects are immutable, or replaced by rename; they are born in `tmp/`.
//! - Nothing is synced while building. A record counts only if what it names is there, so a crash costs a rebuilt step
//!   and never gives a wrong image. [`Store::sync`] is called before a person is told that an image is stored.
//! - What a killed process left in `tmp/` is removed by the next one that opens the root.

mod async_delete;
mod blobs;
mod boot;
mod build_journal;
mod build_limits;
mod builds;
mod db;
mod delta_layers;
mod epochs;
mod error;
mod files;
mod gc;
mod image_pins;
mod images;
mod layer_id;
mod layers;
pub mod layout;
mod lazy_layers;
mod lock;
mod log;
mod migrate;
mod mounts;
mod orphans;
mod process_dir;
mod records;
mod relations;
mod repair;
mod reserve_file;
mod stacking;
mod state_dir;
mod superblock;
mod tmp;
mod traces;

pub use blobs::{Blob, BlobWriter};
pub use build_journal::BuildRow;
pub use build_limits::BuildLimits;
pub use error::{StoreError, is_disk_full};
pub use gc::StoreUse;
pub use gc::policy::{Filter, Limits, Rule, Space};
pub use gc::{Item, ItemKind, Reclaimed};
pub use images::{ImageRow, TagRow};
pub use layer_id::{LayerId, StackLayer};
pub use layers::{LayerRow, LayerSize};
pub use layout::{Stacking, Store};
pub use lock::Lock;
pub use mounts::{CacheDir, Sharing};
pub use records::RecordOf;
pub use repair::{restore_superblock, set_database_aside};
pub use reserve_file::release_reserve;
pub use tmp::TempDir;
