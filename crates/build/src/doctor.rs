//! The machine examined: what builds need of it and what is missing, and whether the state directory holds what was put there.

mod state;

use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::text;
use lapstrake_runtime::{Choice, Sandbox, Way, advice, dropped, limits_available};
use lapstrake_snapshot::OTHER_STATE;
use lapstrake_store::{Stacking, Store};
use lapstrake_sys::kernel;
use lapstrake_sys::userns::{Asked, Entered, Ids, enter_with};
use serde::Serialize;

/// The oldest kernel that works. It brought `mount_setattr`; the release before brought overlayfs marks in `user.*`.
const KERNEL: (u32, u32) = (5, 12);

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The feature is usable.
    Ok,
    /// Not there, and something is refused without.
    Limited,
    /// Not there, and nothing can be built without.
    Missing,
}

/// One finding.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The part of the machine.
    pub name: &'static str,
    /// How that part stands.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

fn finding(name: &'static str, state: State, detail: impl Into<String>) -> Finding {
    Finding { name, state, detail: detail.into(), hint: None }
}

/// The parts of the machine that [`examine`] looks at, as the caller's environment has them.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The state directory; `None` where no place for it is known.
    pub state_root: Option<PathBuf>,
    /// The ids that an ordinary user is to have.
    pub ids: Asked,
    /// Why layers are to be copied where an overlay could be mounted.
    pub copies_as: Option<String>,
    /// The program `git`.
    pub git: Option<PathBuf>,
}

/// How much of the state directory's contents [`examine`] reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Nothing.
    #[default]
    Unread,
    /// All of it.
    Read,
    /// All of it; what is damaged is dropped.
    Repaired,
}

/// Looks at the machine, and at the state directory. An ordinary user's process is in a user namespace afterwards, as that of
/// a build, so this comes before the first thread.
pub fn examine(around: &Surroundings, reading: Contents) -> Vec<Finding> {
    let mut all = vec![running_kernel(), seccomp(), null_device()];
    // From here on we are what a build is.
    let (ids, entered) = ids(&around.ids);
    all.push(ids);
    let mut contents = Vec::new();
    match &around.state_root {
        Some(path) => {
            // First: what was repaired is as it is found then.
            if reading != Contents::Unread {
                contents = state::check(path, reading == Contents::Repaired);
            }
            all.extend(state_directory(path, around, entered));
        }
        None => all.push(finding("state directory", State::Missing, "set HOME or LAPSTRAKE_ROOT")),
    }
    if entered {
        all.extend(sandbox());
    }
    for (kind, found) in limits_available() {
        let name = match kind {
            "memory" => "limit of memory",
            "cpu" => "limit of cpus",
            "cpuset" => "choice of cpus",
            "io" => "limit of disks",
            _ => "limit of processes",
        };
        all.push(match found {
            Ok(how) => finding(name, State::Ok, how),
            Err(why) => finding(name, State::Limited, why),
        });
    }
    all.push(match &around.git {
        Some(path) => finding("git", State::Ok, path.display().to_string()),
        None => finding("git", State::Limited, "not installed: addresses of repositories are refused"),
    });
    all.extend(contents);
    all
}

fn running_kernel() -> Finding {
    let (release, (major, minor)) = (kernel::release(), KERNEL);
    if kernel::is_before(KERNEL) {
        finding("kernel", State::Missing, format!("{release}: {major}.{minor} or newer is needed"))
    } else {
        finding("kernel", State::Ok, release)
    }
}

fn seccomp() -> Finding {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "user_notif") {
        finding("seccomp", State::Ok, "filters and user notification")
    } else if actions.is_empty() {
        finding("seccomp", State::Missing, "this kernel has no system call filters")
    } else {
        finding("seccomp", State::Limited, "no user notification: one mapped id cannot look like many")
    }
}

/// The device that every program without input or output is started with.
fn null_device() -> Finding {
    match kernel::null_device_fault() {
        None => finding("null device", State::Ok, "/dev/null"),
        Some(why) => {
            let hint = Some(kernel::NULL_DEVICE_HINT.to_owned());
            Finding { hint, ..finding("null device", State::Missing, format!("/dev/null: {why}")) }
        }
    }
}

