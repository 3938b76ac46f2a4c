//! What a build takes from outside of its context, and to whom it gives its secrets: nothing, and nobody else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapstrake_testkit::{Request, Response, WebServer};

use super::place::{Mode, append, dockerfile, expect, lap, nothing_left, script, text};

pub(super) const CASES: &[super::Case] =
    &[("confined_dockerfile", confined_dockerfile), ("confined_git_secrets", confined_git_secrets)];

/// Words that stand outside of the context.
const OUTSIDE: &str = "root:secret-of-the-machine:1:\\nHEALTHCHECK nonsense secret-of-the-machine\\n";

/// A context with a file and a directory in it.
fn fresh(mode: &Mode, setup: &str) -> Result<(), String> {
    let commands = format!("rm -rf jail && mkdir -p jail/sub && cd jail && echo x > f && {setup}");
    expect(&script(mode, &commands)?, 0, &[])
}

fn confined_dockerfile(mode: &Mode) -> Result<(), String> {
    expect(&script(mode, &format!("mkdir -p jail && printf '{OUTSIDE}' > outside.txt"))?, 0, &[])?;
    let outside = mode.place.join("outside.txt").display().to_string();
    let cases = [
        ("ln -s ../outside.txt Dockerfile".to_owned(), "build jail", 1),
        (format!("ln -s {outside} Dockerfile"), "build jail", 1),
        (format!("ln -s {outside} dockerfile"), "build jail", 1),
        (format!("ln -s {outside} Dockerfile"), "check jail", 1),
        ("mkfifo Dockerfile".to_owned(), "build jail", 1),
        // Includes too, and files of patterns.
        (
            format!(
                "printf '# syntax=lapstrake\\nINCLUDE inc\\nFROM busybox\\n' > Dockerfile && ln -s {outside} inc"
            ),
            "build jail",
            1,
        ),
        (
            format!("printf 'FROM scratch\\nCOPY . /\\n' > Dockerfile && ln -s {outside} .dockerignore"),
            "build jail",
            0,
        ),
        (
            "printf 'FROM scratch\\nCOPY . /\\n' > Dockerfile && ln -s ../bad-ignore Dockerfile.dockerignore"
                .to_owned(),
            "build jail",
            0,
        ),
        (
            "printf 'FROM scratch\\nCOPY . /\\n' > sub/D && ln -s ../../bad-ignore sub/D.dockerignore"
                .to_owned(),
            "build -f jail/sub/D jail",
            0,
        ),
        (
            format!(
                "printf 'FROM scratch\\nCOPY --from=c . /\\n' > Dockerfile && ln -s {outside} sub/.dockerignore"
            ),
            "build --build-context c=jail/sub jail",
            0,
        ),
    ];
    expect(&script(mode, "printf '[secret-of-the-machine\\n' > bad-ignore")?, 0, &[])?;
    for (setup, command, status) in &cases {
        fresh(mode, setup)?;
        let output = lap(mode, command)?;
        expect(&output, *status, &[]).map_err(|why| format!("{setup}: {why}"))?;
        if text(&output).contains("secret-of-the-machine") {
            return Err(format!("{setup}: {}", text(&output)));
        }
    }
    followed(mode)
}

/// Within the context links are followed, and what the user names is read wherever it is.
fn followed(mode: &Mode) -> Result<(), String> {
    for (setup, command) in [
        ("printf 'FROM scratch\\nCOPY f /\\n' > sub/D && ln -s sub/D Dockerfile", "build jail"),
        ("printf 'FROM scratch\\nCOPY f /\\n' > sub/D && ln -s /sub/D Dockerfile", "build jail"),
        (
            "printf 'FROM scratch\\nCOPY f /\\n' > ../elsewhere && ln -s ../elsewhere D",
            "build -f jail/D jail",
        ),
        (
            "printf 'FROM scratch\\nCOPY f /\\n' > ../elsewhere && ln -s ../elsewhere Dockerfile",
            "build -f jail/Dockerfile jail",
        ),
    ] {
        fresh(mode, setup)?;
        expect(&lap(mode, command)?, 0, &[]).map_err(|why| format!("{setup}: {why}"))?;
    }
    nothing_left(mode)
}

/// A web server before repositories. It notes the port, the path and the login of each request. Paths that begin with
/// `/moved` are redirected to the port `other`.
fn git_server(
    log: PathBuf,
    repositories: PathBuf,
    name: &'static str,
    other: u16,
) -> Result<WebServer, String> {
    WebServer::start(move |request| {
        let login = request.header("authorization").unwrap_or("none");
        append(&log, &format!("{name} {} {login}\n", request.path));
        if let Some(rest) = request.path.strip_prefix("/moved") {
            let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
            return Response::new(301, "").with("Location", format!("http://127.0.0.1:{other}{rest}{query}"));
        }
        git_backend(&repositories, request).unwrap_or_else(|error| Response::new(500, error))
    })
}

