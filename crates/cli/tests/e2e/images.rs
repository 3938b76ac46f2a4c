//! The commands about images that are here: lists, templates, removal, search.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use super::place::{Mode, dockerfile, expect, lap, must, nothing_left, script, state, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] = &[
    ("image_lists", lists),
    ("image_commands", commands),
    ("image_in_use", in_use),
    ("save_many", save_many),
    ("search", search),
];

/// Runs a command that must print exactly this.
fn prints(mode: &Mode, args: &str, expected: &str) -> Result<(), String> {
    let output = lap(mode, args)?;
    if output.status.success() && output.stdout == expected.as_bytes() {
        return Ok(());
    }
    Err(format!("`{args}` does not print {expected:?}: {}", text(&output)))
}

/// What Docker 28 was seen to do, word by word.
fn commands(mode: &Mode) -> Result<(), String> {
    let server = Registry::start(&mode.place, "registry", "")?;
    let name = format!("{}/walk", server.address);
    dockerfile(mode, "walked", "FROM busybox\nRUN head -c 12345 /bin/busybox > /x\nCMD [\"true\"]\n")?;
    let state = format!("{}/walked-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{state}'"))?;
    let build = lap(mode, &format!("build -q -t {name}:1 --push walked"))?;
    expect(&build, 0, &["sha256:"])?;
    let away = |args: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{state}'; ./lapstrake {args}"));
    let pulled = away(&format!("pull {name}:1"))?;
    expect(&pulled, 0, &[&format!("Status: Downloaded newer image for {name}:1\n")])?;
    expect(&away(&format!("pull {name}:1"))?, 0, &[&format!("Status: Image is up to date for {name}:1\n")])?;
    let exact = away(&format!("history --human=false {name}:1"))?;
    expect(&exact, 0, &["CREATED AT", "   12345     buildkit.dockerfile.v0"])?;
    let made =
        away(&format!("history --format '{{{{.CreatedAt}}}}' {name}:1 | grep -cE '^[0-9-]+T[0-9:]+Z$'"))?;
    expect(&made, 0, &["\n"])?;
    expect(&away(&format!("tag {name}:1 other"))?, 0, &[])?;
    expect(&away("images --format json other")?, 0, &["\"SharedSize\":\"N/A\"", "\"Containers\":\"N/A\""])?;
    // What cannot be removed holds up nothing, and a repository's digests go with its last tag.
    let removed = away(&format!("rmi nothing {name}:1 nowhere"))?;
    let digest = format!("Untagged: {name}:1\nUntagged: {name}@sha256:");
    expect(&removed, 1, &[&digest, "no such image: nothing", "no such image: nowhere"])?;
    if away("images --digests --format '{{.Repository}}'")?.stdout != b"other\n" {
        return Err(text(&away("images --digests")?));
    }
    let import = "tar -cf walked.tar walked && ./lapstrake import -m 'by hand' -c 'ENV A=b' -c 'CMD [\"x\", \"y\"]' -c 'EXPOSE 80' walked.tar";
    let id = script(mode, &format!("export LAPSTRAKE_ROOT='{state}'; {import}"))?;
    expect(&id, 0, &["sha256:"])?;
    let id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
    let shown = "{{json .Config.Cmd}} {{index .Config.Env 1}} {{json .Config.ExposedPorts}} {{.Comment}} {{.RepoTags}}";
    let seen = away(&format!("inspect -f '{shown}' {id}"))?;
    expect(&seen, 0, &["[\"x\",\"y\"] A=b {\"80/tcp\":{}} by hand []"])?;
    for (bad, why) in
        [("RUN true", "expected a line with one of CMD"), ("ENV", "ENV requires at least one argument")]
    {
        expect(&away(&format!("import -c '{bad}' walked.tar"))?, if bad == "ENV" { 1 } else { 2 }, &[why])?;
    }
    must(&format!("rm -rf '{state}'"))?;
    nothing_left(mode)
}

const LABELLED: &str = "FROM busybox\nLABEL kind=listed deep.key=v\nENV A=b\nEXPOSE 80\nCMD [\"true\"]\n";

