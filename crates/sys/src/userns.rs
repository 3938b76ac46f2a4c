//! Becoming root of a user namespace, as an ordinary user.
//!
//! ```text
//! child (stays outside)            this process
//!   waits ───────────────────────────  unshare(NEWUSER | NEWNS)
//!   newgidmap, newuidmap on it  ◄────  go
//!   says how it went  ──────────────►  no range, no helper: writes a map of one id itself
//!   exits                              becomes uid 0, gid 0; makes its mounts private
//! ```
//! The helpers are set-user-id programs that must run outside the new namespace, hence the child.
//! Supplementary groups stay: the user's files that are open to a group stay open to the process.

mod caller;
mod error;
mod subid;

use std::fs;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::mount::MountPropagationFlags;
use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{CapabilitySet, UnshareFlags};

pub use caller::as_caller;
pub use error::{Lack, UsernsError};
use subid::Range;

use crate::process::{self, Child};
use crate::{SingleThreaded, namespace};

/// What [`enter`] has made of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It had `CAP_SYS_ADMIN`; nothing has been changed.
    Root,
    /// It is root of a user namespace and has a mount namespace of its own.
    User {
        /// The ids that exist in the namespace.
        ids: Ids,
    },
}

/// The ids of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Ids 0 to `count - 1`: 0 is the user, the others come from the subordinate ranges.
    Full {
        /// How many user ids there are.
        count: u32,
    },
    /// Only id 0, which is the user.
    Single {
        /// What is missing for more.
        lack: Lack,
    },
}

/// Who the process was before [`enter`] made it root. What it was is as much its own as the namespace that it is in.
static CALLER: OnceLock<(Uid, Gid)> = OnceLock::new();

/// Makes the process root of new user and mount namespaces, unless it can mount already.
///
/// To be called at the start of the program, before any thread exists.
///
/// # Errors
/// [`UsernsError`] names what the machine lacks; the process is then of no further use where the namespace had
/// been made already.
pub fn enter() -> Result<Entered, UsernsError> {
    enter_with(&Asked::default())
}

/// What [`enter_with`] is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// An ordinary user gets one id, whatever subordinate ranges there are.
    pub single_id: bool,
    /// The user's login name, for one who is not in `/etc/passwd`.
    pub login_name: Option<String>,
}

/// As [`enter`], with wishes.
///
/// # Errors
/// As [`enter`].
pub fn enter_with(asked: &Asked) -> Result<Entered, UsernsError> {
    let capabilities =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if capabilities.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(Entered::Root);
    }
    let token = SingleThreaded::check().ok_or(UsernsError::Threads)?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let wish = match asked {
        Asked { single_id: true, .. } => Err(Lack::Wish),
        Asked { login_name, .. } => Wish::of((uid, gid), capabilities, login_name.clone()),
    };
    let helper = match wish {
        Ok(wish) => Ok((Helper::start(&token, &wish)?, wish)),
        Err(lack) => Err(lack),
    };
    namespace::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(|errno| error::diagnose("unshare", errno))?;
    let mapped = match helper {
        Ok((helper, wish)) => helper.map()?.map(|()| wish.count),
        Err(lack) => Err(lack),
    };
    let ids = match mapped {
        Ok(count) => Ids::Full { count },
        Err(lack) => {
            map_one(uid, gid)?;
            Ids::Single { lack }
        }
    };
    become_root()?;
    // It cannot be there already: a process is made root once.
    CALLER.set((uid, gid)).unwrap_or_default();
    Ok(Entered::User { ids })
}

/// The map that would be best, and who is to write it.
struct Wish {
    count: u32,
    uids: Vec<Range>,
    gids: Vec<Range>,
    writer: Writer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// `newuidmap` and `newgidmap`.
    Helpers,
    /// The child itself, which may as it has `CAP_SETUID` and `CAP_SETGID` outside.
    Itself,
}

impl Wish {
    fn of(
        (uid, gid): (Uid, Gid),
        capabilities: CapabilitySet,
        login_name: Option<String>,
    ) -> Result<Self, Lack> {
        let may_map = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP;
        if uid.is_root() && gid.is_root() && capabilities.contains(may_map) {
            let ids = |file| subid::identity(&fs::read_to_string(file).unwrap_or_default());
            let (uids, gids) = (ids("/proc/self/uid_map"), ids("/proc/self/gid_map"));
            return Ok(Self { count: subid::count(&uids), uids, gids, writer: Writer::Itself });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = subid::user_name(&passwd, uid.as_raw())
            .or(login_name)
            .unwrap_or_else(|| uid.as_raw().to_string());
        let ranges = |file: &'static str, own: u32| {
            let text = fs::read_to_string(file).unwrap_or_default();
            subid::ranges(&text, &user, uid.as_raw(), own).ok_or(Lack::Range { file, user: user.clone() })
        };
        let uids = ranges("/etc/subuid", uid.as_raw())?;
        let gids = ranges("/etc/subgid", gid.as_raw())?;
        Ok(Self { count: subid::count(&uids), uids, gids, writer: Writer::Helpers })
    }

