//! Control groups: limits for one container, and what came of them.
//!
//! A group is made below the one that we are in, so nothing is needed but a right to make it: root has it, a user where
//! the group has been delegated (`systemd-run --user --scope -p Delegate=yes`). The container joins it by itself, before
//! anything of it runs. Version 1 has a hierarchy for each kind of limit, version 2 one for all; a machine may have both.
//!
//! A group ends with its [`Group`]. One whose maker was killed is removed by the next maker of one.

mod find;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::RuntimeError;
use find::Place;

/// What a container may use at most. Nothing given is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, page cache included; there is no swap beyond.
    pub memory: Option<u64>,
    /// Processors, in thousandths of one.
    pub millicpus: Option<u64>,
    /// Processes and threads at a time.
    pub pids: Option<u64>,
    /// What goes to and from disks.
    pub io: Vec<IoLimit>,
}

/// A limit of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimit {
    /// Major and minor number of the block device.
    pub device: (u32, u32),
    /// What is counted.
    pub rate: IoRate,
    /// How many of it a second.
    pub value: u64,
}

/// What an [`IoLimit`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoRate {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Reads.
    Reads,
    /// Writes.
    Writes,
}

impl IoLimit {
    /// The file that it is written to, and what.
    fn line(&self, unified: bool) -> (&'static str, String) {
        let (major, minor) = self.device;
        let (key, file) = match self.rate {
            IoRate::ReadBytes => ("rbps", "blkio.throttle.read_bps_device"),
            IoRate::WriteBytes => ("wbps", "blkio.throttle.write_bps_device"),
            IoRate::Reads => ("riops", "blkio.throttle.read_iops_device"),
            IoRate::Writes => ("wiops", "blkio.throttle.write_iops_device"),
        };
        match unified {
            true => ("io.max", format!("{major}:{minor} {key}={}", self.value)),
            false => (file, format!("{major}:{minor} {}", self.value)),
        }
    }
}

/// Which limits a container has run into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Processes that were killed since there was no memory left for them.
    pub out_of_memory: u64,
    /// Processes and threads that were refused.
    pub refused_pids: u64,
    /// The most memory that it had at a time, where the kernel tells.
    pub peak_memory: Option<u64>,
}

/// A kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Cpu,
    Pids,
    Io,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }

    /// What version 1 calls the controller.
    fn old_name(self) -> &'static str {
        if self == Self::Io { "blkio" } else { self.name() }
    }
}

impl Limits {
    /// Whether there is any.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = [
            (Kind::Memory, self.memory.is_some()),
            (Kind::Cpu, self.millicpus.is_some()),
            (Kind::Pids, self.pids.is_some()),
            (Kind::Io, !self.io.is_empty()),
        ];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect()
    }
}

/// Which limits this process could set, and why not the others.
pub fn available() -> [(&'static str, Result<&'static str, String>); 4] {
    [Kind::Memory, Kind::Cpu, Kind::Pids, Kind::Io].map(|kind| {
        let tried = find::place(kind).and_then(|place| {
            let dir = place.dir.join(unique());
            make(&place, &dir)?;
            remove(&dir);
            Ok(if place.unified { "cgroup v2" } else { "cgroup v1" })
        });
        (kind.name(), tried)
    })
}

/// The groups of one container.
#[derive(Debug)]
pub(crate) struct Group {
    dirs: Vec<(PathBuf, bool)>,
}

impl Group {
    /// Makes the groups that `limits` need; also what to join them by writing to.
    pub(crate) fn new(limits: &Limits) -> Result<(Self, Vec<OwnedFd>), RuntimeError> {
        let mut group = Self { dirs: Vec::new() };
        let name = unique();
        for kind in limits.kinds() {
            let refused = |why: String| RuntimeError::Limit { kind: kind.name(), why };
            let place = find::place(kind).map_err(refused)?;
            sweep(&place.dir);
            let dir = place.dir.join(&name);
            if !group.dirs.iter().any(|(known, _)| *known == dir) {
                make(&place, &dir).map_err(refused)?;
                group.dirs.push((dir.clone(), place.unified));
            }
            set(kind, limits, &dir, place.unified).map_err(|error| refused(error.to_string()))?;
        }
        let open = |(dir, _): &(PathBuf, bool)| {
            let path = dir.join("cgroup.procs");
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).map_err(|error| RuntimeError::Limit {
                kind: "any",
                why: format!("cannot open {}: {error}", path.display()),
            })
        };
        let doors = group.dirs.iter().map(open).collect::<Result<_, _>>()?;
        Ok((group, doors))
    }

    /// What has happened so far.
    pub(crate) fn held(&self) -> Held {
        let mut held = Held::default();
        for (dir, unified) in &self.dirs {
            let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
            let (events, peak) = if *unified {
                ("memory.events", "memory.peak")
            } else {
                ("memory.oom_control", "memory.max_usage_in_bytes")
            };
            held.out_of_memory += count(&read(events), "oom_kill");
            held.refused_pids += count(&read("pids.events"), "max");
            held.peak_memory = held.peak_memory.or(read(peak).trim().parse().ok());
        }
        held
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|(dir, _)| remove(dir));
    }
}

