//! The traps of the language that only show when steps run, by their numbers. `trap_NN_…` in `frontend/lower` are the
//! others, and `all_traps_have_a_test` counts them all.

use std::collections::BTreeSet;
use std::fs;

use super::place::{Mode, dockerfile, expect, is_cached, lap, nothing_left, script, text};
use super::remote::web;

macro_rules! cases {
    ($($name:ident)*) => { pub(super) const CASES: &[super::Case] = &[$((stringify!($name), $name)),*]; };
}

cases! {
    trap_03_copies_from_stages_keep_their_owner
    trap_04_unknown_names_are_root
    trap_05_modes_are_for_made_parents_too
    trap_07_a_name_must_be_there_and_a_pattern_need_not
    trap_08_several_sources_overwrite_each_other
    trap_09_directories_give_what_is_in_them
    trap_14_cache_mounts_are_told_apart_by_owner_and_mode
    trap_15_a_secret_that_is_not_given_is_an_empty_variable
    trap_17_archives_are_known_by_their_content
    trap_18_files_of_the_web_are_private_and_keep_their_time
    trap_19_exclude_is_for_what_is_below
    trap_21_the_ignore_file_of_a_dockerfile_stands_alone
    trap_25_mounts_leave_nothing
    trap_26_times_are_no_content_and_modes_are
    trap_30_numbers_are_not_looked_up
}

fn shell_in(mode: &Mode, dir: &str, commands: &str) -> Result<(), String> {
    expect(&script(mode, &format!("mkdir -p {dir} && cd {dir} && {commands}"))?, 0, &[])
}

/// Builds the text in `dir`; all `words` must be told.
fn build(mode: &Mode, dir: &str, lines: &str, words: &[&str]) -> Result<(), String> {
    dockerfile(mode, dir, lines)?;
    expect(&lap(mode, &format!("build {dir}"))?, 0, words)
}

fn trap_03_copies_from_stages_keep_their_owner(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t3", "echo x > f")?;
    let lines = "FROM busybox AS s\nRUN echo x > /own && chown 5:6 /own\nFROM busybox\nCOPY --from=s /own /a\n\
                 COPY f /b\nRUN stat -c '%n %u:%g' /a /b\n";
    build(mode, "t3", lines, &["/a 5:6", "/b 0:0"])
}

fn trap_04_unknown_names_are_root(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t4", "echo x > f")?;
    let lines = "FROM busybox\nCOPY --chown=nobody-here:none f /a\nCOPY --chown=app f /b\nCOPY --chown=7 f /c\n\
                 RUN stat -c '%n %u:%g' /a /b /c\n";
    build(mode, "t4", lines, &["/a 0:0", "/b 1000:1000", "/c 7:7"])
}

fn trap_05_modes_are_for_made_parents_too(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t5", "echo x > f")?;
    let lines =
        "FROM busybox\nCOPY --chmod=711 f /new/deep/f\nRUN stat -c '%n %a' /new /new/deep /new/deep/f\n";
    build(mode, "t5", lines, &["/new 711", "/new/deep 711", "/new/deep/f 711"])
}

fn trap_07_a_name_must_be_there_and_a_pattern_need_not(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t7", "rm -f renamed && echo x > match1")?;
    dockerfile(mode, "t7", "FROM busybox\nCOPY missing /x\n")?;
    expect(&lap(mode, "build t7")?, 1, &["\"/missing\": not found"])?;
    build(mode, "t7", "FROM busybox\nCOPY no*match /x/\nRUN echo built\n", &["built"])?;
    let lines = "FROM busybox\nCOPY match* /x/\nRUN ls /x\n";
    build(mode, "t7", lines, &["match1"])?;
    shell_in(mode, "t7", "mv match1 match2")?;
    build(mode, "t7", lines, &["match2"])
}

fn trap_08_several_sources_overwrite_each_other(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t8", "echo one > a && echo two > b")?;
    build(mode, "t8", "FROM busybox\nCOPY a b /dest\nRUN cat /dest\n", &["two\n"])
}

