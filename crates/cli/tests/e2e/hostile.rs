//! Builds that mean harm, each called after the hole that it would have found elsewhere. Beside the state directory lies
//! a canary that nothing may change or show.

use lapstrake_testkit::skip;

use super::place::{
    Mode, dockerfile, expect, is_root, lap, must, must_say, nothing_left, script, state, text,
};

pub(super) const CASES: &[super::Case] = &[
    ("cve_2024_1753_sources_as_links", sources_as_links),
    ("cve_2024_9407_propagation", propagation),
    ("cve_2024_9675_cache_ids", cache_ids),
    ("cve_2024_9676_passwd_as_a_pipe", passwd_as_a_pipe),
    ("cve_2024_11218_stages_exchange", stages_exchange),
    ("cve_2026_55686_workdir_through_a_link", workdir_through_a_link),
    ("cve_2024_23652_stubs", stubs),
    ("cve_2022_23648_volumes_outside", volumes_outside),
    ("cve_2024_24557_history_is_no_cache", history_is_no_cache),
    ("state_is_private", state_is_private),
    ("state_of_others", state_of_others),
    ("state_with_planted_links", planted_links),
    ("secrets_in_records", secrets_in_records),
    ("secret_hygiene", secret_hygiene),
    ("a_thousand_steps", a_thousand_steps),
    ("classic_mounts", classic_mounts),
];

const SONG: &str = "the canary sings";

/// Runs `check` beside a canary, whose listing and content must be the same afterwards.
fn beside_a_canary(mode: &Mode, check: impl FnOnce(&str) -> Result<(), String>) -> Result<(), String> {
    let canary = mode.place.join("canary").display().to_string();
    must(&format!("rm -rf '{canary}' && mkdir -p '{canary}/empty/deep' && echo '{SONG}' > '{canary}/song'"))?;
    let look = format!(
        "cd '{canary}' && find . -printf '%p %i %m %U:%G %s %T@ %C@\\n' | sort && cat song | sha256sum"
    );
    let before = must_say(&look)?;
    check(&canary)?;
    let after = must_say(&look)?;
    if before == after { nothing_left(mode) } else { Err(format!("the canary was\n{before}and is\n{after}")) }
}

/// A build that may fail but must not show the song.
fn silent(mode: &Mode, args: &str) -> Result<String, String> {
    let output = lap(mode, args)?;
    let all = text(&output);
    if all.contains(SONG) || output.status.code() == Some(101) { Err(all) } else { Ok(all) }
}

fn sources_as_links(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        let links = format!(
            "FROM busybox AS evil\nRUN busybox ln -s {canary} /abs && busybox ln -s ../../../../../../../..{canary} /up && \
             busybox ln -s abs /chain && busybox ln -s / /root && busybox ln -s /proc/self/root/{canary} /magic\n"
        );
        for source in
            ["/abs", "/up", "/chain", "/root", "/magic", "/../../../../../../..", "/abs/..", "/abs/song"]
        {
            let uses = [
                format!(
                    "RUN --mount=type=bind,from=evil,source={source},target=/m busybox find /m -xdev | busybox head -n 50; cat /m/song /m{canary}/song"
                ),
                format!("RUN --mount=type=bind,from=evil,source={source},target=/m,rw touch /m/new; true"),
                format!("COPY --from=evil {source} /m\nRUN cat /m /m/song /m{canary}/song; true"),
                format!(
                    "RUN --mount=type=cache,from=evil,source={source},target=/m cat /m/song /m{canary}/song; touch /m/x; true"
                ),
            ];
            for (number, how) in uses.iter().enumerate() {
                dockerfile(mode, "links", &format!("{links}FROM busybox\n{how}\n"))?;
                silent(mode, "build --progress plain links")
                    .map_err(|why| format!("{number} {source}: {why}"))?;
            }
        }
        // The same in the context.
        must(&format!(
            "cd '{}/links' && ln -sfn '{canary}' abs && ln -sfn ../canary up",
            mode.place.display()
        ))?;
        for source in ["abs", "up", "abs/song", "up/song"] {
            dockerfile(
                mode,
                "links",
                &format!("FROM busybox\nCOPY {source} /m\nRUN cat /m /m/song; true\n"),
            )?;
            silent(mode, "build --progress plain links")?;
            let bind = format!(
                "FROM busybox\nRUN --mount=type=bind,source={source},target=/m cat /m /m/song; true\n"
            );
            dockerfile(mode, "links", &bind)?;
            silent(mode, "build --progress plain links")?;
        }
        Ok(())
    })
}

