//! What builds: the example, the cache, a tour of the language, mounts, and that times and users change nothing.

use std::fs;

use super::place::{Mode, dockerfile, expect, is_cached, lap, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("hello", hello),
    ("cached", cached),
    ("language", language),
    ("mounts", mounts),
    ("devices", devices),
    ("hard_links", hard_links),
];

/// A device of the host by its CDI name: its node, files and variables, and only with leave.
fn devices(mode: &Mode) -> Result<(), String> {
    let spec = "cdiVersion: 0.6.0\nkind: test.lap/dev\ndevices:\n- name: zero\n  containerEdits:\n    env: [CDI_ZERO=yes]\n    \
                deviceNodes: [{path: /dev/cdi-zero, hostPath: /dev/zero}]\n    \
                mounts: [{hostPath: /etc/hostname, containerPath: /run/cdi-host, options: [ro]}]\n    additionalGids: [44]\n";
    let lines = "FROM busybox\nRUN --device=test.lap/dev=zero test $CDI_ZERO = yes && test -s /run/cdi-host && \
                 test $(head -c 3 /dev/cdi-zero | wc -c) = 3\nRUN --device=test.lap/none test ! -e /dev/cdi-zero\n";
    dockerfile(mode, "devices", lines)?;
    fs::create_dir_all(mode.place.join("cdi")).map_err(|error| error.to_string())?;
    fs::write(mode.place.join("cdi/zero.yaml"), spec).map_err(|error| error.to_string())?;
    let refused = lap(mode, "build --cdi-spec-dir cdi devices")?;
    let text = "device test.lap/dev=zero is requested by the build but not allowed";
    expect(&refused, 1, &[text, "--allow device=test.lap/dev=zero"])?;
    expect(&lap(mode, "build --cdi-spec-dir cdi --allow device=test.lap/dev=zero devices")?, 0, &[])?;
    expect(&lap(mode, "build --allow devices .")?, 2, &["--allow devices: not one of"])?;
    dockerfile(mode, "devices", "FROM busybox\nRUN --device=test.lap/none,required true\n")?;
    let missing = lap(mode, "build --cdi-spec-dir cdi --allow device devices")?;
    expect(&missing, 1, &["required device \"test.lap/none\" is not registered"])
}

fn hello(mode: &Mode) -> Result<(), String> {
    let built = lap(mode, "build -t hello --build-context host=rootfs:/// builds/hello")?;
    let exported =
        ["exporting to image", "writing image sha256:", "naming to docker.io/library/hello:latest done"];
    expect(&built, 0, &["[build 4/4] RUN cc"])?;
    expect(&built, 0, &exported)?;
    expect(&lap(mode, "run hello you")?, 0, &["hello, you"])?;
    expect(&lap(mode, "images")?, 0, &["hello", "latest"])?;
    expect(&lap(mode, "history hello")?, 0, &["ENTRYPOINT [\"/hello\"]", "COPY /hello /hello # buildkit"])
}

fn cached(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "cached", "FROM busybox\nCOPY f /f\nRUN cat /f > /g\nRUN echo done\n")?;
    fs::write(mode.place.join("cached/f"), "1").map_err(|error| error.to_string())?;
    let first = lap(mode, "build -q cached")?;
    expect(&first, 0, &["sha256:"])?;
    script(mode, "true")?;
    fs::File::open(mode.place.join("cached/f"))
        .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
        .map_err(|error| error.to_string())?;
    let second = lap(mode, "build -q cached")?;
    if first.stdout != second.stdout {
        return Err(format!("a touched file made another image: {} {}", text(&first), text(&second)));
    }
    fs::write(mode.place.join("cached/f"), "2").map_err(|error| error.to_string())?;
    let third = lap(mode, "build cached")?;
    expect(&third, 0, &["RUN cat /f > /g\n#"])?;
    if is_cached(&third, "RUN cat /f > /g") || !is_cached(&lap(mode, "build cached")?, "RUN cat /f > /g") {
        return Err(format!("a changed file changed nothing: {}", text(&third)));
    }
    Ok(())
}

const LANGUAGE: &str = r#"ARG BASE=busybox
FROM $BASE AS one
ARG GREETING=hi
ENV WHO=world PORT=3000
WORKDIR /app
RUN echo "$GREETING $WHO" > out
RUN <<EOF
echo one >> out
echo two >> out
EOF
COPY <<EOF /etc/conf
port=$PORT
EOF

FROM unreachable-image-that-does-not-exist AS never
RUN false

