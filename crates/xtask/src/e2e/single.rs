//! An ordinary user without a range of subordinate ids: one id is mapped, and nearly everything works.

use super::language;
use super::place::{self, Mode, dockerfile, expect, is_root, lap, must, nothing_left, text};

pub(super) const CASES: &[super::Case] = &[("single_id", single_id)];

/// A user of the system: such users get no subordinate ids.
const USER: &str = "lapstrake-single";

fn single_id(mode: &Mode) -> Result<(), String> {
    if mode.user.is_none() || !is_root() {
        return Ok(());
    }
    must(&format!("id {USER} || useradd --system --create-home {USER}"))?;
    must(&format!("! grep -q '^{USER}:' /etc/subuid /etc/subgid"))?;
    let single = place::prepare(&mode.place.join("lapstrake"), "single", Some(USER))?;
    let done = builds(&single).and_then(|()| fails(&single)).and_then(|()| {
        let (own, theirs) = (language::reproducible(&single)?, language::reproducible(mode)?);
        if own == theirs { Ok(()) } else { Err(format!("other layers: {own} and {theirs}")) }
    });
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

fn builds(single: &Mode) -> Result<(), String> {
    dockerfile(single, "builds-single", BUILDS)?;
    must(&format!("echo f > '{}/builds-single/f'", single.place.display()))?;
    let built = lap(single, "build -t single builds-single && ./lapstrake run single")?;
    // The owner is in the layer; on the disk there is nobody but us.
    expect(
        &built,
        0,
        &["-rws--x--x    1 0        0                5 ", "-rw-r--r--    1 0        0                2 "],
    )?;
    let archive = "build -o type=oci,dest=single.tar,name=single:1 builds-single && \
                   mkdir single && tar -C single -xf single.tar && \
                   for f in single/blobs/sha256/*; do tar -tvf $f --numeric-owner 2> /dev/null || true; done";
    expect(&lap(single, archive)?, 0, &["-rw-r--r-- 7/8 ", "-rws--x--x 0/0 ", " bin/.wh.true"])?;
    let hello = "build -t hello --build-context host=rootfs:/// builds/hello && ./lapstrake run hello you";
    expect(&lap(single, hello)?, 0, &["hello, you"])?;
    nothing_left(single)
}

/// What needs other users fails, and what would help is said.
fn fails(single: &Mode) -> Result<(), String> {
    let hint = format!("/etc/subuid has no range for {USER} (as root: usermod --add-subuids");
    for line in ["RUN chown 5:5 /bin/busybox", "USER 1000\nRUN true"] {
        dockerfile(single, "fails-single", &format!("FROM busybox\n{line}\n"))?;
        expect(&lap(single, "build fails-single")?, 1, &[&hint]).map_err(|why| format!("{line}: {why}"))?;
    }
    let other = lap(single, "run -u 7 busybox true")?;
    if other.status.code() != Some(125) || !text(&other).contains("uid 7") {
        return Err(text(&other));
    }
    nothing_left(single)
}
