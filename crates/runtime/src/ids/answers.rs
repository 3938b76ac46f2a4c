//! One answer for each call about owners.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use lapstrake_sys::notify::{self, Answer, Call};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::OwnedInode;
use super::credentials::{Change, Credentials, KEEP};
use super::files::{Asker, Files, open_name};
use crate::seccomp::{Machine, asked};

const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_EMPTY_PATH: u64 = 0x1000;
const PERMISSIONS: u32 = 0o7777;
/// The upper half of the mark of a process that has been given ids.
const MAGIC: u64 = 0x6c61_7073 << 32;
/// More than `setgroups(2)` takes.
const MAX_GROUPS: u64 = 65_536;

/// Nothing that we know better than the kernel.
#[derive(Debug)]
struct Leave;

impl From<Errno> for Leave {
    fn from(_: Errno) -> Self {
        Self
    }
}

/// `None` where the answer has been given already.
type Reply = Result<Option<Answer>, Leave>;

const DONE: Reply = Ok(Some(Answer::Value(0)));

fn fail(errno: Errno) -> Reply {
    Ok(Some(Answer::Fail(errno)))
}

fn done(result: Result<(), Errno>) -> Reply {
    result.map_or_else(fail, |()| DONE)
}

/// An id, a mode, a descriptor: the kernel looks at 32 bits of it.
fn low(argument: u64) -> u32 {
    (argument & 0xffff_ffff) as u32
}

fn signed(argument: u64) -> i32 {
    low(argument).cast_signed()
}

pub(super) struct Supervisor {
    listener: OwnedFd,
    names: HashMap<i32, &'static str>,
    files: Files,
    /// Row 0 is root's.
    table: Vec<Credentials>,
    rows: HashMap<Credentials, usize>,
}

impl Supervisor {
    pub(super) fn new(machine: Machine, proc: OwnedFd, listener: OwnedFd) -> Result<Self, Errno> {
        let names = asked(machine).map(|(number, name)| (number.cast_signed(), name)).collect();
        let table = vec![Credentials::ROOT];
        let rows = HashMap::from([(Credentials::ROOT, 0)]);
        Ok(Self { listener, names, files: Files::new(proc)?, table, rows })
    }

    pub(super) fn into_owned(self) -> Vec<OwnedInode> {
        self.files.into_special()
    }

    /// The answer; `None` where it has been given.
    pub(super) fn answer(&mut self, call: &Call) -> Option<Answer> {
        let name = self.names.get(&call.number).copied().unwrap_or_default();
        self.reply(call, name).unwrap_or(Some(Answer::Continue))
    }

    fn reply(&mut self, call: &Call, name: &str) -> Reply {
        let [a, b, c, d, e, _] = call.args;
        let here = Asker { pid: call.pid, dir: AT_FDCWD };
        let at = |dir| Asker { pid: call.pid, dir: signed(dir) };
        match name {
            "stat" => self.stat((here, a, 0), b, call),
            "lstat" => self.stat((here, a, AT_SYMLINK_NOFOLLOW), b, call),
            "fstat" => self.stat((at(a), 0, AT_EMPTY_PATH), b, call),
            "newfstatat" => self.stat((at(a), b, d), c, call),
            "statx" => self.statx((at(a), b, c), (c, d), e, call),
            "chown" => self.chown((here, a, 0), (b, c), call),
            "lchown" => self.chown((here, a, AT_SYMLINK_NOFOLLOW), (b, c), call),
            "fchown" => self.chown((at(a), 0, AT_EMPTY_PATH), (b, c), call),
            "fchownat" => self.chown((at(a), b, e), (c, d), call),
            "open" => self.create((here, a), (b, c), call),
            "creat" => self.create((here, a), (0o1101, b), call),
            "openat" => self.create((at(a), b), (c, d), call),
            "mkdir" => self.mkdir((here, a), b, call),
            "mkdirat" => self.mkdir((at(a), b), c, call),
            "symlink" => self.symlink(a, (here, b), call),
            "symlinkat" => self.symlink(a, (at(b), c), call),
            "mknod" => self.mknod((here, a), b, c, call),
            "mknodat" => self.mknod((at(a), b), c, d, call),
            "execve" => self.exec((here, a, 0), call),
            "execveat" => self.exec((at(a), b, e), call),
            "getsockopt" => self.peer(call),
            // The mark is ours: to programs this limit is not there, whatever they set it to.
            "setrlimit" => DONE,
            "prlimit64" if d == 0 => DONE,
            "prlimit64" => done(notify::write_memory(call.pid, d, &[0xff; 16])),
            _ => self.ids(call, name),
        }
    }

