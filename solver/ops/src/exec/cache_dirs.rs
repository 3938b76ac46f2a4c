//! The directories of `RUN --mount=type=cache`: which one a mount means, and when it begins empty.

use std::sync::PoisonError;

use lapstrake_graph::{CacheMount, Exec, MountKind};

use crate::error::OpsError;
use crate::job::context::BuildContext;
use crate::stack::SharedStack;

/// The identity of a cache directory: its id, and all that its first content depends on.
pub(crate) fn identity(cache: &CacheMount, inputs: &[SharedStack]) -> String {
    let seed = cache.from.and_then(|input| inputs.get(input));
    let seed = seed.map(lapstrake_go::to_json).unwrap_or_default();
    let CacheMount { id, mode, uid, gid, .. } = cache;
    format!("{id}\0{mode:o}\0{uid}\0{gid}\0{}", String::from_utf8_lossy(&seed))
}

/// Has the cache directories of `exec` begin empty, once in a job, so that later steps of the job share what earlier ones wrote.
pub(crate) fn renew(job: &BuildContext, exec: &Exec, inputs: &[SharedStack]) -> Result<(), OpsError> {
    // Held until the directories are renewed: a second step that uses one waits.
    let mut renewed = job.renewed_caches.lock().unwrap_or_else(PoisonError::into_inner);
    for mount in &exec.mounts {
        if let MountKind::Cache(cache) = &mount.kind {
            let identity = identity(cache, inputs);
            if !renewed.contains(&identity) {
                job.store.renew_cache_dir(&identity)?;
                renewed.insert(identity);
            }
        }
    }
    Ok(())
}
