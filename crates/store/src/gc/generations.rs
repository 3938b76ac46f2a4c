//! Generations of processes: see [`crate::epochs`].

use crate::epochs::{StoreUse, is_epoch_empty};
use crate::error::StoreError;
use crate::layout::Store;

impl Store {
    /// This process uses what is in the store from now on.
    pub(crate) fn join_epoch(&self) -> Result<(), StoreError> {
        self.user.join(self.root(), self.generation()?)
    }

    /// A part of this process uses the store until the value goes. What the part finds stays until then, also if this process
    /// removes things itself: see [`Store::leave`].
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn begin_use(&self) -> Result<StoreUse, StoreError> {
        StoreUse::join(self.root(), self.generation()?)
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