    // Ids.

    fn ids(&mut self, call: &Call, name: &str) -> Reply {
        let [a, b, c, ..] = call.args.map(low);
        let change = match name {
            "setuid" => Change::Uid(a),
            "setgid" => Change::Gid(a),
            "setreuid" => Change::Uids(a, b),
            "setregid" => Change::Gids(a, b),
            "setresuid" => Change::AllUids([a, b, c]),
            "setresgid" => Change::AllGids([a, b, c]),
            "setgroups" => Change::Groups(read_groups(call)?),
            _ => return self.tell(call, name),
        };
        let old = self.credentials(call.pid);
        match old.change(&change) {
            Ok(new) => done(self.assign(call.pid, new)),
            Err(errno) => fail(errno),
        }
    }

    /// The calls that ask only. A file system's id is always the effective one.
    fn tell(&self, call: &Call, name: &str) -> Reply {
        let Credentials { uid, gid, groups } = self.credentials(call.pid);
        let value = |id: u32| Ok(Some(Answer::Value(i64::from(id))));
        match name {
            "getuid" => value(uid.real),
            "geteuid" | "setfsuid" => value(uid.effective),
            "getgid" => value(gid.real),
            "getegid" | "setfsgid" => value(gid.effective),
            "getresuid" => write_ids(call, [uid.real, uid.effective, uid.saved]),
            "getresgid" => write_ids(call, [gid.real, gid.effective, gid.saved]),
            "getgroups" => write_groups(call, &groups),
            _ => Err(Leave),
        }
    }

    /// The ids of a process; root's where it was never given any.
    fn credentials(&self, pid: Pid) -> Credentials {
        let row = notify::mark(pid).map_or(0, |mark| if mark >> 32 == MAGIC >> 32 { low(mark) } else { 0 });
        let row = usize::try_from(row).unwrap_or(0);
        self.table.get(row).cloned().unwrap_or(Credentials::ROOT)
    }

    fn assign(&mut self, pid: Pid, new: Credentials) -> Result<(), Errno> {
        let row = match self.rows.get(&new) {
            Some(row) => *row,
            None => {
                self.table.push(new.clone());
                self.rows.insert(new, self.table.len() - 1);
                self.table.len() - 1
            }
        };
        notify::set_mark(pid, MAGIC | u64::try_from(row).map_err(|_| Errno::AGAIN)?)
    }

