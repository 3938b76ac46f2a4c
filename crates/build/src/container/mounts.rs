//! Mounts of a container: `--volume`, `--mount` and `--tmpfs`.

use std::path::{Path, PathBuf};

use lapstrake_diag::Usage;
use lapstrake_go::{csv, parse_bool};
use lapstrake_runtime::{Mount, MountSource};

use super::ContainerRequest;
use crate::attrs;

/// A mount that the caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedMount {
    /// The directory or file of the machine; `None` for a file system in memory.
    pub source: Option<PathBuf>,
    target: String,
    readonly: bool,
    tmpfs: Tmpfs,
}

/// The options of a file system in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tmpfs {
    size: Option<u64>,
    mode: u32,
    exec: bool,
}

impl Default for Tmpfs {
    fn default() -> Self {
        Self { size: None, mode: 0o1777, exec: false }
    }
}

impl RequestedMount {
    /// For the sandbox; `index` is the place of the source among the descriptors.
    pub fn mount(&self, index: usize) -> Mount {
        let Tmpfs { size, mode, exec } = self.tmpfs;
        let source = match self.source {
            Some(_) => MountSource::Fd { index, subpath: String::new() },
            None => MountSource::Tmpfs { size, mode, exec },
        };
        Mount { target: self.target.clone(), source, readonly: self.readonly }
    }
}

/// All mounts, those with the shortest targets first, so that none hides another one.
///
/// # Errors
/// A text cannot be read, or two mounts have one target.
pub fn mounts(request: &ContainerRequest) -> Result<Vec<RequestedMount>, Usage> {
    let read = |flag: &str, texts: &[String], one: fn(&str) -> Result<RequestedMount, String>| {
        let one = |text: &String| one(text).map_err(|why| Usage(format!("{flag} {text}: {why}")));
        texts.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let mut all = read("-v", &request.volumes, volume)?;
    all.extend(read("--mount", &request.mounts, mount)?);
    all.extend(read("--tmpfs", &request.tmpfs, tmpfs)?);
    let depth = |mount: &RequestedMount| mount.target.split('/').filter(|part| !part.is_empty()).count();
    all.sort_by_key(depth);
    for pair in all.windows(2) {
        if pair[0].target.trim_end_matches('/') == pair[1].target.trim_end_matches('/') {
            return Err(Usage(format!("duplicate mount point: {}", pair[1].target)));
        }
    }
    Ok(all)
}

fn target(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an absolute path")) }
}

fn source(text: &str) -> Result<Option<PathBuf>, String> {
    attrs::absolute(Path::new(text)).map(Some).map_err(|Usage(why)| why)
}

/// `SRC:DST[:ro]`
fn volume(text: &str) -> Result<RequestedMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, readonly) = match parts.as_slice() {
        [from, to] | [from, to, "rw"] => (*from, *to, false),
        [from, to, "ro"] => (*from, *to, true),
        _ => return Err("not SRC:DST[:ro]".to_owned()),
    };
    Ok(RequestedMount { source: source(from)?, target: target(to)?, readonly, tmpfs: Tmpfs::default() })
}

/// `DST[:OPTION,…]`
fn tmpfs(text: &str) -> Result<RequestedMount, String> {
    let (to, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount =
        RequestedMount { source: None, target: target(to)?, readonly: false, tmpfs: Tmpfs::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", size) => mount.tmpfs.size = Some(bytes(size)?),
            ("mode", mode) => mount.tmpfs.mode = octal(mode)?,
            ("rw", "") => mount.readonly = false,
            ("ro", "") => mount.readonly = true,
            ("exec", "") => mount.tmpfs.exec = true,
            ("noexec", "") => mount.tmpfs.exec = false,
            // So it is anyway.
            ("nosuid" | "nodev", "") => {}
            (other, _) => {
                return Err(format!("unknown option `{other}`: use size, mode, ro, rw or exec"));
            }
        }
    }
    Ok(mount)
}

