//! What the targets start from: the tables and files under `testdata`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::images;

/// Pieces that inputs are made of, for all targets.
const WORDS: &str = "FROM |RUN |COPY |ADD |ENV |ARG |LABEL |ONBUILD |HEALTHCHECK |EXPOSE |VOLUME |SHELL |USER |WORKDIR |\
    STOPSIGNAL |CMD |ENTRYPOINT |MAINTAINER |INCLUDE |NONE|AS |--from=|--mount=|--platform=|--chmod=|--chown=|--link |\
    --parents |--exclude=|--checksum=|--unpack |--keep-git-dir |--network=|--security=|--device=|--interval=|--retries=|\
    <<E|<<-E|<<\"E\"|E|\n|\\\n|`\n|# escape=`\n|# syntax=lapstrake\n|# check=skip=all\n|#|${|${x:-|${x:+|${x:?|${x#|\
    ${x%%|${x//|}|$|$x|\"|'|\\|[|]|[\"a\", \"b\"]|,|=|:|/|//|..|**|**/|*|?|!|^|@|?ref=|&subdir=|&checksum=|#main:dir|\
    git@host:|https://|ssh://|.git|type=cache|type=bind|type=secret|type=tmpfs|type=ssh|,target=|,source=|,sharing=locked|,id=|\
    ,mode=0755|,uid=|,size=1g|,required|,env=|sha256:|linux/arm64/v8|windows(10.0)/amd64|80-90/udp|[::1]:80:80|\u{feff}|\u{e9}|\u{a0}|\t|\r\n";

/// `WORDS`, one by one.
pub fn dictionary() -> Vec<String> {
    WORDS.split('|').map(str::to_owned).collect()
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

/// The inputs that `target` starts from.
///
/// # Errors
/// A table cannot be read.
pub fn seeds(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut all = match target {
        "parse" | "lower" => dockerfiles(&testdata())?,
        "words" => rows("words", |row| Some(format!("\u{0}{}", row["word"].as_str()?)))?,
        "patterns" => rows("words", |row| {
            let (_, pattern) = row["word"].as_str()?.split_once(['#', '%', '/'])?;
            Some(format!("{}\n/v/a.tar.gz", pattern.trim_end_matches('}')))
        })?,
        "ignore" => rows("ignore", |row| {
            let path = row["ignored"].as_object()?.keys().next()?;
            Some(format!("{}\n{path}", row["dockerignore"].as_str()?))
        })?,
        "git" => rows("git-refs", |row| Some(row["url"].as_str()?.to_owned()))?,
        "mount" => rows("mounts", |row| Some(row["text"].as_str()?.to_owned()))?,
        "names" => {
            let mut all = rows("ports", |row| Some(row["text"].as_str()?.to_owned()))?;
            all.extend(rows("platforms", |row| Some(row["text"].as_str()?.to_owned()))?);
            all.push(b"docker.io/library/alpine:3@sha256:".to_vec());
            all
        }
        "go" => {
            let mut all = rows("go/templates", |row| Some(row["template"].as_str()?.to_owned()))?;
            for table in ["go/csv", "go/durations"] {
                all.extend(rows(table, |row| Some(row["text"].as_str()?.to_owned()))?);
            }
            all.extend(rows("go/clean", |row| Some(row["path"].as_str()?.to_owned()))?);
            all
        }
        "layers" => images::tars(),
        "documents" => images::examples(),
        "challenges" => images::headers(),
        _ => return Err(format!("there is no target `{target}`")),
    };
    all.extend(found(target)?);
    if all.is_empty() { Err(format!("`{target}` has nothing to start from")) } else { Ok(all) }
}

/// The inputs that once showed a bug of `target`.
///
/// # Errors
/// One cannot be read.
pub fn found(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let dir = testdata().join("fuzz").join(target);
    let Ok(entries) = fs::read_dir(&dir) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).map_err(|error| format!("{}: {error}", file.display()))).collect()
}

fn rows(table: &str, input: impl Fn(&Value) -> Option<String>) -> Result<Vec<Vec<u8>>, String> {
    let file = if table.contains('/') { format!("{table}.jsonl") } else { format!("{table}/rows.jsonl") };
    let path = testdata().join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let rows =
        text.lines().map(|line| serde_json::from_str::<Value>(line).map_err(|error| error.to_string()));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(rows.iter().filter_map(input).map(String::into_bytes).collect())
}

fn dockerfiles(dir: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(dockerfiles(&path)?);
        } else if path.file_name().is_some_and(|name| name == "Dockerfile") {
            let bytes = fs::read(&path).map_err(failed)?;
            // One that shows a limit on length teaches nothing else.
            found.extend((bytes.len() < 8192).then_some(bytes));
        }
    }
    Ok(found)
}
