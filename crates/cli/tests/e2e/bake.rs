//! `bake`: several targets at once.

use std::fs;

use super::place::{Mode, expect, lap, must, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("bake_shares", bake_shares),
    ("bake_prints", bake_prints),
    ("bake_refuses", bake_refuses),
    ("bake_compose", bake_compose),
];

fn file(mode: &Mode, name: &str, text: &str) -> Result<(), String> {
    let path = mode.place.join(name);
    let dir = path.parent().ok_or("no directory")?;
    fs::create_dir_all(dir).and_then(|()| fs::write(&path, text)).map_err(|error| error.to_string())?;
    // The user of the test writes outputs beside the file.
    must(&format!("chmod 777 '{}'", dir.display()))
}

const SHARED: &str = r#"
variable "WORD" { default = "none" }
group "default" { targets = ["app", "files"] }
target "base" {
  dockerfile-inline = "FROM busybox\nRUN echo base > /base"
}
target "_common" {
  contexts          = { start = "target:base" }
  args              = { WORD = WORD }
  dockerfile-inline = <<-EOT
    FROM start AS shared
    RUN --mount=type=cache,id=baked,target=/c sleep 0.3; echo shared >> /c/log; cp /c/log /shared
    FROM shared AS app
    ARG WORD
    RUN echo $WORD > /word
    FROM scratch AS files
    COPY --from=shared /shared /base /
  EOT
}
target "app" {
  name     = "app-${n}"
  matrix   = { n = ["one", "two"] }
  inherits = ["_common"]
  target   = "app"
  args     = { WORD = "${WORD}-${n}" }
  tags     = ["baked:${n}"]
}
target "files" {
  inherits = ["_common"]
  target   = "files"
  output   = ["type=local,dest=baked-files"]
}
"#;

/// Three targets and the one that they begin with: what they share runs once.
fn bake_shares(mode: &Mode) -> Result<(), String> {
    file(mode, "baking/docker-bake.hcl", SHARED)?;
    let bake = "cd baking && ../lapstrake bake --progress plain --metadata-file m.json --set *.args.EXTRA=x";
    let built = script(mode, bake)?;
    expect(&built, 0, &["[app-one", "[app-two", "[files", "[base 2/2] RUN echo base"])?;
    let log = "cat baking/baked-files/shared baking/baked-files/base; ./lapstrake run baked:one cat /word; \
               ./lapstrake run baked:two cat /word";
    let log = script(mode, log)?;
    expect(&log, 0, &["shared\nbase\n", "none-one\n", "none-two\n"])?;
    if text(&log).matches("shared").count() != 1 {
        return Err(format!("the shared step ran more than once: {}", text(&log)));
    }
    let metadata = "python3 -c 'import json; m = json.load(open(\"baking/m.json\")); print(sorted(m), m[\"app-one\"][\"image.name\"], list(m[\"base\"]))'";
    expect(
        &script(mode, metadata)?,
        0,
        &["['app-one', 'app-two', 'base', 'files'] docker.io/library/baked:one ['buildx.build.ref']"],
    )?;
    // Only the targets' own names stay, and a second time all is cached.
    let names = script(mode, "./lapstrake images")?;
    if text(&names).contains("bake.invalid") {
        return Err(format!("a name is left: {}", text(&names)));
    }
    let again = script(mode, bake)?;
    expect(&again, 0, &["CACHED\n"])?;
    if script(mode, "cat baking/baked-files/shared")?.stdout != b"shared\n" {
        return Err(format!("a step ran again: {}", text(&again)));
    }
    let variable = script(
        mode,
        "cd baking && WORD=given ../lapstrake bake app-one && ../lapstrake run baked:one cat /word",
    )?;
    expect(&variable, 0, &["given-one\n"])?;
    let option = script(
        mode,
        "cd baking && ../lapstrake bake --var WORD=var app-one && ../lapstrake run baked:one cat /word",
    )?;
    expect(&option, 0, &["var-one\n"])?;
    let told = script(mode, "cd baking && ../lapstrake bake --check app")?;
    expect(&told, 0, &["app-one\n", "app-two\n", "Check complete, no warnings found."])?;
    nothing_left(mode)
}

