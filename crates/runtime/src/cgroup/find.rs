//! Where control groups of ours can be made: from what the kernel says of mounts and of this process.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::Kind;

/// A group of ours to make groups in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// The top of what we see of the hierarchy.
    top: PathBuf,
    /// Version 2.
    pub(super) unified: bool,
    kind: Kind,
}

impl Place {
    /// A file that a group has if the limit can be set there.
    pub(super) fn proof(&self) -> &'static str {
        match (self.kind, self.unified) {
            (Kind::Memory, true) => "memory.max",
            (Kind::Memory, false) => "memory.limit_in_bytes",
            (Kind::Cpu, true) => "cpu.max",
            (Kind::Cpu, false) => "cpu.cfs_quota_us",
            (Kind::Cpuset, _) => "cpuset.cpus",
            (Kind::Pids, _) => "pids.max",
            (Kind::Io, true) => "io.max",
            (Kind::Io, false) => "blkio.throttle.read_bps_device",
        }
    }

    /// What would help, for the end of a message.
    pub(super) fn hint(&self) -> &'static str {
        if self.unified {
            "; run it where groups are delegated: systemd-run --user --scope -p Delegate=yes lapstrake …"
        } else {
            ""
        }
    }
}

/// Where a limit of this kind can be set: in our own group, or in `parent`, which is made.
pub(super) fn place(kind: Kind, parent: Option<&Path>) -> Result<Place, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let place = from(kind, &mounts, &own)
        .ok_or_else(|| format!("no control groups with the controller `{}` are mounted", kind.name()))?;
    let place = match parent {
        Some(parent) => within(place, parent)?,
        None => place,
    };
    if place.unified {
        pass_on(&place.dir, kind.name());
    }
    Ok(place)
}

/// The group `parent`, each group on the way made and able to hold limits of this kind.
fn within(place: Place, parent: &Path) -> Result<Place, String> {
    if !parent.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return Err(format!("{} is no name of a group", parent.display()));
    }
    let mut dir = if parent.is_absolute() { place.top.clone() } else { place.dir.clone() };
    for part in parent.components().filter(|part| *part != Component::RootDir) {
        if place.unified {
            pass_on(&dir, place.kind.name());
        }
        let below = dir.join(part);
        match fs::create_dir(&below) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let (shown, hint) = (below.display(), place.hint());
                return Err(format!("cannot make the control group {shown}: {error}{hint}"));
            }
            _ => {}
        }
        if place.kind == Kind::Cpuset && !place.unified {
            inherit(&dir, &below).map_err(|error| format!("{}: {error}", below.display()))?;
        }
        dir = below;
    }
    Ok(Place { dir, ..place })
}

/// In version 1 a group has no processors and no memory until it is given some, and nothing can join it.
fn inherit(above: &Path, below: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(below.join(name))?.trim().is_empty() {
            fs::write(below.join(name), fs::read(above.join(name))?)?;
        }
    }
    Ok(())
}

/// The same from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. Version 1 goes first: a controller that is
/// there is not in version 2.
fn from(kind: Kind, mounts: &str, own: &str) -> Option<Place> {
    let has = |list: &str| list.split(',').any(|one| one == kind.old_name());
    let mut unified = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let (root, point) = (fields.get(3)?, fields.get(4)?);
        let mut right = right.split(' ');
        let (filesystem, options) = (right.next()?, right.nth(1)?);
        let dir = |group: &str| {
            // A mount may show a part of the hierarchy only, as in a container.
            let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
            Path::new(point).join(below)
        };
        if filesystem == "cgroup" && has(options) {
            let group = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                fields.next().filter(|controllers| has(controllers)).and(fields.next())
            })?;
            return Some(Place { dir: dir(group), top: point.into(), unified: false, kind });
        }
        if filesystem == "cgroup2" {
            let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
            unified = Some(Place { dir: dir(group), top: point.into(), unified: true, kind });
        }
    }
    unified
}

/// Groups within a group have a controller only if that passes it on, and it may only if no process is in it: those that
/// are, if it is only us, move to a group of their own.
fn pass_on(dir: &Path, controller: &str) {
    let control = dir.join("cgroup.subtree_control");
    let passed = fs::read_to_string(&control).unwrap_or_default();
    if passed.split_whitespace().any(|one| one == controller) {
        return;
    }
    let enable = || fs::write(&control, format!("+{controller}"));
    // What fails here is said when the group is made.
    if enable().is_err() {
        let own = std::process::id().to_string();
        let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let leaf = dir.join("lapstrake");
        if inside.lines().all(|pid| pid == own) && (leaf.is_dir() || fs::create_dir(&leaf).is_ok()) {
            fs::write(leaf.join("cgroup.procs"), own).unwrap_or_default();
            enable().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies() {
        let v1 = "30 20 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  31 20 0:27 /outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let v2 = "32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/outer/x\n0::/user.slice\n";
        let of = |kind, mounts: &str| from(kind, mounts, own).map(|place| (place.dir, place.unified));
        let both = format!("{v2}{v1}");
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(of(Kind::Memory, &both), Some((path("/sys/fs/cgroup/memory/a/b"), false)));
        assert_eq!(of(Kind::Cpu, &both), Some((path("/sys/fs/cgroup/cpu/x"), false)));
        assert_eq!(of(Kind::Pids, &both), Some((path("/sys/fs/cgroup/unified/user.slice"), true)));
        assert_eq!(of(Kind::Pids, v1), None);
    }

    #[test]
    fn parents_are_made() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("own");
        fs::create_dir(&dir).unwrap();
        let place =
            || Place { dir: dir.clone(), top: top.path().to_owned(), unified: false, kind: Kind::Pids };
        let of = |parent: &str| within(place(), Path::new(parent)).map(|place| place.dir);
        assert_eq!(of("/a/b"), Ok(top.path().join("a/b")));
        assert_eq!(of("a"), Ok(dir.join("a")));
        assert!(top.path().join("a/b").is_dir() && dir.join("a").is_dir());
        assert_eq!(of("/"), Ok(top.path().to_owned()));
        for bad in ["../x", "/a/../../x", "./x"] {
            assert!(of(bad).unwrap_err().contains("no name of a group"), "{bad}");
        }
    }
}
