//! Commands killed at any moment, and pruned under each other: nothing that is in use goes, and in the end nothing stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::place::{Mode, dockerfile, expect, must_say, processes, script, start, state, stop, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("packed_in_use", packed_in_use), ("kills_leave_nothing", kills), ("builds_leave_nothing", builds)];

/// A state directory of the test's own, and how to run commands with it.
struct Own<'m> {
    mode: &'m Mode,
    root: PathBuf,
}

impl Own<'_> {
    fn new<'m>(mode: &'m Mode, name: &str) -> Own<'m> {
        Own { mode, root: state(mode).with_file_name(format!("{name}-{}", mode.name)) }
    }

    fn must(&self, commands: &str) -> Result<String, String> {
        let exported = format!("export LAPSTRAKE_ROOT='{}' && {commands}", self.root.display());
        let done = script(self.mode, &exported)?;
        expect(&done, 0, &[]).map_err(|why| format!("`{commands}`: {why}"))?;
        Ok(text(&done))
    }

    /// Removes all images and the whole cache. Then no byte is left that was put there.
    fn must_be_empty(&self) -> Result<(), String> {
        // What a killed process may have held is free once that process is seen to be dead.
        self.must("./lapstrake prune -a -f && ./lapstrake prune -a -f")?;
        let find = format!(
            "cd '{}' && find blobs/sha256 layers contexts mounts tmp locks killed -mindepth 1 -printf '%s %p\\n' 2> /dev/null | \
             grep -v ' mounts/[^/]*$' | grep -v '/lock$'; true",
            self.root.display()
        );
        let left = must_say(&find)?;
        let healthy =
            self.must("./lapstrake doctor --state | grep -e layers -e blobs -e images -e database")?;
        if left.is_empty() && !healthy.contains("MISSING") {
            Ok(())
        } else {
            Err(format!("left: {left}{healthy}"))
        }
    }
}

/// A first stage waits while a packed image below the second one is pruned with everything else.
fn packed_in_use(mode: &Mode) -> Result<(), String> {
    let own = Own::new(mode, "packed-use");
    dockerfile(mode, "packed-base", "FROM busybox\nRUN echo base > /base\n")?;
    let made = Own::new(mode, "packed-made");
    made.must("./lapstrake import bb.tar busybox && ./lapstrake build -q -t packed:1 packed-base && ./lapstrake save -o packed.tar packed:1")?;
    let waits = "FROM busybox AS first\nRUN --mount=type=cache,id=signal,target=/c touch /c/here; while test ! -e /c/go; do sleep 0.05; done; \
                 echo done > /made\nFROM packed:1\nCOPY --from=first /made /made\nRUN cat /base /made > /both\nCMD [\"cat\", \"/both\"]\n";
    dockerfile(mode, "packed-waits", waits)?;
    for how in [
        "./lapstrake prune -a -f",
        "./lapstrake prune -a -f && ./lapstrake doctor --state && ./lapstrake doctor --repair",
    ] {
        own.must("./lapstrake import bb.tar busybox && ./lapstrake load -i packed.tar")?;
        let mut build = start(
            mode,
            &own.root,
            "log-packed",
            "exec ./lapstrake build --progress plain --no-cache -t both packed-waits",
        )?;
        let result = (|| {
            wait_for(&format!("ls {}/mounts/*/data/here", own.root.display()))?;
            let told = own.must(how)?;
            if told.contains("MISSING") || told.contains("dropped") { Err(told) } else { Ok(()) }
        })();
        must_say(&format!("for d in '{}'/mounts/*/data; do touch $d/go; done", own.root.display()))?;
        let status = build.wait().map_err(|error| error.to_string())?;
        let said = fs::read_to_string(mode.place.join("log-packed")).map_err(|error| error.to_string())?;
        result?;
        if !status.success() {
            return Err(format!("pruned by `{how}`, and the build failed: {said}"));
        }
        own.must("./lapstrake prune -f && test \"$(./lapstrake run both)\" = \"$(printf 'base\\ndone')\"")?;
        own.must_be_empty()?;
    }
    Ok(())
}

