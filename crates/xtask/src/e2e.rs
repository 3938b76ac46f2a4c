//! Real builds with the real binary, as root and as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::tests::Count;

/// The ordinary user that root makes for the tests.
const USER: &str = "lapstrake-test";

/// One way of running the binary.
struct Mode {
    name: &'static str,
    /// The user to become; `None` stays who we are.
    user: Option<&'static str>,
    place: PathBuf,
}

type Case = fn(&Mode) -> Result<(), String>;

/// Runs all cases in all modes that are possible here.
pub(crate) fn run(binary: &Path, count: &mut Count) -> Result<(), String> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let modes: &[(&'static str, Option<&'static str>)] =
        if is_root { &[("root", None), ("user", Some(USER))] } else { &[("user", None)] };
    let cases: [(&str, Case); 8] = [
        ("hello", hello),
        ("cached", cached),
        ("language", language),
        ("mounts", mounts),
        ("failing", failing),
        ("bad_input", bad_input),
        ("archives", archives),
        ("killed", killed),
    ];
    let mut digests = Vec::new();
    for (name, user) in modes {
        let mode = prepare(binary, name, *user)?;
        for (case, check) in &cases {
            match check(&mode) {
                Ok(()) => {
                    count.passed += 1;
                    println!("test e2e::{name}::{case} ... ok");
                }
                Err(why) => {
                    count.failed += 1;
                    println!("test e2e::{name}::{case} ... FAILED\n{why}");
                }
            }
        }
        digests.push(reproducible(&mode)?);
        clean(&mode)?;
    }
    if digests.windows(2).all(|pair| pair[0] == pair[1]) {
        count.passed += 1;
    } else {
        count.failed += 1;
        println!("test e2e::same_layers_for_root_and_user ... FAILED\n{digests:?}");
    }
    Ok(())
}

/// A directory that both users can reach, with the binary and the inputs.
fn prepare(binary: &Path, name: &'static str, user: Option<&'static str>) -> Result<Mode, String> {
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

fn clean(mode: &Mode) -> Result<(), String> {
    // Files of subordinate ids can only go from inside of the namespace, or by root.
    must(&format!("rm -rf '{}' || true", mode.place.display()))
}

fn shell(user: Option<&str>, script: &str) -> Result<Output, String> {
    let mut command = match user {
        None => Command::new("sh"),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--init-groups", "sh"]);
            command
        }
    };
    let output = command.args(["-c", script]).output().map_err(|error| error.to_string())?;
    Ok(output)
}

/// A command of the preparation: it must work.
fn must(command: &str) -> Result<(), String> {
    let output = shell(None, command)?;
    if output.status.success() { Ok(()) } else { Err(format!("`{command}`: {}", text(&output))) }
}

/// Runs the binary in the place, with a state directory of its own.
fn lap(mode: &Mode, args: &str) -> Result<Output, String> {
    script(mode, &format!("./lapstrake {args}"))
}

fn script(mode: &Mode, commands: &str) -> Result<Output, String> {
    let place = mode.place.display();
    let state = format!("{place}/state-{}", mode.name);
    shell(mode.user, &format!("cd '{place}' && export LAPSTRAKE_ROOT='{state}' HOME='{place}' && {commands}"))
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn expect(output: &Output, code: i32, words: &[&str]) -> Result<(), String> {
    let all = text(output);
    if output.status.code() != Some(code) {
        return Err(format!("expected exit status {code}: {all}"));
    }
    match words.iter().find(|word| !all.contains(**word)) {
        Some(word) => Err(format!("`{word}` is not in: {all}")),
        None => Ok(()),
    }
}

fn dockerfile(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    let dir = mode.place.join(name);
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    fs::write(dir.join("Dockerfile"), text).map_err(|error| error.to_string())
}

fn hello(mode: &Mode) -> Result<(), String> {
    let built = lap(mode, "build -t hello --build-context host=rootfs:/// builds/hello")?;
    expect(&built, 0, &["[build 4/4] RUN cc"])?;
    expect(&lap(mode, "run hello you")?, 0, &["hello, you"])?;
    expect(&lap(mode, "images")?, 0, &["hello", "latest"])?;
    expect(&lap(mode, "history hello")?, 0, &["ENTRYPOINT [\"/hello\"]", "COPY /hello /hello # buildkit"])
}

fn cached(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "cached", "FROM busybox\nCOPY f /f\nRUN cat /f > /g\nRUN echo done\n")?;
    fs::write(mode.place.join("cached/f"), "1").map_err(|error| error.to_string())?;
    let first = lap(mode, "build -q cached")?;
    expect(&first, 0, &["sha256:"])?;
    script(mode, "true")?;
    fs::File::open(mode.place.join("cached/f"))
        .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
        .map_err(|error| error.to_string())?;
    let second = lap(mode, "build -q cached")?;
    if first.stdout != second.stdout {
        return Err(format!("a touched file made another image: {} {}", text(&first), text(&second)));
    }
    fs::write(mode.place.join("cached/f"), "2").map_err(|error| error.to_string())?;
    let third = lap(mode, "build cached")?;
    expect(&third, 0, &["RUN cat /f > /g\n#"])?;
    if String::from_utf8_lossy(&third.stderr).contains("RUN cat /f > /g\n#3 CACHED") {
        return Err(format!("a changed file changed nothing: {}", text(&third)));
    }
    Ok(())
}

