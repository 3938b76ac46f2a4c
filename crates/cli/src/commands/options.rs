//! Option values: text to data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::Dialect;
use lapstrake_graph::{NetworkMode, Ulimit};
use lapstrake_oci::media::Compression;
use lapstrake_ops::Secret;
use lapstrake_outputs::Encoding;

use crate::env;
use crate::exit::Usage;

/// `KEY=VALUE` pairs; without a value, the environment's, and nothing if that has none.
pub(crate) fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .filter_map(|text| match text.split_once('=') {
            Some((key, value)) => Some((key.to_owned(), value.to_owned())),
            None => Some((text.clone(), env::value(text)?)),
        })
        .collect()
}

/// `--build-arg` and `--build-arg-file`. A later file wins over an earlier one, and an argument over all files.
pub(crate) fn build_args(args: &[String], files: &[PathBuf]) -> Result<BTreeMap<String, String>, Usage> {
    let mut all = BTreeMap::new();
    for file in files {
        let bad = |why: String| Usage(format!("--build-arg-file {}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
        let lines = argument_lines(&text).map_err(|line| bad(format!("line {line} has no name")))?;
        all.extend(pairs(&lines));
    }
    all.extend(pairs(args));
    Ok(all)
}

/// The arguments in a file: a line each, values as they stand, without empty lines and those that begin with `#`. The
/// error is the number of a line without a name.
fn argument_lines(text: &str) -> Result<Vec<String>, usize> {
    let mut found = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or(line);
        if name.is_empty() || name.trim_end().contains(char::is_whitespace) {
            return Err(number + 1);
        }
        found.push(if name.len() == line.len() { line.trim_end().to_owned() } else { line.to_owned() });
    }
    Ok(found)
}

/// The language of a Dockerfile: the one that the command line, an argument or the file itself names.
pub(crate) fn dialect(file: &SourceFile, syntax: Option<&str>, args: &BTreeMap<String, String>) -> Dialect {
    let asked = syntax.or(args.get("BUILDKIT_SYNTAX").map(String::as_str));
    asked.map_or_else(|| lapstrake_dockerfile::dialect(file), Dialect::of_syntax)
}

/// `a=b,c=d`, in order.
fn fields(text: &str) -> Vec<(&str, &str)> {
    text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect()
}

/// `--secret`
pub(crate) fn secret(text: &String) -> Result<(String, Secret), Usage> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for (key, value) in fields(text) {
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" => {}
            _ => return Err(Usage(format!("--secret {text}: unknown key `{key}`"))),
        }
    }
    let id = id.ok_or_else(|| Usage(format!("--secret {text}: no id")))?;
    let from_env = |name: &str| env::value(name).map(|value| Secret::Value(value.into_bytes()));
    let secret = match (file, variable) {
        (Some(file), _) => readable(file, text)?,
        (None, Some(name)) => {
            from_env(&name).ok_or_else(|| Usage(format!("--secret {text}: no variable `{name}`")))?
        }
        (None, None) => match from_env(&id) {
            Some(value) => value,
            None => readable(PathBuf::from(&id), text)?,
        },
    };
    Ok((id, secret))
}

fn readable(file: PathBuf, text: &str) -> Result<Secret, Usage> {
    match std::fs::File::open(&file) {
        Ok(_) => Ok(Secret::File(file)),
        Err(error) => Err(Usage(format!("--secret {text}: cannot read `{}`: {error}", file.display()))),
    }
}

/// `--ssh`
pub(crate) fn ssh(text: &String) -> Result<(String, PathBuf), Usage> {
    let (id, socket) = text.split_once('=').unwrap_or((text, ""));
    if !socket.is_empty() {
        return Ok((id.to_owned(), PathBuf::from(socket)));
    }
    match env::value("SSH_AUTH_SOCK") {
        Some(socket) => Ok((id.to_owned(), PathBuf::from(socket))),
        None => Err(Usage(format!("--ssh {text}: no agent is running (SSH_AUTH_SOCK is not set)"))),
    }
}

