//! What Docker's users have in their fingers: flags behind the image, switches with values, words of CI templates.

use std::process::Output;

use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("run_flags_end_at_the_image", flags_end),
    ("run_statuses", statuses),
    ("run_flags_of_docker", flags_of_docker),
    ("run_mounts", mounts),
    ("run_init", init),
    ("run_capabilities", capabilities),
    ("run_names", names),
    ("run_pulls", pulls),
    ("switches_with_values", switches),
    ("ignore_unsupported", unsupported),
    ("push_without_a_name", push_without_a_name),
    ("load_without_an_engine", load_without_an_engine),
    ("first_words", first_words),
    ("loaded_names", loaded_names),
    ("completions_and_pages", completions),
];

fn without(output: &Output, word: &str) -> Result<(), String> {
    let all = text(output);
    if all.contains(word) { Err(format!("`{word}` is in: {all}")) } else { Ok(()) }
}

/// What a command prints is exactly this.
fn prints(mode: &Mode, args: &str, expected: &str) -> Result<(), String> {
    let output = lap(mode, args)?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said == expected {
        return Ok(());
    }
    Err(format!("{args}: {}", text(&output)))
}

fn flags_end(mode: &Mode) -> Result<(), String> {
    for (args, said) in [
        ("run busybox echo -u 1000 id", "-u 1000 id\n"),
        ("run busybox echo x -e A=b -v --version --help -it", "x -e A=b -v --version --help -it\n"),
        ("run busybox echo -- x", "-- x\n"),
        ("run -- busybox echo -t", "-t\n"),
        ("run -e A=b busybox sh -c 'echo $A' -e A=c", "b\n"),
        ("run --entrypoint echo busybox -u -- x", "-u -- x\n"),
        ("run --entrypoint '' busybox echo x", "x\n"),
    ] {
        prints(mode, args, said)?;
    }
    expect(&lap(mode, "run busybox -u 1000 id")?, 127, &["cannot run -u"])?;
    dockerfile(mode, "entry", "FROM busybox\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\n")?;
    expect(&lap(mode, "build -q -t entry entry")?, 0, &[])?;
    prints(mode, "run entry", "entry cmd\n")?;
    prints(mode, "run entry -u -- x", "entry -u -- x\n")?;
    prints(mode, "run --entrypoint= entry echo reset", "reset\n")?;
    expect(&lap(mode, "run --entrypoint '' entry")?, 125, &["has no command"])
}

/// 125 is ours, 126 and 127 are the command's, all else is the program's.
fn statuses(mode: &Mode) -> Result<(), String> {
    for (args, status, word) in [
        ("run busybox sh -c 'exit 3'", 3, ""),
        ("run busybox nosuch", 127, "cannot run nosuch"),
        ("run busybox /etc/passwd", 126, "cannot run /etc/passwd"),
        ("run --nosuch busybox true", 125, "--nosuch"),
        ("run -p 80:80 busybox true", 125, "is not supported yet"),
        ("run --restart=always busybox true", 125, "to come"),
        ("run -dit busybox true", 125, "is not supported yet"),
        ("run", 125, "IMAGE"),
        ("run --pull never nosuch true", 125, "no such image"),
        ("run --rm=perhaps busybox true", 125, "neither `true` nor `false`"),
        ("run -v relative busybox true", 125, "SRC:DST"),
        ("run --ulimit nosuch=1 busybox true", 125, "unknown limit"),
        ("run --cap-add SYS_ADMIN busybox true", 125, "system call filter"),
        ("run --cap-add NOSUCH busybox true", 125, "unknown capability"),
        ("run --name=-x busybox true", 125, "name"),
        ("run --env-file nosuch busybox true", 125, "--env-file nosuch"),
    ] {
        let ended = lap(mode, args)?;
        expect(&ended, status, &[word]).map_err(|why| format!("{args}: {why}"))?;
        without(&ended, "-- -").map_err(|why| format!("{args}: {why}"))?;
    }
    nothing_left(mode)
}

