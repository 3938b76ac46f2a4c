//! Where copies go, and which times directories have then.

use super::place::{Mode, dockerfile, expect, lap, nothing_left, script};

pub(super) const CASES: &[super::Case] = &[
    ("placed_times", times),
    ("placed_times_alone", times_alone),
    ("placed_by_text", by_text),
    ("placed_with_epoch", with_epoch),
];

/// A directory gets the time of the one that is copied onto it, whether it was there or not.
fn times(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nRUN mkdir /old\nCOPY d /old\nCOPY d /new\n\
                RUN for d in /old /new; do test $(busybox stat -c %Y $d) = 9000 || exit 1; done\n";
    dockerfile(mode, "dated", text)?;
    let made = "mkdir -p ctx-dated/d && cp dated/Dockerfile ctx-dated/ && echo x > ctx-dated/d/f && touch -d @9000 ctx-dated/d";
    expect(&script(mode, made)?, 0, &[])?;
    expect(&lap(mode, "build ctx-dated")?, 0, &[])?;
    nothing_left(mode)
}

/// A step that sets the time of a directory has it in its layer; one that only makes and removes a name there has nothing.
fn times_alone(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nRUN mkdir -p /w/v && touch -d @5000 /w/v /w\nRUN touch -d @9000 /w\n\
                RUN touch /w/v/t && rm /w/v/t\n\
                RUN test $(busybox stat -c %Y /w) = 9000 && test $(busybox stat -c %Y /w/v) = 5000\n";
    dockerfile(mode, "dated-alone", text)?;
    let commands = "rm -rf alone && ./lapstrake build -q --no-cache -o type=oci,tar=false,dest=alone,compression=uncompressed dated-alone && \
                    for b in alone/blobs/sha256/*; do tar -tf $b 2> /dev/null | sed 's/^/entry /' || true; done | sort | uniq -c";
    let output = script(mode, commands)?;
    // In the layer of the first step and in that of the second.
    expect(&output, 0, &["      2 entry w/\n", "      1 entry w/v/\n"])?;
    nothing_left(mode)
}

/// `..` in a destination is about the text, and a dangling link among the matches of a wildcard is an error.
fn by_text(mode: &Mode) -> Result<(), String> {
    let text = "FROM busybox\nRUN mkdir -p /a/b && ln -s /a/b /s\nCOPY f /s/../\nCOPY f /s/../g\nCOPY f /s/../x/\n\
                RUN test -f /f -a -f /g -a -f /x/f -a ! -e /a/f -a ! -e /a/g -a ! -e /a/x\n";
    dockerfile(mode, "texts", text)?;
    expect(
        &script(mode, "mkdir -p ctx-texts && echo x > ctx-texts/f && cp texts/Dockerfile ctx-texts")?,
        0,
        &[],
    )?;
    expect(&lap(mode, "build ctx-texts")?, 0, &[])?;
    let dangling = "printf 'FROM scratch\\nCOPY d* /lk/\\n' > ctx-texts/Dockerfile && echo x > ctx-texts/da && \
                    ln -sfn nowhere ctx-texts/db && ./lapstrake build ctx-texts";
    expect(&script(mode, dangling)?, 1, &["\"/db\": not found"])?;
    nothing_left(mode)
}

/// With `SOURCE_DATE_EPOCH`, two builds without cache have equal layers of COPY and ADD.
fn with_epoch(mode: &Mode) -> Result<(), String> {
    let text = "FROM base\nCOPY d /old/\nCOPY f /old/\nCOPY f /old/sub/deep/\nADD a.tar /old/\nADD a.tar /more/\n\
                COPY <<E /old/here\nx\nE\nWORKDIR /old/w/v\n";
    dockerfile(mode, "epochs", text)?;
    let commands = "mkdir -p ctx-epochs/d base-epochs/old/q && cp epochs/Dockerfile ctx-epochs && cd ctx-epochs && echo x > d/f && echo x > f && \
                    mkdir -p q/r && echo x > q/r/s && tar -cf a.tar q/r/s && touch -d @5000 f d/f d && cd .. && \
                    ./lapstrake import base-epochs base-epochs 2> /dev/null || tar -C base-epochs -cf base-epochs.tar . && \
                    ./lapstrake import base-epochs.tar base-epochs && export SOURCE_DATE_EPOCH=7000 && \
                    build() { ./lapstrake build -q --no-cache --build-context base=docker-image://base-epochs -o type=oci,tar=false,dest=$1 ctx-epochs; }; \
                    rm -rf e1 e2 && build e1 && sleep 1.1 && build e2 && ls e1/blobs/sha256 > l1 && ls e2/blobs/sha256 > l2 && diff l1 l2";
    expect(&script(mode, commands)?, 0, &[])?;
    nothing_left(mode)
}