    /// Runs in the child: group ids first, so that where only the second half fails, that is known to be half.
    fn write(&self, pid: Pid) -> Outcome {
        for (done, kind, ranges) in [(false, "gid", &self.gids), (true, "uid", &self.uids)] {
            let written = match self.writer {
                Writer::Helpers => run_helper(&format!("new{kind}map"), pid, ranges),
                Writer::Itself => {
                    let path = format!("/proc/{}/{kind}_map", pid.as_raw_nonzero());
                    fs::write(&path, subid::lines(ranges))
                        .map_err(|error| Lack::Helper { program: path, message: error.to_string() })
                }
            };
            match written {
                Err(lack) if done => return Outcome::Half(lack),
                Err(lack) => return Outcome::Nothing(lack),
                Ok(()) => {}
            }
        }
        Outcome::Done
    }
}

fn run_helper(program: &str, pid: Pid, ranges: &[Range]) -> Result<(), Lack> {
    let lack = |message: String| Lack::Helper { program: program.to_owned(), message };
    let mut command = Command::new(program);
    command.arg(pid.as_raw_nonzero().to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
    }
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(lack(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Lack::Program { program: program.to_owned() })
        }
        Err(error) => Err(lack(error.to_string())),
    }
}

enum Outcome {
    Done,
    Nothing(Lack),
    Half(Lack),
}

/// The child that stays outside.
struct Helper {
    child: Child,
    go: std::io::PipeWriter,
    answer: PipeReader,
}

impl Helper {
    fn start(token: &SingleThreaded, wish: &Wish) -> Result<Self, UsernsError> {
        let pipes = || -> std::io::Result<_> { Ok((std::io::pipe()?, std::io::pipe()?)) };
        let ((mut wait, go), (answer, mut say)) =
            pipes().map_err(|error| UsernsError::Helper { message: error.to_string() })?;
        let parent = rustix::process::getpid();
        let child = process::spawn(token, UnshareFlags::empty(), || {
            // The child's copy of the writing end would keep it waiting for ever after its parent has gone.
            let _ = crate::fd::close_others(token, &[fd(&wait), fd(&say), 0, 1, 2]);
            let mut byte = [0];
            if wait.read_exact(&mut byte).is_ok() {
                let text = match wish.write(parent) {
                    Outcome::Done => "done".to_owned(),
                    Outcome::Nothing(lack) => format!("nothing\0{}", lack.encode()),
                    Outcome::Half(lack) => format!("half\0{}", lack.encode()),
                };
                let _ = say.write_all(text.as_bytes());
            }
            0
        })
        .map_err(|errno| error::diagnose("clone3", errno))?;
        Ok(Self { child, go, answer })
    }

    /// Lets the child write the maps. `Ok(Err(_))` where it has written nothing.
    fn map(self) -> Result<Result<(), Lack>, UsernsError> {
        let Self { child, mut go, mut answer } = self;
        let mut text = String::new();
        let talk = go.write_all(b"g").and_then(|()| {
            drop(go);
            answer.read_to_string(&mut text)
        });
        let _ = process::wait(&child.pidfd, true);
        talk.map_err(|error| UsernsError::Helper { message: error.to_string() })?;
        match text.split_once('\0') {
            None if text == "done" => Ok(Ok(())),
            Some(("nothing", lack)) => Ok(Err(Lack::decode(lack))),
            Some(("half", lack)) => Err(UsernsError::Helper { message: Lack::decode(lack).to_string() }),
            _ => Err(UsernsError::Helper { message: "it ended without an answer".to_owned() }),
        }
    }
}

fn fd(of: &impl std::os::fd::AsRawFd) -> std::os::fd::RawFd {
    of.as_raw_fd()
}

/// Maps the user to 0 and nothing else, which needs no privilege but the loss of `setgroups`.
fn map_one(uid: Uid, gid: Gid) -> Result<(), UsernsError> {
    let write = |path: &'static str, text: String| {
        fs::write(Path::new(path), text).map_err(|error| error::diagnose_io(path, &error))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1\n", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1\n", gid.as_raw()))
}

fn become_root() -> Result<(), UsernsError> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| error::diagnose("setresgid", errno))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| error::diagnose("setresuid", errno))?;
    // A change of ids makes the process undumpable, and /proc/self/* then belongs to the machine's root.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    match rustix::mount::mount_change("/", private) {
        // In a chroot the root is no mount. What a new user namespace inherits is never shared, at worst a slave.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(errno) => Err(error::diagnose("mount", errno)),
    }
}