fn propagation(mode: &Mode) -> Result<(), String> {
    for option in
        ["bind-propagation=shared", "Z", "target=/x,target=/y,propagation=rshared", "shared", "suid", "dev"]
    {
        dockerfile(
            mode,
            "option",
            &format!("FROM busybox\nRUN --mount=type=tmpfs,target=/x,{option} true\n"),
        )?;
        expect(&lap(mode, "build option")?, 1, &["Dockerfile:2"])
            .map_err(|why| format!("{option}: {why}"))?;
    }
    Ok(())
}

fn cache_ids(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        for id in ["../../../canary", canary, "..", ".", "/", "a/../../../canary", "%2e%2e/canary"] {
            let text = format!(
                "FROM busybox\nRUN --mount=type=cache,id={id},target=/c busybox find /c; cat /c/song; echo x > /c/song; true\n"
            );
            dockerfile(mode, "ids", &text)?;
            silent(mode, "build --no-cache --progress plain ids").map_err(|why| format!("{id}: {why}"))?;
        }
        Ok(())
    })
}

/// Looking for a user must not wait for a pipe, and not follow a link out.
fn passwd_as_a_pipe(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        for evil in [
            "busybox mkfifo /etc/passwd".to_owned(),
            "busybox mkfifo /etc/pipe && busybox ln -s pipe /etc/passwd".to_owned(),
            format!("busybox ln -s {canary}/song /etc/passwd"),
            "busybox ln -s /dev/zero /etc/passwd".to_owned(),
            "mkdir /etc/passwd".to_owned(),
        ] {
            let text = format!("FROM busybox\nRUN rm /etc/passwd && {evil}\nUSER somebody\nRUN true\n");
            dockerfile(mode, "pipe", &text)?;
            let all = silent(mode, "build pipe").map_err(|why| format!("{evil}: {why}"))?;
            if !all.contains("Dockerfile:4") {
                return Err(format!("{evil}: {all}"));
            }
        }
        Ok(())
    })
}

/// One stage swaps a directory of a shared cache for a link while others of the same build mount it.
fn stages_exchange(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        let mut text = format!(
            "FROM busybox AS first\nRUN --mount=type=cache,id=both,target=/c mkdir -p /c/part && echo mine > /c/part/song\n\
             FROM first AS swaps\nRUN --mount=type=cache,id=both,target=/c cd /c; for i in $(busybox seq 3000); do \
             busybox mv part real; busybox ln -s {canary} part; rm part; busybox mv real part; done\nFROM first AS sees\n"
        );
        for number in 0..40 {
            text +=
                &format!("RUN --mount=type=cache,id=both,source=part,target=/m cat /m/song; echo {number}\n");
        }
        text += "FROM scratch\nCOPY --from=swaps /etc/passwd /a\nCOPY --from=sees /etc/passwd /b\n";
        dockerfile(mode, "exchange", &text)?;
        // A part that is a link just then is an error; it is tried again, so that most of them are seen.
        for _ in 0..5 {
            if silent(mode, "build --progress plain exchange")?.contains("exporting") {
                return Ok(());
            }
        }
        Ok(())
    })
}

fn workdir_through_a_link(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        let text = format!(
            "FROM busybox\nRUN busybox ln -s {canary} /abs && busybox ln -s ../../../../../../..{canary} /up\n\
             WORKDIR /abs/made\nRUN echo x > file\nWORKDIR /up/too\nRUN echo x > file\n\
             WORKDIR /proc/self/fd/3\nRUN true\n"
        );
        dockerfile(mode, "workdir", &text)?;
        silent(mode, "build --progress plain workdir")?;
        for dir in ["/proc/self/fd/3", "/proc/self/fd/7/..", "/proc/1/root", "/abs/made"] {
            silent(mode, &format!("run -w {dir} busybox sh -c 'pwd; cat song ../song'"))?;
        }
        Ok(())
    })
}

fn stubs(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        let text = format!(
            "FROM busybox\nRUN --mount=type=tmpfs,target=/x/deep busybox mv /x /moved && busybox ln -s {canary}/empty /x\n\
             RUN --mount=type=secret,id=none,target=/run/secrets/none --mount=type=tmpfs,target=/left/over true\n\
             RUN test ! -e /left && test ! -e /run && test ! -e /moved/deep\n"
        );
        dockerfile(mode, "stubs", &text)?;
        expect(&lap(mode, "build stubs")?, 0, &[])
    })
}

