//! Builds where no overlay can be mounted on the state directory, as in a container whose root is one: layers are copied, and
//! the images are those that an overlay gives.

use lapstrake_testkit::skip;

use super::place::{Apart, Mode, dockerfile, expect, is_root, must, nothing_left, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("root_on_an_overlay", root_on_an_overlay),
    ("state_on_an_overlay", state_on_an_overlay),
    ("copied_as_overlaid", copied_as_overlaid),
    ("ways_of_one_state", ways_of_one_state),
];

/// What a build says once where it copies.
const SLOWER: &str = "builds are slower here: layers are copied";

/// Every way in which one layer changes what others have, but for writing to one of two names of a file: in a copy that
/// changes the other one, too. The programs are busybox's.
const STEPS: &str = "\
FROM busybox AS made
RUN mkdir -p /a/b /c/d /e /g && for f in a/b/x a/y c/f c/d/f e/f g/f; do echo $f > /$f; done && ln /bin/busybox /bin/again && busybox ln -s a/y /link
RUN rm /a/b/x && rm -r /c && mkdir /c && echo new > /c/g
RUN rm -r /e && echo file > /e && rm /g/f && mkdir /g/f && echo inner > /g/f/h
RUN echo more >> /a/y && chmod 700 /a && busybox ln -s /e /g/link && busybox mkfifo /pipe && rm /link
RUN --mount=type=cache,target=/cache echo kept > /cache/file
COPY tree /copied
COPY tree/f /a/y
ADD tree.tar /added/
COPY --chown=7:8 --chmod=640 tree/f /owned
RUN rm -r /copied/sub && rm /copied/f && echo y > /copied/f
WORKDIR /made/deep
RUN test ! -e /a/b/x && test ! -e /c/d && test -d /g/f && test ! -e /link && test \"$(cat /e /c/g /copied/f)\" = \"$(echo file; echo new; echo y)\"
FROM busybox
COPY --from=made /a /from/a
COPY --from=made --parents /g/./f /parents/
COPY --link --from=made /copied /linked
RUN --mount=from=made,target=/m cat /m/e /m/c/g && test ! -e /m/c/d
RUN --mount=from=made,target=/m,rw echo x > /m/e && rm -r /m/c && test ! -e /m/c/g
RUN --mount=type=bind,target=/m,rw echo x > /m/new
RUN --mount=from=made,target=/m cat /m/c/g /m/e
COPY --from=made / /all
RUN test ! -e /all/copied/sub && test \"$(cat /all/e)\" = file && test -e /linked/f
";

/// The inputs of [`STEPS`], in a directory of this name.
fn inputs(mode: &Mode, name: &str) -> Result<(), String> {
    dockerfile(mode, name, STEPS)?;
    must(&format!(
        "cd '{}/{name}' && mkdir -p tree/sub && echo f > tree/f && echo g > tree/sub/g && ln tree/f tree/twin && \
         tar --numeric-owner --owner=0 --group=0 -cf tree.tar tree && find . -exec touch -h -d @1000000000 {{}} + && chmod -R a+rX .",
        mode.place.display()
    ))
}

/// How [`STEPS`] are built so that equal files make equal images, and the image's id.
fn id_of(output: &std::process::Output) -> Result<String, String> {
    let said = String::from_utf8_lossy(&output.stdout);
    let id = said.lines().last().unwrap_or_default().to_owned();
    if output.status.success() && id.starts_with("sha256:") { Ok(id) } else { Err(text(output)) }
}

const REPEATABLE: &str = "SOURCE_DATE_EPOCH=1100000000 ./lapstrake build --no-cache -q --output type=image,name=repeatable,rewrite-timestamp=true";

/// The id of the image that an overlay gives.
fn expected(mode: &Mode, name: &str) -> Result<String, String> {
    id_of(&script(mode, &format!("{REPEATABLE} {name}"))?).map_err(|why| format!("on an overlay: {why}"))
}

