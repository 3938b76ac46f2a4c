//! From the start to the exit of `true` in the whole sandbox, on an overlay of ten layers, beside a plain fork and exec
//! and beside other runtimes with a bundle of the same root. As root.
//!
//! Twice: on an overlay that is made for each run, as a step's is, and on the one that the other runtimes find mounted.

use std::cell::Cell;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapstrake_runtime::{Exit, RunFds, RunSpec, Sandbox};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

const LAYERS: usize = 10;
const ROUNDS: usize = 100;
const MANY: usize = 1000;

/// Measures and prints.
pub(super) fn bench() -> Result<(), String> {
    if cfg!(debug_assertions) {
        // The sandbox runs in this process: it has to be the code that is shipped.
        return crate::run(
            "cargo",
            &["run", "--quiet", "--release", "--package", "xtask", "--", "bench", "sandbox"],
        );
    }
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let roots = Roots::new(place.path())?;
    let sandbox = Sandbox::start().map_err(|error| format!("{error:?}"))?;
    let peers: Vec<&str> =
        ["runc", "crun"].into_iter().filter(|peer| super::measure::on_path(peer)).collect();
    let bundle = if peers.is_empty() { None } else { Some(roots.bundle()?) };
    let works = |peer: &&str| {
        let id = format!("lapstrake-try-{}", std::process::id());
        let tried = bundle.as_deref().map(|bundle| run_peer(peer, bundle, &id));
        let works = matches!(tried, Some(Ok(_)));
        if !works {
            println!("sandbox: {peer} cannot run here, and is not measured");
        }
        works
    };
    let peers: Vec<&str> = peers.into_iter().filter(works).collect();
    Times::measure((&roots, &sandbox), bundle.as_deref(), &peers)?.print(&peers);
    thousand(&roots, &sandbox)
}

/// How long each run took.
#[derive(Default)]
struct Times {
    /// Fork and exec.
    plain: Vec<Duration>,
    /// Ours, on an overlay made for it.
    made: Vec<Duration>,
    /// Ours, in the bundle of the peers.
    same: Vec<Duration>,
    peers: Vec<Vec<Duration>>,
}

impl Times {
    fn measure(
        (roots, sandbox): (&Roots, &Sandbox),
        bundle: Option<&Path>,
        peers: &[&str],
    ) -> Result<Times, String> {
        let mut times = Times { peers: vec![Vec::new(); peers.len()], ..Times::default() };
        for round in 0..ROUNDS {
            times.plain.push(timed(|| quiet(Command::new("/bin/busybox").arg("true")))?);
            times.made.push(timed(|| roots.run(sandbox))?);
            let Some(bundle) = bundle else { continue };
            times.same.push(timed(|| run_in(sandbox, mounted(bundle)?))?);
            // Peers need so long that a few rounds say enough.
            let few = round % 5 == 0;
            for (peer, times) in peers.iter().zip(&mut times.peers).filter(|_| few) {
                let id = format!("lapstrake-bench-{}-{round}", std::process::id());
                times.push(run_peer(peer, bundle, &id)?);
            }
        }
        Ok(times)
    }

    fn print(mut self, peers: &[&str]) {
        let (least, plain) = (least(&self.made), least(&self.plain));
        println!("sandbox: least of lapstrake {least:.2} ms, of fork and exec {plain:.2} ms");
        let (limit, made, same) = (median(&mut self.plain), median(&mut self.made), median(&mut self.same));
        line("sandbox: fork and exec", limit, limit, "");
        let verdict = |met: bool| if met { "met" } else { "NOT MET" };
        let budget = format!("<= 3 x limit: {}", verdict(made <= 3.0 * limit));
        line("sandbox: lapstrake, 10 layers", made, limit, &budget);
        if !peers.is_empty() {
            line("sandbox: lapstrake, their bundle", same, limit, "");
        }
        for (peer, mut times) in peers.iter().zip(self.peers) {
            let (time, part) = (median(&mut times), if *peer == "runc" { 8.0 } else { 4.0 });
            let met = verdict(same * part <= time);
            let (same, made) = (time / same, time / made);
            let budget =
                format!("1/{part} for the same bundle: {met} (1/{same:.1}; made for it 1/{made:.1})");
            line(&format!("sandbox: {peer} run"), time, limit, &budget);
        }
    }
}

/// The last of many costs what the first did, and nothing is left.
fn thousand(roots: &Roots, sandbox: &Sandbox) -> Result<(), String> {
    let count = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").map_or(0, |text| text.lines().count());
    let before = (count("/proc/self/fd"), mounts());
    let mut times = Vec::new();
    for _ in 0..MANY {
        times.push(timed(|| roots.run(sandbox))?);
    }
    let after = (count("/proc/self/fd"), mounts());
    let (first, last) = (median(&mut times[..100].to_vec()), median(&mut times[MANY - 100..].to_vec()));
    line("sandbox: runs 1 to 100", first, first, "");
    line(
        "sandbox: runs 901 to 1000",
        last,
        first,
        &format!("descriptors and mounts {before:?}, then {after:?}"),
    );
    Ok(())
}

/// One run of another runtime. crun refuses machines with control groups of both versions: it runs where only those of
/// version 2 are mounted, and makes none, as we make none without limits.
fn run_peer(peer: &str, bundle: &Path, id: &str) -> Result<Duration, String> {
    let run = |args: &[&str]| {
        timed(|| quiet(Command::new(peer).args(args).args(["run", "-b"]).arg(bundle).arg(id)))
    };
    if peer != "crun" {
        return run(&[]);
    }
    let apart = || -> rustix::io::Result<()> {
        lapstrake_sys::namespace::unshare(UnshareFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        rustix::mount::unmount("/sys/fs/cgroup", UnmountFlags::DETACH)?;
        rustix::mount::mount("none", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None)
    };
    // A thread's mount namespace is its own.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apart().map_err(|errno| format!("cannot mount control groups of version 2: {errno}"))?;
            run(&["--cgroup-manager=disabled"])
        });
        thread.join().map_err(|_| "the thread of crun died".to_owned())?
    })
}

