//! Files from elsewhere: ADD of addresses and repositories, and contexts of every kind, from real servers on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapstrake_testkit::{Files, WebServer};

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script, stop};

pub(super) const CASES: &[super::Case] = &[
    ("add_url", add_url),
    ("add_git", add_git),
    ("add_git_from_files", add_git_from_files),
    ("contexts", contexts),
    ("hidden", hidden),
];

/// A server on a port of loopback. Ends with this value.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(command: &[&str], more: impl FnOnce(u16) -> Vec<String>) -> Result<Server, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(command)
            .args(more(port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let server = Server { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("{command:?} does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Serves the repositories in `repos` in the place.
    fn git(mode: &Mode) -> Result<Server, String> {
        let base = mode.place.join("repos");
        expect(&script(mode, "mkdir -p repos")?, 0, &[])?;
        let more = |port: u16| vec![format!("--port={port}"), format!("--base-path={}", base.display())];
        // Repositories of the test's user are served by root.
        let trust = ["env", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"];
        // Not `git daemon`, which would outlive its parent, `git`, when that is killed.
        let daemon = ["sh", "-c", "exec \"$(git --exec-path)/git-daemon\" \"$@\"", "git-daemon"];
        let flags = ["--reuseaddr", "--export-all", "--listen=127.0.0.1"];
        Server::start(&[&trust[..], &daemon[..], &flags[..]].concat(), more)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Serves the files of `web` in the place.
pub(super) fn web(mode: &Mode) -> Result<WebServer, String> {
    WebServer::files(Files::of(&mode.place.join("web")))
}

fn add_url(mode: &Mode) -> Result<(), String> {
    let made = "mkdir -p web/a t && echo served > web/a/file && touch -d @1000000000 web/a/file && echo inner > t/inner && \
                tar -C t -czf web/a/pack.tgz inner && sha256sum web/a/file | cut -c1-64";
    let made = script(mode, made)?;
    expect(&made, 0, &[])?;
    let digest = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let server = web(mode)?;
    let url = format!("http://127.0.0.1:{}/a", server.port);
    let lines = format!(
        "FROM busybox\nADD {url}/file /f/\nADD --chmod=644 --chown=5:6 {url}/file /g\nADD {url}/pack.tgz /packed\n\
         ADD --unpack {url}/pack.tgz /unpacked\nADD --checksum=sha256:{digest} {url}/file /h\n\
         RUN stat -c '%n %a %u:%g %Y' /f/file /g /packed /unpacked/inner && cat /h\n"
    );
    dockerfile(mode, "added", &lines)?;
    let built = lap(mode, "build added")?;
    let stats =
        ["/f/file 600 0:0 1000000000", "/g 644 5:6 1000000000", "/packed 600", "/unpacked/inner", "served"];
    expect(&built, 0, &stats)?;
    let again = lap(mode, "build added")?;
    expect(
        &again,
        0,
        &["RUN stat -c '%n %a %u:%g %Y' /f/file /g /packed /unpacked/inner && cat /h\n", "CACHED"],
    )?;
    expect(&script(mode, "echo changed > web/a/file")?, 0, &[])?;
    let zeros = "0".repeat(64);
    dockerfile(mode, "added", &format!("FROM busybox\nADD --checksum=sha256:{zeros} {url}/file /f\n"))?;
    let wrong = lap(mode, "build added")?;
    expect(&wrong, 1, &["digest mismatch for http://127.0.0.1:", &format!("(expected: sha256:{zeros})")])?;
    dockerfile(mode, "added", &format!("FROM busybox\nADD {url}/file /f\nRUN cat /f\n"))?;
    expect(&lap(mode, "build added")?, 0, &["changed"])?;
    dockerfile(mode, "added", &format!("FROM busybox\nADD {url}/missing /f\n"))?;
    expect(&lap(mode, "build added")?, 1, &["invalid response status 404", "Dockerfile:2"])?;
    let digest = script(mode, "sha256sum web/a/file | cut -c1-64")?;
    let digest = String::from_utf8_lossy(&digest.stdout).trim().to_owned();
    drop(server);
    // What is pinned and here needs no server; what is not pinned might have changed.
    dockerfile(
        mode,
        "added",
        &format!("FROM busybox\nADD --checksum=sha256:{digest} {url}/file /h\nRUN cat /h\n"),
    )?;
    expect(&lap(mode, "build added")?, 0, &["changed"])?;
    dockerfile(mode, "added", &format!("FROM busybox\nADD {url}/file /h\n"))?;
    expect(&lap(mode, "build added")?, 3, &["cannot reach"])?;
    nothing_left(mode)
}

/// A repository with a branch, a tag, a directory, a link and a submodule.
pub(super) fn repository(mode: &Mode) -> Result<Server, String> {
    let server = Server::git(mode)?;
    let port = server.port;
    let make = format!(
        "rm -rf repos gitconfig && export GIT_CONFIG_GLOBAL=$PWD/gitconfig HOME=$PWD && \
         git config --file gitconfig user.name me && git config --file gitconfig user.email me@host && \
         git config --file gitconfig init.defaultBranch main && git config --file gitconfig protocol.file.allow always && \
         mkdir -p repos && git init -q repos/sub && cd repos/sub && echo sub > s && git add . && git commit -qm sub && \
         cd .. && git init -q app && cd app && mkdir dir && echo one > dir/f && chmod 755 dir/f && ln -s dir/f link && \
         printf 'FROM busybox\\nCOPY . /c\\nRUN ls /c && cat /c/f\\n' > dir/Dockerfile && \
         printf 'FROM busybox\\nCOPY . /c\\nRUN find /c | sort && cat /c/dir/f\\n' > Dockerfile && \
         git add . && git commit -qm one && git tag -a v1 -m v1 && \
         git submodule --quiet add git://127.0.0.1:{port}/sub module && git commit -qm module && \
         git checkout -q -b other && echo two > dir/f && git commit -qam two && git checkout -q main && git rev-parse v1^{{}}"
    );
    let made = script(mode, &make)?;
    expect(&made, 0, &[])?;
    fs::write(mode.place.join("v1"), &made.stdout).map_err(|error| error.to_string())?;
    Ok(server)
}

/// A repository on a server that only hands out files: git has to fetch the whole history from there.
fn add_git_from_files(mode: &Mode) -> Result<(), String> {
    drop(repository(mode)?);
    let make = "export GIT_CONFIG_GLOBAL=$PWD/gitconfig HOME=$PWD && mkdir -p web && git clone -q --bare repos/app web/app.git && \
                git -C web/app.git update-server-info";
    expect(&script(mode, make)?, 0, &[])?;
    let server = web(mode)?;
    let url = format!("http://127.0.0.1:{}/app.git", server.port);
    let lines = format!(
        "FROM busybox\nADD {url}#v1 /v1\nADD {url}?branch=other&subdir=dir&submodules=false /other\n\
         ADD --keep-git-dir {url}?tag=v1 /kept\nRUN cat /v1/dir/f /other/f; ls /kept/.git/refs/tags\n"
    );
    dockerfile(mode, "dumb", &lines)?;
    expect(&lap(mode, "build dumb")?, 0, &["one\n", "two\n", " v1\n"])?;
    dockerfile(mode, "dumb", &format!("FROM busybox\nADD {url}#nosuch /x\n"))?;
    expect(&lap(mode, "build dumb")?, 1, &["repository does not contain ref nosuch"])?;
    nothing_left(mode)
}

fn add_git(mode: &Mode) -> Result<(), String> {
    let server = repository(mode)?;
    let url = format!("git://127.0.0.1:{}/app", server.port);
    let commit = fs::read_to_string(mode.place.join("v1")).map_err(|error| error.to_string())?;
    let commit = commit.trim();
    let lines = format!(
        "FROM busybox\nADD {url}#v1 /v1\nADD {url}?branch=other&subdir=dir /other\nADD --keep-git-dir {url}#main /main\n\
         ADD --checksum={} {url}#v1 /sum\nRUN cat /v1/dir/f /other/f /main/module/s; ls -a /v1 /main; stat -c '%a %u:%g' /v1/dir/f\n\
         ADD {url}?keep-git-dir=true&tag=v1 /kept\n\
         RUN grep {commit} /kept/.git/HEAD && test ! -s /kept/.git/logs/HEAD && ls /kept/.git/refs/tags && ls /main/.git/refs/heads\n\
         ADD {url}?fetch-by-commit#{commit} /whole\nRUN cat /whole/dir/f\n\
         ADD --chmod=o= {url}#v1 /shut\nADD --chmod=o= {url}#v1 /open/\nRUN stat -c '%n %a' /shut /open /open/dir\n",
        &commit[..10]
    );
    dockerfile(mode, "gitted", &lines)?;
    let built = lap(mode, "build gitted")?;
    expect(&built, 0, &["one\n", "two\n", "sub\n", "755 0:0", ".git", " v1\n", " main\n"])?;
    // A mode in letters is for the directory that a repository becomes, but not for one that it goes to.
    expect(&built, 0, &["/shut 750\n", "/open 755\n", "/open/dir 750\n"])?;
    expect(&lap(mode, "build gitted")?, 0, &["CACHED"])?;
    for (source, words) in [
        ("#v2", "repository does not contain ref v2, output: \"\""),
        ("#main:none", "invalid subdir none: cannot open /none: No such file"),
        ("?fetch-by-commit#main", "fetch-by-commit requires a checksum or a commit SHA ref"),
        ("?tag=v1&checksum=000000", "expected checksum to match 000000, got"),
        ("?branch=main&subdir=../../etc", "No such file"),
        ("#--upload-pack=true", "invalid git reference"),
    ] {
        dockerfile(mode, "gitted", &format!("FROM busybox\nADD {url}{source} /x\n"))?;
        expect(&lap(mode, "build gitted")?, 1, &[words]).map_err(|why| format!("{source}: {why}"))?;
    }
    // A directory that is a link out of the repository is looked for within it.
    let link = "export GIT_CONFIG_GLOBAL=$PWD/gitconfig HOME=$PWD && cd repos/app && git checkout -q -b links && ln -s /etc out && \
                ln -s ../../../../etc up && ln -s dir in && git add . && git commit -qm links";
    expect(&script(mode, link)?, 0, &[])?;
    for (subdir, code, word) in
        [("out", 1, "/out"), ("up", 1, "/up"), ("up/passwd", 1, "passwd"), ("in", 0, "one\n")]
    {
        dockerfile(mode, "gitted", &format!("FROM busybox\nADD {url}#links:{subdir} /x/\nRUN cat /x/f\n"))?;
        expect(&lap(mode, "build gitted")?, code, &[word]).map_err(|why| format!("{subdir}: {why}"))?;
    }
    // A submodule on this machine's disk is somebody else's file.
    let evil = "export GIT_CONFIG_GLOBAL=$PWD/gitconfig HOME=$PWD && git init -q repos/evil && cd repos/evil && \
                git submodule --quiet add $PWD/../sub inside && git commit -qm evil";
    expect(&script(mode, evil)?, 0, &[])?;
    dockerfile(mode, "gitted", &format!("FROM busybox\nADD {} /x\n", url.replace("/app", "/evil")))?;
    expect(&lap(mode, "build gitted")?, 1, &["submodule update", "not allowed"])?;
    nothing_left(mode)
}

fn contexts(mode: &Mode) -> Result<(), String> {
    let server = repository(mode)?;
    let url = format!("git://127.0.0.1:{}/app", server.port);
    expect(
        &lap(mode, &format!("build {url}#v1"))?,
        0,
        &["[internal] load git source", "/c/dir/f\n", "one\n"],
    )?;
    expect(&lap(mode, &format!("build '{url}#other:dir'"))?, 0, &["Dockerfile\n", "two\n"])?;
    let named = "FROM busybox\nCOPY --from=code dir/f /f\nRUN cat /f\n";
    dockerfile(mode, "named", named)?;
    expect(&lap(mode, &format!("build --build-context code={url}#v1 named"))?, 0, &["one\n"])?;
    let scratch = "printf 'FROM base\\nCOPY --from=code /dir/f /f\\nCOPY --from=empty / /\\n' | ./lapstrake build -o type=tar,dest=only.tar \
                   --build-context base=docker-image://scratch --build-context empty=docker-image://scratch --build-context code=URL -f - named && \
                   tar -tf only.tar && rm only.tar";
    expect(&script(mode, &scratch.replace("URL", &format!("{url}#v1")))?, 0, &["f\n"])?;
    expect(
        &lap(mode, "build --build-context x=target:y named")?,
        1,
        &["failed to find target \"y\" for context \"x\""],
    )?;
    let stages = "FROM busybox AS other\nRUN echo of the other > /f\nENV WHO=other\nFROM base\nRUN echo $WHO; cat /f\n";
    dockerfile(mode, "stages", stages)?;
    let stage = "build --build-context base=target:other stages";
    expect(&lap(mode, stage)?, 0, &["of the other\n", "other\n"])?;
    let text = "printf 'FROM busybox\\nRUN echo from stdin\\n' | ./lapstrake build -";
    expect(&script(mode, text)?, 0, &["from stdin\n"])?;
    let no_context = "printf 'FROM busybox\\nCOPY x /x\\n' | ./lapstrake build -";
    expect(&script(mode, no_context)?, 1, &["not found"])?;
    let packed = "mkdir -p packed && printf 'FROM busybox\\nCOPY x /x\\nRUN cat /x\\n' > packed/Dockerfile && \
                  echo packed up > packed/x && tar -C packed -cz . | ./lapstrake build -";
    expect(&script(mode, packed)?, 0, &["packed up\n"])?;
    let other =
        "printf 'FROM busybox\\nCOPY x /y\\nRUN cat /y\\n' | ./lapstrake build --no-cache -f - packed";
    expect(&script(mode, other)?, 0, &["packed up\n"])?;
    expect(&script(mode, "./lapstrake build -f - - < /dev/null")?, 2, &["can't use stdin for both"])?;
    expect(
        &script(mode, "mkdir -p web && tar -C packed -czf web/c.tgz . && cp packed/Dockerfile web/D")?,
        0,
        &[],
    )?;
    web_contexts(mode)?;
    nothing_left(mode)
}

/// Archives and Dockerfiles of the web, which [`contexts`] has put there.
fn web_contexts(mode: &Mode) -> Result<(), String> {
    let web = web(mode)?;
    let url = format!("http://127.0.0.1:{}", web.port);
    expect(
        &lap(mode, &format!("build --no-cache {url}/c.tgz"))?,
        0,
        &["load remote build context", "packed up\n"],
    )?;
    expect(&lap(mode, &format!("build --no-cache -f {url}/D packed"))?, 0, &["packed up\n"])?;
    expect(&lap(mode, &format!("build {url}/D"))?, 1, &["/x", "not found"])?;
    expect(
        &lap(mode, &format!("build --build-context code={url}/c.tgz named"))?,
        1,
        &["/dir/f", "not found"],
    )?;
    // Only the main context is unpacked.
    dockerfile(
        mode,
        "named-file",
        "FROM busybox\nCOPY --from=code /context /c\nRUN test -s /c && echo still packed\n",
    )?;
    expect(
        &lap(mode, &format!("build --build-context code={url}/c.tgz named-file"))?,
        0,
        &["still packed\n"],
    )?;
    expect(&lap(mode, &format!("check {url}/c.tgz"))?, 0, &["no warnings found"])
}

/// A source that an ignore file hides is not just missing.
fn hidden(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "hidden", "FROM busybox\nCOPY secret.txt /x\n")?;
    for (name, text) in [("secret.txt", "x"), (".dockerignore", "# a comment\n*.md\n*.txt\n")] {
        fs::write(mode.place.join("hidden").join(name), text).map_err(|error| error.to_string())?;
    }
    let failed = lap(mode, "build hidden")?;
    expect(
        &failed,
        1,
        &["\"/secret.txt\": not found", "line 3 of the ignore file hides it: `*.txt`", "Dockerfile:2"],
    )
}