/// A secret is nowhere once the build is over: not in the state, an archive, a log, the history; nor if it fails.
fn secret_hygiene(mode: &Mode) -> Result<(), String> {
    const SECRET: &str = "xyzzy-hush-4711";
    let good = "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=HUSH \
                test -s /run/secrets/s && test -n \"$HUSH\"\n";
    dockerfile(mode, "hush", good)?;
    dockerfile(mode, "hush-fails", &format!("{good}RUN --mount=type=secret,id=s,target=/etc/hush false\n"))?;
    let place = mode.place.display().to_string();
    must(&format!("mkdir -p '{place}/hushed' && chmod 777 '{place}/hushed'"))?;
    let export = "-t hush -o type=oci,compression=uncompressed,dest=hushed/oci.tar -o type=local,dest=hushed/local --metadata-file hushed/meta";
    let with = |command: &str| format!("export SECRET={SECRET} && ./lapstrake {command}");
    for (context, code, more) in [("hush", 0, export), ("hush-fails", 1, "")] {
        let command = with(&format!("build --progress rawjson --secret id=s,env=SECRET {more} {context}"));
        let output = super::place::script(mode, &command)?;
        expect(&output, code, &[])?;
        if base64_words::found(&text(&output), SECRET) {
            return Err(format!("the log tells it: {}", text(&output)));
        }
    }
    let look = format!("grep -rl '{SECRET}' '{}' '{place}/hushed' 2> /dev/null; true", state(mode).display());
    let seen = must_say(&look)?;
    if !seen.is_empty() {
        return Err(format!("it is in {seen}"));
    }
    // A step that writes it down is found out: so the search finds what there is.
    let leaks = format!("{good}RUN --mount=type=secret,id=s cat /run/secrets/s > /leak\n");
    dockerfile(mode, "hush-leaks", &leaks)?;
    expect(&super::place::script(mode, &with("build --secret id=s,env=SECRET hush-leaks"))?, 0, &[])?;
    if must_say(&look)?.is_empty() { Err("the search finds nothing".to_owned()) } else { nothing_left(mode) }
}

/// Logs of rawjson are in base64.
mod base64_words {
    /// Whether a text has a word, plain or as base64 at any of the three offsets.
    pub(super) fn found(text: &str, word: &str) -> bool {
        let encoded = |skip: usize| {
            let padded = format!("{}{word}", "x".repeat(skip));
            let all = encode(padded.as_bytes());
            // Without what its neighbours have a part in.
            all[4..all.len() - 4].to_owned()
        };
        text.contains(word) || (0..3).any(|skip| text.contains(&encoded(skip)))
    }

    fn encode(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let mut bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            bits <<= 8 * (3 - three.len());
            for at in (0..4).rev() {
                text.push(char::from(LETTERS[(bits >> (6 * at) & 63) as usize]));
            }
        }
        text
    }
}

/// What an image calls its volumes and its directory is of its own root, whatever it says.
fn volumes_outside(mode: &Mode) -> Result<(), String> {
    beside_a_canary(mode, |canary| {
        let up = format!("/../../../../../../../..{canary}");
        dockerfile(
            mode,
            "volumes",
            &format!(
                "FROM busybox\nVOLUME {up} {canary}\nWORKDIR {up}\nCMD cat song {up}/song; ls -a; touch new; echo ran\n"
            ),
        )?;
        expect(&lap(mode, "build -t volumes volumes")?, 0, &[])?;
        let shown = silent(mode, "run volumes")?;
        if shown.contains("ran\n") { Ok(()) } else { Err(shown) }
    })
}

/// An image whose history says that it was made by the same steps is no reason to believe it.
fn history_is_no_cache(mode: &Mode) -> Result<(), String> {
    let forge = r#"
import hashlib, json, os
def blob(digest): return 'forged/blobs/sha256/' + digest.split(':')[1]
def put(value):
    data = json.dumps(value).encode()
    digest = 'sha256:' + hashlib.sha256(data).hexdigest()
    open(blob(digest), 'wb').write(data)
    return digest, len(data)
index = json.load(open('forged/index.json'))
manifest = json.load(open(blob(index['manifests'][0]['digest'])))
config = json.load(open(blob(manifest['config']['digest'])))
for entry in config['history']:
    entry['created_by'] = entry['created_by'].replace('evil', 'good')
manifest['config']['digest'], manifest['config']['size'] = put(config)
index['manifests'][0]['digest'], index['manifests'][0]['size'] = put(manifest)
json.dump(index, open('forged/index.json', 'w'))
"#;
    std::fs::write(mode.place.join("forge.py"), forge).map_err(|error| error.to_string())?;
    // With a store of its own, so that nothing but the image brings it here.
    let forged = "rm -rf forged forged.tar && mkdir forged && (export LAPSTRAKE_ROOT=\"$LAPSTRAKE_ROOT-forger\" && \
                  ./lapstrake import bb.tar busybox && ./lapstrake build -o type=oci,dest=forged.tar,name=app:1 history) && \
                  tar -C forged -xf forged.tar && python3 forge.py && tar -C forged -cf forged.tar . && \
                  ./lapstrake load -i forged.tar && ./lapstrake history app:1";
    let step = |word: &str| dockerfile(mode, "history", &format!("FROM busybox\nRUN echo {word} > /word\n"));
    step("evil")?;
    expect(&script(mode, forged)?, 0, &["echo good > /word"])?;
    step("good")?;
    let built = lap(mode, "build --progress plain -t app:2 --cache-from app:1 history")?;
    expect(&built, 0, &[])?;
    expect(&lap(mode, "run app:2 cat /word")?, 0, &["good\n"])?;
    if text(&built).contains("CACHED") {
        return Err(text(&built));
    }
    nothing_left(mode)
}

