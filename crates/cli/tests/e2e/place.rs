//! Where the tests run: a directory of their own for every way of running the binary, and how to run things there.

use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The ordinary user that root makes for the tests.
pub(super) const USER: &str = "lapstrake-test";
/// A user of the system: such users get no subordinate ids.
pub(super) const SINGLE: &str = "lapstrake-single";

/// Who runs the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Root.
    Root,
    /// An ordinary user with subordinate ids.
    User,
    /// An ordinary user with one id.
    Single,
}

/// All of them.
pub(super) const KINDS: [Kind; 3] = [Kind::Root, Kind::User, Kind::Single];

impl Kind {
    /// How its tests are called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
            Self::Single => "single",
        }
    }

    /// The user that root becomes. An ordinary user stays who he is.
    fn user(self) -> Option<&'static str> {
        match self {
            Self::Root => None,
            Self::User => is_root().then_some(USER),
            Self::Single => is_root().then_some(SINGLE),
        }
    }

    /// Why no test can run so here, if none can.
    pub(super) fn lack(self) -> Option<String> {
        if self == Self::Root && !is_root() {
            return Some("only root can run it".to_owned());
        }
        let shells = BUSYBOX.iter().any(|path| Path::new(path).exists());
        (!shells).then(|| "there is no busybox: install the package busybox-static".to_owned())
    }
}

/// Where a busybox may be.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];

/// Whether a program is on the path, or where root's programs are.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.into_iter().any(|dir| dir.join(program).is_file())
}

/// One way of running the binary.
pub(super) struct Mode {
    pub(super) name: &'static str,
    /// The user to become; `None` stays who we are.
    pub(super) user: Option<&'static str>,
    pub(super) place: PathBuf,
}

/// What all tests of one user on one work tree have in common: the binary, a small tree, locks. It is made once.
///
/// A file in it is locked, shared, by each process that uses it.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    binary: PathBuf,
    _lock: fs::File,
}

fn shared_dir() -> PathBuf {
    let mut hasher = std::hash::DefaultHasher::new();
    (super::top(), fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or_default()).hash(&mut hasher);
    std::env::temp_dir().join(format!("lapstrake-e2e-shared-{:016x}", hasher.finish()))
}

impl Shared {
    /// Makes what is missing.
    pub(super) fn of(binary: &Path) -> Result<Shared, String> {
        let failed = |error: std::io::Error| error.to_string();
        let dir = shared_dir();
        fs::create_dir_all(&dir).map_err(failed)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let lock = fs::File::create(dir.join("lock")).map_err(failed)?;
        let making = fs::File::create(dir.join("making")).map_err(failed)?;
        lock.lock_shared().map_err(failed)?;
        making.lock().map_err(failed)?;
        if !dir.join("ready").exists() {
            let busybox =
                BUSYBOX.into_iter().find(|path| Path::new(path).exists()).ok_or("there is no busybox")?;
            must(&format!(
                "cd '{}' && rm -rf bb root bb.tar && mkdir root && cp {busybox} root/busybox && {TREE} && touch ready",
                dir.display()
            ))?;
            if is_root() {
                for (user, kind) in [(USER, ""), (SINGLE, "--system ")] {
                    must(&format!("id {user} 2> /dev/null || useradd {kind}--create-home {user}"))?;
                }
            }
        }
        let found = fs::metadata(binary).map_err(|error| format!("{}: {error}", binary.display()))?;
        let name = format!("binary-{}-{}-{}", found.mtime(), found.mtime_nsec(), found.size());
        let own = dir.join(&name).join("lapstrake");
        if !own.exists() {
            // Those of earlier builds stay where somebody has linked them.
            must(&format!(
                "cd '{0}' && rm -rf binary-* && mkdir {name}.part && cp '{1}' {name}.part/lapstrake && mv {name}.part {name}",
                dir.display(),
                binary.display()
            ))?;
        }
        Ok(Shared { dir, binary: own, _lock: lock })
    }

    /// Runs `make` unless the file or directory `name` is there already, which it has to make.
    pub(super) fn once(&self, name: &str, make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let lock =
            fs::File::create(self.dir.join(format!("{name}.lock"))).map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        if self.dir.join(name).exists() { Ok(()) } else { make() }
    }
}

/// Waits until this process may run a test: beside others, or `alone`. The turn lasts as long as the value, whoever started
/// the processes.
pub(super) fn turn(alone: bool) -> Result<fs::File, String> {
    let failed = |error: std::io::Error| error.to_string();
    let dir = shared_dir();
    fs::create_dir_all(&dir).map_err(failed)?;
    let lock = fs::File::create(dir.join("turn")).map_err(failed)?;
    if alone { lock.lock() } else { lock.lock_shared() }.map_err(failed)?;
    Ok(lock)
}

