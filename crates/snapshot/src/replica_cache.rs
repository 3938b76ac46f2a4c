//! Copies of layers that a step or a view has left, for what comes next: it needs no other copy.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use lapstrake_store::{Store, TempDir};
use lapstrake_tree::replica::Replica;

use crate::stacking::Lower;

/// How many are kept: each takes as much of the disk as all that it shows.
const MOST: usize = 2;

/// A copy that nobody uses.
struct CachedReplica {
    state: PathBuf,
    lowers: Vec<Lower>,
    copy: (TempDir, Replica),
}

/// Roots that a later step can go on in, the newest last. Roots that remain at the end of the process are removed with the
/// process's part of `tmp/`.
static CACHED: Mutex<Vec<CachedReplica>> = Mutex::new(Vec::new());

/// Keeps a copy of `lowers` of the state directory `state`.
pub(crate) fn keep(state: PathBuf, lowers: Vec<Lower>, copy: (TempDir, Replica)) {
    let mut ready = CACHED.lock().unwrap_or_else(PoisonError::into_inner);
    ready.push(CachedReplica { state, lowers, copy });
    let oldest = (ready.len() > MOST).then(|| ready.remove(0));
    // Its removal may take a while.
    drop(ready);
    drop(oldest);
}

/// A copy of `lowers`, which is the caller's from now on.
pub(crate) fn take(store: &Store, lowers: &[Lower]) -> Option<(TempDir, Replica)> {
    let mut ready = CACHED.lock().unwrap_or_else(PoisonError::into_inner);
    let place = ready.iter().position(|one| one.state == store.root() && one.lowers == lowers)?;
    Some(ready.remove(place).copy)
}

/// Whether a copy of `lowers` is there.
#[must_use]
pub fn is_copied(store: &Store, lowers: &[Lower]) -> bool {
    let ready = CACHED.lock().unwrap_or_else(PoisonError::into_inner);
    ready.iter().any(|one| one.state == store.root() && one.lowers == lowers)
}
