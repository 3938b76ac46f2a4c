//! The start of every verb that touches state: the namespace and the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_build::Machine;
use lapstrake_diag::{Context as _, Fault, Outcome, Report, Usage, text};
use lapstrake_images::{find_for, find_image};
use lapstrake_registry::{Credentials, Registries};
use lapstrake_store::{ImageRow, Store, release_reserve};
use lapstrake_sys::userns::{Asked, Entered, Ids, UsernsError, enter_with};

use crate::env;

/// The report of a user namespace that cannot be had.
fn no_namespace(error: &UsernsError) -> Report {
    let report = Report::new(text(error)).with_fault(Fault::Environment);
    match error.hint() {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

/// Why layers are copied where an overlay could be mounted.
pub(crate) const BY_WISH: &str = "chosen by LAPSTRAKE_MOUNTS";

/// Enters a user namespace as an ordinary user, then opens the state. Must come before the first thread.
pub(crate) fn open() -> Outcome<Machine> {
    open_at(&root()?)
}

/// As [`open`], with the state in `root` if that is given.
pub(crate) fn open_for(root: Option<&Path>) -> Outcome<Machine> {
    match root {
        Some(root) => open_at(root),
        None => open(),
    }
}

/// As [`open`], for a verb that makes room: it is to work where there is none.
pub(crate) fn open_to_remove() -> Outcome<Machine> {
    let root = root()?;
    release_reserve(&root);
    open_at(&root)
}

fn root() -> Result<PathBuf, Usage> {
    let is_root = rustix::process::geteuid().is_root();
    env::state_root(is_root).ok_or_else(|| Usage("no state directory: set HOME or LAPSTRAKE_ROOT".to_owned()))
}

fn open_at(root: &Path) -> Outcome<Machine> {
    let mounts = env::mounts();
    match mounts.as_deref() {
        None | Some("" | "copy") => {}
        Some("classic") => lapstrake_snapshot::use_legacy_mount(),
        Some(other) => {
            return Err(Usage(format!("LAPSTRAKE_MOUNTS={other}: not `classic` or `copy`")).into());
        }
    }
    let entered = enter_with(&asked_ids()?).map_err(|error| no_namespace(&error))?;
    let single_id = matches!(entered, Entered::User { ids: Ids::Single { .. } });
    let store = Store::open(root).with_context(|| "cannot open the state directory")?;
    if mounts.as_deref() == Some("copy") {
        store.set_stacking(lapstrake_snapshot::copy(&store, BY_WISH)?);
    }
    Ok(Machine { store: Arc::new(store), single_id })
}

/// The ids of an ordinary user.
pub(crate) fn asked_ids() -> Result<Asked, Usage> {
    let single_id = match env::ids().as_deref() {
        None | Some("") => false,
        Some("one") => true,
        Some(other) => return Err(Usage(format!("LAPSTRAKE_IDS={other}: not `one`"))),
    };
    Ok(Asked { single_id, login_name: env::login_name() })
}

/// As [`find_for`]; where none is asked for, the one that the environment prefers, if that is there.
pub(crate) fn find_to_run(store: &Store, name: &str, platform: Option<&str>) -> Outcome<ImageRow> {
    match (platform, env::default_platform()) {
        (None, Some(preferred)) => {
            find_for(store, name, Some(&preferred)).or_else(|_| find_image(store, name))
        }
        (asked, _) => find_for(store, name, asked),
    }
}

/// Registries: who we are to them by Docker's configuration, and how they are reached by ours.
pub(crate) fn registries() -> Registries {
    let credentials = env::docker_config().map_or(Credentials::None, Credentials::Docker);
    Registries {
        credentials,
        files: env::settings(),
        other_tables: false,
        insecure: false,
        proxies: env::proxies(),
    }
}
