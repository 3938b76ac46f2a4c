//! What `# syntax=lapstrake` adds to the language.

use std::fs;

use super::place::{Mode, dockerfile, expect, lap, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("only_with_syntax", only_with_syntax),
    ("variables_in_from", variables_in_from),
    ("after", after),
    ("attempts", attempts),
    ("include", include),
];

/// A flag of ours is unknown to everybody else's Dockerfiles, and the message says what to write.
fn only_with_syntax(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "ext-plain", "FROM busybox\nCOPY --optional missing /x\n")?;
    let refused = lap(mode, "build ext-plain")?;
    expect(&refused, 1, &["unknown flag: --optional", "# syntax=lapstrake"])?;
    expect(&lap(mode, "build --syntax lapstrake ext-plain")?, 0, &[])?;
    expect(&lap(mode, "build --build-arg BUILDKIT_SYNTAX=lapstrake ext-plain")?, 0, &[])?;
    fs::write(mode.place.join("ext-plain/missing"), "here now").map_err(|error| error.to_string())?;
    expect(&lap(mode, "build -q -t ext --syntax lapstrake ext-plain")?, 0, &[])?;
    expect(&lap(mode, "run ext cat /x")?, 0, &["here now"])
}

fn variables_in_from(mode: &Mode) -> Result<(), String> {
    let lines = "# syntax=lapstrake\nARG TOOLS=tools\nFROM busybox AS tools\nRUN echo one > /t\n\
                 FROM busybox AS other\nRUN echo two > /t\nFROM busybox\nARG TOOLS\nCOPY --from=$TOOLS /t /t\n\
                 RUN --mount=from=${TOOLS},target=/m cat /m/t > /u\nCMD cat /t /u\n";
    dockerfile(mode, "ext-from", lines)?;
    expect(&lap(mode, "build -t ext ext-from")?, 0, &["COPY --from=tools /t /t"])?;
    // What is global needs no ARG in the stage, and is no undefined variable there.
    dockerfile(mode, "ext-from-global", &lines.replace("FROM busybox\nARG TOOLS\n", "FROM busybox\n"))?;
    let global = lap(mode, "build ext-from-global")?;
    expect(&global, 0, &["COPY --from=tools /t /t", "RUN --mount=from=tools,target=/m cat /m/t > /u"])?;
    if text(&global).contains("UndefinedVar") {
        return Err(format!("a global ARG is told as undefined: {}", text(&global)));
    }
    expect(&lap(mode, "run ext")?, 0, &["one\none"])?;
    fs::write(mode.place.join("ext.args"), "# of a build\nTOOLS=other\n")
        .map_err(|error| error.to_string())?;
    expect(&lap(mode, "build -q -t ext --build-arg-file ext.args ext-from")?, 0, &[])?;
    expect(&lap(mode, "run ext")?, 0, &["two\ntwo"])?;
    expect(
        &lap(mode, "build -q -t ext --build-arg-file ext.args --build-arg TOOLS=tools ext-from")?,
        0,
        &[],
    )?;
    expect(&lap(mode, "run ext")?, 0, &["one\none"])
}

/// The tests of a stage decide about a later one that takes nothing from it, cached or not.
fn after(mode: &Mode) -> Result<(), String> {
    let lines = "# syntax=lapstrake\nFROM busybox AS test\nARG GOOD=true\nRUN $GOOD\n\
                 FROM --after=test busybox\nRUN echo done > /done\n";
    dockerfile(mode, "ext-after", lines)?;
    let built = lap(mode, "build ext-after")?;
    expect(&built, 0, &["RUN true", "RUN echo done"])?;
    let refused = lap(mode, "build --build-arg GOOD=false ext-after")?;
    expect(&refused, 1, &["process \"/bin/sh -c $GOOD\" did not complete successfully"])?;
    expect(&lap(mode, "build ext-after")?, 0, &["CACHED"])?;
    dockerfile(mode, "ext-after", "# syntax=lapstrake\nFROM --after=tset busybox AS test\n")?;
    expect(&lap(mode, "build ext-after")?, 1, &["--after=tset: there is no such stage further up"])
}

