//! `lapstrake serve` with the real binary, and a client of our own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapstrake_testkit::buildkit::{Shelf, connect, control, session, shelf, solve};

use super::place::{
    Mode, expect, lap, must_say, nothing_left, processes, script, start, start_with, state, stop, text,
};

pub(super) const CASES: &[super::Case] = &[
    ("serve_builds", serve_builds),
    ("serve_addresses", serve_addresses),
    ("serve_killed", serve_killed),
    ("serve_dial_stdio", serve_dial_stdio),
    ("serve_settings", serve_settings),
    ("serve_activated", serve_activated),
    ("serve_without_zygote", serve_without_zygote),
    ("serve_many", serve_many),
];

/// A server over the state of the test.
struct Serving {
    child: Child,
    socket: PathBuf,
}

impl Serving {
    /// Starts `command` with an address to listen at, and waits for the socket.
    fn start(mode: &Mode, command: &str) -> Result<Serving, String> {
        let socket = mode.place.join("api.sock");
        let line = format!("exec {command} --addr unix://{}", socket.display());
        let child = start(mode, &state(mode), "serve.log", &line)?;
        let mut serving = Serving { child, socket };
        let until = Instant::now() + Duration::from_secs(30);
        while !serving.socket.exists() {
            let ended = serving.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(mode.place.join("serve.log")).unwrap_or_default();
                return Err(format!("the server does not listen: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(serving)
    }

    /// Ends it by SIGTERM, which is to succeed.
    fn end(mut self) -> Result<(), String> {
        must_say(&format!("kill -TERM {}", self.child.id()))?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match (status.success(), self.socket.exists()) {
            (true, false) => Ok(()),
            (ended, left) => Err(format!("ended well: {ended}, socket left: {left}")),
        }
    }
}

/// A context whose Dockerfile makes the file `/made` with the busybox image, and gives nothing else out.
fn makes(steps: &str) -> Arc<Shelf> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    // Clients say that a file has changed by its size, and these have one time.
    let end = "#".repeat(MADE.fetch_add(1, Ordering::Relaxed));
    Arc::new(shelf(
        &format!("FROM busybox\n{steps}\nFROM scratch\nCOPY --from=0 /made /\n{end}\n"),
        Vec::new(),
    ))
}

/// The archive that the output of `shelf` got.
fn output(shelf: &Shelf) -> Result<String, String> {
    let outputs = shelf.outputs.lock().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(outputs.get("0").ok_or("there is no output")?).into_owned())
}

/// Builds the Dockerfile on `shelf`, and gives the error's text.
fn build(socket: &Path, id: &str, shelf: &Arc<Shelf>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let channel = connect(socket).await;
        let open = session(&channel, &format!("session-{id}"), shelf).await;
        let done = control(&channel).solve(solve(id, &["tar"])).await;
        open.abort();
        done.map(|_| ()).map_err(|status| status.message().to_owned())
    })
}