/// A state directory is its owner's alone.
fn state_is_private(mode: &Mode) -> Result<(), String> {
    let own = must_say(&format!("stat -c %a '{}'", state(mode).display()))?;
    if own != "700\n" {
        return Err(format!("the state directory has mode {own}"));
    }
    Ok(())
}

/// A state directory that somebody else owns is not used.
fn state_of_others(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can give a directory away");
    }
    let planted = mode.place.join("planted");
    must(&format!(
        "cp -a '{0}' '{1}' && chown -R 12345 '{1}' && chmod 777 '{1}'",
        state(mode).display(),
        planted.display()
    ))?;
    let used = script(mode, "LAPSTRAKE_ROOT=\"$PWD/planted\" ./lapstrake run busybox true")?;
    must(&format!("rm -rf '{}'", planted.display()))?;
    if used.status.success() {
        Err(format!("it was used: {}", text(&used)))
    } else {
        expect(&used, 125, &["planted", "belongs to"])
    }
}

/// Links that somebody put into a state directory that others could write to, under every name that the store opens: the
/// store refuses them, and what they lead to stays as it was.
fn planted_links(mode: &Mode) -> Result<(), String> {
    let root = mode.place.join("plant");
    let (root, victim) = (root.display(), mode.place.join("plant-victim"));
    let victim = victim.display();
    let with = |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{root}'; {commands}"));
    let fresh = "rm -rf plant plant-made plant-victim && mkdir -m 755 plant-victim && echo kept > plant-victim/f && \
                 chmod 644 plant-victim/f && touch -d @1000 plant-victim/f plant-victim";
    dockerfile(mode, "plant-built", "FROM busybox\nRUN --mount=type=cache,target=/c echo a > /a\n")?;
    expect(
        &with(&format!("{fresh} && ./lapstrake import bb.tar busybox && ./lapstrake build -q plant-built"))?,
        0,
        &[],
    )?;
    let kept = "stat -c '%a %Y %s' plant-victim/f plant-victim && cat plant-victim/f && ls -A plant-victim";
    let before = text(&script(mode, kept)?);
    let whole = ["blobs", "blobs/sha256", "layers", "contexts", "mounts", "locks", "users", "tmp"];
    let files = [
        "state.json",
        "state.db",
        "state.db-wal",
        "state.db-shm",
        "state.db-journal",
        "builds.recent",
        "ballast",
        "killed",
    ];
    let inside = [
        "locks/gc",
        "locks/planted",
        "users/0",
        "users/1",
        "users/gc",
        "tmp/planted",
        "tmp/planted-dir",
        "contexts/v2-0",
        "mounts/planted",
        "layers/planted",
        "blobs/sha256/planted",
    ];
    for name in whole.iter().chain(&files).chain(&inside) {
        let to = match files.contains(name) || name.starts_with("users/") || name.starts_with("locks/") {
            true => format!("{victim}/f"),
            false => victim.to_string(),
        };
        let plant = format!(
            "mv plant plant-made; cp -a plant-made plant && chmod 777 plant \"$(dirname plant/{name})\" && rm -rf plant/{name} && ln -s {to} plant/{name}"
        );
        let done = with(&format!(
            "({plant}) && for verb in 'build -q plant-built' 'prune -a -f' 'doctor --repair' 'import bb.tar other'; do \
             ./lapstrake $verb; echo \"status $?\"; done; rm -rf plant; mv plant-made plant"
        ))?;
        let said = text(&done);
        let after = text(&script(mode, kept)?);
        if after != before || said.contains("status 0") || !said.contains(&format!("plant/{name}")) {
            return Err(format!("{name}: {said}{after}"));
        }
    }
    expect(&script(mode, "rm -rf plant plant-made plant-victim")?, 0, &[]).map(drop)
}