/// `--network`
pub(crate) fn network(text: &str) -> Result<NetworkMode, Usage> {
    match text {
        "default" | "" => Ok(NetworkMode::Default),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(Usage(format!("--network {other}: not one of default, none, host"))),
    }
}

/// `--allow`
pub(crate) fn entitlement(text: &String) -> Result<String, Usage> {
    match text.as_str() {
        "network.host" | "security.insecure" | "device" => Ok(text.clone()),
        device if device.strip_prefix("device=").is_some_and(|name| !name.is_empty()) => Ok(text.clone()),
        _ => {
            let known = "network.host, security.insecure, device, device=NAME";
            Err(Usage(format!("--allow {text}: not one of {known}")))
        }
    }
}

/// `--add-host NAME:ADDRESS` or `NAME=ADDRESS`
pub(crate) fn host(text: &String) -> Result<(String, String), Usage> {
    let bad = || Usage(format!("--add-host {text}: not NAME:ADDRESS"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().map_err(|_| bad())?;
    Ok((name.to_lowercase(), bare.to_owned()))
}

/// Bytes with a unit: `64m`, `1g`, `1048576`.
pub(crate) fn size(text: &str) -> Result<u64, Usage> {
    let bad = || Usage(format!("`{text}` is not a size: try `64m`"));
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(['b', 'i']);
    let (digits, factor) = match number.chars().last() {
        Some('k') => (&number[..number.len() - 1], 1 << 10),
        Some('m') => (&number[..number.len() - 1], 1 << 20),
        Some('g') => (&number[..number.len() - 1], 1 << 30),
        _ => (number, 1u64),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)
}

/// `--ulimit NAME=SOFT[:HARD]`
pub(crate) fn ulimit(text: &String) -> Result<Ulimit, Usage> {
    let bad = || Usage(format!("--ulimit {text}: not NAME=SOFT[:HARD]"));
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// `path`, from the current directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Usage> {
    std::path::absolute(path).map_err(|error| Usage(format!("`{}`: {error}", path.display())))
}

/// How an image is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageOutput {
    /// Further names.
    pub(crate) names: Vec<String>,
    /// Whether no time in new layers is later than the epoch.
    pub(crate) rewrite: bool,
    /// What stands in place of the build's own epoch; `Some(None)` is none.
    pub(crate) epoch: Option<Option<i64>>,
    /// Blobs and manifest.
    pub(crate) encoding: Encoding,
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushTo {
    /// Under its tags.
    Tags,
    /// Without a tag.
    Digest,
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The local store, under further names, and the registries that the names say.
    Image { image: ImageOutput, push: Option<PushTo> },
    /// An archive; without a file, to standard output.
    Archive { docker: bool, dest: Option<PathBuf>, image: ImageOutput },
    /// The root as a tar; without a file, to standard output.
    Tar(Option<PathBuf>),
    /// The root's files in a directory.
    Local(PathBuf),
}

/// `-o`
pub(crate) fn output(text: &String) -> Result<Output, Usage> {
    if !text.contains('=') {
        return Ok(if text == "-" { Output::Tar(None) } else { Output::Local(PathBuf::from(text)) });
    }
    let bad = |why: &str| Usage(format!("-o {text}: {why}"));
    let (mut kind, mut dest, mut image) = ("", None, ImageOutput::default());
    let (mut push, mut by_digest) = (false, false);
    for (key, value) in fields(text) {
        match key {
            "type" => kind = value,
            "dest" => dest = Some(PathBuf::from(value)),
            "name" => image.names.push(value.to_owned()),
            "push" => push = flag(key, value).map_err(|why| bad(&why))?,
            "push-by-digest" => by_digest = flag(key, value).map_err(|why| bad(&why))?,
            "rewrite-timestamp" => image.rewrite = flag(key, value).map_err(|why| bad(&why))?,
            "source-date-epoch" => image.epoch = Some(seconds(value).map_err(|why| bad(&why))?),
            _ => encoding(&mut image.encoding, key, value).map_err(|why| bad(&why))?,
        }
    }
    let push = (push || kind == "registry").then_some(if by_digest { PushTo::Digest } else { PushTo::Tags });
    if push.is_some() && !matches!(kind, "image" | "registry") {
        return Err(bad("only type=image and type=registry can be pushed"));
    }
    let file = dest.clone().filter(|dest| dest.as_os_str() != "-");
    match kind {
        "image" | "registry" => Ok(Output::Image { image, push }),
        "oci" | "docker" => Ok(Output::Archive { docker: kind == "docker", dest: file, image }),
        "tar" => Ok(Output::Tar(file)),
        "local" => dest.map(Output::Local).ok_or_else(|| bad("no dest")),
        other => Err(bad(&format!("type `{other}` is not supported yet"))),
    }
}

/// Seconds since 1970; nothing means none.
fn seconds(value: &str) -> Result<Option<i64>, String> {
    let parsed = || value.parse().map_err(|_| format!("invalid SOURCE_DATE_EPOCH: {value}"));
    if value.is_empty() { Ok(None) } else { parsed().map(Some) }
}

/// A boolean; nothing means `true`.
fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("`{key}={other}` is neither true nor false")),
    }
}

