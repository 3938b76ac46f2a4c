//! Whether layers can be stacked here, found out before anything is fetched.

use std::fs;

use lapstrake_store::Store;
use rustix::thread::CapabilitySet;

use crate::error::SnapshotError;
use crate::mount::mount;

/// File systems that every kernel stacks layers on: ext2 to ext4, xfs, btrfs, tmpfs, f2fs.
const GOOD: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010];

/// Tries whether an overlay can be mounted on the state directory, where that is not certain.
///
/// # Errors
/// [`SnapshotError::NoOverlay`] with the kernel's reason.
pub fn foresee(store: &Store) -> Result<(), SnapshotError> {
    let good = rustix::fs::statfs(store.root()).is_ok_and(|found| GOOD.contains(&(found.f_type as u64)));
    let right = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    if good && right { Ok(()) } else { try_one(store) }
}

/// As [`foresee`], always tried.
///
/// # Errors
/// As [`foresee`].
pub fn try_one(store: &Store) -> Result<(), SnapshotError> {
    let dir = store.temp_dir()?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
    for made in [&lower, &upper, &work] {
        let refused = |source| SnapshotError::Directory { path: made.clone(), source };
        fs::create_dir(made).map_err(refused)?;
    }
    match mount(&[lower], Some((&upper, &work))) {
        Ok(_) => Ok(()),
        Err(error @ SnapshotError::Mount { .. }) => {
            Err(SnapshotError::NoOverlay { path: store.root().to_owned(), source: Box::new(error) })
        }
        Err(error) => Err(error),
    }
}