/// The number behind a word of a file with a word and a number in each line.
fn count(text: &str, word: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == word).and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

fn make(place: &Place, dir: &Path) -> Result<(), String> {
    fs::create_dir(dir).map_err(|error| {
        format!("cannot make a control group in {}: {error}{}", place.dir.display(), place.hint())
    })?;
    let control = dir.join(place.proof());
    if control.exists() {
        return Ok(());
    }
    remove(dir);
    Err(format!("{} does not pass the controller on to groups in it{}", place.dir.display(), place.hint()))
}

fn set(kind: Kind, limits: &Limits, dir: &Path, unified: bool) -> io::Result<()> {
    const PERIOD: u64 = 100_000;
    let write = |name: &str, value: String| {
        fs::write(dir.join(name), value)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.join(name).display())))
    };
    let value = |limit: Option<u64>| limit.unwrap_or_default();
    let quota = (value(limits.millicpus) * PERIOD / 1000).max(1000);
    match (kind, unified) {
        (Kind::Memory, true) => {
            write("memory.max", value(limits.memory).to_string())?;
            // A kernel without swap has no such file; there is nothing to limit then.
            write("memory.swap.max", "0".to_owned()).or_else(missing)
        }
        (Kind::Memory, false) => {
            write("memory.limit_in_bytes", value(limits.memory).to_string())?;
            write("memory.memsw.limit_in_bytes", value(limits.memory).to_string()).or_else(missing)
        }
        (Kind::Cpu, true) => write("cpu.max", format!("{quota} {PERIOD}")),
        (Kind::Cpu, false) => {
            write("cpu.cfs_period_us", PERIOD.to_string())?;
            write("cpu.cfs_quota_us", quota.to_string())
        }
        (Kind::Pids, _) => write("pids.max", value(limits.pids).to_string()),
        (Kind::Io, _) => limits.io.iter().try_for_each(|limit| {
            let (file, line) = limit.line(unified);
            let (major, minor) = limit.device;
            // A partition, as a rule: the kernel counts whole disks only.
            write(file, line).map_err(|error| io::Error::other(format!("of device {major}:{minor}: {error}")))
        }),
    }
}

fn missing(error: io::Error) -> io::Result<()> {
    let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
    if absent { Ok(()) } else { Err(error) }
}

const PREFIX: &str = "lapstrake-";

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes groups whose makers have gone.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if let Some((pid, _)) = maker
            && !Path::new("/proc").join(pid).exists()
        {
            // Not empty: then somebody else of that name space is in it.
            fs::remove_dir(entry.path()).unwrap_or_default();
        }
    }
}

/// The processes have gone, but the kernel may take a moment to believe it.
fn remove(dir: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        assert_eq!(count("low 0\nmax 3\noom 2\noom_kill 1\n", "oom_kill"), 1);
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill"), 7);
        assert_eq!(count("", "max"), 0);
    }

    #[test]
    fn what_is_written_where() {
        let io = vec![IoLimit { device: (8, 16), rate: IoRate::WriteBytes, value: 1000 }];
        let limits = Limits { memory: Some(64 << 20), millicpus: Some(1500), pids: Some(7), io };
        for (unified, expected) in [
            (
                true,
                "cpu.max=150000 100000 io.max=8:16 wbps=1000 memory.max=67108864 memory.swap.max=0 pids.max=7",
            ),
            (
                false,
                "blkio.throttle.write_bps_device=8:16 1000 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 memory.limit_in_bytes=67108864 \
                     memory.memsw.limit_in_bytes=67108864 pids.max=7",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for kind in limits.kinds() {
                set(kind, &limits, dir.path(), unified).unwrap();
            }
            let mut found: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| {
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    format!("{name}={}", fs::read_to_string(path).unwrap())
                })
                .collect();
            found.sort();
            assert_eq!(found.join(" "), expected);
        }
    }
}