FROM busybox
LABEL a=b
COPY --from=one /app/ /w/
COPY --from=0 --chmod=755 /etc/conf /conf
COPY --chown=app:app data /data/
USER app
EXPOSE 8080
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
CMD cat /w/out /conf && id -u && ls /data
"#;

fn language(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "language", LANGUAGE)?;
    fs::create_dir_all(mode.place.join("language/data")).map_err(|error| error.to_string())?;
    for name in ["kept", "hidden.log"] {
        fs::write(mode.place.join("language/data").join(name), name).map_err(|error| error.to_string())?;
    }
    fs::write(mode.place.join("language/.dockerignore"), "**/*.log\n").map_err(|error| error.to_string())?;
    expect(&lap(mode, "build -t language --build-arg GREETING=hello language")?, 0, &[])?;
    let ran = lap(mode, "run language")?;
    expect(&ran, 0, &["hello world\none\ntwo\nport=3000\n1000\nkept\n"])?;
    if text(&ran).contains("hidden") {
        return Err(format!("an ignored file was copied: {}", text(&ran)));
    }
    expect(
        &lap(mode, "inspect language")?,
        0,
        &["\"8080/tcp\"", "\"StopSignal\": \"SIGTERM\"", "\"a\": \"b\""],
    )
}

const MOUNTS: &str = r#"FROM busybox
RUN --mount=type=secret,id=token grep -q '^ses..e$' /run/secrets/token
RUN --mount=type=secret,id=token,env=TOKEN test -n "$TOKEN"
RUN --mount=type=cache,target=/c echo x >> /c/log && cat /c/log > /count
RUN --mount=type=tmpfs,target=/t touch /t/f && ls /t
RUN --mount=type=bind,source=f,target=/f cat /f
RUN test ! -e /run/secrets/token && test ! -e /f
"#;

fn mounts(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "mounts", MOUNTS)?;
    fs::write(mode.place.join("mounts/f"), "bound").map_err(|error| error.to_string())?;
    let build =
        "printf sesame > token-file && ./lapstrake build -t mounts --secret id=token,src=token-file mounts";
    expect(&script(mode, build)?, 0, &["bound"])?;
    let leaked = script(mode, &format!("grep -rl sesame 'state-{}'", mode.name))?;
    if !leaked.stdout.is_empty() {
        return Err(format!("the secret is in {}", text(&leaked)));
    }
    dockerfile(mode, "required", "FROM busybox\nRUN --mount=type=secret,id=token,required true\n")?;
    expect(&lap(mode, "build required")?, 1, &["secret token: not found", "--secret id=token"])
}

/// A further name for what a lower layer has: both names are in the layer, and one file.
fn hard_links(mode: &Mode) -> Result<(), String> {
    let source = "FROM busybox\nRUN busybox ln /etc/passwd /x && busybox ln /bin/busybox /bin/other\n\
                  RUN cmp=$(busybox stat -c %i /x /etc/passwd | busybox uniq | busybox wc -l) && echo files: $cmp\n";
    dockerfile(mode, "links", source)?;
    expect(&lap(mode, "build -t links -o type=tar,dest=links.tar links")?, 0, &["files: 1"])?;
    let listed = script(mode, "tar -tvf links.tar | grep 'link to' | sort; rm links.tar")?;
    expect(&listed, 0, &["link to"])?;
    let names = text(&listed);
    if names.matches("link to").count() != 2 {
        return Err(format!("not two links: {names}"));
    }
    Ok(())
}

/// The digests of layers whose times are all fixed.
pub(super) fn reproducible(mode: &Mode) -> Result<String, String> {
    let source = "FROM scratch\nWORKDIR /w\nCOPY --chown=7:7 f /w/f\nCOPY f g /d/\n";
    dockerfile(mode, "reproducible", source)?;
    for name in ["f", "g"] {
        fs::write(mode.place.join("reproducible").join(name), name).map_err(|error| error.to_string())?;
    }
    let build = "export SOURCE_DATE_EPOCH=1 && ./lapstrake build -q -t reproducible \
                 -o type=image,rewrite-timestamp=true reproducible && ./lapstrake inspect reproducible";
    let built = script(mode, build)?;
    expect(&built, 0, &["sha256:"])?;
    let all = String::from_utf8_lossy(&built.stdout).into_owned();
    Ok(all.lines().filter(|line| line.trim_start().starts_with("\"sha256:")).collect::<Vec<_>>().join(""))
}
