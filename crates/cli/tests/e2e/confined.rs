//! What a build takes from outside of its context, and to whom it gives its secrets: nothing, and nobody else.

use std::fs;

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script, text};
use super::remote::Server;

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

/// Repositories behind a web server. It writes down who asks with which login; what begins with `/moved` is at the other
/// port.
const GIT: &str = r#"
import http.server, os, subprocess, sys
log, repos, port, other = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
class Git(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        open(log, "a").write(f"{port} {path} {self.headers.get('Authorization', 'none')}\n")
        if path.startswith("/moved"):
            self.send_response(301)
            self.send_header("Location", f"http://127.0.0.1:{other}{self.path[len('/moved'):]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip
            body = gzip.decompress(body)
        env = dict(os.environ, GIT_PROJECT_ROOT=repos, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
            REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""), REMOTE_ADDR="127.0.0.1",
            GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            if name != "Status": self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)
    do_POST = do_GET
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Git).serve_forever()
"#;

fn confined_git_secrets(mode: &Mode) -> Result<(), String> {
    let made = "rm -rf gits && git -c init.defaultBranch=main init -q gits/work && cd gits/work && echo kept > f && git add f && \
                git -c user.name=a -c user.email=a@b commit -q -m one && git clone -q --bare . ../code.git";
    expect(&script(mode, made)?, 0, &[])?;
    let log = mode.place.join(format!("git-{}.log", mode.name)).display().to_string();
    let repos = mode.place.join("gits").display().to_string();
    let serve = |other: u16| {
        let (log, repos) = (log.clone(), repos.clone());
        Server::start(&["python3", "-c", GIT], move |port| {
            vec![log, repos, port.to_string(), other.to_string()]
        })
    };
    let elsewhere = serve(0)?;
    let server = serve(elsewhere.port)?;
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
        let (here, there): (Vec<_>, Vec<_>) =
            log.lines().partition(|line| line.starts_with(&server.port.to_string()));
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
