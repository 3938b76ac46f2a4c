//! What a definition may do: it may come from elsewhere, so the command line grants what goes beyond its directory.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use lapstrake_bake::{Granted, Target, TargetSet};
use lapstrake_build::{attrs, is_remote};
use lapstrake_diag::{Outcome, Report, Usage};

use crate::env;

/// The permissions of the command line.
struct Permits {
    names: BTreeSet<String>,
    devices: bool,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// Whether all files may be read, and written.
    all: (bool, bool),
}

impl Permits {
    fn read(allow: &[String], granted: Granted) -> Outcome<Permits> {
        let here = absolute(".")?;
        let mut permits = Permits {
            names: granted.entitlements.into_iter().collect(),
            devices: false,
            read: vec![here.clone()],
            write: vec![here],
            all: (false, false),
        };
        for text in allow {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match name {
                "network.host" | "security.insecure" | "ssh" => drop(permits.names.insert(name.to_owned())),
                "device" if value.is_empty() => permits.devices = true,
                "device" => drop(permits.names.insert(text.clone())),
                "fs.read" => permits.path(value, (true, false))?,
                "fs.write" => permits.path(value, (false, true))?,
                "fs" => permits.path(value, (true, true))?,
                "image" | "image.push" | "image.load" => {}
                other => return Err(Usage(format!("--allow {text}: unknown permission {other:?}")).into()),
            }
        }
        for path in granted.read {
            permits.path(&path, (true, false))?;
        }
        for path in granted.write {
            permits.path(&path, (false, true))?;
        }
        Ok(permits)
    }

    fn path(&mut self, text: &str, (read, write): (bool, bool)) -> Outcome<()> {
        if text == "*" {
            self.all = (self.all.0 | read, self.all.1 | write);
            return Ok(());
        }
        let path = absolute(text)?;
        if read {
            self.read.push(path.clone());
        }
        if write {
            self.write.push(path);
        }
        Ok(())
    }
}

/// The real path of what is there, with the rest as it is written.
fn absolute(text: &str) -> Outcome<PathBuf> {
    let path = attrs::absolute(Path::new(if text.is_empty() { "." } else { text }))?;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let there =
        plain.ancestors().find_map(|part| Some((part.canonicalize().ok()?, plain.strip_prefix(part).ok()?)));
    Ok(there.map_or_else(|| plain.clone(), |(real, rest)| real.join(rest)))
}

/// Refuses what `chosen` needs and nobody granted.
pub(super) fn check(chosen: &TargetSet, allow: &[String], granted: Granted) -> Outcome<()> {
    let permits = Permits::read(allow, granted)?;
    let mut missing = BTreeSet::new();
    for target in chosen.targets.values() {
        for name in target.entitlements.iter().flatten() {
            let device = permits.devices && name.split('=').next() == Some("device");
            if !permits.names.contains(name) && !device {
                missing.insert(name.clone());
            }
        }
        if files_are_checked() {
            files(target, &permits, &mut missing)?;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let flags: Vec<String> = missing.iter().map(|name| format!("--allow={name}")).collect();
    let list: Vec<&str> = missing.iter().map(String::as_str).collect();
    let text = format!("the definition asks for permissions that are not granted: {}", list.join(", "));
    Err(Report::new(text).with_hint(format!("if you trust the definition, add {}", flags.join(" "))))
}

/// As in buildx, files are left alone where the environment says so.
fn files_are_checked() -> bool {
    env::value("BUILDX_BAKE_ENTITLEMENTS_FS").and_then(|text| lapstrake_go::parse_bool(&text)) != Some(false)
}

fn files(target: &Target, permits: &Permits, missing: &mut BTreeSet<String>) -> Outcome<()> {
    let (mut read, mut write): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let local = |path: &&str| !is_remote(path) && !path.contains("://") && !path.starts_with("target:");
    read.extend(target.context.as_deref().filter(local));
    if target.dockerfile_inline.is_none() && target.context.as_deref().filter(local).is_some() {
        read.extend(target.dockerfile.as_deref().filter(|path| Path::new(path).is_absolute()));
    }
    read.extend(target.contexts.values().map(String::as_str).filter(local));
    read.extend(target.contexts.values().filter_map(|value| value.strip_prefix("cwd://")));
    read.extend(
        target.secret.iter().flatten().map(|secret| secret.src.as_str()).filter(|src| !src.is_empty()),
    );
    for agent in target.ssh.iter().flatten() {
        read.extend(agent.paths.iter().map(String::as_str));
        if agent.paths.is_empty() && !permits.names.contains("ssh") {
            missing.insert("ssh".to_owned());
        }
    }
    for cache in target.cache_from.iter().flatten().filter(|cache| cache.kind == "local") {
        read.extend(cache.attributes.get("src").map(String::as_str));
    }
    for cache in target.cache_to.iter().flatten().filter(|cache| cache.kind == "local") {
        write.extend(cache.attributes.get("dest").map(String::as_str));
    }
    let dest = |dest: &&str| !dest.is_empty() && *dest != "-";
    write.extend(target.output.iter().flatten().map(|output| output.dest.as_str()).filter(dest));
    let within = |path: &Path, granted: &[PathBuf]| granted.iter().any(|dir| path.starts_with(dir));
    for (kind, paths, granted, all) in
        [("fs.read", read, &permits.read, permits.all.0), ("fs.write", write, &permits.write, permits.all.1)]
    {
        for path in paths.into_iter().filter(|_| !all) {
            if !within(&absolute(path)?, granted) {
                missing.insert(format!("{kind}={path}"));
            }
        }
    }
    Ok(())
}