fn attempts(mode: &Mode) -> Result<(), String> {
    let tries = "# syntax=lapstrake\nFROM busybox\n\
                 RUN --retry=2 --mount=type=cache,target=/c echo x >> /c/tries; test $(wc -l < /c/tries) = 2 && touch /ok\n";
    dockerfile(mode, "ext-retry", tries)?;
    let built = lap(mode, "build -t ext ext-retry")?;
    expect(&built, 0, &["exit code: 1; 2 more tries, the next one in 1 s"])?;
    expect(&lap(mode, "run ext ls /ok")?, 0, &["/ok"])?;
    dockerfile(mode, "ext-timeout", "# syntax=lapstrake\nFROM busybox\nRUN --timeout=200ms sleep 60\n")?;
    expect(&lap(mode, "build ext-timeout")?, 1, &["did not end within 200ms"])?;
    dockerfile(
        mode,
        "ext-always",
        "# syntax=lapstrake\nFROM busybox\nRUN --no-cache cat /proc/uptime > /t\nRUN true\n",
    )?;
    let first = lap(mode, "build -q ext-always")?;
    expect(&script(mode, "sleep 0.05")?, 0, &[])?;
    let second = lap(mode, "build -q ext-always")?;
    expect(&second, 0, &["sha256:"])?;
    if first.stdout == second.stdout {
        return Err(format!("a step with --no-cache was cached: {}", text(&second)));
    }
    Ok(())
}

/// Parts of a Dockerfile in other files; errors name those, and nothing outside of the context is read.
fn include(mode: &Mode) -> Result<(), String> {
    let write =
        |name: &str, text: &str| fs::write(mode.place.join(name), text).map_err(|error| error.to_string());
    fs::create_dir_all(mode.place.join("ext-include/parts")).map_err(|error| error.to_string())?;
    dockerfile(
        mode,
        "ext-include",
        "# syntax=lapstrake\nINCLUDE parts/tools\nFROM busybox\nCOPY --from=tools /t /t\nINCLUDE parts/end\n",
    )?;
    write("ext-include/parts/tools", "FROM busybox AS tools\nRUN echo made > /t")?;
    write("ext-include/parts/end", "# the end\nINCLUDE ../parts/last\n")?;
    write("ext-include/parts/last", "CMD cat /t\n")?;
    expect(&lap(mode, "build -q -t ext ext-include")?, 0, &[])?;
    expect(&lap(mode, "run ext")?, 0, &["made"])?;
    write("ext-include/parts/last", "LABEL x=y\nRUN exit 7\n")?;
    let failed = lap(mode, "build ext-include")?;
    expect(&failed, 1, &["parts/last:2\n", " >>> RUN exit 7", "exit code: 7"])?;
    write("ext-include/parts/last", "\nRUM x\n")?;
    expect(&lap(mode, "build ext-include")?, 1, &["parts/last:2:1", "unknown instruction: RUM"])?;
    dockerfile(
        mode,
        "ext-include",
        "# syntax=lapstrake\nFROM busybox\nINCLUDE ../../../../../../etc/passwd\n",
    )?;
    expect(&lap(mode, "build ext-include")?, 1, &["cannot include", "Dockerfile:3:9", "no such file"])?;
    script(mode, "ln -sf /etc/passwd ext-include/link").map(drop)?;
    dockerfile(mode, "ext-include", "# syntax=lapstrake\nFROM busybox\nINCLUDE link\n")?;
    expect(&lap(mode, "build ext-include")?, 1, &["cannot include", "no such file"])?;
    dockerfile(mode, "ext-include", "FROM busybox\nINCLUDE link\n")?;
    expect(&lap(mode, "build ext-include")?, 1, &["unknown instruction: INCLUDE", "# syntax=lapstrake"])
}
