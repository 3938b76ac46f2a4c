//! Settings for single registries, in the words of BuildKit's configuration:
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["mirror.example:5000", "harbor.example/proxy.docker.io"]
//!
//! [registry."registry.example:5000"]
//! http = true
//! insecure = true
//! ca = ["/etc/ssl/private-ca.pem"]
//! [[registry."registry.example:5000".keypair]]
//! key = "/etc/ssl/client.key"
//! cert = "/etc/ssl/client.pem"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use lapstrake_http::Proxies;
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::error::RegistryError;

/// Who we are to registries, and how each is reached. Files are read when somebody first talks to one.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Logins.
    pub credentials: Credentials,
    /// The files with settings: the first that is there counts.
    pub files: Vec<PathBuf>,
    /// Whether the files have tables for other programs besides `registry`, as `buildkitd.toml` has. Else such a table is an
    /// error.
    pub other_tables: bool,
    /// Every registry may be one without TLS, or with a certificate that nobody vouches for.
    pub insecure: bool,
    /// The proxies to go by.
    pub proxies: Proxies,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    registry: BTreeMap<String, Host>,
    #[serde(flatten)]
    other: BTreeMap<String, toml::Value>,
}

/// What is set for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Host {
    /// Asked first for everything that is pulled: hosts, and repositories below which the same ones are.
    pub(crate) mirrors: Vec<String>,
    /// Without TLS.
    pub(crate) http: Option<bool>,
    /// TLS with any certificate, and without TLS where there is none.
    pub(crate) insecure: bool,
    /// Files with certificates that vouch for the registry's, beside the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Who we are by TLS.
    pub(crate) keypair: Vec<KeyPair>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPair {
    pub(crate) key: PathBuf,
    pub(crate) cert: PathBuf,
}

impl Settings {
    /// Reads the first file of `registries` that is there.
    pub(crate) fn read(registries: &Registries) -> Result<Settings, RegistryError> {
        for path in &registries.files {
            match fs::read_to_string(path) {
                Ok(text) => return Settings::parse(path, &text, registries.other_tables),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(bad(path, &error)),
            }
        }
        Ok(Settings::default())
    }

    /// Reads a text, which may have tables of other programs only with `other_tables`.
    fn parse(path: &Path, text: &str, other_tables: bool) -> Result<Settings, RegistryError> {
        let settings: Settings = toml::from_str(text).map_err(|error| bad(path, &error))?;
        if let Some(key) = settings.other.keys().next().filter(|_| !other_tables) {
            return Err(bad(path, &format!("unknown field `{key}`, expected `registry`")));
        }
        for (name, host) in &settings.registry {
            let is_mirror = |mirror: &String| !mirror.is_empty() && !mirror.contains("://");
            if let Some(mirror) = host.mirrors.iter().find(|mirror| !is_mirror(mirror)) {
                let why = format!("`{mirror}`, a mirror of {name}, is not HOST[:PORT][/PATH]");
                return Err(bad(path, &why));
            }
        }
        Ok(settings)
    }

    /// What is set for `host`.
    pub(crate) fn of(&self, host: &str) -> Host {
        self.registry.get(host).cloned().unwrap_or_default()
    }
}

fn bad(path: &Path, why: &dyn std::fmt::Display) -> RegistryError {
    // A parser's message has several lines; the last one is the reason.
    let why = why.to_string().trim_end().replace('\n', " ");
    RegistryError::Settings { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildkit_reads() {
        let text = r#"
            [registry."docker.io"]
            mirrors = ["mirror.example:5000", "harbor.example/proxy"]
            [registry."r.example"]
            http = true
            insecure = true
            ca = ["ca.pem"]
            [[registry."r.example".keypair]]
            key = "k.pem"
            cert = "c.pem"
        "#;
        let settings = Settings::parse(Path::new("x"), text, false).unwrap();
        assert_eq!(settings.of("docker.io").mirrors, ["mirror.example:5000", "harbor.example/proxy"]);
        let host = settings.of("r.example");
        assert_eq!((host.http, host.insecure, host.ca.len()), (Some(true), true, 1));
        assert_eq!(host.keypair[0].cert, PathBuf::from("c.pem"));
        assert_eq!(settings.of("other.example"), Host::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[registry.x]\nmirors = []", "mirors"),
            ("[registri.x]\nmirrors = []", "registri"),
            ("[registry.x]\nhttp = \"yes\"", "http"),
            ("[registry.x]\nmirrors = [\"https://a\"]", "https://a"),
            ("[registry", "lapstrake.toml"),
        ] {
            let parse = |other| Settings::parse(Path::new("/etc/lapstrake.toml"), text, other);
            let error = parse(false).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            // A daemon's file has tables for others, and the same mistakes.
            assert_eq!(parse(true).is_ok(), word == "registri", "{text}");
        }
        assert!(
            Settings::read(&Registries {
                files: vec!["/nonexistent/x.toml".into()],
                ..Registries::default()
            })
            .is_ok()
        );
    }
}