fn lists(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "listed", LABELLED)?;
    let named = "build -q -t listed:1 -t team/listed:2 listed";
    expect(&lap(mode, named)?, 0, &["sha256:"])?;
    let id = String::from_utf8_lossy(&lap(mode, "inspect -f {{.Id}} listed:1")?.stdout).trim().to_owned();
    let short = id.trim_start_matches("sha256:")[..12].to_owned();
    let table = lap(mode, "images --filter label=kind=listed")?;
    expect(
        &table,
        0,
        &["REPOSITORY    TAG       IMAGE ID       CREATED", &short, "team/listed   2         "],
    )?;
    // A row for each name, as Docker has it.
    prints(mode, "images -q --filter label=kind", &format!("{short}\n{short}\n"))?;
    prints(mode, "images -q --no-trunc listed", &format!("{id}\n"))?;
    prints(
        mode,
        "images --format '{{.Repository}}={{.Tag}}' --filter 'reference=team/*'",
        "team/listed=2\n",
    )?;
    prints(
        mode,
        r"images --format 'table {{.Tag}}\t{{.ID}}' listed:1",
        &format!("TAG       IMAGE ID\n1         {short}\n"),
    )?;
    prints(mode, "images -q --filter dangling=true --filter label=kind", "")?;
    prints(mode, "images -q --filter since=listed:1 --filter label=kind", "")?;
    expect(&lap(mode, "images --digests listed")?, 0, &["DIGEST", "<none>"])?;
    expect(&lap(mode, "images --json listed")?, 0, &[&format!("\"ID\":\"{id}\""), "\"Tag\":\"1\""])?;
    expect(&lap(mode, "images --filter colour=red")?, 2, &["not one of before, dangling, label"])?;
    expect(&lap(mode, "images --format {{.Nope}} listed")?, 1, &["unknown field `Nope`"])?;
    for (format, expected) in [
        ("{{.RepoTags}}", "[listed:1 team/listed:2]"),
        (
            "{{range .Config.Env}}{{println .}}{{end}}",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nA=b\n",
        ),
        ("{{json .Config.Cmd}} {{index .Config.Labels \"deep.key\"}}", "[\"true\"] v"),
        ("{{if .Config.User}}user{{else}}root{{end}} {{len .RootFS.Layers}}", "root 1"),
        ("{{join .Config.Cmd \",\"}} {{.Architecture}}", "true amd64"),
    ] {
        for name in ["listed:1", "team/listed:2", &short[..6], &id] {
            prints(mode, &format!("inspect --format '{format}' {name}"), &format!("{expected}\n"))?;
        }
    }
    expect(&lap(mode, "inspect -f '{{.Id' listed:1")?, 2, &["an action is not closed"])?;
    let raw = format!("inspect --raw listed:1 | sha256sum | grep {}", id.trim_start_matches("sha256:"));
    expect(&lap(mode, &raw)?, 0, &[])?;
    expect(&lap(mode, "history listed:1")?, 0, &["IMAGE          CREATED", "CMD [\"true\"]"])?;
    prints(mode, "history --format '{{.CreatedBy}}' --no-trunc listed:1 | head -n1", "CMD [\"true\"]\n")?;
    expect(&lap(mode, "history -q listed:1")?, 0, &[&short, "<missing>"])?;
    prints(mode, "tag --json listed:1 third:3", &format!("{{\"ID\":\"{id}\",\"Name\":\"third:3\"}}\n"))?;
    prints(mode, "rmi third:3", "Untagged: third:3\n")?;
    expect(&lap(mode, &format!("rmi {short}"))?, 1, &["more than one name"])?;
    let gone = format!("Untagged: listed:1\nUntagged: team/listed:2\nDeleted: {id}\n");
    prints(mode, &format!("rmi -f {short}"), &gone)?;
    nothing_left(mode)
}

/// An image that somebody runs is not removed, and the one who does is named.
fn in_use(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "used", "FROM busybox\nLABEL used=yes\n")?;
    expect(&lap(mode, "build -q -t used:1 used")?, 0, &["sha256:"])?;
    let place = mode.place.display();
    let run = format!(
        "cd '{place}' && export LAPSTRAKE_ROOT='{}' HOME='{place}' && exec ./lapstrake run -i used:1 sh -c 'echo ready; cat'",
        state(mode).display()
    );
    let mut command = super::place::script_through(&[], mode, &run);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| error.to_string())?;
    let mut ready = [0; 6];
    let told = child.stdout.as_mut().map(|out| out.read_exact(&mut ready));
    let refused = [lap(mode, "rmi used:1")?, lap(mode, "rmi -f used:1")?];
    let untagged = lap(mode, "tag used:1 used:2 && ./lapstrake rmi used:2")?;
    drop(child.stdin.take());
    let ended = child.wait().map_err(|error| error.to_string())?;
    if !matches!(told, Some(Ok(()))) || !ended.success() {
        return Err(format!("the container ended with {ended}"));
    }
    for refused in &refused {
        expect(refused, 1, &["is in use", "runs `used:1 sh -c echo ready; cat` in it"])?;
    }
    expect(&untagged, 0, &["Untagged: used:2"])?;
    expect(&lap(mode, "rmi used:1")?, 0, &["Deleted: sha256:"])?;
    nothing_left(mode)
}