/// A machine like a container: an overlay is the root of its mount namespace, and no volume is mounted. Its lower layer is
/// this machine's root, so what the place has is there.
const ROOT: &str = "mkdir -p ov && mount -t tmpfs -o mode=755 none ov && mkdir ov/up ov/work ov/root && \
     chmod 755 ov/up && mount -t overlay -o lowerdir=/,upperdir=$PWD/ov/up,workdir=$PWD/ov/work none ov/root && cd ov/root && \
     for name in proc sys dev; do mount --rbind /$name $name || exit 1; done && mkdir old && pivot_root . old && \
     umount -l /old && rmdir /old >&2";

fn root_on_an_overlay(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can mount an overlay that is not its own");
    }
    inputs(mode, "onroot")?;
    let wanted = expected(mode, "onroot")?;
    expect(&script(mode, "./lapstrake save busybox -o base.tar")?, 0, &[])?;
    let machine = Apart::new(mode, &["--mount", "--propagation", "private"], ROOT)?;
    let on = |commands: &str| machine.script(&format!("export LAPSTRAKE_ROOT=$PWD/onstate && {commands}"));
    expect(&on("./lapstrake load -i base.tar")?, 0, &[])?;
    let built = on("./lapstrake build --progress plain -t first onroot")?;
    expect(&built, 0, &[SLOWER, "hint: set LAPSTRAKE_ROOT", "naming to"])?;
    if text(&built).matches(SLOWER).count() != 1 {
        return Err(format!("not said once: {}", text(&built)));
    }
    let again = on("./lapstrake build --progress plain -t first onroot")?;
    expect(&again, 0, &["CACHED"])?;
    let found = id_of(&on(&format!("{REPEATABLE} onroot"))?)?;
    if found != wanted {
        return Err(format!("an overlay gives {wanted}, a copy {found}"));
    }
    // What is stored is whole, leaves, comes back and runs.
    let whole = "./lapstrake doctor --state && ./lapstrake save first -o first.tar && ./lapstrake rmi first && \
                 ./lapstrake load -i first.tar && ./lapstrake run first sh -c 'cat /all/c/g /from/a/y; rm /all/e; touch /new' && \
                 ./lapstrake run first cat /all/e";
    expect(&on(whole)?, 0, &["new\nf\n", "file\n", "limited  overlayfs", "layers are copied"])?;
    let empty = "./lapstrake rmi -f $(./lapstrake images -q) > gone; ./lapstrake prune -a -f > gone && find onstate/layers onstate/blobs/sha256 onstate/tmp onstate/locks -mindepth 1";
    let left = on(empty)?;
    expect(&left, 0, &[])?;
    if !left.stdout.is_empty() {
        return Err(format!("prune leaves {}", text(&left)));
    }
    nothing_left(mode)
}

