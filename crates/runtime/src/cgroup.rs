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
use crate::spec::{CpuTime, IoLimit, IoRate, Limits, Swap};
use find::Place;

/// Which limits a container has run into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitEvents {
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
    Cpuset,
    Pids,
    Io,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }

    /// What version 1 calls the controller.
    fn old_name(self) -> &'static str {
        if self == Self::Io { "blkio" } else { self.name() }
    }
}

/// The kinds of limits that are set, and those that a parent may set.
fn kinds(limits: &Limits) -> Vec<Kind> {
    // A parent has limits of its own, which count for those that it has for sure.
    let within = limits.parent.is_some();
    let all = [
        (Kind::Memory, within || limits.memory.is_some()),
        (Kind::Cpu, within || limits.cpu.is_some() || limits.cpu_shares.is_some()),
        (Kind::Cpuset, limits.cpus.is_some() || limits.nodes.is_some()),
        (Kind::Pids, within || limits.pids.is_some()),
        (Kind::Io, !limits.io.is_empty()),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect()
}

/// The file that a limit of a disk is written to, and the text.
fn io_line(limit: &IoLimit, unified: bool) -> (&'static str, String) {
    let (major, minor) = limit.device;
    let (key, file) = match limit.rate {
        IoRate::ReadBytes => ("rbps", "blkio.throttle.read_bps_device"),
        IoRate::WriteBytes => ("wbps", "blkio.throttle.write_bps_device"),
        IoRate::Reads => ("riops", "blkio.throttle.read_iops_device"),
        IoRate::Writes => ("wiops", "blkio.throttle.write_iops_device"),
    };
    match unified {
        true => ("io.max", format!("{major}:{minor} {key}={}", limit.value)),
        false => (file, format!("{major}:{minor} {}", limit.value)),
    }
}

/// Which limits this process could set, and why not the others.
pub fn available() -> [(&'static str, Result<&'static str, String>); 5] {
    [Kind::Memory, Kind::Cpu, Kind::Cpuset, Kind::Pids, Kind::Io].map(|kind| {
        let tried = find::place(kind, None).and_then(|place| {
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
        for kind in kinds(limits) {
            let refused = |why: String| RuntimeError::Limit { kind: kind.name(), why };
            let place = find::place(kind, limits.parent.as_deref()).map_err(refused)?;
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
    pub(crate) fn limit_events(&self) -> LimitEvents {
        let mut held = LimitEvents::default();
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

/// A group's directory, and whether it is of version 2.
struct Dir<'d>(&'d Path, bool);

impl Dir<'_> {
    fn write(&self, name: &str, value: &dyn ToString) -> io::Result<()> {
        let path = self.0.join(name);
        fs::write(&path, value.to_string())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn memory(&self, limits: &Limits) -> io::Result<()> {
        let Some(memory) = limits.memory else { return Ok(()) };
        let swap = limits.swap.unwrap_or(Swap::Bytes(0));
        // A kernel without swap has no such file; there is nothing to limit then.
        if self.1 {
            self.write("memory.max", &memory)?;
            let swap = match swap {
                Swap::Unlimited => "max".to_owned(),
                Swap::Bytes(bytes) => bytes.to_string(),
            };
            return self.write("memory.swap.max", &swap).or_else(missing);
        }
        self.write("memory.limit_in_bytes", &memory)?;
        let both = match swap {
            Swap::Unlimited => "-1".to_owned(),
            Swap::Bytes(bytes) => memory.saturating_add(bytes).to_string(),
        };
        self.write("memory.memsw.limit_in_bytes", &both).or_else(missing)
    }

    fn cpu(&self, limits: &Limits) -> io::Result<()> {
        if let Some(CpuTime { quota, period }) = limits.cpu {
            if self.1 {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                self.write("cpu.max", &format!("{quota} {period}"))?;
            } else {
                self.write("cpu.cfs_period_us", &period)?;
                quota.map_or(Ok(()), |quota| self.write("cpu.cfs_quota_us", &quota))?;
            }
        }
        match (limits.cpu_shares, self.1) {
            (Some(shares), true) => self.write("cpu.weight", &weight(shares)),
            (Some(shares), false) => self.write("cpu.shares", &shares),
            (None, _) => Ok(()),
        }
    }

    fn cpuset(&self, limits: &Limits) -> io::Result<()> {
        for (name, wanted) in [("cpuset.cpus", &limits.cpus), ("cpuset.mems", &limits.nodes)] {
            match (wanted, self.1) {
                (Some(wanted), _) => self.write(name, &wanted)?,
                // In version 1 a group has none until it is given some, and nothing can join it.
                (None, false) => {
                    let above = self.0.parent().unwrap_or(self.0).join(name);
                    self.write(name, &fs::read_to_string(above)?.trim())?;
                }
                (None, true) => {}
            }
        }
        Ok(())
    }
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually 100). A curve through
/// these three, as newer runtimes have it: `10 ^ (l² / 612 + 125 l / 612 - 7 / 34)` for `l`, the binary logarithm of shares.
fn weight(shares: u64) -> u64 {
    let l = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

fn set(kind: Kind, limits: &Limits, dir: &Path, unified: bool) -> io::Result<()> {
    let dir = Dir(dir, unified);
    match kind {
        Kind::Memory => dir.memory(limits),
        Kind::Cpu => dir.cpu(limits),
        Kind::Cpuset => dir.cpuset(limits),
        Kind::Pids => limits.pids.map_or(Ok(()), |pids| dir.write("pids.max", &pids)),
        Kind::Io => limits.io.iter().try_for_each(|limit| {
            let (file, line) = io_line(limit, unified);
            let (major, minor) = limit.device;
            // A partition, as a rule: the kernel counts whole disks only.
            dir.write(file, &line)
                .map_err(|error| io::Error::other(format!("of device {major}:{minor}: {error}")))
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
    fn weights() {
        let of = [2, 10, 512, 1024, 2048, 262_144].map(weight);
        assert_eq!((of[0], of[3], of[5]), (1, 100, 10_000));
        assert!(of.is_sorted());
        assert_eq!((weight(0), weight(u64::MAX)), (1, 10_000));
    }

    #[test]
    fn what_is_written_where() {
        let io = vec![IoLimit { device: (8, 16), rate: IoRate::WriteBytes, value: 1000 }];
        let cpu = Some(CpuTime { quota: Some(150_000), period: 100_000 });
        let (cpus, swap) = (Some("0-1".to_owned()), Some(Swap::Bytes(1 << 20)));
        let limits = Limits {
            memory: Some(64 << 20),
            swap,
            cpu,
            cpu_shares: Some(1024),
            cpus,
            nodes: None,
            pids: Some(7),
            io,
            parent: None,
        };
        for (unified, expected) in [
            (
                true,
                "cpu.max=150000 100000 cpu.weight=100 cpuset.cpus=0-1 io.max=8:16 wbps=1000 memory.max=67108864 \
                 memory.swap.max=1048576 pids.max=7",
            ),
            (
                false,
                "blkio.throttle.write_bps_device=8:16 1000 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 cpu.shares=1024 \
                 cpuset.cpus=0-1 cpuset.mems=0 memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=68157440 pids.max=7",
            ),
        ] {
            let above = tempfile::tempdir().unwrap();
            fs::write(above.path().join("cpuset.mems"), "0\n").unwrap();
            let dir = above.path().join("group");
            fs::create_dir(&dir).unwrap();
            for kind in kinds(&limits) {
                set(kind, &limits, &dir, unified).unwrap();
            }
            let mut found: Vec<String> = fs::read_dir(&dir)
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
