//! Image references as Docker writes them: `[registry/]repository[:tag][@digest]`.
//!
//! `docker.io`, `library/` and (unless there is a digest) the tag `latest` are implied and always filled in.

use lapstrake_diag::{Code, Reported};
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";

/// A normalised image reference: it always has a registry and a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing fits.
    #[error("invalid reference format")]
    Format,
    /// The common slip: capital letters in the repository.
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    UpperCase {
        /// The repository, with the `library/` that names of one part have.
        name: String,
    },
    /// A name for something new that has a digest.
    #[error("a name cannot have a digest: the digest follows from the image")]
    Pinned,
    /// A name over 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
}

impl Reported for ReferenceError {
    fn code(&self) -> Code {
        Code::new("reference", "invalid")
    }
}

impl Reference {
    /// The registry's host and optional port: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository below the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. There is one unless there is a digest; both may be there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins it.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// A name that an image is to get, here or in a registry: a reference without a digest.
    ///
    /// # Errors
    /// The fault in the text as a reference; [`ReferenceError::Pinned`].
    pub fn new_name(text: &str) -> Result<Reference, ReferenceError> {
        let reference: Reference = text.parse()?;
        if reference.digest.is_some() { Err(ReferenceError::Pinned) } else { Ok(reference) }
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        format!("{}/{}:{tag}", self.registry, self.repository).parse()
    }

    /// The same repository pinned to `digest`.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// The same repository at `digest`, without a tag.
    pub fn pinned(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// The full form with registry, repository, tag and digest.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !valid_tag(tag)
        {
            return Err(ReferenceError::Format);
        }
        let (registry, path) = split_registry(name);
        if path.is_empty() || !path.split('/').all(|part| valid_component(&part.to_ascii_lowercase())) {
            return Err(ReferenceError::Format);
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            let bare = registry.is_none() && !path.contains('/');
            let name = if bare { format!("library/{path}") } else { path.to_owned() };
            return Err(ReferenceError::UpperCase { name });
        }
        let registry = match registry {
            None | Some("index.docker.io" | "registry-1.docker.io") => DEFAULT_REGISTRY,
            Some(host) if valid_host(host) => host,
            Some(_) => return Err(ReferenceError::Format),
        };
        // 64 hex digits are an image id, never a name.
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ReferenceError::Format);
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The tag is behind the last colon, unless a slash follows (then the colon starts a port).
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first part is a registry if it looks like a host: a dot, a port, `localhost`, or capital letters.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, name),
    }
}

fn valid_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn valid_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(|b| word(*b)) || !bytes.last().is_some_and(|b| word(*b)) {
        return false;
    }
    bytes.split(|b| word(*b)).all(|gap| {
        gap.is_empty() || gap == b"." || gap == b"_" || gap == b"__" || gap.iter().all(|b| *b == b'-')
    })
}

fn valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let ok_port = port.is_none_or(|p| !p.is_empty() && p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()));
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let ok_name = match inner {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    ok_port && ok_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_references() {
        let pin = format!("sha256:{}", "0".repeat(64));
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("[::1]:80/a", "[::1]:80/a:latest", "[::1]:80/a:latest"),
            ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest", "a__b/c--d.e:latest"),
            (&format!("a@{pin}"), &format!("docker.io/library/a@{pin}"), &format!("a@{pin}")),
            (&format!("a:t@{pin}"), &format!("docker.io/library/a:t@{pin}"), &format!("a:t@{pin}")),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "the full form is stable");
        }
    }

    #[test]
    fn malformed_references() {
        for text in [
            "",
            ":a",
            "a:",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "/a",
            "a//b",
            "a@sha256:0",
            "a:b:c",
            &"f".repeat(64),
            "host:99999999/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(matches!("Foo/bar/Baz".parse::<Reference>(), Err(ReferenceError::UpperCase { .. })));
        assert!(matches!("Busybox".parse::<Reference>(), Err(ReferenceError::UpperCase { .. })));
    }
}
