//! Real builds with the real binary: as root, as an ordinary user, and as one with a single id.
//!
//! ```text
//! cargo test -p lapstrake --test e2e NAME          all whose name contains NAME
//! cargo nextest run -p lapstrake -E 'test(NAME)'   the same
//! cargo xtask e2e NAME                             the same, after the Debian packages were installed
//! ```
//! A test is called `root::NAME`, `user::NAME` or `single::NAME`. Each has a process, a directory and a state directory of
//! its own, so any number of them run at once; the few that look at the whole machine run [`ALONE`]. An ordinary user runs
//! `user::` tests as himself. Root makes two users for `user::` and `single::`. A test whose programs are not installed is
//! skipped. `LAPSTRAKE_TEST_BINARY` names the binary if it is to be another than the one just built.

mod api;
mod archives;
mod bake;
mod builds;
mod caches;
mod changing;
mod checks;
mod configs;
mod confined;
mod conform;
mod containerd;
mod damage;
mod deep;
mod epoch;
mod errors;
mod evil;
mod exporters;
mod extensions;
mod foreign;
mod found;
mod habits;
mod held;
mod hostile;
mod images;
mod inodes;
mod kills;
mod language;
mod limits;
mod log;
mod logins;
mod lookalikes;
mod many;
mod migration;
mod model;
mod mounts;
mod named;
mod networks;
mod others;
mod outfiles;
mod overlays;
mod packed;
mod place;
mod placed;
mod platforms;
mod proxy;
mod pty;
mod push;
mod remote;
mod secure;
mod servers;
mod settings;
mod single;
mod terminal;
mod told;
mod traps;
mod trouble;
mod unfetched;
mod unpacked;
mod upkeep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use lapstrake_testkit::Case as Listed;

use self::place::{KINDS, Kind, Mode, Shared};

