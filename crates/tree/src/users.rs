//! Users and groups by the files of a container's root, by the rules of `USER` and of `--chown`.
//!
//! `/etc/passwd` and `/etc/group` are hostile: followed within the root only, regular files only, at most 10 MiB.
//! The host's user database is never asked.

use std::fs::File;
use std::io::Read;

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::TreeError;
use crate::inroot::Root;
use crate::path::TreePath;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// A bigger database is an attack.
const MAX_DATABASE: u64 = 10 << 20;
/// Highest id the kernel's interfaces treat well everywhere.
const MAX_ID: u32 = i32::MAX as u32;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted; always with the primary one.
    pub groups: Vec<u32>,
    /// Home directory by passwd, else `/`.
    pub home: String,
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&id| id <= MAX_ID)
}

fn database(root: &Root<'_>, path: &str) -> Result<String, TreeError> {
    let name = || TreePath::clean(path.as_bytes()).unwrap_or_default();
    let plain = |stat: &fs::Stat| {
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let small = u64::try_from(stat.st_size).is_ok_and(|size| size <= MAX_DATABASE);
        if regular && small { Ok(()) } else { Err(TreeError::NotPlain { path: name(), limit: MAX_DATABASE }) }
    };
    // Looked at before it is opened: opening a device can have effects. Looked at again afterwards: it may have
    // been another one. Non-blocking, so that a FIFO put there in between cannot hang us.
    plain(&root.stat(path.as_bytes(), true)?)?;
    let fd = root.open(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
    plain(&fs::fstat(&fd).map_err(TreeError::io("stat", &name()))?)?;
    let mut bytes = Vec::new();
    File::from(fd).take(MAX_DATABASE).read_to_end(&mut bytes).map_err(TreeError::io("read", &name()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A missing file is an empty one.
fn database_or_empty(root: &Root<'_>, path: &str) -> Result<String, TreeError> {
    match database(root, path) {
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(String::new()),
        other => other,
    }
}

fn users(text: &str) -> impl Iterator<Item = User> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).filter(|h| !h.is_empty()).unwrap_or("/");
        Some(User { name: name.into(), uid, gid, home: home.into() })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let gid = id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or("").split(',').filter(|m| !m.is_empty()).map(str::to_owned);
        Some(Group { name: name.into(), gid, members: members.collect() })
    })
}

fn missing(kind: &'static str, name: &str, file: &'static str) -> TreeError {
    TreeError::NoSuchUser { kind, name: name.into(), file }
}

/// Who `USER spec` means for a process in this root.
///
/// | spec | uid | gid | supplementary groups |
/// |---|---|---|---|
/// | empty | 0 | 0 | those that list root |
/// | `name`, or `uid` with an entry | its | its | those that list it |
/// | `uid` without an entry | uid | 0 | none |
/// | `user:group` | | the group | the group only |
/// | `uid:gid` | as written | as written | the group only; the files need not exist |
///
/// # Errors
/// [`TreeError::NoSuchUser`] for an unknown name, [`TreeError::NotPlain`] when a database is no plain file,
/// [`TreeError::Invalid`] for a number out of range.
pub fn resolve_user(root: &Root<'_>, spec: &str) -> Result<Ids, TreeError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    for part in [Some(user), group].into_iter().flatten() {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && id(part).is_none() {
            return Err(TreeError::Invalid { what: "user or group id", value: part.into() });
        }
    }
    let wanted = if user.is_empty() { "0" } else { user };
    if let (Some(uid), Some(gid)) = (id(wanted), group.and_then(id)) {
        // The home directory is a courtesy here: whatever is wrong with the file is no reason to fail.
        let home = database(root, PASSWD).ok();
        let home = home.and_then(|text| users(&text).find(|u| u.uid == uid).map(|u| u.home));
        return Ok(Ids { uid, gid, groups: vec![gid], home: home.unwrap_or_else(|| "/".into()) });
    }
    let passwd = database_or_empty(root, PASSWD)?;
    let entry = users(&passwd).find(|u| u.name == wanted || id(wanted) == Some(u.uid));
    let (name, uid, gid, home) = match (entry, id(wanted)) {
        (Some(user), _) => (Some(user.name), user.uid, user.gid, user.home),
        (None, Some(0)) => (Some("root".into()), 0, 0, "/".into()),
        (None, Some(uid)) => (None, uid, 0, "/".into()),
        (None, None) => return Err(missing("user", user, "passwd")),
    };
    let Some(group) = group else {
        let text = database_or_empty(root, GROUP)?;
        let listed = groups(&text).filter(|g| name.as_ref().is_some_and(|n| g.members.contains(n)));
        let mut all: Vec<u32> = listed.map(|g| g.gid).chain([gid]).collect();
        all.sort_unstable();
        all.dedup();
        return Ok(Ids { uid, gid, groups: all, home });
    };
    let gid = match id(group) {
        Some(gid) => gid,
        None => {
            let text = database_or_empty(root, GROUP)?;
            groups(&text).find(|g| g.name == group).ok_or_else(|| missing("group", group, "group"))?.gid
        }
    };
    Ok(Ids { uid, gid, groups: vec![gid], home })
}

