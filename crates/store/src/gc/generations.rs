//! Generations of processes: see [`crate::epochs`].

use std::fs::File;
use std::sync::Arc;

use crate::epochs::{is_epoch_empty, join_part};
use crate::error::StoreError;
use crate::layout::Store;

/// The right of one part of a process to use the layers and blobs that it finds: see [`Store::begin_use`].
pub struct StoreUse {
    store: Arc<Store>,
    _lock: File,
}

impl Drop for StoreUse {
    fn drop(&mut self) {
        // Layers that this part has seen may be removed from now on, and made again in another way.
        self.store.forget_known();
    }
}

impl Store {
    /// This process uses what is in the store from now on.
    pub(crate) fn join_epoch(&self) -> Result<(), StoreError> {
        self.user.join(self.root(), self.generation()?)
    }

    /// One part of this process uses the store until the returned value is dropped: one build of a server. Layers and blobs that
    /// the part finds stay until then, also if this process removes things itself: see [`Store::leave`].
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn begin_use(self: &Arc<Self>) -> Result<StoreUse, StoreError> {
        let lock = join_part(self.root(), self.generation()?)?;
        // Nobody held these layers since the last part ended.
        self.forget_known();
        Ok(StoreUse { store: self.clone(), _lock: lock })
    }

    /// From now on only the holders of [`Store::begin_use`] in this process use what they find. A server that waits for builds
    /// keeps nothing from being removed.
    pub fn leave(&self) {
        self.user.leave();
    }

    /// The present generation.
    pub(super) fn generation(&self) -> Result<i64, StoreError> {
        self.with_db(|db| db.prepare_cached("SELECT number FROM generation")?.query_row([], |row| row.get(0)))
    }

    /// Begins a new generation if that can be, and gives it. The caller holds the lock for it.
    pub(super) fn advance(&self) -> Result<i64, StoreError> {
        let now = self.generation()?;
        // The files of `now - 1` and of `now + 1` are the same one.
        if !is_epoch_empty(self.root(), now - 1)? {
            return Ok(now);
        }
        self.with_db(|db| db.execute("UPDATE generation SET number = ?1", [now + 1]))?;
        Ok(now + 1)
    }

    /// The newest generation of which nobody is left. The caller holds the lock for it, and uses nothing that it found
    /// before.
    pub(super) fn drained(&self) -> Result<i64, StoreError> {
        self.user.leave();
        self.forget_known();
        let now = self.advance()?;
        Ok(if is_epoch_empty(self.root(), now - 1)? { now - 1 } else { now - 2 })
    }
}