/// Nothing is built: JSON for programs, and lists.
fn bake_prints(mode: &Mode) -> Result<(), String> {
    file(mode, "printing/docker-bake.hcl", SHARED)?;
    let read = "cd printing && ../lapstrake bake --print --set files.tags=x files | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d[\"group\"][\"default\"][\"targets\"], d[\"target\"][\"files\"][\"tags\"], sorted(d[\"target\"]))'";
    expect(&script(mode, read)?, 0, &["['files'] ['x'] ['base', 'files']\n"])?;
    let targets = script(mode, "cd printing && ../lapstrake bake --list targets")?;
    expect(&targets, 0, &["TARGET", "app     app-one, app-two\n", "default app, files\n"])?;
    if text(&targets).contains("_common") {
        return Err("a private target is listed".to_owned());
    }
    let variables = script(mode, "cd printing && ../lapstrake bake --list type=variables,format=json")?;
    expect(&variables, 0, &["\"name\": \"WORD\"", "\"value\": \"none\""])?;
    let stdin = script(mode, "cd printing && ../lapstrake bake -f - --print base < docker-bake.hcl")?;
    expect(&stdin, 0, &["FROM busybox"])?;
    let words = script(mode, "cd printing && ../lapstrake buildx bake --print base")?;
    expect(&words, 0, &["FROM busybox"])?;
    file(mode, "printing/override.hcl", "WORD = \"over\"\n")?;
    let both =
        script(mode, "cd printing && ../lapstrake bake -f docker-bake.hcl -f override.hcl --print app-one")?;
    expect(&both, 0, &["over-one"])
}

/// Wrong definitions, and those that ask for too much.
fn bake_refuses(mode: &Mode) -> Result<(), String> {
    file(mode, "refusing/docker-bake.hcl", "target \"default\" {\n  tags = [\"a:${NOPE}\"]\n}\n")?;
    let bake = |args: &str| script(mode, &format!("cd refusing && ../lapstrake bake {args}"));
    expect(&bake("")?, 1, &["there is no variable named \"NOPE\"", "docker-bake.hcl:2:"])?;
    expect(&bake("-f none.hcl")?, 1, &["none.hcl"])?;
    expect(&lap(mode, "bake -f refusing/docker-bake.hcl --set x")?, 1, &["NOPE"])?;
    let own = "target \"default\" {\n context = \"..\"\n network = \"host\"\n dockerfile-inline = \"FROM scratch\"\n tagz = []\n}\n";
    file(mode, "refusing/docker-bake.hcl", own)?;
    expect(
        &bake("")?,
        1,
        &[
            "not granted: fs.read=.., network.host",
            "--allow=network.host",
            "\"tagz\" of the target \"default\" is ignored",
        ],
    )?;
    expect(&bake("--allow fs.read=.. --allow network.host --set default.output=type=cacheonly")?, 0, &[])?;
    let failing = "group \"default\" { targets = [\"a\", \"b\"] }\ntarget \"a\" { dockerfile-inline = \"FROM busybox\\nRUN echo gone wrong; false\" }\n\
                   target \"b\" { dockerfile-inline = \"FROM busybox\\nRUN sleep 60\" }\n";
    file(mode, "refusing/docker-bake.hcl", failing)?;
    let failed = bake("--progress plain")?;
    expect(&failed, 1, &["gone wrong", "target a: failed to solve", "CANCELED"])?;
    let empty = script(mode, "mkdir -p nothing && cd nothing && ../lapstrake bake")?;
    expect(&empty, 1, &["couldn't find a bake definition", "docker-bake.hcl"])?;
    expect(&bake("--policy x")?, 2, &["--policy"])?;
    nothing_left(mode)
}

/// Services of a compose file, with `.env` and an output in place of the image.
fn bake_compose(mode: &Mode) -> Result<(), String> {
    let compose = "services:\n  web:\n    build:\n      context: web\n      args: {WORD: \"${WORD}\"}\n  db:\n    image: none\n";
    file(mode, "composing/compose.yaml", compose)?;
    file(mode, "composing/.env", "WORD=dotenv\n")?;
    file(mode, "composing/web/Dockerfile", "FROM busybox\nARG WORD\nRUN echo $WORD > /word\n")?;
    let bake =
        "cd composing && ../lapstrake bake --set web.tags=composed && ../lapstrake run composed cat /word";
    expect(&script(mode, bake)?, 0, &["dotenv\n"])
}