/// Values of arguments whose names tell of secrets are in no record, whatever names of steps, commands and output say.
fn secrets_in_records(mode: &Mode) -> Result<(), String> {
    let root = mode.place.join("secret-state");
    let with =
        |commands: &str| script(mode, &format!("export LAPSTRAKE_ROOT='{}'; {commands}", root.display()));
    let file = "FROM busybox\nARG NPM_TOKEN\nENV MODE=some\nWORKDIR /w-$NPM_TOKEN\nRUN echo said $NPM_TOKEN\n\
                RUN [\"echo\", \"$NPM_TOKEN\"]\nLABEL a=$NPM_TOKEN\nRUN echo $NPM_TOKEN > /f; exit $(($(echo $NPM_TOKEN | wc -c) - 11))\n";
    dockerfile(mode, "secretive", file)?;
    expect(&with("rm -rf secret-state && ./lapstrake import bb.tar busybox")?, 0, &[])?;
    let build =
        "./lapstrake build --progress plain --timeline secret.html --build-arg MODE=visible --build-arg";
    // The second one fails: its error has the command.
    for (value, status) in [("hushhush-1", 0), ("hushhush-2b", 1)] {
        let live = with(&format!("{build} NPM_TOKEN={value} secretive"))?;
        expect(&live, status, &[&format!("said {value}"), "(hidden, "])?;
        // What a step writes is shown as it is. Names of steps, statuses and errors are not.
        let shown = text(&live);
        let written = |line: &&str| line.ends_with(value) && !line.contains("echo");
        if let Some(line) = shown.lines().find(|line| line.contains("hushhush") && !written(line)) {
            return Err(format!("`{line}` in\n{shown}"));
        }
        expect(&with("grep -c hushhush secret.html; grep -q hidden secret.html")?, 0, &["0\n"])?;
    }
    let shown = with(
        "./lapstrake builds ls; ./lapstrake builds logs; ./lapstrake builds inspect; ./lapstrake explain; ./lapstrake df -v",
    )?;
    expect(&shown, 0, &["(hidden, "])?;
    let stored = with("grep -rlaF hushhush secret-state/state.db* secret-state/builds.recent; true")?;
    let all = format!("{}{}", text(&shown), text(&stored));
    expect(&with("rm -rf secret-state secret.html")?, 0, &[])?;
    if all.contains("hushhush") || all.contains("secret-state/") { Err(all) } else { nothing_left(mode) }
}

/// They leave nothing, and the last ones take no longer than the first.
fn a_thousand_steps(mode: &Mode) -> Result<(), String> {
    let steps: String =
        (0..1000).map(|number| format!("RUN --mount=type=tmpfs,target=/t{number} true {number}\n")).collect();
    // Layers of nothing are one layer: overlayfs takes 500 different ones.
    dockerfile(mode, "thousand", &format!("FROM busybox\n{steps}"))?;
    expect(&lap(mode, "build --progress rawjson thousand")?, 0, &[])?;
    nothing_left(mode)
}

/// On a kernel before 6.5 the same comes out, of few layers and of as many as one page of options holds.
fn classic_mounts(mode: &Mode) -> Result<(), String> {
    let steps: String = (0..40).map(|number| format!("RUN echo {number} > /made{number}\n")).collect();
    let last = "RUN rm /made3 && mv /made4 /made5 && mkdir /dir && cat /made39\n";
    dockerfile(mode, "classic", &format!("FROM busybox\n{steps}{last}"))?;
    let build = |how: &str, to: &str| {
        let flags = "build --progress plain --no-cache --build-arg SOURCE_DATE_EPOCH=0";
        let output = format!("--output type=oci,rewrite-timestamp=true,tar=false,dest={to}");
        script(mode, &format!("{how} ./lapstrake {flags} {output} classic"))
    };
    expect(&build("LAPSTRAKE_MOUNTS=classic", "classic.old")?, 0, &[" 39\n"])?;
    expect(&build("", "classic.new")?, 0, &[" 39\n"])?;
    expect(&script(mode, "diff classic.old/index.json classic.new/index.json")?, 0, &[])?;
    expect(&script(mode, "LAPSTRAKE_MOUNTS=classic ./lapstrake run busybox echo ran")?, 0, &["ran"])?;
    expect(&build("LAPSTRAKE_MOUNTS=x", "classic.not")?, 2, &["LAPSTRAKE_MOUNTS=x: not `classic`"])?;
    nothing_left(mode)
}
