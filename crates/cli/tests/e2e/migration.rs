//! State directories that an earlier lapstrake made.

use std::process::Output;

use super::place::{Mode, dockerfile, expect, is_cached, must, script, text};

pub(super) const CASES: &[super::Case] = &[("state_of_version_8", state_of_version_8)];

/// What was built with the state directory in `testdata/state/version-8.tar.gz`.
const BUILT: &str = "FROM tiny:1\nRUN [\"/true\", \"one\"]\nRUN [\"/true\", \"two\"]\nENV A=b\n";
const IMAGE: &str = "sha256:ece402d46c10941054fe2c65d56a74d16db19decd64caa61c926ac0ffd36fff6";

/// A state directory of version 8 has its images, its cache hits and its builds afterwards, and is pruned by the same rules.
/// It stays as it is while an older process uses it.
fn state_of_version_8(mode: &Mode) -> Result<(), String> {
    let archive = crate::top().join("testdata/state/version-8.tar.gz");
    must(&format!("cp '{0}' '{1}' && chmod a+r '{1}'/*.gz", archive.display(), mode.place.display()))?;
    dockerfile(mode, "migrated", BUILT)?;
    let state = format!("{}/migrated-{}", mode.place.display(), mode.name);
    let within = |commands: &str| -> Result<Output, String> {
        script(mode, &format!("export LAPSTRAKE_ROOT='{state}' && {commands}"))
    };
    let unpack =
        "mkdir -m 700 $LAPSTRAKE_ROOT && tar -C $LAPSTRAKE_ROOT -xzf version-8.tar.gz --no-same-owner";
    expect(&within(unpack)?, 0, &[])?;
    // Whatever holds this lock uses the directory; here it is a program with another name.
    let old = "touch $LAPSTRAKE_ROOT/users/0 && flock --shared $LAPSTRAKE_ROOT/users/0 \
               sh -c './lapstrake images > refused 2>&1; echo status $? >> refused'; cat refused; rm refused; \
               cat $LAPSTRAKE_ROOT/state.json";
    let refused = within(old)?;
    let words = [
        "has an older format",
        "wait for the end of process ",
        "(`flock --shared`)",
        "status 1",
        r#"{"format":1}"#,
    ];
    expect(&refused, 0, &words)?;
    let images = within("./lapstrake images --no-trunc && cat $LAPSTRAKE_ROOT/state.json")?;
    expect(&images, 0, &[IMAGE, "app ", "tiny ", r#"{"format":2}"#])?;
    let build = "./lapstrake build --platform linux/amd64 --progress plain -t app:new migrated";
    let built = within(build)?;
    expect(&built, 0, &[IMAGE])?;
    for step in [r#"RUN ["/true", "one"]"#, r#"RUN ["/true", "two"]"#] {
        if !is_cached(&built, step) {
            return Err(format!("`{step}` was done again: {}", text(&built)));
        }
    }
    expect(&within("./lapstrake builds ls && ./lapstrake explain")?, 0, &["app:old", "CACHED   [2/3] RUN"])?;
    expect(&within("./lapstrake prune -f")?, 0, &["[1/1] COPY file /file", "Total reclaimed space: 7B"])?;
    let again = within(&format!("{build} && ./lapstrake run app:old /true && echo runs"))?;
    expect(&again, 0, &[IMAGE, "runs"])?;
    if !is_cached(&again, r#"RUN ["/true", "two"]"#) {
        return Err(format!("prune took what an image has: {}", text(&again)));
    }
    expect(&within("./lapstrake prune -a -f")?, 0, &["Total reclaimed space: 344B"])?;
    let left = within("find $LAPSTRAKE_ROOT/layers $LAPSTRAKE_ROOT/blobs/sha256 -mindepth 1 | wc -l")?;
    expect(&left, 0, &["\n0\n"])
}