/// Docker's `--mount`, of the types that need nothing that stays.
fn mount(text: &str) -> Result<RequestedMount, String> {
    let (mut kind, mut from, mut to) = ("volume".to_owned(), None, None);
    let (mut readonly, mut tmpfs) = (false, Tmpfs::default());
    let mut only_for = Vec::new();
    for field in csv::fields(text).map_err(|error| error.to_string())? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        let key = key.trim().to_ascii_lowercase();
        match key.as_str() {
            "type" => value.to_ascii_lowercase().clone_into(&mut kind),
            "source" | "src" => from = Some(value.to_owned()),
            "target" | "dst" | "destination" => to = Some(value.to_owned()),
            "readonly" | "ro" => {
                let bad = || format!("invalid value for {key}: {value}");
                readonly = value.is_empty() || parse_bool(value).ok_or_else(bad)?;
            }
            "bind-propagation" if matches!(value, "rprivate" | "private") => only_for.push("bind"),
            "tmpfs-size" => {
                only_for.push("tmpfs");
                tmpfs.size = Some(bytes(value)?);
            }
            "tmpfs-mode" => {
                only_for.push("tmpfs");
                tmpfs.mode = octal(value)?;
            }
            // The kernel's copy of what is in memory is of one machine anyway.
            "consistency" => {}
            other => return Err(format!("`{other}` is not supported yet")),
        }
    }
    if let Some(other) = only_for.iter().find(|only| **only != kind) {
        return Err(format!("an option is for `type={other}`, not for `type={kind}`"));
    }
    let to = target(&to.ok_or("`target=DST` is missing")?)?;
    match kind.as_str() {
        "bind" => {
            let from = source(&from.ok_or("`source=SRC` is missing")?)?;
            Ok(RequestedMount { source: from, target: to, readonly, tmpfs })
        }
        "tmpfs" if from.is_some() => Err("a tmpfs has no source".to_owned()),
        "tmpfs" => {
            Ok(RequestedMount { source: None, target: to, readonly, tmpfs: Tmpfs { exec: false, ..tmpfs } })
        }
        "volume" | "image" | "npipe" | "cluster" => {
            Err(format!("mounts of type `{kind}` are not supported yet: use `bind` or `tmpfs`"))
        }
        other => Err(format!("unknown mount type `{other}`: there are `bind` and `tmpfs`")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    attrs::size(text).map_err(|Usage(why)| why)
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("`{text}` is not a mode, as `1777`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_each_kind() {
        let bind = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert_eq!((bind.source.as_deref(), bind.readonly), (Some(Path::new("/a")), true));
        assert!(!mount("type=bind,source=/a,target=/b,ro=false").unwrap().readonly);
        let memory = mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap();
        assert_eq!(memory.tmpfs, Tmpfs { size: Some(1 << 20), mode: 0o700, exec: false });
        let short = tmpfs("/t:size=2k,mode=755,exec,ro").unwrap();
        assert_eq!(short.tmpfs, Tmpfs { size: Some(2048), mode: 0o755, exec: true });
        assert!(short.readonly && tmpfs("/t").unwrap().tmpfs == Tmpfs::default());
        assert!(volume("/a:/b:ro").unwrap().readonly);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (text, word) in [
            ("target=/b", "type `volume`"),
            ("type=bind,source=/a", "target"),
            ("type=bind,target=/b", "source"),
            ("type=bind,source=/a,target=b", "absolute"),
            ("type=bind,source=/a,target=/b,volume-nocopy", "volume-nocopy"),
            ("type=bind,source=/a,target=/b,tmpfs-size=1m", "type=tmpfs"),
            ("type=tmpfs,source=/a,target=/b", "no source"),
            ("type=nosuch,target=/b", "unknown mount type"),
            ("type=bind,source=/a,target=/b,ro=maybe", "invalid value"),
            ("type=tmpfs,target=/b,tmpfs-mode=9", "not a mode"),
        ] {
            let error = mount(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(tmpfs("/t:uid=1").unwrap_err().contains("uid"));
        assert!(volume("a").is_err() && volume("/a:b").is_err());
    }
}
