//! `lapstrake doctor`: what of the machine is there, what is missing, and what would help.

mod state;

use lapstrake_snapshot::OTHER_STATE;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use lapstrake_diag::{Outcome, text};
use lapstrake_go::TabWriter;
use lapstrake_runtime::{Choice, Sandbox, Way, advice, dropped, limits_available};
use lapstrake_store::{Stacking, Store};
use lapstrake_sys::kernel;
use lapstrake_sys::userns::{Entered, Ids, enter_with};
use serde::Serialize;

use crate::args::Doctor;
use crate::env;

use crate::session::BY_WISH;

/// The oldest kernel that works. It brought `mount_setattr`; the release before brought overlayfs marks in `user.*`.
const KERNEL: (u32, u32) = (5, 12);

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// The feature is usable.
    Ok,
    /// Not there, and something is refused without.
    Limited,
    /// Not there, and nothing can be built without.
    Missing,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn finding(name: &'static str, state: State, detail: impl Into<String>) -> Finding {
    Finding { name, state, detail: detail.into(), hint: None }
}

/// Runs the verb `doctor`.
pub(crate) fn doctor(args: &Doctor) -> Outcome<ExitCode> {
    let findings = look(args);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        let mut rows = Vec::new();
        for Finding { name, state, detail, hint } in &findings {
            let word = match state {
                State::Ok => "ok",
                State::Limited => "limited",
                State::Missing => "MISSING",
            };
            rows.push([word.to_owned(), (*name).to_owned(), detail.clone()]);
            rows.extend(hint.iter().map(|hint| [String::new(), String::new(), format!("hint: {hint}")]));
        }
        say!("{}", TabWriter::columns(&[9, 19], 1).rows(&rows).trim_end_matches('\n'));
    }
    let bad = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if bad { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn look(args: &Doctor) -> Vec<Finding> {
    let mut all = vec![running_kernel(), seccomp(), null_device()];
    let root = rustix::process::geteuid().is_root();
    let state = env::state_root(root);
    // From here on we are what a build is.
    let (ids, entered) = ids();
    all.push(ids);
    let mut contents = Vec::new();
    match state {
        Some(path) => {
            // First: what was repaired is as it is found then.
            if args.state || args.repair {
                contents = state::check(&path, args.repair);
            }
            all.extend(state_directory(&path, entered));
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
    all.push(match env::on_path("git") {
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
fn ids() -> (Finding, bool) {
    let name = "user ids";
    match enter_with(&crate::session::asked_ids().unwrap_or_default()) {
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
fn state_directory(path: &Path, entered: bool) -> Vec<Finding> {
    let shown = path.display().to_string();
    let store = match Store::open(path) {
        Ok(store) => store,
        Err(error) => {
            let why = format!("{shown}: {}", text(&error));
            return vec![finding("state directory", State::Missing, why)];
        }
    };
    let mut all = vec![finding("state directory", State::Ok, shown)];
    let stuck = store.stuck();
    if !stuck.is_empty() {
        let names: Vec<String> = stuck.iter().map(|path| path.display().to_string()).collect();
        let hint = format!("`rm -rf {}` says why; as root it may work", names.join(" "));
        let found = finding("leftovers", State::Limited, format!("{} cannot be removed", names.join(", ")));
        all.push(Finding { hint: Some(hint), ..found });
    }
    if entered {
        all.push(layers(&store));
    }
    all
}

/// How layers are put on each other.
fn layers(store: &Store) -> Finding {
    let found = match env::mounts().as_deref() {
        Some("copy") => lapstrake_snapshot::copy(store, BY_WISH),
        _ => lapstrake_snapshot::tried(store),
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
