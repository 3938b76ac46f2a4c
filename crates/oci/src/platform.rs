//! Platforms: `os[(os.version)]/arch[/variant]`, normalised as containerd does.

use lapstrake_diag::{Code, Reported};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor. Always normalised (`aarch64` is `arm64`, `amd64/v1` is `amd64`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, in Go's names.
    pub architecture: String,
    /// The operating system, in Go's names.
    pub os: String,
    /// The operating system's version (Windows); empty if none.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// The operating system's required features.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The processor's variant (`v7`); empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a text is not a platform, in containerd's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PlatformError(String);

impl Reported for PlatformError {
    fn code(&self) -> Code {
        Code::new("platform", "invalid")
    }
}

impl Platform {
    /// The platform with these parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let (architecture, variant) =
            normalise(&architecture.to_ascii_lowercase(), &variant.to_ascii_lowercase());
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        Platform { architecture, os, os_version: String::new(), os_features: Vec::new(), variant }
    }

    /// The platform that this program runs on.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, if cfg!(target_arch = "arm") { "v7" } else { "" })
    }

    /// The same in the words that indexes use, whatever a config says: `linux/arm64` for `linux/arm64/v8`.
    pub fn normalised(&self) -> Platform {
        let plain = Platform::new(&self.os, &self.architecture, &self.variant);
        Platform { os_version: self.os_version.clone(), os_features: self.os_features.clone(), ..plain }
    }

    /// The form without the operating system's version: `linux/arm/v7`.
    pub fn short(&self) -> String {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            text.push('/');
            text.push_str(&self.variant);
        }
        text
    }

    /// Whether an image for `other` runs where `self` is asked for. A missing variant on either side matches, and so does a
    /// missing version of Windows.
    pub fn accepts(&self, other: &Platform) -> bool {
        let plain = Platform::new(&other.os, &other.architecture, &other.variant);
        self.os == plain.os
            && self.architecture == plain.architecture
            && (self.variant.is_empty() || plain.variant.is_empty() || self.variant == plain.variant)
            && (self.os != "windows" || same_windows(&self.os_version, &other.os_version))
    }
}

/// Whether two versions of Windows have the same build, the third part of a version. The rest tells updates apart.
fn same_windows(one: &str, other: &str) -> bool {
    let build = |version: &str| version.split('.').take(3).collect::<Vec<_>>().join(".");
    one.is_empty() || other.is_empty() || build(one) == build(other)
}

fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("i386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        pair => pair,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() || !self.os_features.is_empty() {
            let escaped = |text: &str| {
                let pairs = [("%", "%25"), ("+", "%2B"), ("(", "%28"), (")", "%29"), ("/", "%2F")];
                pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
            };
            write!(f, "({}", escaped(&self.os_version))?;
            self.os_features.iter().try_for_each(|feature| write!(f, "+{}", escaped(feature)))?;
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The part before the first slash.
const OS: &str = r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";
/// The part behind the slash.
const COMPONENT: &str = "^[A-Za-z0-9_.-]+$";
/// Go's names of operating systems.
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
/// Go's names of processors.
const PROCESSORS: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Whether it is a word of letters, digits and `more`.
fn word(text: &str, more: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

/// Name, version and features of an operating system: `windows(10.0+feature)`.
fn system(text: &str) -> Option<(&str, &str, Vec<&str>)> {
    let (name, options) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?),
        None => (text, ""),
    };
    let mut options = options.split('+');
    let version = options.next().unwrap_or_default();
    let features: Vec<&str> = options.collect();
    let option = |text: &&str| word(text, b"_.%-");
    let fits = word(name, b"_-") && (version.is_empty() || option(&version)) && features.iter().all(option);
    fits.then_some((name, version, features))
}

/// `%2B` and its likes undone; the error is what is none.
fn unescaped(text: &str) -> Result<String, &str> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        if *byte == b'%' {
            let digits = text.get(at + 1..at + 3).filter(|digits| !digits.starts_with('+'));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or(&text[at..text.len().min(at + 3)])?);
            at += 3;
        } else {
            bytes.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(bytes).map_err(|_| text)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        if text.contains('*') {
            return Err(PlatformError(format!("{text:?}: wildcards not yet supported: invalid argument")));
        }
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let (os, version, features) = system(parts[0]).ok_or_else(|| {
            let os = parts[0];
            let must = format!("OSAndVersion specifier component must match \"{OS}\"");
            PlatformError(format!("{os:?} is an invalid OS component of {text:?}: {must}: invalid argument"))
        })?;
        if let Some(part) = parts[1..].iter().find(|part| !word(part, b"_.-")) {
            let must = format!("platform specifier component must match \"{COMPONENT}\"");
            return Err(PlatformError(format!(
                "{part:?} is an invalid component of {text:?}: {must}: invalid argument"
            )));
        }
        let mut platform = match parts.as_slice() {
            // One word is an operating system if it is a known one, else a processor of the host's system.
            [_] => {
                let host = Platform { os: Platform::new(os, "", "").os, ..Platform::host() };
                let processor = Platform::new("linux", parts[0], "");
                if SYSTEMS.contains(&host.os.as_str()) {
                    host
                } else if PROCESSORS.contains(&processor.architecture.as_str()) {
                    processor
                } else {
                    return Err(PlatformError(format!(
                        "{text:?}: unknown operating system or architecture: invalid argument"
                    )));
                }
            }
            [_, arch] => Platform::new(os, arch, ""),
            [_, arch, variant] => Platform::new(os, arch, variant),
            _ => {
                return Err(PlatformError(format!(
                    "{text:?}: cannot parse platform specifier: invalid argument"
                )));
            }
        };
        let escape = |what: &str, option: &str| {
            let why = |bad| format!("{text:?} has an invalid {what} {option:?}: invalid URL escape {bad:?}");
            unescaped(option).map_err(|bad| PlatformError(why(bad)))
        };
        platform.os_version = escape("OS version", version)?;
        platform.os_features =
            features.iter().map(|feature| escape("OS feature", feature)).collect::<Result<_, _>>()?;
        platform.os_features.sort();
        platform.os_features.dedup();
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_normalised_with_all_they_say() {
        let told: Platform = serde_json::from_str(
            r#"{"architecture":"arm64","os":"linux","os.features":["x"],"variant":"v8"}"#,
        )
        .unwrap();
        let same = told.normalised();
        assert_eq!(
            (same.short().as_str(), same.os_features.as_slice()),
            ("linux/arm64", ["x".to_owned()].as_slice())
        );
        assert!(Platform::new("linux", "arm64", "").accepts(&told) && same.normalised() == same);
    }

    #[test]
    fn normalised_forms() {
        for (text, expected) in [
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("i386", "linux/386"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn malformed_platforms() {
        for text in ["", "/", "linux/", "linux/a/b/c", "foo", "linux(1/amd64", "li nux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