fn wait_for(command: &str) -> Result<(), String> {
    let begun = Instant::now();
    while must_say(command).is_err() {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("`{command}` never succeeds"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Builds that nobody disturbs leave no config and no manifest behind their images.
fn builds(mode: &Mode) -> Result<(), String> {
    let own = Own::new(mode, "leaves");
    let registry = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/leaves/app", registry.address);
    dockerfile(
        mode,
        "leaves",
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N | tee /c/n > /n\n",
    )?;
    own.must("./lapstrake import bb.tar busybox")?;
    for number in 0..3 {
        own.must(&format!("./lapstrake build -q -t {name}:1 --build-arg N={number} --push leaves"))?;
        own.must(&format!(
            "./lapstrake build -q --build-arg N=x{number} -o type=oci,compression=zstd,dest=leaves.tar leaves"
        ))?;
    }
    own.must(&format!(
        "./lapstrake rmi {name}:1 && ./lapstrake pull {name}:1 && ./lapstrake save -o leaves.tar {name}:1"
    ))?;
    own.must(&format!("./lapstrake load -i leaves.tar && ./lapstrake rmi {name}:1"))?;
    own.must_be_empty()
}

/// Every verb that writes is killed at any moment, in any order; after each round the store works, in the end it is empty.
/// `LAPSTRAKE_KILL_ROUNDS` says how often (24).
fn kills(mode: &Mode) -> Result<(), String> {
    let rounds = std::env::var("LAPSTRAKE_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let own = Own::new(mode, "kills");
    let registry = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/kills/app", registry.address);
    dockerfile(
        mode,
        "kills",
        "FROM busybox\nARG N\nRUN busybox head -c 400000 /dev/urandom > /big; echo $N > /n\nRUN --mount=type=cache,target=/c cat /n >> /c/log\n",
    )?;
    own.must("./lapstrake import bb.tar busybox")?;
    own.must(&format!(
        "./lapstrake build -q -t {name}:1 --push kills && ./lapstrake save -o kills.tar {name}:1"
    ))?;
    let mut random = 20_261;
    for round in 0..rounds {
        // What is named may have been pruned by the round before.
        let verbs = [
            format!("./lapstrake build -q -t kills --build-arg N={round} kills"),
            format!("./lapstrake build -q -t {name}:2 --build-arg N={round} --push kills"),
            format!("./lapstrake pull {name}:1"),
            "./lapstrake load -i kills.tar".to_owned(),
            "./lapstrake import bb.tar other".to_owned(),
            format!("./lapstrake save -o saved.tar {name}:1"),
            "./lapstrake prune -a -f".to_owned(),
            format!("./lapstrake push {name}:1"),
        ];
        let verb = &verbs[pick(&mut random, verbs.len())];
        let millis = pick(&mut random, 300);
        killed(&own, verb, Duration::from_millis(millis as u64))
            .and_then(|()| own.must("./lapstrake import bb.tar busybox").map(drop))
            .map_err(|why| format!("round {round}, `{verb}` killed after {millis} ms: {why}"))?;
        if round % 8 == 7 {
            own.must("./lapstrake build -q kills && ./lapstrake doctor --state")?;
        }
    }
    own.must_be_empty()
}

fn killed(own: &Own<'_>, verb: &str, time: Duration) -> Result<(), String> {
    let mut child = start(own.mode, &own.root, "log-kills", &format!("exec {verb}"))?;
    std::thread::sleep(time);
    stop(&mut child);
    let begun = Instant::now();
    while !processes(&own.root)?.is_empty() {
        if begun.elapsed() > Duration::from_secs(5) {
            return Err(format!("killed, and still there: {}", processes(&own.root)?));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    nothing_partial(&own.mode.place)
}

/// No half-written output is left beside its name.
fn nothing_partial(place: &Path) -> Result<(), String> {
    let found = must_say(&format!("find '{}' -maxdepth 1 -name '*partial*'", place.display()))?;
    if found.is_empty() { Ok(()) } else { Err(format!("left: {found}")) }
}

/// A number below `count`, the same ones each time.
fn pick(random: &mut u64, count: usize) -> usize {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) as usize % count
}