const LANGUAGE: &str = r#"ARG BASE=busybox
FROM $BASE AS one
ARG GREETING=hi
ENV WHO=world PORT=3000
WORKDIR /work
RUN echo "$GREETING $WHO" > out
RUN <<EOF
echo one >> out
echo two >> out
EOF
COPY <<EOF /etc/conf
port=$PORT
EOF

FROM unreachable-image-that-does-not-exist AS never
RUN false

FROM busybox
LABEL a=b
COPY --from=one /work/ /w/
COPY --from=0 --chmod=755 /etc/conf /conf
COPY --chown=app:app data /data/
USER app
EXPOSE 8080
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
CMD cat /w/out /conf && id -u && ls /data
"#;

fn language(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "language", LANGUAGE)?;
    fs::create_dir_all(mode.place.join("language/data")).map_err(|error| error.to_string())?;
    for name in ["kept", "hidden.log"] {
        fs::write(mode.place.join("language/data").join(name), name).map_err(|error| error.to_string())?;
    }
    fs::write(mode.place.join("language/.dockerignore"), "**/*.log\n").map_err(|error| error.to_string())?;
    expect(&lap(mode, "build -t language --build-arg GREETING=hello language")?, 0, &[])?;
    let ran = lap(mode, "run language")?;
    expect(&ran, 0, &["hello world\none\ntwo\nport=3000\n1000\nkept\n"])?;
    if text(&ran).contains("hidden") {
        return Err(format!("an ignored file was copied: {}", text(&ran)));
    }
    expect(
        &lap(mode, "inspect language")?,
        0,
        &["\"8080/tcp\"", "\"StopSignal\": \"SIGTERM\"", "\"a\": \"b\""],
    )
}

const MOUNTS: &str = r#"FROM busybox
RUN --mount=type=secret,id=token grep -q '^ses..e$' /run/secrets/token
RUN --mount=type=secret,id=token,env=TOKEN test -n "$TOKEN"
RUN --mount=type=cache,target=/c echo x >> /c/log && cat /c/log > /count
RUN --mount=type=tmpfs,target=/t touch /t/f && ls /t
RUN --mount=type=bind,source=f,target=/f cat /f
RUN test ! -e /run/secrets/token && test ! -e /f
"#;

fn mounts(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "mounts", MOUNTS)?;
    fs::write(mode.place.join("mounts/f"), "bound").map_err(|error| error.to_string())?;
    let build =
        "printf sesame > token-file && ./lapstrake build -t mounts --secret id=token,src=token-file mounts";
    expect(&script(mode, build)?, 0, &["bound"])?;
    let leaked = script(mode, &format!("grep -rl sesame 'state-{}'", mode.name))?;
    if !leaked.stdout.is_empty() {
        return Err(format!("the secret is in {}", text(&leaked)));
    }
    dockerfile(mode, "required", "FROM busybox\nRUN --mount=type=secret,id=token,required true\n")?;
    expect(&lap(mode, "build required")?, 1, &["secret token: not found", "--secret id=token"])
}

fn failing(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "failing", "FROM busybox\nRUN echo last words; exit 7\n")?;
    let failed = lap(mode, "build -t failing failing")?;
    expect(&failed, 1, &["last words", "exit code: 7", "Dockerfile:2", ">>> RUN"])?;
    expect(&lap(mode, "run failing")?, 1, &["no such image"])?;
    nothing_left(mode)
}