/// Removes what tests have in common, if nobody uses it any more.
pub(super) fn tidy_up() {
    let dir = shared_dir();
    let Ok(lock) = fs::File::open(dir.join("lock")) else { return };
    if lock.try_lock().is_ok() {
        // It is made again.
        fs::remove_dir_all(&dir).unwrap_or_default();
    }
}

/// Makes a small tree and its archive, of the busybox in `root`.
const TREE: &str = "mkdir -p bb/bin bb/etc && cp root/busybox bb/bin/ && \
    for a in sh cat ls id mkdir touch true false echo test env chmod grep sleep rm; do ln -s busybox bb/bin/$a; done && \
    printf 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n' > bb/etc/passwd && \
    printf 'root:x:0:\napp:x:1000:\n' > bb/etc/group && \
    tar -C bb --numeric-owner --owner=0 --group=0 -cf bb.tar . && chmod -R a+rX .";

/// A directory that the user can reach, with the binary and the inputs, and the image `busybox` in its state directory.
pub(super) fn prepare(shared: &Shared, kind: Kind) -> Result<Mode, String> {
    let failed = |error: std::io::Error| error.to_string();
    let (name, user) = (kind.name(), kind.user());
    let place = std::env::temp_dir().join(format!("lapstrake-e2e-{}-{name}", std::process::id()));
    fs::create_dir_all(&place).map_err(failed)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).map_err(failed)?;
    // A link where that can be, since it is large.
    let binary = place.join("lapstrake");
    fs::hard_link(&shared.binary, &binary)
        .or_else(|_| fs::copy(&shared.binary, &binary).map(drop))
        .map_err(failed)?;
    let (own, builds) = (place.display(), super::top().join("testdata/builds"));
    must(&format!(
        "cp -r '{}' '{own}/builds' && cd '{}' && cp -r root bb bb.tar '{own}/'",
        builds.display(),
        shared.dir.display()
    ))?;
    must(&format!("chmod -R a+rX '{own}/builds'"))?;
    if let Some(user) = user {
        must(&format!("chown -R {user} '{own}/builds'"))?;
    }
    let mode = Mode { name, user, place };
    let imported = lap(&mode, "import bb.tar busybox")?;
    if imported.status.success() { Ok(mode) } else { Err(text(&imported)) }
}

pub(super) fn clean(mode: &Mode) -> Result<(), String> {
    // Files of subordinate ids can only go from inside of the namespace, or by root.
    must(&format!("rm -rf '{}' || true", mode.place.display()))
}

pub(super) fn shell(user: Option<&str>, script: &str) -> Result<Output, String> {
    run(&[], user, script)
}

/// Runs `script` by a shell as `user`, started by the words of `through`.
pub(super) fn run(through: &[&str], user: Option<&str>, script: &str) -> Result<Output, String> {
    command(through, user, script).output().map_err(|error| error.to_string())
}