/// The check of user ids. Afterwards the process is root of a user namespace, if possible.
fn ids(asked: &Asked) -> (Finding, bool) {
    let name = "user ids";
    match enter_with(asked) {
        Ok(Entered::Root) => (finding(name, State::Ok, "root"), true),
        Ok(Entered::User { ids: Ids::Full { count } }) => {
            (finding(name, State::Ok, format!("a user namespace with {count} ids")), true)
        }
        Ok(Entered::User { ids: Ids::Single { lack } }) => {
            let detail = format!("a user namespace with one id, made to look like many ({lack})");
            (Finding { hint: Some(lack.hint()), ..finding(name, State::Limited, detail) }, true)
        }
        Err(error) => {
            let hint = error.hint().map(str::to_owned);
            (Finding { hint, ..finding(name, State::Missing, error.to_string()) }, false)
        }
    }
}

/// The directory, and whether layers can be stacked in it.
fn state_directory(path: &Path, around: &Surroundings, entered: bool) -> Vec<Finding> {
    let shown = path.display().to_string();
    let store = match Store::open(path) {
        Ok(store) => store,
        Err(error) => {
            let why = format!("{shown}: {}", text(&error));
            return vec![finding("state directory", State::Missing, why)];
        }
    };
    let mut all = vec![finding("state directory", State::Ok, shown)];
    let stuck = store.undeletable();
    if !stuck.is_empty() {
        let names: Vec<String> = stuck.iter().map(|path| path.display().to_string()).collect();
        let hint = format!("`rm -rf {}` says why; as root it may work", names.join(" "));
        let found = finding("leftovers", State::Limited, format!("{} cannot be removed", names.join(", ")));
        all.push(Finding { hint: Some(hint), ..found });
    }
    if entered {
        all.push(layers(&store, around.copies_as.as_deref()));
    }
    all
}

/// How layers are put on each other.
fn layers(store: &Store, copies_as: Option<&str>) -> Finding {
    let found = match copies_as {
        Some(why) => lapstrake_snapshot::copy(store, why),
        None => lapstrake_snapshot::probe_stacking(store),
    };
    let hint = Some(OTHER_STATE.to_owned());
    match found {
        Ok(Stacking::Overlay) => finding("overlayfs", State::Ok, "layers can be stacked"),
        Ok(Stacking::Copy { why }) => {
            let detail = format!("layers are copied, so that builds are slower: {why}");
            Finding { hint, ..finding("overlayfs", State::Limited, detail) }
        }
        Err(error) => Finding { hint, ..finding("overlayfs", State::Missing, text(&error)) },
    }
}

fn sandbox() -> Vec<Finding> {
    match Sandbox::start() {
        Ok(sandbox) => {
            vec![finding("sandbox", State::Ok, "namespaces and mounts can be made"), network(&sandbox)]
        }
        Err(error) => vec![finding("sandbox", State::Missing, text(&error))],
    }
}

/// Whether containers can have networks of their own. The other two kinds need nothing.
fn network(sandbox: &Sandbox) -> Finding {
    let name = "network";
    let Choice { way, blocked } = match sandbox.way_out() {
        Ok(choice) => choice,
        Err(error) => {
            let hint = error.hint().map(str::to_owned);
            let detail = format!("host and none only: {}", text(&error));
            return Finding { hint, ..finding(name, State::Limited, detail) };
        }
    };
    let hint = blocked.as_ref().filter(|chains| !chains.is_empty()).map(|chains| advice(chains));
    match (way, &blocked) {
        (Way::Program(program), None) => {
            finding(name, State::Ok, format!("host, none, isolated by {program}"))
        }
        (Way::Program(program), Some(chains)) => {
            let detail = format!("host, none, isolated by {program}, as {}", dropped(chains));
            Finding { hint, ..finding(name, State::Ok, detail) }
        }
        (Way::Nat, None) => finding(name, State::Ok, "host, none, isolated by address translation"),
        (Way::Nat, Some(chains)) => {
            let detail = format!("host and none only: {}", dropped(chains));
            Finding { hint, ..finding(name, State::Limited, detail) }
        }
    }
}