fn serve_builds(mode: &Mode) -> Result<(), String> {
    expect(&script(mode, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    let serving = Serving::start(mode, "./lapstrake serve")?;
    let mode_of = fs::metadata(&serving.socket).map_err(|error| error.to_string())?.permissions().mode();
    if mode_of & 0o777 != 0o600 {
        return Err(format!("the socket has mode {mode_of:o}"));
    }
    let text_of = "FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s | wc -c > /made && id -u >> /made\n";
    let with_secret = Shelf {
        secrets: [("s".to_owned(), b"canary-of-serve".to_vec())].into(),
        ..shelf(text_of, Vec::new())
    };
    let with_secret = Arc::new(with_secret);
    build(&serving.socket, "served1", &with_secret)?;
    let archive = with_secret.outputs.lock().map_err(|error| error.to_string())?["0"].clone();
    if !String::from_utf8_lossy(&archive).contains("15\n0\n") {
        return Err("the step did not see the secret".to_owned());
    }
    let missing = build(&serving.socket, "served2", &Arc::new(shelf(text_of, Vec::new())));
    // The step is cached; another one needs the secret again.
    missing?;
    // Another size: the client says that a file has changed by size or time.
    let other = Arc::new(shelf(&text_of.replace("wc -c", "wc -mc"), Vec::new()));
    let missing = build(&serving.socket, "served3", &other).err().unwrap_or_default();
    if !missing.contains("secret s: not found") {
        return Err(format!("a secret that is not there: {missing:?}"));
    }
    serving.end()?;
    let listed = lap(mode, "builds ls")?;
    expect(&listed, 0, &["served1", "served3"])?;
    let kept = must_say(&format!("grep -rl canary-of-serve '{}' || true", state(mode).display()))?;
    if !kept.is_empty() {
        return Err(format!("the secret is in {kept}"));
    }
    nothing_left(mode)
}

fn serve_addresses(mode: &Mode) -> Result<(), String> {
    for (address, words) in [
        ("tcp://127.0.0.1:0", "--allow-insecure-loopback"),
        ("tcp://0.0.0.0:0", "--tlscert"),
        ("unix://relative", "must be absolute"),
        ("npipe:///x", "only `unix://PATH`"),
    ] {
        let refused = lap(mode, &format!("serve --addr {address}"))?;
        if refused.status.success() || !text(&refused).contains(words) {
            return Err(format!("{address}: {}", text(&refused)));
        }
    }
    expect(
        &script(
            mode,
            "echo x > file && ./lapstrake serve --addr unix://$PWD/file; test $? != 0 && cat file",
        )?,
        0,
        &["x", "no socket"],
    )?;
    // Under BuildKit's name, with BuildKit's words.
    symlink("lapstrake", mode.place.join("buildkitd")).map_err(|error| error.to_string())?;
    let words = "./buildkitd --oci-worker=true --containerd-worker=false --oci-worker-labels=a=b --debug";
    let serving = Serving::start(mode, words)?;
    let second = lap(mode, &format!("serve --addr unix://{}", serving.socket.display()))?;
    if second.status.success() || !text(&second).contains("another server") {
        return Err(format!("two servers: {}", text(&second)));
    }
    build(&serving.socket, "named", &Arc::new(shelf("FROM scratch\nLABEL a=b\n", Vec::new())))?;
    serving.end()
}

fn serve_killed(mode: &Mode) -> Result<(), String> {
    expect(&script(mode, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    let mut serving = Serving::start(mode, "./lapstrake serve")?;
    let socket = serving.socket.clone();
    // A number for each mode, since modes run side by side.
    let seconds = 420_000 + mode.name.bytes().map(u32::from).sum::<u32>();
    let text_of = format!("FROM busybox\nRUN sleep {seconds}\n");
    let waiting =
        std::thread::spawn(move || build(&socket, "killed", &Arc::new(shelf(&text_of, Vec::new()))));
    let until = Instant::now() + Duration::from_secs(60);
    // The brackets keep the shell of the question itself out of the answer.
    while must_say(&format!("pgrep -xf '[s]leep {seconds}' || true"))?.is_empty() {
        if Instant::now() > until {
            return Err("the step does not run".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    stop(&mut serving.child);
    if waiting.join().is_ok_and(|done| done.is_ok()) {
        return Err("the build succeeded without a server".to_owned());
    }
    let until = Instant::now() + Duration::from_secs(10);
    while !processes(&state(mode))?.is_empty() {
        if Instant::now() > until {
            return Err(format!("left: {}", processes(&state(mode))?));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The socket of the dead server is replaced, and its build can be done again.
    fs::remove_file(&serving.socket).map_err(|error| error.to_string())?;
    let again = Serving::start(mode, "./lapstrake serve")?;
    build(&again.socket, "after", &Arc::new(shelf("FROM busybox\nRUN true\n", Vec::new())))?;
    again.end()?;
    nothing_left(mode)
}

/// The opening of HTTP/2 goes in, and the server's settings come out.
fn serve_dial_stdio(mode: &Mode) -> Result<(), String> {
    let serving = Serving::start(mode, "./lapstrake serve")?;
    let address = format!("unix://{}", serving.socket.display());
    let opening = r"printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0'";
    // A settings frame: three bytes of length, and the type 4.
    for (line, input) in [
        (format!("buildx dial-stdio --addr {address}"), format!("{opening} |")),
        (format!("builder dial-stdio --addr={address}"), format!("{opening} |")),
        // The client keeps its end open, and gets the answer at once.
        ("dial-stdio".to_owned(), format!("export BUILDKIT_HOST={address}; ({opening}; sleep 3) |")),
    ] {
        let asked = format!("{input} timeout 20 ./lapstrake {line} | head -c 4 | od -An -tx1 | tail -c 3");
        expect(&script(mode, &asked)?, 0, &["04"]).map_err(|why| format!("{line}: {why}"))?;
    }
    let other = lap(mode, "buildx --builder other dial-stdio")?;
    expect(&other, 1, &["no builder \"other\" found"])?;
    serving.end()?;
    let nobody = lap(mode, &format!("buildx dial-stdio --addr {address} < /dev/null"))?;
    expect(&nobody, 1, &["no server listens at", &format!("lapstrake serve --addr {address}")])?;
    let wrong = lap(mode, "dial-stdio --addr docker-container://x < /dev/null")?;
    if wrong.status.success() || !text(&wrong).contains("docker-container://x") {
        return Err(format!("an address of another kind: {}", text(&wrong)));
    }
    nothing_left(mode)
}

/// The tables of `buildkitd.toml` have their effects.
fn serve_settings(mode: &Mode) -> Result<(), String> {
    expect(&script(mode, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    let settings = "[dns]\nnameservers = [\"192.0.2.53\"]\noptions = [\"ndots:7\"]\nsearchDomains = [\"here.example\"]\n\
        [worker.oci]\nmax-parallelism = 1\ngc = false\nsnapshotter = \"native\"\n\
        [history]\nmaxAge = 0\nmaxEntries = 2\n[cdi]\ndisabled = true\n";
    fs::write(mode.place.join("buildkitd.toml"), settings).map_err(|error| error.to_string())?;
    let serving = Serving::start(
        mode,
        "./lapstrake serve --allow-insecure-entitlement device --config buildkitd.toml",
    )?;
    let names = makes("RUN cat /etc/resolv.conf > /made");
    build(&serving.socket, "names", &names)?;
    let made = output(&names)?;
    for line in ["nameserver 192.0.2.53\n", "options ndots:7\n", "search here.example\n"] {
        if made.matches(line).count() != 1 {
            return Err(format!("{line:?} is not in {made:?}"));
        }
    }
    // Each of two steps would see the other one, if both ran at once.
    let step = "ls /both | wc -l > /made && touch /both/$NAME && sleep 1 && ls /both | wc -l >> /made && rm /both/$NAME";
    let stage = |name: &str| {
        format!("FROM busybox AS {name}\nRUN --mount=type=cache,target=/both NAME={name}; {step}\n")
    };
    let both =
        format!("{}{}FROM scratch\nCOPY --from=a /made /a\nCOPY --from=b /made /b\n", stage("a"), stage("b"));
    let both = Arc::new(shelf(&both, Vec::new()));
    build(&serving.socket, "steps", &both)?;
    let made = output(&both)?;
    if made.matches("0\n1\n").count() != 2 {
        return Err(format!("the steps were not one after the other: {made:?}"));
    }
    let device = "FROM busybox\nRUN --device=vendor1.example/x=y,required true\n";
    let refused =
        build(&serving.socket, "device", &Arc::new(shelf(device, Vec::new()))).err().unwrap_or_default();
    if !refused.contains("vendor1.example") {
        return Err(format!("a device: {refused:?}"));
    }
    serving.end()?;
    let log = fs::read_to_string(mode.place.join("serve.log")).map_err(|error| error.to_string())?;
    if !log.contains("`worker.oci.snapshotter`") || log.contains("`dns") || log.contains("`history") {
        return Err(format!("the warnings are {log:?}"));
    }
    nothing_left(mode)
}

/// A service manager has opened the socket.
fn serve_activated(mode: &Mode) -> Result<(), String> {
    let socket = mode.place.join("activated.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).map_err(|error| error.to_string())?;
    let line =
        "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec ./lapstrake serve --addr fd://";
    let input = std::process::Stdio::from(std::os::fd::OwnedFd::from(listener));
    let mut child = start_with(mode, &state(mode), "serve.log", (line, input))?;
    // The first client may come before the server.
    build(&socket, "activated", &Arc::new(shelf("FROM scratch\nLABEL a=b\n", Vec::new())))?;
    must_say(&format!("kill -TERM {}", child.id()))?;
    let ended = child.wait().map_err(|error| error.to_string())?;
    // The socket is the service manager's.
    if !ended.success() || !socket.exists() {
        return Err(format!("{ended}, socket there: {}", socket.exists()));
    }
    let none = lap(mode, "serve --addr fd://")?;
    if none.status.success() || !text(&none).contains("opened no socket") {
        return Err(format!("without a socket: {}", text(&none)));
    }
    nothing_left(mode)
}

/// The server goes on after its sandbox was killed.
fn serve_without_zygote(mode: &Mode) -> Result<(), String> {
    expect(&script(mode, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    let serving = Serving::start(mode, "./lapstrake serve")?;
    let step = |text: &str| makes(&format!("RUN echo {text} > /made"));
    build(&serving.socket, "before", &step("one"))?;
    let server = serving.server()?;
    must_say(&format!("pkill -KILL -P {server} -f lapstrake-zygote"))?;
    std::thread::sleep(Duration::from_millis(200));
    let after = step("two");
    build(&serving.socket, "after", &after)?;
    if !output(&after)?.contains("two\n") {
        return Err("the step was not done".to_owned());
    }
    serving.end()?;
    nothing_left(mode)
}

/// Many builds at once, some of whose clients vanish: what they needed is given back.
fn serve_many(mode: &Mode) -> Result<(), String> {
    const BUILDS: usize = 24;
    expect(&script(mode, "./lapstrake import bb.tar busybox")?, 0, &[])?;
    let serving = Serving::start(mode, "./lapstrake serve")?;
    build(&serving.socket, "first", &Arc::new(shelf("FROM busybox\nRUN true\n", Vec::new())))?;
    let before = serving.usage()?;
    for round in 0..2 {
        let builds = (0..BUILDS).map(|number| {
            let socket = serving.socket.clone();
            std::thread::spawn(move || {
                let kept = makes(&format!("RUN echo {round}-{number} > /made\nRUN cat /made"));
                match number % 4 {
                    0 => vanish(&socket, &format!("gone{round}x{number}"), number),
                    _ => build(&socket, &format!("many{round}x{number}"), &kept)
                        .and_then(|()| output(&kept))
                        .and_then(|made| {
                            if made.contains(&format!("{round}-{number}\n")) { Ok(()) } else { Err(made) }
                        }),
                }
            })
        });
        for done in builds.collect::<Vec<_>>() {
            done.join().map_err(|_| "a client panicked")??;
        }
    }
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let after = serving.usage()?;
        if after.is_like(&before) {
            break;
        }
        if Instant::now() > until {
            return Err(format!("before: {before:?}, after: {after:?}"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    serving.end()?;
    nothing_left(mode)
}

/// Begins a build, and is gone before the build is over.
fn vanish(socket: &Path, id: &str, number: usize) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let shelf = Arc::new(shelf("FROM busybox\nRUN sleep 300\n", Vec::new()));
        let channel = connect(socket).await;
        let _open = session(&channel, &format!("session-{id}"), &shelf).await;
        let mut control = control(&channel);
        let patience = Duration::from_millis(u64::try_from(number).unwrap_or(1) * 60);
        match tokio::time::timeout(patience, control.solve(solve(id, &["tar"]))).await {
            Ok(_) => Err("the build is over already".to_owned()),
            Err(_) => Ok(()),
        }
    })
}

/// The things that a server holds.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    children: usize,
    mounts: usize,
    /// In kilobytes.
    memory: u64,
}

impl Usage {
    /// Whether it is no more than `before`, but for what a server keeps for the next builds.
    fn is_like(&self, before: &Usage) -> bool {
        self.descriptors <= before.descriptors + 30
            && self.children <= before.children
            && self.mounts <= before.mounts
            && self.memory <= before.memory + (64 << 10)
    }
}

impl Serving {
    /// The id of the server's process, which an ordinary user's first process may have started.
    fn server(&self) -> Result<String, String> {
        let socket = self.socket.display();
        let found = must_say(&format!("pgrep -f '^[^ ]*lapstrake serve .*{socket}' | tail -n 1"))?;
        Ok(found.trim().to_owned())
    }

    fn usage(&self) -> Result<Usage, String> {
        let server = self.server()?;
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{server}/{name}")).map_err(|error| format!("{name}: {error}"))
        };
        let memory = read("smaps_rollup")?;
        let memory = memory.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap_or_default();
        let descriptors = fs::read_dir(format!("/proc/{server}/fd")).map_err(|error| error.to_string())?;
        Ok(Usage {
            descriptors: descriptors.count(),
            children: must_say(&format!("pgrep -P {server} | wc -l"))?.trim().parse().unwrap_or(0),
            mounts: read("mountinfo")?.lines().count(),
            memory: memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }
}