fn flags_of_docker(mode: &Mode) -> Result<(), String> {
    must(&format!("cd '{}' && printf '# no\\nA=1\\nB=2 3\\nHERE\\n' > run.env", mode.place.display()))?;
    let env = "HERE=there ./lapstrake run --env-file run.env -e B=4 busybox sh -c 'echo $A/$B/$HERE'";
    expect(&script(mode, env)?, 0, &["1/4/there\n"])?;
    prints(mode, "run --hostname me busybox sh -c 'busybox hostname'", "me\n")?;
    prints(mode, "run -h me busybox sh -c 'busybox hostname'", "me\n")?;
    expect(&lap(mode, "run --add-host web:192.0.2.7 busybox cat /etc/hosts")?, 0, &["192.0.2.7\tweb\n"])?;
    expect(&lap(mode, "run --read-only busybox touch /x")?, 1, &["Read-only file system"])?;
    expect(&lap(mode, "run --read-only=false busybox touch /x")?, 0, &[])?;
    prints(mode, "run --ulimit nofile=64:128 busybox sh -c 'ulimit -n; ulimit -Hn'", "64\n128\n")?;
    expect(&lap(mode, "run --shm-size 1m busybox sh -c 'busybox df -k /dev/shm'")?, 0, &[" 1024 "])?;
    nothing_left(mode)
}

fn mounts(mode: &Mode) -> Result<(), String> {
    let made = "mkdir -p run-mounts && chmod 777 run-mounts && echo here > run-mounts/f";
    expect(&script(mode, made)?, 0, &[])?;
    prints(mode, "run --mount type=bind,source=run-mounts,target=/m,readonly busybox cat /m/f", "here\n")?;
    let readonly = lap(mode, "run --mount type=bind,src=./run-mounts,dst=/m,ro busybox touch /m/g")?;
    expect(&readonly, 1, &["Read-only file system"])?;
    let memory =
        "run --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700 busybox busybox stat -c %a /t";
    prints(mode, memory, "700\n")?;
    let run = "run --tmpfs /t:size=64k,mode=1750 busybox sh -c \
               'busybox stat -c %a /t; busybox dd if=/dev/zero of=/t/x bs=100k count=1'";
    expect(&lap(mode, run)?, 1, &["1750\n", "No space left"])?;
    let copied = "busybox cp /bin/busybox /t/busybox && /t/busybox true";
    let noexec = lap(mode, &format!("run --tmpfs /t busybox sh -c '{copied}'"))?;
    expect(&noexec, 126, &["Permission denied"])?;
    expect(&lap(mode, &format!("run --tmpfs /t:exec busybox sh -c '{copied}'"))?, 0, &[])?;
    // The outer one comes first, whatever the order on the line.
    let nested = "run --tmpfs /m/in --mount type=bind,source=run-mounts,target=/m busybox sh -c \
                  'echo x > /m/in/x && cat /m/f'";
    prints(mode, nested, "here\n")?;
    expect(&lap(mode, "run --tmpfs /t -v ./run-mounts:/t/ busybox true")?, 125, &["duplicate mount point"])?;
    expect(&lap(mode, "run --mount source=v,target=/m busybox true")?, 125, &["type `volume`"])?;
    nothing_left(mode)
}

/// The first process passes signals on and takes orphans; without it the program is the first one itself.
fn init(mode: &Mode) -> Result<(), String> {
    prints(mode, "run busybox sh -c 'echo $$'", "1\n")?;
    prints(mode, "run --init busybox sh -c 'echo $$'", "2\n")?;
    expect(&lap(mode, "run --init busybox sh -c 'exit 9'")?, 9, &[])?;
    expect(&lap(mode, "run --init busybox sh -c 'kill -9 $$'")?, 137, &[])?;
    expect(&lap(mode, "run --init busybox nosuch")?, 127, &["cannot run nosuch"])?;
    // No zombie is left of a process whose parent has gone.
    let orphan =
        "(busybox sleep 0.1 &) ; busybox sleep 0.6; busybox ps -o stat,comm | busybox grep -c ^Z; true";
    prints(mode, &format!("run --init busybox sh -c '{orphan}'"), "0\n")?;
    // A program without a handler ends by the first request, as it is not the first process.
    let begun = std::time::Instant::now();
    let commands =
        "true; ./lapstrake run --init busybox sleep 1000 & sleep 1; kill -TERM $!; wait $!; echo code $?";
    expect(&script(mode, commands)?, 0, &["code 143"])?;
    if begun.elapsed() > std::time::Duration::from_secs(20) {
        return Err(format!("it took {:?}", begun.elapsed()));
    }
    nothing_left(mode)
}

