//! Directories of the host as bases: `rootfs://`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lapstrake_engine::KeyHasher;
use lapstrake_snapshot::adopt_layer;
use lapstrake_store::Store;

use crate::error::OpsError;
use crate::stack::Stack;

/// Top-level directories of the host that a process may see. Nothing of `/home`, `/root`, `/proc`, `/run`, `/var`.
const SHOWN: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What compilers, interpreters and the C library read of `/etc`; missing ones are passed over.
const ETC: [&str; 13] = [
    "alternatives",
    "ca-certificates",
    "debian_version",
    "group",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "ssl/certs",
];

/// The directory at `path` as a base.
pub(crate) fn stack(store: &Store, path: &str) -> Result<Stack, OpsError> {
    let path = fs::canonicalize(path).map_err(OpsError::io("find", Path::new(path)))?;
    if path == Path::new("/") {
        return host_system(store);
    }
    let mut hasher = KeyHasher::new("lapstrake host 1");
    hasher = hasher.part("tree", &fingerprint(&path)?);
    Ok(Stack { below: Some(path), fingerprint: Some(hasher.finish()), ..Stack::default() })
}

/// The host's own system: a small layer with its links and configuration, and its directories mounted over that.
fn host_system(store: &Store) -> Result<Stack, OpsError> {
    let temp = store.temp_dir()?;
    let root = temp.join("layer").join("fs");
    let make = |path: PathBuf| fs::create_dir_all(&path).map_err(OpsError::io("create", &path));
    for dir in ["etc/ssl", "tmp", "var/tmp", "root", "proc", "sys", "dev", "run"] {
        make(root.join(dir))?;
    }
    let mut binds = Vec::new();
    let mut hasher = KeyHasher::new("lapstrake host 1");
    for name in SHOWN {
        let path = Path::new("/").join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(&path).map_err(OpsError::io("read", &path))?;
                let link = root.join(name);
                std::os::unix::fs::symlink(target, &link).map_err(OpsError::io("create", &link))?;
            }
            Ok(meta) if meta.is_dir() => {
                make(root.join(name))?;
                hasher = hasher.part(name, &fingerprint(&path)?);
                binds.push(path);
            }
            _ => {}
        }
    }
    for name in ETC {
        copy_config(&Path::new("/etc").join(name), &root.join("etc").join(name))?;
    }
    normalize(&root)?;
    let layer = adopt_layer(store, &temp.join("layer"))?;
    let stack = Stack { binds, fingerprint: Some(hasher.finish()), ..Stack::default() };
    Ok(stack.with(layer))
}

/// Copies files and links that everybody may read.
fn copy_config(from: &Path, to: &Path) -> Result<(), OpsError> {
    let Ok(meta) = fs::symlink_metadata(from) else { return Ok(()) };
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(OpsError::io("read", from))?;
        return std::os::unix::fs::symlink(target, to).map_err(OpsError::io("create", to));
    }
    if meta.is_dir() {
        fs::create_dir_all(to).map_err(OpsError::io("create", to))?;
        for entry in fs::read_dir(from).map_err(OpsError::io("list", from))? {
            let name = entry.map_err(OpsError::io("list", from))?.file_name();
            copy_config(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    if meta.is_file() && meta.mode() & 0o004 != 0 {
        fs::copy(from, to).map_err(OpsError::io("copy", from))?;
    }
    Ok(())
}

/// Gives everything one time and plain modes, so that the layer depends on what it holds and on nothing else.
fn normalize(dir: &Path) -> Result<(), OpsError> {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(dir).map_err(OpsError::io("list", dir))? {
        let entry = entry.map_err(OpsError::io("list", dir))?;
        let kind = entry.file_type().map_err(OpsError::io("look at", dir))?;
        if kind.is_dir() {
            normalize(&entry.path())?;
        } else {
            set_epoch(&entry.path())?;
        }
    }
    let mode = if dir.file_name().is_some_and(|name| name == "tmp") { 0o1777 } else { 0o755 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .map_err(OpsError::io("change the mode of", dir))?;
    set_epoch(dir)
}

fn set_epoch(path: &Path) -> Result<(), OpsError> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = Timestamps { last_access: epoch, last_modification: epoch };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| OpsError::io("set the time of", path)(e.into()))
}

/// What a directory looks like without reading its files: names, kinds, sizes and times of everything in it. A file
/// that changes without one of these cannot be told; `ctime` makes that hard to do.
fn fingerprint(dir: &Path) -> Result<[u8; 32], OpsError> {
    use rayon::prelude::*;
    use std::os::unix::ffi::OsStrExt as _;
    let mut names: Vec<_> = fs::read_dir(dir)
        .map_err(OpsError::io("list", dir))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(OpsError::io("list", dir))?;
    names.sort_by_key(fs::DirEntry::file_name);
    let digests: Vec<[u8; 32]> = names
        .par_iter()
        .map(|entry| {
            let path = entry.path();
            let meta = entry.metadata().map_err(OpsError::io("look at", &path))?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(entry.file_name().as_bytes());
            hasher.update(&[0]);
            for number in [u64::from(meta.mode()), meta.size(), meta.ino()] {
                hasher.update(&number.to_le_bytes());
            }
            for time in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
                hasher.update(&time.to_le_bytes());
            }
            // Directories that are not ours to read are not ours to use either.
            if meta.is_dir()
                && let Ok(below) = fingerprint(&path)
            {
                hasher.update(&below);
            }
            Ok(*hasher.finalize().as_bytes())
        })
        .collect::<Result<_, OpsError>>()?;
    let mut all = blake3::Hasher::new();
    for digest in digests {
        all.update(&digest);
    }
    Ok(*all.finalize().as_bytes())
}
