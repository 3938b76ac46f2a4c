//! What a build is told by arguments and secrets of fixed names.

use std::fs;
use std::path::PathBuf;

use lapstrake_testkit::{Response, WebServer};

use super::place::{Mode, append, dockerfile, expect, lap, nothing_left, script, text};
use super::remote::repository;

pub(super) const CASES: &[super::Case] = &[
    ("builder_arguments", builder_arguments),
    ("no_cache_of_a_stage", no_cache_of_a_stage),
    ("logins_for_addresses", logins_for_addresses),
];

fn builder_arguments(mode: &Mode) -> Result<(), String> {
    // A name space of caches: what one has the other has not.
    let cache = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/all && cat /c/all\n";
    dockerfile(mode, "arguments", cache)?;
    let space = mode.name;
    for (number, space, seen) in [(1, "one", "1\n"), (2, "two", "2\n"), (3, "one", "3\n")] {
        let build = format!(
            "build --build-arg N={number} --build-arg BUILDKIT_CACHE_MOUNT_NS={space}-{} arguments",
            mode.name
        );
        let built = lap(mode, &build)?;
        expect(&built, 0, &[seen]).map_err(|why| format!("{space}: {why}"))?;
        if text(&built).contains(" 1\n") != (number != 2) {
            return Err(format!("{space}: another name space's cache: {}", text(&built)));
        }
    }
    let lines = "FROM busybox\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
                 ARG TARGETOSVERSION\nRUN hostname; env | sort; echo \"version <$TARGETOSVERSION>\"\n";
    dockerfile(mode, "arguments", lines)?;
    let plain = lap(mode, "build arguments")?;
    expect(&plain, 0, &["buildkitsandbox\n", "version <>"])?;
    if text(&plain).contains("SBOM_SCAN_STAGE=true\n") || text(&plain).contains("SBOM_SCAN_CONTEXT=true\n") {
        return Err(format!("what is for scanners is in the environment: {}", text(&plain)));
    }
    let proxies = format!(
        "build --build-arg BUILDKIT_SANDBOX_HOSTNAME={space}-box --build-arg ALL_PROXY=socks5://proxy.example:1 arguments"
    );
    let told = [
        &format!("{space}-box\n"),
        "ALL_PROXY=socks5://proxy.example:1\n",
        "all_proxy=socks5://proxy.example:1\n",
    ];
    expect(&lap(mode, &proxies)?, 0, &told)?;
    // A main context from git has its .git if somebody asks for it.
    let server = repository(mode)?;
    let url = format!("git://127.0.0.1:{}/app", server.port);
    fs::write(mode.place.join("keeps"), "FROM busybox\nCOPY . /c\nRUN ls -a /c\n")
        .map_err(|error| error.to_string())?;
    for (keep, words) in [("1", &[" .git\n", " dir\n"][..]), ("0", &[" dir\n"])] {
        let build = format!("build -f - --build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR={keep} {url}#v1 < keeps");
        let built = lap(mode, &build)?;
        expect(&built, 0, words)?;
        if text(&built).contains(" .git\n") != (keep == "1") {
            return Err(format!("BUILDKIT_CONTEXT_KEEP_GIT_DIR={keep}: {}", text(&built)));
        }
    }
    nothing_left(mode)
}

/// `--no-cache-filter` is about the steps of the stages that it names, in whatever case.
fn no_cache_of_a_stage(mode: &Mode) -> Result<(), String> {
    let lines = "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM busybox AS two\nRUN cat /proc/sys/kernel/random/uuid > /two\n\
                 FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    dockerfile(mode, "filtered", lines)?;
    let build = |flags: &str| {
        let built = lap(
            mode,
            &format!("build -q {flags} -o filtered-out filtered && cat filtered-out/one filtered-out/two"),
        )?;
        expect(&built, 0, &[])?;
        Ok::<_, String>(String::from_utf8_lossy(&built.stdout).into_owned())
    };
    let of = |all: &str| all.lines().rev().take(2).map(str::to_owned).collect::<Vec<_>>();
    let (first, again, one) = (of(&build("")?), of(&build("")?), of(&build("--no-cache-filter ONE")?));
    if first != again || one[0] != first[0] || one[1] == first[1] {
        return Err(format!("{first:?} {again:?} {one:?}"));
    }
    nothing_left(mode)
}

/// A server that notes the path and the login of each request. With the right login, it answers with a file whose name is
/// not the name in the address.
fn guarded(log: PathBuf) -> Result<WebServer, String> {
    WebServer::start(move |request| {
        let login = request.header("authorization").unwrap_or("none");
        append(&log, &format!("{} {login}\n", request.path));
        let good = matches!(login, "Bearer secret-token" | "Custom secret-header");
        let answer = if good { Response::new(200, "guarded\n") } else { Response::new(401, "") };
        answer.with("Content-Disposition", "attachment; filename=other")
    })
}

/// Secrets of fixed names are logins for files and repositories of the web.
fn logins_for_addresses(mode: &Mode) -> Result<(), String> {
    let log = mode.place.join(format!("asked-{}", mode.name));
    let server = guarded(log.clone())?;
    let host = format!("127.0.0.1:{}", server.port);
    dockerfile(
        mode,
        "guarded",
        &format!("FROM busybox\nADD http://{host}/dir/file /d/\nRUN ls /d && cat /d/file\n"),
    )?;
    expect(&lap(mode, "build guarded")?, 1, &["invalid response status 401"])?;
    for (id, value) in [("HTTP_AUTH_TOKEN", "secret-token"), ("HTTP_AUTH_HEADER", "Custom secret-header")] {
        let build = format!(
            "export L='{value}' && ./lapstrake build --no-cache --secret id={id}_{host},env=L guarded"
        );
        let built = script(mode, &build)?;
        expect(&built, 0, &["guarded\n", " file\n"]).map_err(|why| format!("{id}: {why}"))?;
        if text(&built).contains("secret-") {
            return Err(format!("{id} is told: {}", text(&built)));
        }
    }
    dockerfile(mode, "guarded", &format!("FROM scratch\nADD http://{host}/team/code.git /\n"))?;
    for (id, value) in [("GIT_AUTH_TOKEN", "t0"), ("GIT_AUTH_HEADER", "Custom git")] {
        let suffixed = format!("{id}.{host}");
        // Without a host it goes to nobody in the clear: see `confined_git_secrets`.
        for id in [id, &suffixed] {
            let refused = script(
                mode,
                &format!("export L='{value}' && ./lapstrake build --secret id={id},env=L guarded"),
            )?;
            expect(&refused, 1, &[])?;
        }
    }
    let all = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    // `x-access-token:t0` in base64.
    let basic = "/team/code.git/info/refs Basic eC1hY2Nlc3MtdG9rZW46dDA=\n";
    let header = "/team/code.git/info/refs Custom git\n";
    for line in [
        "/dir/file none\n",
        "/dir/file Bearer secret-token\n",
        "/dir/file Custom secret-header\n",
        basic,
        header,
    ] {
        if !all.contains(line) {
            return Err(format!("nobody asked with `{}`: {all}", line.trim()));
        }
    }
    nothing_left(mode)
}