fn capabilities(mode: &Mode) -> Result<(), String> {
    let set = |flags: &str| -> Result<u64, String> {
        let said = lap(mode, &format!("run {flags} busybox grep CapEff /proc/self/status"))?;
        let word = String::from_utf8_lossy(&said.stdout).trim().rsplit('\t').next().map(str::to_owned);
        u64::from_str_radix(&word.unwrap_or_default(), 16).map_err(|_| text(&said))
    };
    let plain = set("")?;
    for (flags, expected) in [
        ("--cap-drop ALL", 0),
        ("--cap-drop all --cap-add NET_BIND_SERVICE", 1 << 10),
        ("--cap-drop CHOWN,cap_mknod", plain & !(1 << 0) & !(1 << 27)),
        ("--cap-add NET_ADMIN --cap-add CAP_SYS_PTRACE", plain | 1 << 12 | 1 << 19),
    ] {
        let found = set(flags)?;
        if found != expected {
            return Err(format!("{flags}: {found:x}, not {expected:x}"));
        }
    }
    Ok(())
}

fn names(mode: &Mode) -> Result<(), String> {
    // An image that has no other name.
    dockerfile(mode, "named-run", "FROM busybox\nLABEL run=named\n")?;
    expect(&lap(mode, "build -q -t named-run named-run")?, 0, &[])?;
    let commands = "true; ./lapstrake run --name web named-run sleep 5 & pid=$!; sleep 1; \
                    ./lapstrake run --name web busybox true; echo code $?; ./lapstrake rmi named-run; \
                    kill -9 $pid; wait $pid; ./lapstrake run --name web busybox echo free";
    let said = script(mode, commands)?;
    let words =
        ["\"web\" is already in use by process", "code 125", "runs `web named-run sleep 5`", "free\n"];
    expect(&said, 0, &words)?;
    nothing_left(mode)
}

fn pulls(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/run/pulled", server.address);
    // Nothing but what the image says is to be told.
    let keep = format!("export LAPSTRAKE_NETWORK=host LAPSTRAKE_ROOT=\"$PWD/pulls-{}\" && ", mode.name);
    let fresh = format!("{keep}rm -rf \"$LAPSTRAKE_ROOT\" && ");
    expect(&lap(mode, &format!("tag busybox {name}:1"))?, 0, &[])?;
    expect(&lap(mode, &format!("push -q {name}:1"))?, 0, &[])?;
    let missing = script(mode, &format!("{fresh}./lapstrake run --pull=never {name}:1 echo ran"))?;
    expect(&missing, 125, &["no such image"])?;
    let twice = format!(
        "{fresh}./lapstrake run {name}:1 echo ran 2> said && grep -c 'Unable to find image' said && \
         ./lapstrake run {name}:1 echo again 2>&1"
    );
    let first = script(mode, &twice)?;
    if !first.status.success() || first.stdout != b"ran\n1\nagain\n" {
        return Err(text(&first));
    }
    // Another image under the same name is noticed only where it is asked for.
    dockerfile(mode, "newer", "FROM busybox\nRUN echo newer > /age\n")?;
    expect(&lap(mode, &format!("build -q --push -t {name}:1 newer"))?, 0, &[])?;
    let old = script(mode, &format!("{keep}./lapstrake run -q {name}:1 cat /age"))?;
    expect(&old, 1, &["No such file"])?;
    let newer = script(mode, &format!("{keep}./lapstrake run -q --pull always {name}:1 cat /age"))?;
    if !newer.status.success() || newer.stdout != b"newer\n" {
        return Err(text(&newer));
    }
    expect(&script(mode, &format!("{keep}./lapstrake run {name}:nosuch true"))?, 125, &["nosuch"])
}