/// The answer of `git http-backend`, which is a CGI program.
fn git_backend(repositories: &Path, request: &Request) -> Result<Response, String> {
    let told = |error: std::io::Error| format!("git http-backend: {error}");
    let header = |name: &str| request.header(name).unwrap_or_default();
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", repositories)
        .envs([("GIT_HTTP_EXPORT_ALL", "1"), ("REMOTE_ADDR", "127.0.0.1")])
        .envs([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ])
        .envs([("PATH_INFO", request.path.as_str()), ("QUERY_STRING", &request.query)])
        .envs([("REQUEST_METHOD", request.method.as_str()), ("CONTENT_TYPE", header("content-type"))])
        .envs([
            ("GIT_PROTOCOL", header("git-protocol")),
            ("HTTP_CONTENT_ENCODING", header("content-encoding")),
        ])
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(told)?;
    if let Some(mut input) = backend.stdin.take() {
        input.write_all(&request.body).map_err(told)?;
    }
    let output = backend.wait_with_output().map_err(told)?.stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("no head")?;
    let mut answer = Response::new(200, &output[end + 4..]);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => answer.status = status[..3].parse().map_err(|_| status.to_owned())?,
            Some((name, value)) => answer = answer.with(name, value),
            None => {}
        }
    }
    Ok(answer)
}

fn confined_git_secrets(mode: &Mode) -> Result<(), String> {
    let made = "rm -rf gits && git -c init.defaultBranch=main init -q gits/work && cd gits/work && echo kept > f && git add f && \
                git -c user.name=a -c user.email=a@b commit -q -m one && git clone -q --bare . ../code.git";
    expect(&script(mode, made)?, 0, &[])?;
    let log = mode.place.join(format!("git-{}.log", mode.name));
    let serve = |name, other| git_server(log.clone(), mode.place.join("gits"), name, other);
    let elsewhere = serve("there", 0)?;
    let server = serve("here", elsewhere.port)?;
    let (host, other) = (format!("127.0.0.1:{}", server.port), format!("127.0.0.1:{}", elsewhere.port));
    let asked = |from: &str, flags: &str| -> Result<String, String> {
        fs::write(&log, "").map_err(|error| error.to_string())?;
        fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .map_err(|error| error.to_string())?;
        dockerfile(mode, "cloned", &format!("FROM busybox\nADD {from} /c/\nRUN test $(cat /c/f) = kept\n"))?;
        let built = script(mode, &format!("export L=t0 && ./lapstrake build --no-cache {flags} cloned"))?;
        expect(&built, 0, &[]).map_err(|why| format!("{from} {flags}: {why}"))?;
        fs::read_to_string(&log).map_err(|error| error.to_string())
    };
    let login = "Basic eC1hY2Nlc3MtdG9rZW46dDA=";
    for id in ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"] {
        let login = if id == "GIT_AUTH_TOKEN" { login } else { "t0" };
        let with = |line: &str| line.ends_with(&format!(" {login}"));
        // The server that sends us on has the login, and the other one has not.
        let log = asked(&format!("http://{host}/moved/code.git"), &format!("--secret id={id}.{host},env=L"))?;
        let (here, there): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.starts_with("here "));
        if here.is_empty()
            || there.is_empty()
            || !here.iter().all(|line| with(line))
            || there.iter().any(|line| with(line))
        {
            return Err(format!("{id}: {log}"));
        }
        // A server of that name has it on all requests.
        let log = asked(&format!("http://{other}/code.git"), &format!("--secret id={id}.{other},env=L"))?;
        if log.is_empty() || !log.lines().all(with) {
            return Err(format!("{id}: {log}"));
        }
        // Without a name it goes to nobody in the clear, and to no other host.
        for flags in [format!("--secret id={id},env=L"), format!("--secret id={id}.{host},env=L")] {
            let log = asked(&format!("http://{other}/code.git"), &flags)?;
            if log.is_empty() || log.lines().any(with) {
                return Err(format!("{flags}: {log}"));
            }
        }
    }
    // Whoever is refused for that is told.
    drop(server);
    dockerfile(mode, "cloned", &format!("FROM busybox\nADD http://{host}/code.git /c/\n"))?;
    let told =
        script(mode, "export L=t0 && ./lapstrake build --no-cache --secret id=GIT_AUTH_TOKEN,env=L cloned")?;
    expect(&told, 1, &["the git secret was not sent", &format!("GIT_AUTH_TOKEN.{host}")])?;
    nothing_left(mode)
}
