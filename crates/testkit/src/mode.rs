//! Root, and ordinary users with many ids or one.

use std::fs;
use std::path::Path;

use lapstrake_sys::userns::{Entered, Ids, enter};
use rustix::process::{DumpableBehavior, Gid, Uid};

/// Who runs a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Root of the machine.
    Root,
    /// An ordinary user with subordinate ids.
    Subids,
    /// An ordinary user without.
    Oneid,
}

/// All modes.
pub const ALL: &[Mode] = &[Mode::Root, Mode::Subids, Mode::Oneid];
/// Where there are more ids than one.
pub const MANY: &[Mode] = &[Mode::Root, Mode::Subids];

/// An id that has no subordinate ones on any machine.
const NOBODY_IN_PARTICULAR: u32 = 64_000;

impl Mode {
    /// What a test is called when it runs so.
    pub fn name(self, test: &str) -> String {
        let mode = match self {
            Self::Root => "root",
            Self::Subids => "subids",
            Self::Oneid => "oneid",
        };
        format!("{mode}::{test}")
    }

    /// Why this user on this machine cannot become that, if it cannot.
    pub fn lack(self) -> Option<String> {
        let root = rustix::process::geteuid().is_root();
        let lack = match self {
            Self::Root if !root => "only root can run it",
            Self::Subids if root && user_with_subids().is_none() => {
                "no user of this machine has subordinate ids, or newuidmap is not installed"
            }
            Self::Subids if !root && !own_subids() => "this user has no subordinate ids",
            Self::Oneid if !root && own_subids() => "this user has subordinate ids",
            _ => return None,
        };
        Some(lack.to_owned())
    }

    /// Becomes what the mode says; the process has one thread yet.
    pub fn enter(self) {
        let user = match self {
            Self::Root => return,
            Self::Subids => user_with_subids(),
            Self::Oneid => Some(NOBODY_IN_PARTICULAR),
        };
        if let (true, Some(user)) = (rustix::process::geteuid().is_root(), user) {
            become_user(user);
        }
        let entered = enter().expect("this machine has user namespaces");
        let Entered::User { ids } = entered else { panic!("{entered:?}") };
        assert_eq!(self == Self::Subids, matches!(ids, Ids::Full { .. }), "{ids:?}");
    }
}

fn become_user(id: u32) {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    let become_it = || {
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
    };
    become_it().expect("a process of root's may become anybody");
}

/// The first user of the machine with a range, and with the helpers that map it.
fn user_with_subids() -> Option<u32> {
    if !Path::new("/usr/bin/newuidmap").exists() {
        return None;
    }
    let subuid = fs::read_to_string("/etc/subuid").ok()?;
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let name = subuid.lines().find_map(|line| line.split(':').next().map(str::to_owned))?;
    let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    line.split(':').nth(2)?.parse().ok()
}

fn own_subids() -> bool {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()));
    let name = line.and_then(|line| line.split(':').next()).unwrap_or(&uid);
    let subuid = fs::read_to_string("/etc/subuid").unwrap_or_default();
    subuid.lines().any(|line| line.split(':').next().is_some_and(|owner| owner == name || owner == uid))
}