fn switches(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "switched", "FROM busybox\nRUN true\n")?;
    let all = "build -q --rm=true --force-rm=0 --pull=false --no-cache=false switched";
    expect(&lap(mode, all)?, 0, &["sha256:"])?;
    let off = lap(mode, "build --progress plain --no-cache=F --push=false --load=f switched")?;
    expect(&off, 0, &["CACHED"])?;
    let on = lap(mode, "build --progress plain --no-cache=1 switched")?;
    expect(&on, 0, &["RUN true\n"])?;
    without(&on, "2/2] RUN true\n#3 CACHED")?;
    expect(&lap(mode, "build --quiet=true --quiet=false --progress plain switched")?, 0, &["CACHED"])?;
    expect(&lap(mode, "images -q=true --no-trunc=false busybox")?, 0, &[])?;
    expect(&lap(mode, "prune --force=true --all=false --volumes=1")?, 0, &[])?;
    let maybe = lap(mode, "build --push=maybe switched")?;
    expect(&maybe, 2, &["invalid argument \"maybe\" for `--push`"])?;
    expect(&lap(mode, "build --rm=maybe switched")?, 2, &["neither `true` nor `false`"])
}

fn unsupported(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "templated", "FROM busybox\nRUN true\n")?;
    let words = "--builder builder-7 --cache-from type=gha,scope=main --cache-to type=gha,mode=max \
                 --provenance=mode=max --sbom=true";
    let all = [
        "--builder builder-7",
        "--cache-from type=gha",
        "--cache-to type=gha",
        "attestations",
        "--ignore-unsupported",
    ];
    expect(&lap(mode, &format!("build {words} templated"))?, 2, &all)?;
    expect(&lap(mode, &format!("build --ignore-unsupported=false {words} templated"))?, 2, &all)?;
    for command in [
        format!("./lapstrake build --ignore-unsupported -q {words} templated"),
        format!("LAPSTRAKE_IGNORE_UNSUPPORTED=1 ./lapstrake build -q {words} templated"),
        format!("./lapstrake buildx --builder b build -q --ignore-unsupported {words} templated"),
    ] {
        let words = ["warning: ignored: --builder", "warning: ignored: attestations", "sha256:"];
        expect(&script(mode, &command)?, 0, &words)?;
    }
    expect(&lap(mode, "build -q --builder default templated")?, 0, &["sha256:"])?;
    // Nothing that decides what is built, or who sees what, is ever left out.
    for (flag, word) in [
        ("--secret id=x,src=/nosuch", "cannot read"),
        ("--network nosuch", "not one of"),
        ("--allow nosuch", "not one of"),
        ("--security-opt label=x", "only no-new-privileges"),
        ("--isolation hyperv", "one way only"),
        ("--cache-from type=nosuch", "unknown cache type"),
        ("-o type=nosuch", "not supported"),
        ("--nosuch", "--nosuch"),
    ] {
        let refused = lap(mode, &format!("build --ignore-unsupported {flag} templated"))?;
        expect(&refused, 2, &[word]).map_err(|why| format!("{flag}: {why}"))?;
    }
    Ok(())
}

/// Before the first step.
fn push_without_a_name(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "nameless", "FROM busybox\nRUN exit 7\n")?;
    for flags in ["--push", "-o type=registry", "-o type=image,push=true", "--push -o type=image"] {
        let refused = lap(mode, &format!("build {flags} nameless"))?;
        let words = ["pushing needs an image name"];
        expect(&refused, 2, &words).map_err(|why| format!("{flags}: {why}"))?;
        without(&refused, "exit 7")?;
    }
    expect(&lap(mode, "build -o type=registry,name=localhost:1/x nameless")?, 1, &["exit 7"])
}

fn load_without_an_engine(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "loaded", "FROM busybox\nCMD [\"echo\", \"from the store\"]\n")?;
    let engine = "test -e /var/run/docker.sock || test -e /run/containerd/containerd.sock";
    if script(mode, engine)?.status.success() {
        return Err("an engine is running on this machine".to_owned());
    }
    let files = "--metadata-file loaded.json --iidfile loaded.id";
    let built = lap(mode, &format!("build --load -t loaded {files} loaded"))?;
    expect(&built, 0, &["note: no Docker or containerd is running here", "own store"])?;
    expect(&script(mode, "grep -c sha256: loaded.json loaded.id")?, 0, &["loaded.id:1"])?;
    prints(mode, "run loaded", "from the store\n")?;
    let both = lap(mode, "build --load --platform linux/amd64,linux/arm64 -t loaded2 loaded")?;
    without(&both, "manifest lists")?;
    // One that was named has to be there.
    let named = "DOCKER_HOST=unix://$PWD/nobody.sock ./lapstrake build --load -t loaded loaded";
    expect(&script(mode, named)?, 3, &["no Docker or containerd is running at"])
}