fn trap_09_directories_give_what_is_in_them(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t9", "mkdir -p d e && echo x > d/f && ln -sf f d/l && echo y > e/g && ln -sfn d link")?;
    let lines = "FROM busybox\nCOPY d /one/\nCOPY d/l /named\nCOPY link /two/\nCOPY [de] /three/\n\
                 RUN ls /one /two /three && stat -c '%n %F' /one/l /named\n";
    build(mode, "t9", lines, &["/one/l symbolic link", "/named regular file", "/two:\n", "g\n"])
}

fn trap_14_cache_mounts_are_told_apart_by_owner_and_mode(mode: &Mode) -> Result<(), String> {
    let mount = |more: &str| format!("--mount=type=cache,id=t14-{},target=/c{more}", mode.name);
    let lines = format!(
        "FROM busybox\nRUN {0} echo x > /c/f\nRUN {0} test -e /c/f\nRUN {1} test ! -e /c/f && stat -c 'owner %u %a' /c\n",
        mount(""),
        mount(",uid=5,mode=0700")
    );
    build(mode, "t14", &lines, &["owner 5 700"])
}

fn trap_15_a_secret_that_is_not_given_is_an_empty_variable(mode: &Mode) -> Result<(), String> {
    let lines = "FROM busybox\nRUN --mount=type=secret,id=none,env=S --mount=type=secret,id=file \
                 test \"${S-unset}\" = '' && test ! -e /run/secrets/file && echo so\n";
    build(mode, "t15", lines, &["so\n"])
}

fn trap_17_archives_are_known_by_their_content(mode: &Mode) -> Result<(), String> {
    let make = "mkdir -p in && echo x > in/f && chmod 640 in/f && tar -C in -cf plain.txt f && tar -C in -czf gz.txt f && \
                python3 -c \"import bz2,lzma; d=open('plain.txt','rb').read(); open('bz.txt','wb').write(bz2.compress(d)); open('xz.txt','wb').write(lzma.compress(d))\" && \
                echo text > no.tar";
    shell_in(mode, "t17", make)?;
    let lines = "FROM busybox\nADD plain.txt /a\nADD gz.txt bz.txt xz.txt /b/\nADD --chmod=777 --exclude=f --chown=5:6 plain.txt /c\n\
                 ADD no.tar /d/\nADD --unpack=false gz.txt /e\nRUN stat -c '%n %F %a %u' /a /a/f /b/f /c/f /d/no.tar /e\n";
    let told = [
        "/a directory 755 0",
        "/a/f regular file 640",
        "/c/f regular file 640 5",
        "/d/no.tar regular file",
        "/e regular file",
    ];
    build(mode, "t17", lines, &told)
}

fn trap_18_files_of_the_web_are_private_and_keep_their_time(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "web", "echo served > t18 && touch -d @1000000000 t18 && echo '<html>' > index.html")?;
    let server = web(mode)?;
    let url = format!("http://127.0.0.1:{}", server.port);
    let lines =
        format!("FROM busybox\nADD {url}/t18 /f/\nADD {url}/ /g/\nRUN stat -c '%n %a %Y' /f/t18 /g/*\n");
    build(mode, "t18", &lines, &["/f/t18 600 1000000000", "/g/__unnamed__ 600"])
}

fn trap_19_exclude_is_for_what_is_below(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t19", "mkdir -p d/foo && echo x > foo && echo y > d/foo/f && echo z > d/bar")?;
    let lines = "FROM busybox\nCOPY --exclude=foo foo /a/\nCOPY --exclude=foo fo* /b/\nCOPY --exclude=foo d /c/\n\
                 RUN ls /a /b && test ! -e /c/foo && test -e /c/bar && echo so\n";
    build(mode, "t19", lines, &["so\n"])
}

