//! Platforms: `os[(os.version)]/arch[/variant]`, normalised as containerd does.

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

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a platform: {why}")]
pub struct PlatformError {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
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

    /// The form without the operating system's version: `linux/arm/v7`.
    pub fn short(&self) -> String {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            text.push('/');
            text.push_str(&self.variant);
        }
        text
    }

    /// Whether an image for `other` runs where `self` is asked for. A missing variant on either side matches.
    pub fn accepts(&self, other: &Platform) -> bool {
        let other = Platform::new(&other.os, &other.architecture, &other.variant);
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_empty() || other.variant.is_empty() || self.variant == other.variant)
            && (self.os_version.is_empty()
                || other.os_version.is_empty()
                || self.os_version == other.os_version)
    }
}

fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let pair = |a: &str, v: &str| (a.to_owned(), v.to_owned());
    match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => pair("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => pair("amd64", v),
        ("i386" | "i486" | "i586" | "x86" | "386", _) => pair("386", ""),
        ("aarch64" | "arm64", "" | "8" | "v8") => pair("arm64", ""),
        ("aarch64" | "arm64", v) => pair("arm64", v),
        ("armhf", _) | ("arm", "" | "7" | "v7") => pair("arm", "v7"),
        ("armel", _) | ("arm", "6" | "v6") => pair("arm", "v6"),
        ("arm", "5") => pair("arm", "v5"),
        ("arm", "8") => pair("arm", "v8"),
        (a, v) => pair(a, v),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let fail = |why| PlatformError { text: text.to_owned(), why };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, version) = match parts[0].split_once('(') {
            None => (parts[0], ""),
            Some((os, rest)) => (os, rest.strip_suffix(')').ok_or_else(|| fail("`(` without `)`"))?),
        };
        let word =
            |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !word(os) || !parts[1..].iter().all(|p| word(p)) {
            return Err(fail("parts are words separated by `/`, as in `linux/amd64`"));
        }
        let mut platform = match parts.as_slice() {
            // One word is an operating system if it is a known one, else a processor of the host's system.
            [_] if matches!(
                os.to_ascii_lowercase().as_str(),
                "linux" | "windows" | "darwin" | "macos" | "freebsd"
            ) =>
            {
                Platform { os: os.to_ascii_lowercase(), ..Platform::host() }
            }
            [_] if version.is_empty() => {
                let platform = Platform::new("linux", os, "");
                let known =
                    ["amd64", "386", "arm", "arm64", "ppc64le", "s390x", "riscv64", "mips64le", "loong64"];
                if !known.contains(&platform.architecture.as_str()) {
                    return Err(fail("unknown operating system or architecture"));
                }
                platform
            }
            [_, arch] => Platform::new(os, arch, ""),
            [_, arch, variant] => Platform::new(os, arch, variant),
            _ => return Err(fail("at most `os/arch/variant`")),
        };
        version.clone_into(&mut platform.os_version);
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