/// What people type before they know the program.
fn first_words(mode: &Mode) -> Result<(), String> {
    for (args, word) in [
        ("version", "lapstrake 0."),
        ("version --format '{{.Server.Version}} {{.Client.Os}}'", " linux"),
        ("info", "State directory:"),
        ("info -f '{{.DockerRootDir}}'", "state-"),
        ("system info", "doctor"),
        ("buildx ls", "default"),
        ("buildx inspect --bootstrap", "Driver:        lapstrake"),
        ("buildx version", "lapstrake 0."),
        ("buildx", "lapstrake prune --only cache"),
        ("image", "lapstrake rmi"),
        ("system", "lapstrake df"),
        ("image prune -f", "Total reclaimed space"),
        ("images prune -f", "Total reclaimed space"),
        ("rmi -f nosuch", "no such image: nosuch"),
        ("completion", "usage: lapstrake completion"),
    ] {
        expect(&lap(mode, args)?, 0, &[word]).map_err(|why| format!("{args}: {why}"))?;
    }
    expect(&lap(mode, "rmi nosuch")?, 1, &["no such image: nosuch"])?;
    expect(&lap(mode, "buildx inspect other")?, 1, &["the only builder is `default`"])?;
    expect(&lap(mode, "tag busybox going")?, 0, &[])?;
    expect(&lap(mode, "rmi -f nosuch going")?, 0, &["Untagged: going:latest"])?;
    // A map that has no such key, and one that has no keys at all.
    dockerfile(mode, "labelled", "FROM busybox\nLABEL here=yes\n")?;
    expect(&lap(mode, "build -q -t labelled labelled")?, 0, &[])?;
    for image in ["labelled", "busybox"] {
        let inspect = format!("inspect -f '<{{{{index .Config.Labels \"none\"}}}}>' {image}");
        prints(mode, &inspect, "<>\n")?;
    }
    prints(mode, "inspect -f '{{index .Config.Labels \"here\"}}' labelled", "yes\n")
}

fn loaded_names(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "tagged-only", "FROM busybox\nLABEL tagged=only\n")?;
    let commands = "./lapstrake build -q -o type=oci,tar=false,dest=tag-layout -t x:v7 tagged-only && \
                    sed -i 's|\"org.opencontainers.image.ref.name\":\"[^\"]*\"|\"org.opencontainers.image.ref.name\":\"v7\"|; \
                    s|\"io.containerd.image.name\":\"[^\"]*\",||' tag-layout/index.json && \
                    tar -C tag-layout -cf My-App.oci.tar . && ./lapstrake load -i My-App.oci.tar";
    expect(&script(mode, commands)?, 0, &["Loaded image: my-app:v7"])?;
    let quiet = lap(mode, "load -q -i My-App.oci.tar")?;
    let said = String::from_utf8_lossy(&quiet.stdout);
    if !said.starts_with("sha256:") || said.lines().count() != 1 || said.len() != 72 {
        return Err(text(&quiet));
    }
    // From a pipe there is nothing to take a name from.
    expect(&script(mode, "./lapstrake load < My-App.oci.tar")?, 0, &["Loaded image ID: sha256:"])
}

fn completions(mode: &Mode) -> Result<(), String> {
    for (shell, word) in
        [("bash", "complete -F _lapstrake"), ("zsh", "#compdef lapstrake"), ("fish", "complete -c lapstrake")]
    {
        expect(&lap(mode, &format!("completion {shell}"))?, 0, &[word, "ignore-unsupported"])?;
    }
    expect(&script(mode, "./lapstrake completion bash | bash -n")?, 0, &[])?;
    let pages = "./lapstrake completion man --to pages && cat pages/lapstrake-build.1 | head -n 20 && ls pages | wc -l";
    expect(&script(mode, pages)?, 0, &[".TH lapstrake-build 1", "lapstrake\\-build"])?;
    expect(&lap(mode, "completion man")?, 2, &["--to"])
}
