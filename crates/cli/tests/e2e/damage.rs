//! State directories that were damaged, by a power cut or a bad disk: told, repaired, and never a wrong image.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{Mode, dockerfile, expect, must, must_say, script, state, text};

pub(super) const CASES: &[super::Case] = &[("damage", damage), ("power_loss", power_loss)];

const FILE: &str = "FROM busybox\nCOPY f /f\nRUN cat /f /f > /twice\nRUN cat /twice /f > /all\n";
const RIGHT: &str = "right\nright\nright\n";

/// A state directory of its own in which the image is built.
fn built(mode: &Mode, name: &str) -> Result<PathBuf, String> {
    dockerfile(mode, name, FILE)?;
    must(&format!("echo right > '{0}/f' && chmod a+r '{0}/f'", mode.place.join(name).display()))?;
    let root = state(mode).with_file_name(format!("{name}-{}", mode.name));
    must(&format!("rm -rf '{}'", root.display()))?;
    right(mode, name, &root)?;
    Ok(root)
}

fn on(mode: &Mode, root: &Path, commands: &str) -> Result<std::process::Output, String> {
    script(mode, &format!("export LAPSTRAKE_ROOT='{}' && {commands}", root.display()))
}

/// Builds, with whatever has to be brought first, and looks at what came out.
fn right(mode: &Mode, name: &str, root: &Path) -> Result<(), String> {
    let build = format!(
        "(./lapstrake inspect busybox > /dev/null 2>&1 || ./lapstrake import bb.tar busybox > /dev/null) && \
         ./lapstrake build -q -t made {name} > /dev/null && ./lapstrake run made cat /all"
    );
    let ran = on(mode, root, &build)?;
    expect(&ran, 0, &[])?;
    if String::from_utf8_lossy(&ran.stdout) == RIGHT { Ok(()) } else { Err(format!("wrong: {}", text(&ran))) }
}

/// Changes a byte in the middle, or cuts the file there.
fn spoil(path: &Path, cut: bool) -> Result<(), String> {
    let mut bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let middle = bytes.len() / 2;
    if cut {
        bytes.truncate(middle);
    } else if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x55;
    }
    // In place: the owner stays.
    fs::write(path, bytes).map_err(|error| error.to_string())
}

/// The files of a state directory that match, by `find`.
fn files(root: &Path, what: &str) -> Result<Vec<PathBuf>, String> {
    let found = must_say(&format!("cd '{}' && find . -type f {what} -size +0c | sort", root.display()))?;
    Ok(found.lines().map(|line| root.join(line)).collect())
}

/// Every kind of file, cut and with another byte: no wrong image before the repair, a right one after it.
fn damage(mode: &Mode) -> Result<(), String> {
    let kinds: [(&str, &str, bool); 6] = [
        ("database", "-name state.db -o -name state.db-wal", false),
        ("superblock", "-name state.json", false),
        ("trees", "-path '*/layers/*/tree'", true),
        ("files", "-path '*/layers/*/fs/all' -o -path '*/layers/*/fs/twice'", true),
        ("documents", "-path '*/blobs/*'", true),
        ("indexes", "-path './contexts/*'", false),
    ];
    for (kind, what, reported) in kinds {
        for cut in [false, true] {
            let root = built(mode, "damaged")?;
            for file in files(&root, &format!("\\( {what} \\)"))? {
                spoil(&file, cut)?;
            }
            let told = |why: String| format!("{kind}, cut: {cut}: {why}");
            let doctor = on(mode, &root, "./lapstrake doctor --state")?;
            if reported {
                expect(&doctor, 3, &["MISSING"]).map_err(told)?;
            }
            let repaired = on(mode, &root, "./lapstrake doctor --repair")?;
            expect(&repaired, 0, &["ok       kernel"]).map_err(told)?;
            right(mode, "damaged", &root).map_err(told)?;
            let after = on(mode, &root, "./lapstrake doctor --state")?;
            expect(&after, 0, &["images             "]).map_err(told)?;
        }
    }
    let root = built(mode, "damaged")?;
    for file in files(&root, "-path '*/layers/*/tree'")? {
        spoil(&file, true)?;
    }
    let hinted = on(mode, &root, "./lapstrake save -o saved.tar made")?;
    expect(&hinted, 1, &["lapstrake doctor --repair"])
}

/// The machine goes down, and comes up with what had reached the disk: layers that were not synced are empty.
fn power_loss(mode: &Mode) -> Result<(), String> {
    let root = built(mode, "powerless")?;
    // A build that fails leaves layers that nobody has synced.
    dockerfile(mode, "powerless", &format!("{FILE}RUN echo unsynced > /unsynced\nRUN false\n"))?;
    expect(&on(mode, &root, "./lapstrake build powerless")?, 1, &["exit code: 1"])?;
    let unsynced = format!("{}/layers/*/fs/unsynced", root.display());
    must(&format!("ls {unsynced} && truncate -s 0 {unsynced}"))?;
    let sql = "import sqlite3,sys; db = sqlite3.connect(sys.argv[1]); db.execute(\"UPDATE layers SET unsynced = 'before' WHERE unsynced IS NOT NULL\"); db.commit()";
    // As whoever owns the database.
    let boot = format!("python3 -c '{}' \"$LAPSTRAKE_ROOT/state.db\"", sql.replace('\'', "'\\''"));
    expect(&on(mode, &root, &boot)?, 0, &[])?;
    dockerfile(mode, "powerless", &format!("{FILE}RUN echo unsynced > /unsynced\n"))?;
    let built =
        on(mode, &root, "./lapstrake build -t after powerless && ./lapstrake run after cat /unsynced /all")?;
    expect(&built, 0, &[&format!("unsynced\n{RIGHT}"), "RUN cat /twice /f > /all\n#", "CACHED"])?;
    Ok(())
}
