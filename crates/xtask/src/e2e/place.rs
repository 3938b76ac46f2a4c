//! Where the tests run: a directory of their own for every way of running the binary, and how to run things there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The ordinary user that root makes for the tests.
pub(super) const USER: &str = "lapstrake-test";

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
        must(&format!("useradd --create-home {user}"))?;
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
    command(&[], user, script).output().map_err(|error| error.to_string())
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

/// A command of the preparation: it must work.
pub(super) fn must(command: &str) -> Result<(), String> {
    let output = shell(None, command)?;
    if output.status.success() { Ok(()) } else { Err(format!("`{command}`: {}", text(&output))) }
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

/// A shell's commands that go to the place and name its state directory.
fn surroundings(mode: &Mode) -> String {
    let place = mode.place.display();
    format!("cd '{place}' && export LAPSTRAKE_ROOT='{place}/state-{}' HOME='{place}' && ", mode.name)
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

pub(super) fn dockerfile(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    let dir = mode.place.join(name);
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    fs::write(dir.join("Dockerfile"), text).map_err(|error| error.to_string())
}

/// A build that is over leaves no temporary file.
pub(super) fn nothing_left(mode: &Mode) -> Result<(), String> {
    let left = script(mode, &format!("ls 'state-{}/tmp'", mode.name))?;
    if left.stdout.is_empty() { Ok(()) } else { Err(format!("something was left behind: {}", text(&left))) }
}