    /// A program with a set-user-id bit, started by somebody else than root.
    fn exec(&mut self, (asker, path, flags): (Asker, u64, u64), call: &Call) -> Reply {
        let mut new = self.credentials(call.pid);
        if new.makes_roots() {
            return Err(Leave);
        }
        let file = self.object(asker, path, flags, call)?;
        let stat = rustix::fs::fstat(&file)?;
        let held = rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::NOSUID)
            || self.files.status(call.pid, "NoNewPrivs:", 10)? != 0;
        if held || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Leave);
        }
        let (uid, gid) = self.files.owner(&file).unwrap_or((0, 0));
        if stat.st_mode & 0o4000 != 0 {
            (new.uid.effective, new.uid.saved) = (uid, uid);
        }
        if stat.st_mode & 0o2010 == 0o2010 {
            (new.gid.effective, new.gid.saved) = (gid, gid);
        }
        self.assign(call.pid, new)?;
        Err(Leave)
    }

    /// Who is at the other end of a socket.
    fn peer(&self, call: &Call) -> Reply {
        const SOL_SOCKET: u32 = 1;
        let [fd, level, _, value, length, _] = call.args;
        if low(level) != SOL_SOCKET {
            return Err(Leave);
        }
        let process = self.files.status(call.pid, "Tgid:", 10)?;
        let process = Pid::from_raw(process.cast_signed()).ok_or(Leave)?;
        let peer = notify::peer(process, signed(fd))?.ok_or(Leave)?;
        let ids = self.credentials(peer);
        let number = self.files.status(peer, "NSpid:", 10)?;
        let all = [number, ids.uid.effective, ids.gid.effective];
        let bytes: Vec<u8> = all.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let mut room = [0; 4];
        if notify::read_memory(call.pid, length, &mut room)? < 4 || u32::from_ne_bytes(room) < 12 {
            return Err(Leave);
        }
        notify::write_memory(call.pid, value, &bytes)?;
        done(notify::write_memory(call.pid, length, &12_u32.to_ne_bytes()))
    }

    // Files.

    fn object(&self, asker: Asker, path: u64, flags: u64, call: &Call) -> Result<OwnedFd, Errno> {
        let text = if path == 0 { Vec::new() } else { text(asker.pid, path)? };
        if text.is_empty() && flags & AT_EMPTY_PATH == 0 {
            return Err(Errno::NOENT);
        }
        let found = self.files.look(asker, &text, flags & AT_SYMLINK_NOFOLLOW == 0);
        notify::still_waits(&self.listener, call)?;
        found
    }

    fn stat(&self, (asker, path, flags): (Asker, u64, u64), to: u64, call: &Call) -> Reply {
        let file = self.object(asker, path, flags, call)?;
        let shown = self.files.shown(&file).ok_or(Leave)?;
        done(notify::write_stat(call.pid, to, &file, &shown))
    }

    fn statx(&self, (asker, path, flags): (Asker, u64, u64), how: (u64, u64), to: u64, call: &Call) -> Reply {
        let file = self.object(asker, path, flags, call)?;
        let shown = self.files.shown(&file).ok_or(Leave)?;
        done(notify::write_statx(call.pid, to, &file, how, &shown))
    }

    fn chown(
        &mut self,
        (asker, path, flags): (Asker, u64, u64),
        (uid, gid): (u64, u64),
        call: &Call,
    ) -> Reply {
        let file = match self.object(asker, path, flags, call) {
            Ok(file) => file,
            Err(errno) => return fail(errno),
        };
        let (uid, gid) = (low(uid), low(gid));
        let old = self.files.owner(&file).unwrap_or((0, 0));
        let ids = self.credentials(call.pid);
        let new = (if uid == KEEP { old.0 } else { uid }, if gid == KEEP { old.1 } else { gid });
        if ids.uid.effective != 0 {
            let its = old.0 == ids.uid.effective && new.0 == old.0;
            let known = new.1 == old.1 || new.1 == ids.gid.effective || ids.groups.contains(&new.1);
            if !(its && known) {
                return fail(Errno::PERM);
            }
        }
        if new == (0, 0) && old == (0, 0) {
            return Err(Leave);
        }
        done(self.files.give(&file, new))
    }

    /// Something new: its directory, its name, and whose it will be. Root's things are the kernel's to make.
    fn new_name(
        &self,
        (asker, path): (Asker, u64),
        ids: &Credentials,
        call: &Call,
    ) -> Result<(OwnedFd, std::ffi::CString, (u32, u32)), Errno> {
        let (dir, name) = self.files.parent(asker, &text(asker.pid, path)?)?;
        notify::still_waits(&self.listener, call)?;
        let group = self.files.group_in(&dir, ids.gid.effective);
        match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok((dir, name, (ids.uid.effective, group))),
            Ok(_) => Err(Errno::EXIST),
            Err(errno) => Err(errno),
        }
    }

    fn masked(&self, mode: u64, pid: Pid) -> Result<Mode, Errno> {
        Ok(Mode::from_raw_mode(low(mode) & PERMISSIONS & !self.files.status(pid, "Umask:", 8)?))
    }

    fn create(&mut self, place: (Asker, u64), (flags, mode): (u64, u64), call: &Call) -> Reply {
        let ids = self.credentials(call.pid);
        if ids.makes_roots() {
            return Err(Leave);
        }
        let (dir, name, owner) = self.new_name(place, &ids, call)?;
        let mode = self.masked(mode, call.pid)?;
        let asked = OFlags::from_bits_retain(low(flags));
        let ours =
            asked | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&dir, &name, ours, mode) {
            Err(Errno::EXIST) => return Err(Leave),
            Err(errno) => return fail(errno),
            Ok(file) => file,
        };
        self.files.record(&file, owner)?;
        match notify::answer_fd(&self.listener, call, &file, asked.contains(OFlags::CLOEXEC)) {
            Ok(()) => Ok(None),
            Err(errno) => fail(errno),
        }
    }

    fn mkdir(&mut self, place: (Asker, u64), mode: u64, call: &Call) -> Reply {
        let ids = self.credentials(call.pid);
        if ids.makes_roots() {
            return Err(Leave);
        }
        let (dir, name, owner) = self.new_name(place, &ids, call)?;
        if let Err(errno) = rustix::fs::mkdirat(&dir, &name, self.masked(mode, call.pid)?) {
            return fail(errno);
        }
        self.keep(&dir, &name, owner)
    }

    fn symlink(&mut self, target: u64, place: (Asker, u64), call: &Call) -> Reply {
        let ids = self.credentials(call.pid);
        if ids.makes_roots() {
            return Err(Leave);
        }
        let target = text(call.pid, target)?;
        let (dir, name, owner) = self.new_name(place, &ids, call)?;
        if let Err(errno) = rustix::fs::symlinkat(&*target, &dir, &name) {
            return fail(errno);
        }
        self.keep(&dir, &name, owner)
    }

    /// A device is an empty file with a mark; a pipe or a socket is what it is.
    fn mknod(&mut self, place: (Asker, u64), mode: u64, number: u64, call: &Call) -> Reply {
        let ids = self.credentials(call.pid);
        let kind = FileType::from_raw_mode(low(mode));
        let letter = match kind {
            FileType::CharacterDevice => Some('c'),
            FileType::BlockDevice => Some('b'),
            _ => None,
        };
        if letter.is_none() && ids.makes_roots() {
            return Err(Leave);
        }
        if letter.is_some() && ids.uid.effective != 0 {
            return fail(Errno::PERM);
        }
        let (dir, name, owner) = match self.new_name(place, &ids, call) {
            Err(errno) if letter.is_some() => return fail(errno),
            other => other?,
        };
        let made = if letter.is_some() { FileType::RegularFile } else { kind };
        if let Err(errno) = rustix::fs::mknodat(&dir, &name, made, self.masked(mode, call.pid)?, 0) {
            return fail(errno);
        }
        if let Some(letter) = letter {
            let marked = open_name(&dir, &name)
                .and_then(|file| self.files.record_node(&file, letter, u64::from(low(number))));
            if marked.is_err() {
                // Without its mark it would be a file that nobody asked for.
                rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
                return fail(Errno::PERM);
            }
        }
        self.keep(&dir, &name, owner)
    }

    fn keep(&mut self, dir: &OwnedFd, name: &std::ffi::CStr, owner: (u32, u32)) -> Reply {
        let made = open_name(dir.as_fd(), name)?;
        done(self.files.record(&made, owner))
    }
}