/// Owner and group that `--chown=spec` means, by the destination's root. Laxer than `USER`: an unknown user, or a
/// missing file, is root; an unknown group is that of the user; a number alone is both; a part that is empty is 0.
///
/// # Errors
/// Without a root (`--link`) a name cannot be looked up: [`TreeError::Invalid`].
pub fn resolve_chown(root: Option<&Root<'_>>, spec: &str) -> Result<(u32, u32), TreeError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let look = |path: &str| match root {
        Some(root) => Ok(database(root, path).unwrap_or_default()),
        None => Err(TreeError::Invalid { what: "user index", value: "-1".into() }),
    };
    let (uid, own_gid) = match (user, id(user)) {
        ("root" | "", _) => (0, 0),
        (_, Some(uid)) => (uid, uid),
        _ => users(&look(PASSWD)?).find(|u| u.name == user).map_or((0, 0), |u| (u.uid, u.gid)),
    };
    let gid = match group {
        None => own_gid,
        Some("root" | "") => 0,
        Some(group) => match id(group) {
            Some(gid) => gid,
            None => groups(&look(GROUP)?).find(|g| g.name == group).map_or(own_gid, |g| g.gid),
        },
    };
    Ok((uid, gid))
}

/// True when `--chown=spec` needs the destination's root to be understood.
#[must_use]
pub fn chown_needs_root(spec: &str) -> bool {
    spec.split(':').any(|part| !matches!(part, "" | "root") && id(part).is_none())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::inroot::open_host_dir;

    fn root() -> (tempfile::TempDir, std::os::fd::OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("nix/store")).unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(
            temp.path().join("nix/store/passwd"),
            "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:App:/home/app:/bin/sh\n2000:x:7:8::/n:\n",
        )
        .unwrap();
        symlink("/nix/store/passwd", temp.path().join("etc/passwd")).unwrap();
        std::fs::write(
            temp.path().join("etc/group"),
            "root:x:0:\nwheel:x:10:root,app\nadm:x:4:root\napp:x:1001:\nextra:x:99:app\n",
        )
        .unwrap();
        let fd = open_host_dir(temp.path()).unwrap();
        (temp, fd)
    }

    #[test]
    fn user_table() {
        let (_temp, fd) = root();
        let root = Root::new(&fd);
        let cases: [(&str, u32, u32, &[u32], &str); 11] = [
            ("", 0, 0, &[0, 4, 10], "/root"),
            ("root", 0, 0, &[0, 4, 10], "/root"),
            ("0", 0, 0, &[0, 4, 10], "/root"),
            ("app", 1000, 1001, &[10, 99, 1001], "/home/app"),
            ("1000", 1000, 1001, &[10, 99, 1001], "/home/app"),
            ("4242", 4242, 0, &[0], "/"),
            ("app:wheel", 1000, 10, &[10], "/home/app"),
            ("1000:wheel", 1000, 10, &[10], "/home/app"),
            ("app:77", 1000, 77, &[77], "/home/app"),
            ("5:6", 5, 6, &[6], "/"),
            ("2000", 7, 8, &[8], "/n"),
        ];
        for (spec, uid, gid, groups, home) in cases {
            let want = Ids { uid, gid, groups: groups.into(), home: home.into() };
            assert_eq!(resolve_user(&root, spec).unwrap(), want, "{spec}");
        }
        let unknown = resolve_user(&root, "nobody").unwrap_err().to_string();
        assert_eq!(unknown, "unable to find user nobody: no matching entries in passwd file");
        let unknown = resolve_user(&root, "app:nope").unwrap_err().to_string();
        assert_eq!(unknown, "unable to find group nope: no matching entries in group file");
        assert!(resolve_user(&root, "99999999999").is_err());
    }

    #[test]
    fn chown_table() {
        let (_temp, fd) = root();
        let root = Root::new(&fd);
        let cases = [
            ("root", (0, 0)),
            ("app", (1000, 1001)),
            ("5", (5, 5)),
            ("5:app", (5, 1001)),
            ("app:root", (1000, 0)),
            ("nope:alsonot", (0, 0)),
            ("app:alsonot", (1000, 1001)),
            ("5:6:7", (5, 5)),
            ("5:", (5, 0)),
            (":6", (0, 6)),
            (":", (0, 0)),
            ("app:12", (1000, 12)),
        ];
        for (spec, want) in cases {
            assert_eq!(resolve_chown(Some(&root), spec).unwrap(), want, "{spec}");
        }
        assert_eq!(resolve_chown(None, "1:2").unwrap(), (1, 2));
        assert_eq!(resolve_chown(None, "app").unwrap_err().to_string(), "invalid user index: \"-1\"");
        assert!(chown_needs_root("app") && chown_needs_root("1:app") && !chown_needs_root("1:root"));
    }

    #[test]
    fn hostile_databases() {
        let (temp, fd) = root();
        let root = Root::new(&fd);
        let passwd = temp.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        assert!(matches!(resolve_user(&root, "app"), Err(TreeError::NoSuchUser { .. })));
        assert_eq!(resolve_user(&root, "7").unwrap().uid, 7);
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(resolve_user(&root, "app"), Err(TreeError::NotPlain { .. })));
        assert_eq!(resolve_user(&root, "7:7").unwrap().uid, 7);
        std::fs::remove_file(&passwd).unwrap();
        let big = std::fs::File::create(&passwd).unwrap();
        big.set_len(MAX_DATABASE + 1).unwrap();
        assert!(matches!(resolve_user(&root, "app"), Err(TreeError::NotPlain { .. })));
        assert_eq!(resolve_chown(Some(&root), "app").unwrap(), (0, 0));
    }
}