fn line(title: &str, time: f64, limit: f64, budget: &str) {
    let ratio = time / limit.max(1e-9);
    println!("{title:<34} {:>7.2} ms {ratio:>7.2}x  {budget}", time * 1e3);
}

fn timed<T>(work: impl FnOnce() -> Result<T, String>) -> Result<Duration, String> {
    let begun = Instant::now();
    let made = work()?;
    let took = begun.elapsed();
    drop(made);
    Ok(took)
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

/// In milliseconds.
fn least(times: &[Duration]) -> f64 {
    times.iter().min().map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn quiet(command: &mut Command) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{command:?}: {other:?}")),
    }
}

/// Ten layers, the lowest with a busybox.
struct Roots {
    place: PathBuf,
    runs: Cell<usize>,
}

impl Roots {
    fn new(place: &Path) -> Result<Roots, String> {
        let make = || -> std::io::Result<()> {
            for layer in 0..LAYERS {
                fs::create_dir_all(place.join(format!("layer{layer}/etc")))?;
            }
            let points = ["layer0/proc", "layer0/dev", "layer0/sys"];
            for name in ["peer-upper", "peer-work", "layer0/bin", "bundle/rootfs"].into_iter().chain(points) {
                fs::create_dir_all(place.join(name))?;
            }
            // What any distribution's root has, and what the first run of a peer makes and leaves.
            for name in ["layer0/etc/hosts", "layer0/etc/resolv.conf"] {
                fs::write(place.join(name), "")?;
            }
            fs::copy("/bin/busybox", place.join("layer0/bin/busybox"))?;
            std::os::unix::fs::symlink("busybox", place.join("layer0/bin/true"))
        };
        make().map_err(|error| format!("cannot make layers of busybox (package busybox-static): {error}"))?;
        Ok(Roots { place: place.to_owned(), runs: Cell::new(0) })
    }

    fn overlay(&self, upper: &str, work: &str) -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in (0..LAYERS).rev() {
            rustix::mount::fsconfig_set_string(
                &context,
                c"lowerdir+",
                self.place.join(format!("layer{layer}")),
            )?;
        }
        for (key, name) in [(c"upperdir", upper), (c"workdir", work)] {
            rustix::mount::fsconfig_set_string(&context, key, self.place.join(name))?;
        }
        // As a step's root.
        for flag in [c"userxattr", c"volatile"] {
            rustix::mount::fsconfig_set_flag(&context, flag)?;
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Once, with all that a step has: a fresh mount on a fresh directory, networks of its own left out as they are for
    /// a step. Gives what the caller has of the root, which it can let go of when it likes.
    fn run(&self, sandbox: &Sandbox) -> Result<OwnedFd, String> {
        let number = self.runs.replace(self.runs.get() + 1);
        let (upper, work) = (format!("upper{number}"), format!("work{number}"));
        for name in [&upper, &work] {
            fs::create_dir(self.place.join(name)).map_err(|error| error.to_string())?;
        }
        run_in(sandbox, self.overlay(&upper, &work).map_err(|error| error.to_string())?)
    }

    /// A bundle for other runtimes: the same layers, mounted once for all of their runs.
    fn bundle(&self) -> Result<PathBuf, String> {
        let bundle = self.place.join("bundle");
        quiet(Command::new("runc").arg("spec").current_dir(&bundle))
            .or_else(|_| quiet(Command::new("crun").arg("spec").current_dir(&bundle)))?;
        let path = bundle.join("config.json");
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        let mut spec: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["terminal"] = false.into();
        // The host's network, as ours.
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        spec["root"] = serde_json::json!({"path": self.place.join("bundle/rootfs"), "readonly": false});
        fs::write(&path, spec.to_string()).map_err(|error| error.to_string())?;
        let lowers: Vec<String> = (0..LAYERS)
            .rev()
            .map(|layer| self.place.join(format!("layer{layer}")).display().to_string())
            .collect();
        let at = self.place.display();
        let options =
            format!("lowerdir={},upperdir={at}/peer-upper,workdir={at}/peer-work", lowers.join(":"));
        let target = bundle.join("rootfs");
        quiet(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(target))?;
        Ok(bundle)
    }
}

/// The root that a bundle has mounted, once more.
fn mounted(bundle: &Path) -> Result<OwnedFd, String> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, bundle.join("rootfs"), flags).map_err(|error| error.to_string())
}

/// Runs `true` in `mount`, and gives that back.
fn run_in(sandbox: &Sandbox, mount: OwnedFd) -> Result<OwnedFd, String> {
    let open = || -> Result<OwnedFd, String> {
        let file = fs::File::options().read(true).write(true).open("/dev/null");
        file.map(OwnedFd::from).map_err(|error| error.to_string())
    };
    let root = mount.try_clone().map_err(|error| error.to_string())?;
    let fds = RunFds { root, mounts: Vec::new(), stdin: open()?, stdout: open()?, stderr: open()? };
    let spec = RunSpec::new(vec!["/bin/true".to_owned()]);
    let running = sandbox.run(&spec, fds).map_err(|error| format!("{error:?}"))?;
    match running.wait().map_err(|error| format!("{error:?}"))?.exit {
        Exit::Code(0) => Ok(mount),
        other => Err(format!("true ended with {other:?}")),
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        // Not mounted where there is no peer.
        quiet(Command::new("umount").arg(self.place.join("bundle/rootfs"))).unwrap_or_default();
    }
}