fn nothing_left(mode: &Mode) -> Result<(), String> {
    let left = script(mode, &format!("ls 'state-{}/tmp'", mode.name))?;
    if left.stdout.is_empty() { Ok(()) } else { Err(format!("something was left behind: {}", text(&left))) }
}

fn bad_input(mode: &Mode) -> Result<(), String> {
    let circular = "FROM busybox AS a\nCOPY --from=b /x /\nFROM busybox AS b\nCOPY --from=a /x /\n";
    let cases: [(&str, &str, i32, &[&str]); 5] = [
        ("unknown", "FROM busybox\nRUM true\n", 1, &["RUM", "RUN"]),
        ("missing-file", "FROM busybox\nCOPY nothing /\n", 1, &["/nothing", "not found"]),
        ("unreachable", "FROM localhost:1/bb\nRUN true\n", 3, &["localhost:1"]),
        ("circular", circular, 1, &["circular dependency detected on stage: a"]),
        ("empty", "", 1, &["empty"]),
    ];
    for (name, content, code, words) in cases {
        dockerfile(mode, name, content)?;
        let output = lap(mode, &format!("build {name}"))?;
        expect(&output, code, words).map_err(|why| format!("{name}: {why}"))?;
    }
    expect(&lap(mode, "build no-such-directory")?, 2, &["not found"])
}

fn archives(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "archives", "FROM busybox\nRUN echo x > /x\n")?;
    expect(&lap(mode, "build -o type=oci,dest=image.tar,name=archived:1 archives")?, 0, &[])?;
    expect(&script(mode, "skopeo inspect oci-archive:image.tar")?, 0, &["\"Architecture\""])?;
    let unpack = "mkdir layout && tar -C layout -xf image.tar && \
                  umoci unpack --rootless --image layout:1 bundle && cat bundle/rootfs/x";
    expect(&script(mode, unpack)?, 0, &["x\n"])?;
    expect(&lap(mode, "build -o out archives && cat out/x")?, 0, &["x\n"])?;
    expect(
        &lap(mode, "load -i image.tar && ./lapstrake run archived:1 cat /x")?,
        0,
        &["Loaded image: archived:1", "x\n"],
    )?;
    expect(
        &lap(mode, "build -o type=docker,dest=-,name=piped:1 archives | ./lapstrake load")?,
        0,
        &["piped:1"],
    )?;
    expect(
        &lap(mode, "rmi piped:1 && ./lapstrake run piped:1 true")?,
        1,
        &["Untagged: piped:1", "no such image"],
    )
}

/// Kill -9 in the middle of a step: no process stays, and the next build is right.
fn killed(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "killed", "FROM busybox\nRUN echo begun; sleep 4217; echo x > /x\n")?;
    let kill = "rm -f log; ./lapstrake build --progress plain killed 2> log & pid=$!; \
                for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                grep -q '[0-9] begun' log && break; sleep 0.5; done; \
                kill -9 $pid; sleep 1; pgrep -x -f 'sleep 4217' && exit 9; true";
    expect(&script(mode, kill)?, 0, &[])?;
    dockerfile(mode, "killed", "FROM busybox\nRUN echo x > /x\n")?;
    expect(&lap(mode, "build -t killed killed && ./lapstrake run killed cat /x")?, 0, &["x\n"])?;
    nothing_left(mode)
}

/// The digests of layers whose times are all fixed.
fn reproducible(mode: &Mode) -> Result<String, String> {
    let source = "FROM scratch\nWORKDIR /w\nCOPY --chown=7:7 f /w/f\nCOPY f g /d/\n";
    dockerfile(mode, "reproducible", source)?;
    for name in ["f", "g"] {
        fs::write(mode.place.join("reproducible").join(name), name).map_err(|error| error.to_string())?;
    }
    let build = "export SOURCE_DATE_EPOCH=1 && ./lapstrake build -q -t reproducible \
                 -o type=image,rewrite-timestamp=true reproducible && ./lapstrake inspect reproducible";
    let built = script(mode, build)?;
    expect(&built, 0, &["sha256:"])?;
    let all = String::from_utf8_lossy(&built.stdout).into_owned();
    Ok(all.lines().filter(|line| line.trim_start().starts_with("\"sha256:")).collect::<Vec<_>>().join(""))
}
