//! Mounts of steps: cache directories and agents.

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] =
    &[("cache_mounts_without_a_cache", cache_mounts_without_a_cache), ("owners_of_agents", owners_of_agents)];

/// With `--no-cache`, the directories begin empty once for each build. `RUN --no-cache` keeps them.
fn cache_mounts_without_a_cache(mode: &Mode) -> Result<(), String> {
    let mount = "--mount=type=cache,id=fresh,target=/c,mode=0773";
    let text = format!(
        "# syntax=lapstrake\nFROM busybox\nARG name=a\nRUN {mount} touch /c/$name && echo first has $(ls /c)\n\
         RUN --no-cache {mount} touch /c/second-$name && echo second has $(ls /c)\n"
    );
    dockerfile(mode, "fresh", &text)?;
    let build = |flags: &str| lap(mode, &format!("build --progress plain {flags} fresh"));
    expect(&build("")?, 0, &[" first has a\n", " second has a second-a\n"])?;
    expect(&build("--build-arg name=b")?, 0, &[" first has a b second-a\n"])?;
    let fresh = build("--no-cache --build-arg name=c")?;
    expect(&fresh, 0, &[" first has c\n", " second has c second-c\n"])?;
    expect(&build("--build-arg name=d")?, 0, &[" first has c d second-c\n"])?;
    nothing_left(mode)
}

/// The socket of an agent has the owner and the mode of the mount. The agent's own socket stays as it is.
fn owners_of_agents(mode: &Mode) -> Result<(), String> {
    let owned = if mode.name == "single" { "0 0 c1e1" } else { "100 102 c1e1" };
    let text = format!(
        "FROM busybox\nRUN --mount=type=ssh test \"$(stat -c '%u %g %f' $SSH_AUTH_SOCK)\" = '0 0 c180'\n\
         RUN --mount=type=ssh,mode=741,uid=100,gid=102 test \"$(stat -c '%u %g %f' $SSH_AUTH_SOCK)\" = '{owned}'\n"
    );
    dockerfile(mode, "agents", &text)?;
    let socket = "rm -f agent && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"agent\")' && chmod 640 agent && ";
    let built = format!("{socket} ./lapstrake build --ssh default=agent agents && stat -c %a agent");
    expect(&script(mode, &built)?, 0, &["640\n"])?;
    nothing_left(mode)
}