fn text(pid: Pid, address: u64) -> Result<Vec<u8>, Errno> {
    notify::read_string(pid, address)?.ok_or(Errno::NAMETOOLONG)
}

fn read_groups(call: &Call) -> Result<Vec<u32>, Errno> {
    let [count, address, ..] = call.args;
    if count > MAX_GROUPS {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * 4];
    if !bytes.is_empty() && notify::read_memory(call.pid, address, &mut bytes)? < bytes.len() {
        return Err(Errno::FAULT);
    }
    let mut groups: Vec<u32> =
        bytes.chunks_exact(4).map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect();
    // The kernel sorts them too.
    groups.sort_unstable();
    Ok(groups)
}

fn write_groups(call: &Call, groups: &[u32]) -> Reply {
    let [room, address, ..] = call.args;
    let count = groups.len();
    if low(room) != 0 {
        if (low(room) as usize) < count {
            return fail(Errno::INVAL);
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        if let Err(errno) = notify::write_memory(call.pid, address, &bytes) {
            return fail(errno);
        }
    }
    Ok(Some(Answer::Value(i64::try_from(count).unwrap_or(0))))
}

fn write_ids(call: &Call, ids: [u32; 3]) -> Reply {
    for (id, address) in ids.iter().zip(call.args) {
        if let Err(errno) = notify::write_memory(call.pid, address, &id.to_ne_bytes()) {
            return fail(errno);
        }
    }
    DONE
}
