//! Checking without building, and what a build says of warnings.

use super::place::{Mode, dockerfile, expect, lap, script, text};

pub(super) const CASES: &[super::Case] = &[("check", check), ("call", call)];

fn check(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "checked", "FROM busybox AS Base\nCOPY $undefined /x\nMAINTAINER me\n")?;
    let found = lap(mode, "check checked")?;
    let words = [
        "Check complete, 3 warnings have been found!",
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
        "Usage of undefined variable '$undefined'",
        "Dockerfile:2\n",
        " >>> COPY $undefined /x",
    ];
    expect(&found, 1, &words)?;
    expect(&lap(mode, "build --check checked")?, 1, &words)?;
    let json = lap(mode, "build --call check,format=json checked")?;
    expect(&json, 1, &["\"ruleName\": \"UndefinedVar\"", "\"sources\""])?;
    let sarif = lap(mode, "check --format sarif checked")?;
    expect(&sarif, 1, &["\"version\": \"2.1.0\"", "checked/Dockerfile", "\"startLine\": 2"])?;
    let read = "./lapstrake check --format sarif checked | python3 -c 'import json, sys; print(len(json.load(sys.stdin)[\"runs\"][0][\"results\"]))'";
    expect(&script(mode, read)?, 0, &["3\n"])?;
    dockerfile(mode, "checked", "FROM busybox\nRUN true\nCOPY only\n")?;
    expect(&lap(mode, "check checked")?, 1, &["ERROR: dockerfile parse error on line 3: COPY requires"])?;
    dockerfile(mode, "checked", "FROM busybox\nENV a b\n")?;
    expect(
        &lap(mode, "build checked")?,
        0,
        &["1 warning found", "- LegacyKeyValueFormat: \"ENV key=value\""],
    )?;
    let raw = lap(mode, "build --progress rawjson checked")?;
    expect(&raw, 0, &["{\"warnings\":[{", "\"filename\":\"Dockerfile\"", "legacy-key-value-format/\""])?;
    let failed = lap(mode, "build --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true checked")?;
    expect(&failed, 1, &["lint violation found for rules: LegacyKeyValueFormat"])?;
    dockerfile(mode, "checked", "# check=error=true\nFROM busybox AS Base\nENV a b\n")?;
    let both = "lint violation found for rules: LegacyKeyValueFormat, StageNameCasing";
    expect(&lap(mode, "build checked")?, 1, &[both])?;
    expect(&lap(mode, "check checked")?, 1, &[both])?;
    dockerfile(mode, "checked", "# check=error=perhaps\nFROM busybox\n")?;
    expect(&lap(mode, "build checked")?, 1, &["failed to parse check option \"error=perhaps\""])?;
    dockerfile(mode, "checked", "FROM busybox\nENV a b\n")?;
    let skipped = lap(mode, "build --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all checked")?;
    expect(&skipped, 0, &[])?;
    if text(&skipped).contains("warning") {
        return Err(format!("a skipped rule is told: {}", text(&skipped)));
    }
    dockerfile(mode, "checked", "# check=nonsense\nFROM busybox\n")?;
    expect(&lap(mode, "build checked")?, 1, &["invalid check option \"nonsense\""])?;
    // Nobody knows the base: what may come with it is not judged, and the rest is.
    dockerfile(mode, "checked", "FROM 127.0.0.1:1/none\nCOPY $FROM_BASE /x\nENV a b\n")?;
    let offline = lap(mode, "check checked")?;
    expect(&offline, 1, &["1 warning has been found", "LegacyKeyValueFormat", "could not be looked at"])?;
    dockerfile(mode, "checked", "FROM busybox\n")?;
    expect(&lap(mode, "check checked")?, 0, &["Check complete, no warnings found."])
}

fn call(mode: &Mode) -> Result<(), String> {
    let lines = "# VERSION of it all\nARG VERSION=1\n# tools come first\nFROM busybox AS tools\n\
                 RUN --mount=type=secret,id=token,required true\n# app is the rest\nFROM tools AS app\nARG VERSION\n";
    dockerfile(mode, "called", lines)?;
    let targets = lap(mode, "build --call targets called")?;
    expect(
        &targets,
        0,
        &["TARGET        DESCRIPTION\n", "tools         come first\n", "app (default) is the rest\n"],
    )?;
    let outline = lap(mode, "build --call outline called")?;
    expect(&outline, 0, &["TARGET:      app\n", "VERSION     1       of it all\n", "token    true\n"])?;
    let json = lap(mode, "build --call outline,format=json --target tools called")?;
    expect(&json, 0, &["\"name\": \"tools\"", "\"required\": true"])?;
    expect(&lap(mode, "build --call nonsense called")?, 2, &["not one of build, check, outline, targets"])?;
    let described = lap(mode, "build --call subrequests.describe called")?;
    expect(
        &described,
        0,
        &["NAME                 VERSION DESCRIPTION\n", "outline              1.0.0   List all"],
    )
}