fn command(through: &[&str], user: Option<&str>, script: &str) -> Command {
    let mut words = through.to_vec();
    if let Some(user) = user {
        words.extend(["setpriv", "--reuid", user, "--regid", user, "--init-groups"]);
    }
    words.extend(["sh", "-c", script]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Whether the tests can do what only root can.
pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command of the preparation: it must work.
pub(super) fn must(command: &str) -> Result<(), String> {
    must_say(command).map(drop)
}

/// Runs the binary in the place, with a state directory of its own.
pub(super) fn lap(mode: &Mode, args: &str) -> Result<Output, String> {
    script(mode, &format!("./lapstrake {args}"))
}

pub(super) fn script(mode: &Mode, commands: &str) -> Result<Output, String> {
    shell(mode.user, &(surroundings(mode) + commands))
}

/// What [`script`] runs, started by the words of `through`.
pub(super) fn script_through(through: &[&str], mode: &Mode, commands: &str) -> Command {
    command(through, mode.user, &(surroundings(mode) + commands))
}

/// Starts commands as [`script`] does, with another state directory; what they print goes to the file `log`. The
/// process is the last command's own if that begins with `exec`.
pub(super) fn start(mode: &Mode, state: &Path, log: &str, commands: &str) -> Result<Child, String> {
    start_with(mode, state, log, (commands, Stdio::null()))
}

/// As [`start`], with something else for standard input.
pub(super) fn start_with(
    mode: &Mode,
    state: &Path,
    log: &str,
    (commands, stdin): (&str, Stdio),
) -> Result<Child, String> {
    let script = format!(
        "{}export LAPSTRAKE_ROOT='{}' && {commands} > {log} 2>&1",
        surroundings(mode),
        state.display()
    );
    let mut command = command(&[], mode.user, &script);
    command.stdin(stdin).spawn().map_err(|error| error.to_string())
}

/// A shell's commands that go to the place and name its state directory.
fn surroundings(mode: &Mode) -> String {
    let (place, state) = (mode.place.display(), state(mode));
    // What is removed by itself depends on how full the disk is.
    let one = if mode.name == Kind::Single.name() && mode.user.is_none() { " LAPSTRAKE_IDS=one" } else { "" };
    format!(
        "cd '{place}' && export LAPSTRAKE_ROOT='{}' HOME='{place}' LAPSTRAKE_KEEP_STORAGE=off{one} && ",
        state.display()
    )
}

/// The mode's state directory.
pub(super) fn state(mode: &Mode) -> PathBuf {
    mode.place.join(format!("state-{}", mode.name))
}

/// Namespaces of their own, made by root: what is mounted there goes with them.
pub(super) struct Apart<'a> {
    mode: &'a Mode,
    holder: Child,
}

impl<'a> Apart<'a> {
    /// Makes them by `unshare` with `flags`, then runs `setup` in them, in the place. They last as long as this value.
    pub(super) fn new(mode: &'a Mode, flags: &[&str], setup: &str) -> Result<Apart<'a>, String> {
        let ready = format!("cd '{}' && {setup} && echo ready && exec cat", mode.place.display());
        let mut holder = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", &ready])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut line = [0; 6];
        let told = holder.stdout.as_mut().map(|out| out.read_exact(&mut line));
        let apart = Apart { mode, holder };
        if matches!(told, Some(Ok(()))) { Ok(apart) } else { Err(format!("`{setup}` failed")) }
    }

    /// A process in there.
    pub(super) fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// As [`script`], in there.
    pub(super) fn script(&self, commands: &str) -> Result<Output, String> {
        let pid = self.pid();
        let enter = ["nsenter", "--mount", "--net", "--target", &pid];
        run(&enter, self.mode.user, &(surroundings(self.mode) + commands))
    }

    /// The binary, in there.
    pub(super) fn lap(&self, args: &str) -> Result<Output, String> {
        self.script(&format!("./lapstrake {args}"))
    }
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        stop(&mut self.holder);
    }
}

/// Ends a process of ours.
pub(super) fn stop(child: &mut Child) {
    // It may have ended by itself.
    child.kill().and_then(|()| child.wait().map(drop)).unwrap_or_default();
}

pub(super) fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(super) fn expect(output: &Output, code: i32, words: &[&str]) -> Result<(), String> {
    let all = text(output);
    if output.status.code() != Some(code) {
        return Err(format!("expected exit status {code}: {all}"));
    }
    match words.iter().find(|word| !all.contains(**word)) {
        Some(word) => Err(format!("`{word}` is not in: {all}")),
        None => Ok(()),
    }
}

/// Whether a build took the step whose name ends in `step` from the cache.
pub(super) fn is_cached(output: &Output, step: &str) -> bool {
    let all = text(output);
    let mut lines = all.lines().skip_while(|line| !line.ends_with(step)).skip(1);
    lines.next().is_some_and(|line| line.ends_with(" CACHED"))
}

pub(super) fn dockerfile(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    let dir = mode.place.join(name);
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    fs::write(dir.join("Dockerfile"), text).map_err(|error| error.to_string())
}

/// A build that is over leaves no temporary file, no lock, no process and no mount.
pub(super) fn nothing_left(mode: &Mode) -> Result<(), String> {
    nothing_left_in(mode, &state(mode))
}

/// As [`nothing_left`], of another state directory.
pub(super) fn nothing_left_in(mode: &Mode, state: &Path) -> Result<(), String> {
    let files = must_say(&format!("find '{0}/tmp' '{0}/locks' -mindepth 1 2>&1", state.display()))?;
    let mounts = must_say(&format!("grep -F '{}' /proc/self/mountinfo; true", mode.place.display()))?;
    let processes = processes(state)?;
    let left = format!("{files}{mounts}{processes}");
    if left.is_empty() { Ok(()) } else { Err(format!("something was left behind: {left}")) }
}

/// The processes that were started with this state directory, one a line.
pub(super) fn processes(state: &Path) -> Result<String, String> {
    let mut found = String::new();
    for process in with_variable(&format!("LAPSTRAKE_ROOT={}", state.display()))? {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        found += &format!("{}: {}\n", process.display(), String::from_utf8_lossy(&words));
    }
    Ok(found)
}

/// Kills what was started in the place of `mode`.
pub(super) fn kill_all(mode: &Mode) {
    let found = with_variable(&format!("HOME={}", mode.place.display())).unwrap_or_default();
    let pids: Vec<_> = found.iter().filter_map(|process| process.file_name()).collect();
    // Some of them end with others of them.
    Command::new("kill").arg("-9").args(pids).status().map(drop).unwrap_or_default();
}

/// The directories in `/proc` of processes that were started with a variable, given as `NAME=VALUE`.
fn with_variable(wanted: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
        // Other processes end while we look.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Appends to a file of the test's own.
pub(super) fn append(path: &Path, text: &str) {
    let file = fs::File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the place takes a log");
}

/// What a command of ours prints.
pub(super) fn must_say(command: &str) -> Result<String, String> {
    let output = shell(None, command)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{command}`: {}", text(&output)))
    }
}