/// A test by name.
type Case = (&'static str, fn(&Mode) -> Result<(), String>);

/// A test of the tests themselves, by its whole name.
type Check = (&'static str, fn() -> Result<(), String>);

/// No test takes longer. What hangs is killed, so that the run ends and names it.
const LONGEST: Duration = Duration::from_secs(600);
/// Unless somebody asked for more rounds of a test that goes on for as long as one likes.
const LONGEST_ASKED: Duration = Duration::from_secs(6 * 3600);

/// The tests, with the programs that those of a file need besides the binary, a shell and `busybox`.
const CASES: &[(&[Case], &[&str])] = &[
    (language::CASES, &[]),
    (configs::CASES, &["python3"]),
    (errors::CASES, &[]),
    (checks::CASES, &[]),
    (bake::CASES, &["python3"]),
    (extensions::CASES, &[]),
    (api::CASES, &[]),
    (archives::CASES, &["skopeo", "umoci"]),
    (lookalikes::CASES, &["skopeo", "python3", "docker-registry", "ctr"]),
    (limits::CASES, &[]),
    (held::CASES, &[]),
    (hostile::CASES, &[]),
    (foreign::CASES, &[]),
    (overlays::CASES, &[]),
    (inodes::CASES, &["python3"]),
    (mounts::CASES, &["python3"]),
    (networks::CASES, &["python3"]),
    (servers::CASES, &["skopeo", "docker-registry"]),
    (push::CASES, &["skopeo", "python3", "zstd", "docker-registry"]),
    (log::CASES, &[]),
    (logins::CASES, &["python3", "docker-registry"]),
    (others::CASES, &["skopeo", "umoci", "python3", "zstd", "docker-registry"]),
    (outfiles::CASES, &[]),
    (packed::CASES, &["zstd", "docker-registry"]),
    (images::CASES, &["skopeo", "docker-registry"]),
    (exporters::CASES, &["skopeo", "umoci", "zstd", "docker-registry"]),
    (platforms::CASES, &["skopeo", "docker-registry"]),
    (containerd::CASES, &["containerd", "ctr"]),
    (evil::CASES, &["python3", "zstd"]),
    (trouble::CASES, &["skopeo", "docker-registry"]),
    (unfetched::CASES, &["skopeo", "zstd", "docker-registry"]),
    (secure::CASES, &["skopeo", "openssl", "python3", "docker-registry"]),
    (remote::CASES, &["git"]),
    (settings::CASES, &["git"]),
    (epoch::CASES, &["skopeo", "git", "python3", "docker-registry"]),
    (told::CASES, &["git"]),
    (traps::CASES, &[]),
    (many::CASES, &[]),
    (kills::CASES, &["zstd", "docker-registry"]),
    (single::CASES, &[]),
    (terminal::CASES, &[]),
    (habits::CASES, &["docker-registry"]),
    (upkeep::CASES, &[]),
    (caches::CASES, &["skopeo", "zstd", "docker-registry"]),
    (damage::CASES, &["python3"]),
    (deep::CASES, &["python3"]),
    (model::CASES, &[]),
    (migration::CASES, &[]),
    (changing::CASES, &[]),
    (confined::CASES, &["git"]),
    (found::CASES, &["python3", "docker-registry"]),
    (placed::CASES, &[]),
    (unpacked::CASES, &["python3"]),
    (named::CASES, &["python3"]),
];

/// Tests that look at more of the machine than is theirs, or measure: nothing else runs beside them.
const ALONE: &[&str] =
    &["disk_limits", "fork_bomb", "killed", "limits_of_run", "memory_bomb", "resources", "stubborn"];

fn main() -> ExitCode {
    let mut listed = Vec::new();
    for kind in KINDS {
        for (cases, programs) in CASES {
            for (name, check) in cases.iter().copied().filter(|(name, _)| concerns(kind, name)) {
                let run = move || in_place(kind, |_, _| Ok(()), check);
                listed.push(case(kind, name, programs, Box::new(run)));
            }
        }
        let built = |folder: &String| kind != Kind::Single || single::builds(folder);
        for folder in builds::folders().unwrap_or_default().into_iter().filter(built) {
            let name = format!("builds::{folder}");
            let run = move || {
                in_place(
                    kind,
                    |shared, mode| builds::bring(shared, mode, &folder),
                    |mode| builds::check(mode, &folder),
                )
            };
            listed.push(case(kind, &name, &["debootstrap"], Box::new(run)));
        }
    }
    listed.push(Listed {
        name: "same_layers_for_root_and_user".to_owned(),
        lack: Kind::User.lack(),
        alone: false,
        run: Box::new(same_layers),
    });
    listed.extend(conform::CHECKS.iter().chain(traps::CHECKS).chain(CHECKS).map(|(name, check)| Listed {
        name: (*name).to_owned(),
        lack: None,
        alone: false,
        run: Box::new(check),
    }));
    let code = lapstrake_testkit::run(&listed);
    if !std::env::args().any(|arg| arg == "--exact" || arg == "--list") {
        place::tidy_up();
    }
    code
}

/// Whether the lists above are right.
const CHECKS: &[Check] = &[("alone_are_tests", alone_are_tests)];

fn alone_are_tests() -> Result<(), String> {
    let is_test = |name: &str| CASES.iter().any(|(cases, _)| cases.iter().any(|(case, _)| *case == name));
    match ALONE.iter().find(|name| !is_test(name)) {
        None => Ok(()),
        Some(name) => Err(format!("`{name}` is to be alone, and is no test")),
    }
}

/// Whether a test says anything of such a user.
fn concerns(kind: Kind, case: &str) -> bool {
    let of_root = ["what_cannot_be_removed"].contains(&case);
    let of_user = ["single_id", "unreadable"].contains(&case);
    match kind {
        Kind::Root => !of_user && networks::concerns(case, true),
        Kind::User => !of_root && networks::concerns(case, false),
        Kind::Single => single::concerns(case),
    }
}

fn case(
    kind: Kind,
    case: &str,
    programs: &[&str],
    run: Box<dyn Fn() -> Result<(), String> + Sync>,
) -> Listed {
    let missing = || programs.iter().find(|program| !place::is_installed(program));
    let lack = kind.lack().or_else(|| missing().map(|program| format!("`{program}` is not installed")));
    let alone = ALONE.contains(&case);
    let run = Box::new(move || {
        let _turn = place::turn(alone)?;
        run()
    });
    Listed { name: format!("{}::{case}", kind.name()), lack, alone, run }
}

/// Runs a test in a place of its own, which is gone afterwards. What `bring` does takes as long as it takes.
fn in_place(
    kind: Kind,
    bring: impl FnOnce(&Shared, &Mode) -> Result<(), String>,
    check: impl FnOnce(&Mode) -> Result<(), String>,
) -> Result<(), String> {
    let shared = Shared::of(&binary())?;
    let mode = place::prepare(&shared, kind)?;
    let _cleaned = Cleaned(&mode);
    bring(&shared, &mode)?;
    watched(&mode, || check(&mode))
}

/// Removes a place, however its test ends.
struct Cleaned<'m>(&'m Mode);

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        place::clean(self.0).unwrap_or_default();
    }
}

/// Layers whose times are all fixed are the same whoever makes them.
fn same_layers() -> Result<(), String> {
    let mut digests = Vec::new();
    for kind in KINDS.into_iter().filter(|kind| kind.lack().is_none()) {
        in_place(
            kind,
            |_, _| Ok(()),
            |mode| {
                digests.push(language::reproducible(mode)?);
                Ok(())
            },
        )?;
    }
    if digests.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err(format!("{digests:?}")) }
}

/// The binary under test.
fn binary() -> PathBuf {
    std::env::var_os("LAPSTRAKE_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_lapstrake").into(), PathBuf::from)
}

/// The workspace's top directory.
fn top() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map_or(own.to_owned(), Path::to_owned)
}

/// What `check` says, unless it takes too long.
fn watched(mode: &Mode, check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let asked = ["LAPSTRAKE_SOAK_ROUNDS", "LAPSTRAKE_KILL_ROUNDS", "LAPSTRAKE_MODEL_ROUNDS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let longest = if asked { LONGEST_ASKED } else { LONGEST };
    let (done, over) = channel::<()>();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut late = false;
            while over.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
                late = true;
                place::kill_all(mode);
            }
            late
        });
        let result = check();
        drop(done);
        match watch.join() {
            Ok(false) => result,
            _ => Err(format!("it took more than {longest:?}, and was killed: {result:?}")),
        }
    })
}
