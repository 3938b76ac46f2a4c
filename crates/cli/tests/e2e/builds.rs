//! Builds of real input: each folder of `testdata/builds` with a `test.sh` is a test.
//!
//! Their bases are made of Debian's packages, once for all users. Package managers take this machine's configuration
//! through secret mounts, so that none of it is in an image or here.

use std::fs;
use std::path::Path;

use super::place::{Mode, Shared, must, script, text};

/// Bases besides the plain tree, each a folder of `testdata/bases`, with its names.
const BASES: [(&str, &[&str]); 2] = [("node", &["node", "node:18"]), ("python", &["python"])];

/// The folders, by name.
pub(super) fn folders() -> Result<Vec<String>, String> {
    let dir = super::top().join("testdata/builds");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("test.sh").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// A Debian of packages and what package managers have to know of this machine, once for all.
fn debian(shared: &Shared) -> Result<(), String> {
    shared.once("bases", || {
        let part = shared.dir.join("bases.part");
        let at = part.display();
        must(&format!("rm -rf '{at}' && mkdir -p '{at}/machine' && chmod 777 '{at}'"))?;
        machine(&part.join("machine"))?;
        let suite = words("/etc/os-release", "VERSION_CODENAME=").unwrap_or_else(|| "stable".to_owned());
        let mirror = mirror().unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
        must(&format!(
            "timeout 900 debootstrap --variant=minbase '{suite}' '{at}/debian' '{mirror}' > '{at}/log' 2>&1 || \
             {{ tail '{at}/log'; exit 1; }}; \
             rm -rf '{at}'/debian/var/cache/apt/archives/*.deb; \
             tar -C '{at}/debian' --numeric-owner -cf '{at}/debian.tar' . && rm -rf '{at}/debian' && \
             mv '{at}' '{}'",
            shared.dir.join("bases").display()
        ))
    })
}

/// Gathers what steps are given as secrets; a file is empty where the machine needs nothing special.
fn machine(dir: &Path) -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kept = |text: &str, prefixes: &[&str]| -> String {
        let lines = text.lines().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix)));
        lines.flat_map(|line| [line, "\n"]).collect()
    };
    let mut apt = read("/etc/apt/apt.conf");
    for entry in fs::read_dir("/etc/apt/apt.conf.d").into_iter().flatten().flatten() {
        apt.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        apt.push('\n');
    }
    let home = std::env::var("HOME").unwrap_or_default();
    let npmrc = read("/etc/npmrc") + "\n" + &read(&format!("{home}/.npmrc"));
    let npm = ["registry", "//", "proxy", "https-proxy", "noproxy", "strict-ssl", "cafile"];
    let mut pip = read("/etc/pip.conf");
    if let Ok(index) = std::env::var("PIP_INDEX_URL") {
        pip.push_str(&format!("\n[install]\nindex-url = {index}\n"));
    }
    let files = [
        ("apt", kept(&apt, &["Acquire::"])),
        ("npmrc", kept(&npmrc, &npm)),
        ("pip", pip),
        ("ca", read("/etc/ssl/certs/ca-certificates.crt")),
    ];
    for (name, content) in files {
        let path = dir.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The bases that the files of a folder name.
fn named(folder: &str) -> Vec<(&'static str, &'static [&'static str])> {
    let dir = super::top().join("testdata/builds").join(folder);
    let files = fs::read_dir(&dir).into_iter().flatten().flatten();
    let text: String = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect();
    BASES.into_iter().filter(|(base, _)| text.contains(base)).collect()
}

/// Brings the bases that a folder needs into the store of `mode`: built there by whoever comes first, else loaded.
pub(super) fn bring(shared: &Shared, mode: &Mode, folder: &str) -> Result<(), String> {
    debian(shared)?;
    let dir = shared.dir.join("bases");
    let import = format!("lapstrake import '{}/debian.tar' debian", dir.display());
    run(mode, &dir, &import)?;
    for (base, names) in named(folder) {
        let (archive, mut built) = (dir.join(format!("{base}.tar")), false);
        shared.once(&format!("bases/{base}.tar"), || {
            built = true;
            let source = super::top().join("testdata/bases").join(base);
            must(&format!("cp -r '{}' '{}/base-{base}'", source.display(), mode.place.display()))?;
            let tags: String = names.iter().map(|name| format!(" -t {name}")).collect();
            let build = format!(
                "export OUT=.. IMAGE={base}; . builds/lib.sh; cd base-{base}; \
                 build{tags} && lapstrake build -q $(machine) -o type=docker,dest='{0}.part'{tags} . && \
                 mv '{0}.part' '{0}'",
                archive.display()
            );
            run(mode, &dir, &build)
        })?;
        if !built {
            run(mode, &dir, &format!("lapstrake load -q -i '{}'", archive.display()))?;
        }
    }
    // Its test finds the machine's settings beside the binary.
    must(&format!("cp -r '{}/machine' '{}/'", dir.display(), mode.place.display()))
}

/// Runs the test of a folder.
pub(super) fn check(mode: &Mode, folder: &str) -> Result<(), String> {
    let commands = format!(
        "mkdir -p 'out-{folder}' && export OUT=\"$PWD/out-{folder}\" IMAGE='{folder}' && \
         cd 'builds/{folder}' && . ../lib.sh && . ./test.sh"
    );
    run(mode, &mode.place, &commands)
}

fn run(mode: &Mode, bases: &Path, commands: &str) -> Result<(), String> {
    let setting = format!("set -eu; export PATH=\"$PWD:$PATH\" MACHINE='{}/machine'; ", bases.display());
    let output = script(mode, &format!("{setting}{commands}"))?;
    if output.status.success() { Ok(()) } else { Err(text(&output)) }
}

/// What follows `start` on a line of the file.
fn words(path: &str, start: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(start)).map(|rest| rest.trim_matches('"').to_owned())
}

/// The Debian mirror that this machine uses.
fn mirror() -> Option<String> {
    let modern = words("/etc/apt/sources.list.d/debian.sources", "URIs: ");
    let classic = || {
        let line = words("/etc/apt/sources.list", "deb ")?;
        line.split_whitespace().find(|word| word.contains("://")).map(str::to_owned)
    };
    modern.or_else(classic)
}
