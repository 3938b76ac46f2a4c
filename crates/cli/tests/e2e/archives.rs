//! Archives that we write and others read, and the other way round.

use super::place::{Mode, dockerfile, expect, lap, script};

pub(super) const CASES: &[super::Case] = &[("archives", archives)];

fn archives(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "archives", "FROM busybox\nRUN echo x > /x\n")?;
    expect(&lap(mode, "build -o type=oci,dest=image.tar,name=archived:1 archives")?, 0, &[])?;
    expect(&script(mode, "skopeo inspect oci-archive:image.tar")?, 0, &["\"Architecture\""])?;
    let unpack = "mkdir layout && tar -C layout -xf image.tar && \
                  umoci unpack --rootless --image layout:1 bundle && cat bundle/rootfs/x";
    expect(&script(mode, unpack)?, 0, &["x\n"])?;
    expect(&lap(mode, "build -o out archives && cat out/x")?, 0, &["x\n"])?;
    expect(
        &lap(mode, "load -i image.tar && ./lapstrake run archived:1 cat /x")?,
        0,
        &["Loaded image: archived:1", "x\n"],
    )?;
    expect(
        &lap(mode, "build -o type=docker,dest=-,name=piped:1 archives | ./lapstrake load")?,
        0,
        &["piped:1"],
    )?;
    expect(
        &lap(mode, "rmi piped:1 && ./lapstrake run --pull never piped:1 true")?,
        125,
        &["Untagged: piped:1", "no such image"],
    )
}
