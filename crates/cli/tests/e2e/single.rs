//! An ordinary user without a range of subordinate ids: one id is mapped, and everything looks as if all were.

use super::place::{self, Kind, Mode, SINGLE, Shared, dockerfile, expect, is_root, lap, must, nothing_left};

pub(super) const CASES: &[super::Case] = &[("single_id", single_id)];

/// Whether a test is also for such a user, in a place of its own.
pub(super) fn concerns(case: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "changing_",
        "confined_",
        "copied_",
        "found_",
        "named_",
        "placed_",
        "root_on_",
        "state_on_",
        "unpacked_",
        "ways_of_",
    ];
    PREFIXES.iter().any(|prefix| case.starts_with(prefix))
}

fn single_id(mode: &Mode) -> Result<(), String> {
    if is_root() {
        must(&format!("! grep -q '^{SINGLE}:' /etc/subuid /etc/subgid"))?;
    }
    let single = place::prepare(&Shared::of(&mode.place.join("lapstrake"))?, Kind::Single)?;
    let done = layers(&single).and_then(|()| owners(&single)).and_then(|()| super::inodes::check(&single));
    place::clean(&single)?;
    done
}

const BUILDS: &str = r#"FROM busybox
RUN touch /x && mkdir -p /d/e && rm /bin/true
COPY --chown=7:8 f /f
RUN echo more >> /x && chmod 4711 /x && test ! -e /bin/true
RUN --mount=type=cache,target=/c,uid=5,gid=6 echo c > /c/f
CMD ["ls", "-ln", "/x", "/f"]
"#;

fn layers(single: &Mode) -> Result<(), String> {
    dockerfile(single, "builds-single", BUILDS)?;
    must(&format!("echo f > '{}/builds-single/f'", single.place.display()))?;
    let built = lap(single, "build -t single builds-single && ./lapstrake run single")?;
    // The owner is in the layer and seen inside; on the disk there is nobody but us.
    expect(
        &built,
        0,
        &["-rws--x--x    1 0        0                5 ", "-rw-r--r--    1 7        8                2 "],
    )?;
    let archive = "build -o type=oci,dest=single.tar,name=single:1 builds-single && \
                   mkdir single && tar -C single -xf single.tar && \
                   for f in single/blobs/sha256/*; do tar -tvf $f --numeric-owner 2> /dev/null || true; done";
    expect(&lap(single, archive)?, 0, &["-rw-r--r-- 7/8 ", "-rws--x--x 0/0 ", " bin/.wh.true"])?;
    let hello = "build -t hello --build-context host=rootfs:/// builds/hello && ./lapstrake run hello you";
    expect(&lap(single, hello)?, 0, &["hello, you"])?;
    nothing_left(single)
}

/// Whether a folder of builds is about owners, and so is built by such a user too.
pub(super) fn builds(folder: &str) -> bool {
    matches!(folder, "debian-users" | "debian-servers")
}

/// What needs other users works, and what it wished is in the layers.
fn owners(single: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nRUN mkdir -m 1777 /tmp && chown 5:6 /bin/busybox && busybox mknod /n c 1 3 && busybox ln -s x /l && \
                busybox chown -h 7:8 /l\nUSER 1000\nRUN touch /tmp/x && test $(id -u) = 1000\n";
    dockerfile(single, "owners-single", text)?;
    let archive = "build -o type=oci,dest=owners.tar owners-single && mkdir owners && tar -C owners -xf owners.tar && \
                   for f in owners/blobs/sha256/*; do tar -tvf $f --numeric-owner 2> /dev/null || true; done";
    let words = ["-rwxr-xr-x 5/6 ", "crw-r--r-- 0/0 ", "lrwxrwxrwx 7/8 ", "-rw-r--r-- 1000/1000 "];
    expect(&lap(single, archive)?, 0, &words)?;
    let inside = "run -u 7:9 busybox sh -c 'id -u; id -g; touch /x; busybox stat -c %u:%g /x'";
    expect(&lap(single, inside)?, 0, &["7\n9\n7:9\n"])?;
    nothing_left(single)
}