/// Several images in one archive, each of its layers once, and back, in both forms of `docker save`.
fn save_many(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "one", "FROM busybox\nRUN echo one > /x\nCMD [\"cat\", \"/x\"]\n")?;
    dockerfile(mode, "two", "FROM busybox\nRUN echo two > /x\nCMD [\"cat\", \"/x\"]\n")?;
    expect(&lap(mode, "build -q -t one:1 -t one:2 one && ./lapstrake build -q -t two:1 two")?, 0, &[])?;
    expect(&script(mode, "rm -f many.tar; ./lapstrake save -o many.tar one:1 one:2 two:1")?, 0, &[])?;
    let twice = script(mode, "tar -tf many.tar | sort | uniq -d")?;
    expect(&twice, 0, &[])?;
    if !twice.stdout.is_empty() {
        return Err(format!("some files are there twice: {}", text(&twice)));
    }
    let fresh = format!("{}/many-{}", mode.place.display(), mode.name);
    must(&format!("rm -rf '{fresh}'"))?;
    let elsewhere = |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{fresh}' && {commands}"));
    let run = "./lapstrake run one:2 && ./lapstrake run two:1";
    let loaded = elsewhere(&format!("./lapstrake load -i many.tar && {run}"))?;
    expect(
        &loaded,
        0,
        &["Loaded image: one:1\n", "Loaded image: one:2\n", "Loaded image: two:1\n", "one\ntwo\n"],
    )?;
    // As Docker wrote it before it knew OCI layouts: a directory for each layer, and links.
    let old = "rm -rf old && mkdir old && for n in one two; do \
               skopeo --insecure-policy copy docker-archive:many.tar:$n:1 docker-archive:old/$n.tar:$n:old; done && \
               ./lapstrake load -i old/one.tar && ./lapstrake run one:old && ./lapstrake load -q -i old/two.tar";
    expect(&elsewhere(old)?, 0, &["Loaded image: one:old", "one\n", "one\nsha256:"])?;
    let same =
        "for t in one:1 one:old; do ./lapstrake inspect -f '{{.RootFS.Layers}}' $t; done | uniq | wc -l";
    expect(&elsewhere(same)?, 0, &["1\n"])?;
    let oci = "rm -f many-oci.tar && ./lapstrake save --oci --json -o many-oci.tar one:1 two:1 && ./lapstrake load --json -i many-oci.tar";
    expect(&elsewhere(oci)?, 0, &["\"Digest\":\"sha256:", "\"Names\":[\"two:1\"]"])?;
    expect(&script(mode, "tar -tf many-oci.tar | grep -c manifest.json")?, 1, &["0\n"])?;
    nothing_left(mode)
}

/// Docker Hub's answers, by a server of ours.
fn search(mode: &Mode) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let server = std::thread::spawn(move || {
        let body = r#"{"num_results": 2, "query": "busybox", "results": [
            {"name": "busybox", "description": "Busybox base image.", "star_count": 3000, "is_official": true},
            {"name": "team/busybox", "description": "one\ntwo \u001b[31m", "star_count": 4}]}"#;
        let mut asked = Vec::new();
        for _ in 0..4 {
            let Ok((mut stream, _)) = listener.accept() else { break };
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            asked
                .push(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned());
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap_or_default();
        }
        asked
    });
    let table = lap(mode, &format!("search --limit 7 {address}/busybox"))?;
    let few = lap(
        mode,
        &format!("search --filter stars=10 --format '{{{{.Name}}}} {{{{.IsOfficial}}}}' {address}/busybox"),
    )?;
    let json = lap(mode, &format!("search --json --filter is-official=false {address}/busybox"))?;
    let whole = lap(
        mode,
        &format!("search --format json --filter is-automated=false --filter stars=10 {address}/busybox"),
    )?;
    let asked = server.join().map_err(|_| "the server failed")?;
    expect(
        &table,
        0,
        &[
            "NAME           DESCRIPTION           STARS     OFFICIAL\nbusybox        Busybox base image.   3000      [OK]\nteam/busybox   one two               4         \n",
        ],
    )?;
    expect(&few, 0, &["busybox [OK]\n"])?;
    expect(
        &json,
        0,
        &[
            "{\"Description\":\"one two \",\"IsAutomated\":false,\"IsOfficial\":false,\"Name\":\"team/busybox\",\"StarCount\":4}",
        ],
    )?;
    // As Docker's command line writes it.
    let row =
        r#"{"Description":"Busybox base image.","IsOfficial":"true","Name":"busybox","StarCount":"3000"}"#;
    expect(&whole, 0, &[row, "WARNING: the \"is-automated\" filter is deprecated"])?;
    if asked.first().map(String::as_str) != Some("GET /v1/search?q=busybox&n=7 HTTP/1.1") {
        return Err(format!("asked {asked:?}"));
    }
    expect(&lap(mode, "search --filter colour=red x")?, 2, &["not one of stars"])
}