fn trap_21_the_ignore_file_of_a_dockerfile_stands_alone(mode: &Mode) -> Result<(), String> {
    let make = "mkdir -p d && echo x > a && echo y > b && echo z > d/c && echo a > .dockerignore && echo 'b\n**/d' > own.dockerignore && \
                printf 'FROM busybox\\nCOPY . /all/\\nRUN ls /all > /list && cat /list\\n' > own";
    shell_in(mode, "t21", make)?;
    let own = lap(mode, "build --no-cache -f t21/own t21")?;
    expect(&own, 0, &["a\n"])?;
    if text(&own).lines().any(|line| line.ends_with(" b") || line.ends_with(" d")) {
        return Err(format!("what is hidden was copied: {}", text(&own)));
    }
    // Archives are contexts as they are.
    let packed = "tar -C t21 -c . | ./lapstrake build --no-cache -f own -";
    expect(&script(mode, packed)?, 0, &["a\n", " b\n", " d\n"])
}

fn trap_25_mounts_leave_nothing(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t25", "mkdir -p d && echo x > d/f")?;
    let lines = "FROM busybox\nRUN mkdir /dir && touch -d @1000000000 /dir\n\
                 RUN --mount=source=d,target=/dir/deep/stub,rw --mount=type=tmpfs,target=/new echo y > /dir/deep/stub/f && cat /dir/deep/stub/f\n\
                 RUN --mount=source=d,target=/m cat /m/f && test ! -e /dir/deep && test ! -e /new && stat -c 'time %Y' /dir\n";
    build(mode, "t25", lines, &["y\n", "x\n", "time 1000000000"])?;
    nothing_left(mode)
}

fn trap_26_times_are_no_content_and_modes_are(mode: &Mode) -> Result<(), String> {
    shell_in(mode, "t26", "echo x > f && chmod 644 f && touch -d @1000000000 f")?;
    dockerfile(mode, "t26", "FROM busybox\nCOPY f /f\nRUN echo ran\n")?;
    let cached = |wanted: bool| {
        let built = lap(mode, "build t26")?;
        let found = is_cached(&built, "RUN echo ran");
        if found == wanted { Ok(()) } else { Err(format!("cached: {found}: {}", text(&built))) }
    };
    expect(&lap(mode, "build t26")?, 0, &[])?;
    shell_in(mode, "t26", "touch -d @1100000000 f")?;
    cached(true)?;
    shell_in(mode, "t26", "chmod 755 f")?;
    cached(false)
}

fn trap_30_numbers_are_not_looked_up(mode: &Mode) -> Result<(), String> {
    fs::create_dir_all(mode.place.join("t30")).map_err(|error| error.to_string())?;
    let lines = "FROM busybox\nRUN printf 'more:x:77:app\\n' >> /etc/group\nUSER app\nRUN echo app $(id -u):$(id -G)\n\
                 USER app:more\nRUN echo both $(id -u):$(id -G)\nUSER 1000\nRUN echo known $(id -u):$(id -G)\n\
                 USER 4321\nRUN echo unknown $(id -u):$(id -G)\nUSER 1000:1000\nRUN echo numbers $(id -u):$(id -G)\n";
    let told =
        ["app 1000:1000 77", "both 1000:77", "known 1000:1000 77", "unknown 4321:0", "numbers 1000:1000\n"];
    build(mode, "t30", lines, &told)?;
    dockerfile(mode, "t30", "FROM busybox\nUSER nobody-here\nRUN true\n")?;
    let text = "unable to find user nobody-here: no matching entries in passwd file";
    expect(&lap(mode, "build t30")?, 1, &[text])
}

/// Whether all traps are there.
pub(super) const CHECKS: &[super::Check] = &[("traps::all_traps_have_a_test", all_traps_have_a_test)];

fn all_traps_have_a_test() -> Result<(), String> {
    let places = [
        "frontend/lower/src/lowering/tests.rs",
        "frontend/lower/tests/traps.rs",
        "crates/cli/tests/e2e/traps.rs",
    ];
    let mut found = BTreeSet::new();
    for place in places {
        let text =
            fs::read_to_string(super::top().join(place)).map_err(|error| format!("{place}: {error}"))?;
        let numbers = text.split("fn trap_").skip(1).filter_map(|rest| rest.get(..2)?.parse::<u8>().ok());
        found.extend(numbers);
    }
    assert_eq!(found.into_iter().collect::<Vec<u8>>(), (1..=30).collect::<Vec<u8>>());
    Ok(())
}