/// A key about blobs and manifests.
fn encoding(encoding: &mut Encoding, key: &str, value: &str) -> Result<(), String> {
    match key {
        "compression" => {
            encoding.compression = match value {
                "gzip" => Compression::Gzip,
                "zstd" => Compression::Zstd,
                "uncompressed" => Compression::None,
                other => return Err(format!("compression `{other}` is not supported")),
            };
        }
        "compression-level" => {
            let level = value.parse().ok().filter(|level| *level <= 22);
            encoding.level =
                Some(level.ok_or_else(|| format!("compression-level `{value}` is not 0 to 22"))?);
        }
        "force-compression" => encoding.force = flag(key, value)?,
        "oci-mediatypes" => encoding.docker_types = !flag(key, value)?,
        _ => match key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest.")) {
            Some(name) if !name.is_empty() => {
                encoding.annotations.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(format!("`{key}` is not supported yet")),
        },
    }
    if encoding.compression == Compression::Gzip && encoding.level.is_some_and(|level| level > 9) {
        return Err("gzip has the levels 0 to 9".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("64m").ok(), Some(64 << 20));
        assert_eq!(size("1GiB").ok(), Some(1 << 30));
        assert!(size("m").is_err() && size("").is_err());
    }

    #[test]
    fn lines_of_an_argument_file() {
        let text = "\u{feff}# comment\nA=1 # kept \n\n  B=\"x\"=y\r\nPATHLESS \n";
        let lines = argument_lines(text).unwrap();
        assert_eq!(lines, ["A=1 # kept ", "B=\"x\"=y", "PATHLESS"]);
        assert_eq!(argument_lines("A=1\n=x\n"), Err(2));
        assert_eq!(argument_lines("export A=1"), Err(1));
    }

    #[test]
    fn outputs() {
        assert_eq!(output(&"out".to_owned()).ok(), Some(Output::Local("out".into())));
        assert_eq!(output(&"-".to_owned()).ok(), Some(Output::Tar(None)));
        assert!(matches!(
            output(&"type=registry".to_owned()),
            Ok(Output::Image { push: Some(PushTo::Tags), .. })
        ));
        let tuned =
            "type=oci,dest=x,compression=zstd,compression-level=9,oci-mediatypes=false,annotation.a=b";
        let Ok(Output::Archive { image, .. }) = output(&tuned.to_owned()) else { panic!() };
        assert_eq!(image.encoding.compression, Compression::Zstd);
        assert!(image.encoding.docker_types && image.encoding.annotations["a"] == "b");
        let epoch = |text: &str| match output(&format!("type=image,source-date-epoch={text}")) {
            Ok(Output::Image { image, .. }) => image.epoch,
            _ => panic!(),
        };
        assert_eq!((epoch("5"), epoch("")), (Some(Some(5)), Some(None)));
        for bad in [
            "source-date-epoch=x",
            "compression=lzma",
            "compression-level=10",
            "push=maybe",
            "annotation.=x",
            "store=1",
        ] {
            assert!(output(&format!("type=image,{bad}")).is_err(), "{bad}");
        }
        assert!(output(&"type=local".to_owned()).is_err());
    }
}
