//! Image configs to the byte: `testdata/configs` has Dockerfiles and what BuildKit makes of them, layers included.
//!
//! All are built with `SOURCE_DATE_EPOCH` and `rewrite-timestamp`, so that nothing is left that may differ but the layer of
//! the base, which has the machine's busybox.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::place::{Mode, expect, script, shell};

pub(super) const CASES: &[super::Case] = &[("configs", configs)];

/// `base` in a layout beside the builds, as its diff id.
fn base(mode: &Mode, dir: &Path) -> Result<String, String> {
    let make = format!("python3 '{}/base.py' configs/base /bin/busybox", dir.display());
    let made = script(mode, &format!("mkdir -p configs/context && {make}"))?;
    expect(&made, 0, &["sha256:"])?;
    Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned())
}

/// The flags that a folder's `inputs` are.
fn flags(dir: &Path) -> Result<String, String> {
    let mut flags = String::new();
    for line in fs::read_to_string(dir.join("inputs")).unwrap_or_default().lines() {
        let (kind, value) = line.split_once(' ').ok_or(line)?;
        let flag = match kind {
            "arg" => "--build-arg",
            "label" => "--label",
            "platform" => "--platform",
            "target" => "--target",
            _ => return Err(format!("{}: `{kind}` is no input", dir.display())),
        };
        write!(flags, " {flag} '{value}'").map_err(|error| error.to_string())?;
    }
    Ok(flags)
}

/// The config of the only image in a layout.
fn config(layout: &Path) -> Result<String, String> {
    let read =
        |path: PathBuf| fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
    let parse = |text: String| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string());
    let blob = |digest: &Value| {
        let name = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).ok_or("no digest")?;
        read(layout.join("blobs/sha256").join(name))
    };
    let index = parse(read(layout.join("index.json"))?)?;
    let manifest = parse(blob(&index["manifests"][0]["digest"])?)?;
    blob(&manifest["config"]["digest"])
}

fn configs(mode: &Mode) -> Result<(), String> {
    let dir = super::top().join("testdata/configs");
    // The tree may lie where an ordinary user cannot look.
    let here = mode.place.join("config-files");
    let copy =
        format!("cp -r '{}' '{}' && chmod -R a+rX '{}'", dir.display(), here.display(), here.display());
    expect(&shell(None, &copy)?, 0, &[])?;
    let diff_id = base(mode, &here)?;
    let mut names: Vec<PathBuf> =
        fs::read_dir(&dir).map_err(|error| error.to_string())?.flatten().map(|entry| entry.path()).collect();
    names.retain(|path| path.is_dir());
    names.sort();
    let mut wrong = Vec::new();
    for path in &names {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let build = format!(
            "rm -rf configs/out && ./lapstrake build --no-cache --build-arg SOURCE_DATE_EPOCH=1700000000 \
             --build-context base=oci-layout://configs/base:base --build-context trigger=oci-layout://configs/base:trigger \
             -f 'config-files/{name}/Dockerfile' -o type=oci,tar=false,dest=configs/out,rewrite-timestamp=true{} \
             configs/context && chmod -R a+rX configs/out",
            flags(path)?
        );
        expect(&script(mode, &build)?, 0, &[]).map_err(|why| format!("{name}: {why}"))?;
        let found = config(&mode.place.join("configs/out"))?.replace(&diff_id, "sha256:base") + "\n";
        let wanted =
            fs::read_to_string(path.join("config.json")).map_err(|error| format!("{name}: {error}"))?;
        if found != wanted {
            wrong.push(format!("{name}:\n{found}instead of\n{wanted}"));
        }
    }
    if names.len() < 60 {
        return Err(format!("only {} folders", names.len()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
