//! Where the tests run: a directory of their own for every way of running the binary, and how to run things there.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The ordinary user that root makes for the tests.
pub(super) const USER: &str = "lapstrake-test";
/// A user of the system: such users get no subordinate ids.
pub(super) const SINGLE: &str = "lapstrake-single";

/// One way of running the binary.
pub(super) struct Mode {
    pub(super) name: &'static str,
    /// The user to become; `None` stays who we are.
    pub(super) user: Option<&'static str>,
    pub(super) place: PathBuf,
}

/// A directory that both users can reach, with the binary and the inputs.
pub(super) fn prepare(binary: &Path, name: &'static str, user: Option<&'static str>) -> Result<Mode, String> {
    let place = std::env::temp_dir().join(format!("lapstrake-e2e-{}-{name}", std::process::id()));
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).map_err(|error| error.to_string())?;
    fs::copy(binary, place.join("lapstrake")).map_err(|error| error.to_string())?;
    let builds = crate::top().join("testdata/builds");
    must(&format!("cp -r '{}' '{}/builds'", builds.display(), place.display()))?;
    must(&format!("cd '{}' && mkdir root && cp /bin/busybox root/ && chmod -R a+rX .", place.display()))?;
    must(&format!(
        "cd '{}' && mkdir -p bb/bin bb/etc && cp /bin/busybox bb/bin/ && for a in sh cat ls id mkdir touch true false echo test env chmod grep sleep rm; do ln -s busybox bb/bin/$a; done && printf 'root:x:0:0::/root:/bin/sh\\napp:x:1000:1000::/home/app:/bin/sh\\n' > bb/etc/passwd && printf 'root:x:0:\\napp:x:1000:\\n' > bb/etc/group && tar -C bb --numeric-owner --owner=0 --group=0 -cf bb.tar . && chmod a+r bb.tar",
        place.display()
    ))?;
    if let Some(user) = user
        && must(&format!("id {user}")).is_err()
    {
        // Users of the system get no subordinate ids.
        let kind = if user == SINGLE { "--system " } else { "" };
        must(&format!("useradd {kind}--create-home {user}"))?;
    }
    if let Some(user) = user {
        must(&format!("chown -R {user} '{}/builds'", place.display()))?;
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
    shell(None, "test $(id -u) = 0").is_ok_and(|output| output.status.success())
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
    let script = format!(
        "{}export LAPSTRAKE_ROOT='{}' && {commands} > {log} 2>&1",
        surroundings(mode),
        state.display()
    );
    let mut command = command(&[], mode.user, &script);
    command.stdin(Stdio::null()).spawn().map_err(|error| error.to_string())
}

/// A shell's commands that go to the place and name its state directory.
fn surroundings(mode: &Mode) -> String {
    let (place, state) = (mode.place.display(), state(mode));
    // What is removed by itself depends on how full the disk is.
    format!(
        "cd '{place}' && export LAPSTRAKE_ROOT='{}' HOME='{place}' LAPSTRAKE_KEEP_STORAGE=off && ",
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

/// What a command of ours prints.
pub(super) fn must_say(command: &str) -> Result<String, String> {
    let output = shell(None, command)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{command}`: {}", text(&output)))
    }
}