/// Only the state directory is on an overlay.
fn state_on_an_overlay(mode: &Mode) -> Result<(), String> {
    if !is_root() {
        skip("only root can mount an overlay that is not its own");
    }
    let setup = "mkdir -p ov && mount -t tmpfs -o mode=755 none ov && mkdir ov/low ov/up ov/work ov/root && \
                 mount -t overlay -o lowerdir=ov/low,upperdir=ov/up,workdir=ov/work none ov/root && chmod 777 ov/root >&2";
    let machine = Apart::new(mode, &["--mount"], setup)?;
    let on = |args: &str| {
        machine.script(&format!("export LAPSTRAKE_ROOT=$PWD/ov/root/state && ./lapstrake {args}"))
    };
    expect(&on("import bb.tar busybox")?, 0, &[])?;
    dockerfile(mode, "stacked", "FROM busybox\nRUN rm /etc/passwd\nRUN test ! -e /etc/passwd && echo ran\n")?;
    expect(&on("build --progress plain stacked")?, 0, &[SLOWER, "hint: set LAPSTRAKE_ROOT", " ran\n"])?;
    let quiet = on("build -q --no-cache stacked")?;
    expect(&quiet, 0, &["sha256:"])?;
    if text(&quiet).contains(SLOWER) {
        return Err(format!("-q: {}", text(&quiet)));
    }
    expect(&on("run busybox sh -c 'rm /etc/passwd; ls /etc'")?, 0, &["group\n"])?;
    expect(&on("doctor")?, 0, &["limited  overlayfs", "layers are copied", "hint: set LAPSTRAKE_ROOT"])?;
    // Programs cannot be run on a mount that forbids it, unless root takes that back for the container alone.
    must(&format!(
        "nsenter --mount --target {} mount -o remount,bind,noexec '{}/ov/root'",
        machine.pid(),
        mode.place.display()
    ))?;
    // Nobody answers there: whoever asks says that.
    dockerfile(mode, "stacked", "FROM 127.0.0.1:1/nobody/answers\nRUN true\n")?;
    if mode.user.is_none() {
        expect(&on("run busybox echo ran")?, 0, &["ran\n"])?;
    } else {
        let words = ["layers cannot be stacked in the state directory", "running programs in its directory"];
        let refused = on("build stacked")?;
        expect(&refused, 3, &[words[0], words[1], "hint: set LAPSTRAKE_ROOT"])?;
        if text(&refused).contains("127.0.0.1") || text(&refused).contains("#1 ") {
            return Err(format!("something was asked for: {}", text(&refused)));
        }
        expect(&on("doctor")?, 3, &["MISSING  overlayfs"])?;
    }
    nothing_left(mode)
}

/// The same images whichever way layers are put on each other.
fn copied_as_overlaid(mode: &Mode) -> Result<(), String> {
    inputs(mode, "twoways")?;
    let wanted = expected(mode, "twoways")?;
    let found = id_of(&script(mode, &format!("LAPSTRAKE_MOUNTS=copy {REPEATABLE} twoways"))?)?;
    if found != wanted {
        return Err(format!("an overlay gives {wanted}, a copy {found}"));
    }
    nothing_left(mode)
}

/// A state directory that moves from an overlay to another file system, and back: what was built there stays what it is.
fn ways_of_one_state(mode: &Mode) -> Result<(), String> {
    const COPY: &str = "LAPSTRAKE_MOUNTS=copy ./lapstrake";
    let text_of = |last: &str| {
        format!(
            "FROM busybox\nRUN mkdir -p /ways/d && echo 1 > /ways/f && echo 2 > /ways/d/g\nRUN rm /ways/f && rm -r /ways/d && mkdir /ways/d\n{last}"
        )
    };
    dockerfile(mode, "ways", &text_of(""))?;
    expect(&script(mode, &format!("{COPY} build -t ways ways"))?, 0, &[])?;
    let look = "sh -c 'ls /ways /ways/d; test ! -e /ways/f'";
    expect(&script(mode, &format!("./lapstrake run ways {look}"))?, 0, &["/ways:\nd\n\n/ways/d:\n"])?;
    dockerfile(mode, "ways", &text_of("RUN ls /ways /ways/d && test ! -e /ways/f\n"))?;
    expect(&script(mode, "./lapstrake build --progress plain ways")?, 0, &["CACHED"])?;
    expect(&script(mode, "./lapstrake doctor --state")?, 0, &["ok       overlayfs"])?;
    expect(&script(mode, &format!("{COPY} run ways {look}"))?, 0, &["/ways:\nd\n\n/ways/d:\n"])?;
    // What an overlay has marked on the disk is no device in a copy.
    dockerfile(mode, "ways", "FROM busybox\nRUN echo over > /over\nRUN rm /over\n")?;
    expect(&script(mode, "./lapstrake build -t over ways")?, 0, &[])?;
    expect(&script(mode, &format!("{COPY} run over sh -c 'ls /over; true'"))?, 0, &["No such file"])?;
    nothing_left(mode)
}
