//! `buildkitd.toml`: the settings that a server takes from there.

mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_runtime::DnsSettings;
use lapstrake_store::BuildLimits;
use toml::{Table, Value};
use worker::Collection;

/// The settings. Those of registries are read by the client of registries itself.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// The state directory.
    pub(super) root: Option<PathBuf>,
    /// Entitlements that clients may ask for.
    pub(super) entitlements: Vec<String>,
    /// Addresses to listen at.
    pub(super) addresses: Vec<String>,
    /// The group of the socket.
    pub(super) group: Option<u32>,
    /// The certificate.
    pub(super) cert: Option<PathBuf>,
    /// Its key.
    pub(super) key: Option<PathBuf>,
    /// The certificate that signs those of clients.
    pub(super) ca: Option<PathBuf>,
    /// Labels of the worker.
    pub(super) labels: BTreeMap<String, String>,
    /// The repositories of images that may be frontends; `None` for all.
    pub(super) frontend_images: Option<Vec<String>>,
    /// The garbage collection of the worker.
    pub(super) collection: Collection,
    /// The steps that all builds together do at once.
    pub(super) most_steps: Option<NonZeroUsize>,
    /// The name servers of steps.
    pub(super) dns: DnsSettings,
    /// The records of builds that stay, where the file says so.
    pub(super) build_limits: Option<BuildLimits>,
    /// Steps have no CDI devices.
    pub(super) cdi_disabled: bool,
    /// Directories with specs of CDI devices; the usual ones where it is empty.
    pub(super) cdi_dirs: Vec<PathBuf>,
    /// The socket that programs send their traces to.
    pub(super) trace_socket: Option<PathBuf>,
    /// Keys that say something, and that nothing here follows.
    pub(super) unknown: Vec<String>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has a value of another kind.
    pub(super) fn read(path: &Path) -> Outcome<Config> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{shown}`"))?;
        Config::parse(&text).map_err(|why| Usage(format!("`{shown}`: {why}")).into())
    }

    fn parse(text: &str) -> Result<Config, String> {
        let table: Table =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().replace('\n', " "))?;
        let mut config = Config::default();
        for (key, value) in &table {
            match key.as_str() {
                "root" => config.root = Some(text_of(key, value)?.into()),
                "insecure-entitlements" => config.entitlements = list_of(key, value)?,
                "registry" | "debug" | "trace" => {}
                "grpc" => config.grpc(table_of(key, value)?)?,
                "frontend" => config.frontend(table_of(key, value)?)?,
                "worker" => config.worker(table_of(key, value)?)?,
                "dns" => config.dns(table_of(key, value)?)?,
                "history" => config.history(table_of(key, value)?)?,
                "cdi" => config.cdi(table_of(key, value)?)?,
                "otel" => config.otel(table_of(key, value)?)?,
                _ => config.unknown.push(key.clone()),
            }
        }
        Ok(config)
    }

    fn grpc(&mut self, table: &Table) -> Result<(), String> {
        for (key, value) in table {
            match key.as_str() {
                "address" => self.addresses = list_of(key, value)?,
                "gid" => {
                    self.group = Some(u32::try_from(number_of(key, value)?).map_err(|_| "gid is too large")?);
                }
                "debugAddress" | "uid" => self.unknown.push(format!("grpc.{key}")),
                "tls" => {
                    for (key, value) in table_of(key, value)? {
                        let path = Some(PathBuf::from(text_of(key, value)?))
                            .filter(|path| !path.as_os_str().is_empty());
                        match key.as_str() {
                            "cert" => self.cert = path,
                            "key" => self.key = path,
                            "ca" => self.ca = path,
                            _ => self.unknown.push(format!("grpc.tls.{key}")),
                        }
                    }
                }
                _ => self.unknown.push(format!("grpc.{key}")),
            }
        }
        Ok(())
    }

    fn otel(&mut self, table: &Table) -> Result<(), String> {
        for (key, value) in table {
            match key.as_str() {
                "socketPath" => {
                    let path = Some(PathBuf::from(text_of(key, value)?));
                    self.trace_socket = path.filter(|path| !path.as_os_str().is_empty());
                    if self.trace_socket.as_ref().is_some_and(|path| !path.is_absolute()) {
                        return Err("`otel.socketPath` is not an absolute path".to_owned());
                    }
                }
                _ => self.unknown.push(format!("otel.{key}")),
            }
        }
        Ok(())
    }

    fn frontend(&mut self, table: &Table) -> Result<(), String> {
        for (name, value) in table {
            for (key, value) in table_of(name, value)? {
                match (name.as_str(), key.as_str()) {
                    ("gateway.v0", "allowedRepositories") => {
                        self.frontend_images = Some(list_of(key, value)?).filter(|list| !list.is_empty());
                    }
                    // Both are here, and nothing turns them off.
                    ("gateway.v0" | "dockerfile.v0", "enabled") if value.as_bool() == Some(true) => {}
                    _ => self.unknown.push(format!("frontend.{name}.{key}")),
                }
            }
        }
        Ok(())
    }
}

fn text_of(key: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("`{key}` is no text"))
}

fn number_of(key: &str, value: &Value) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| format!("`{key}` is no number"))
}

fn table_of<'v>(key: &str, value: &'v Value) -> Result<&'v Table, String> {
    value.as_table().ok_or_else(|| format!("`{key}` is no table"))
}

fn list_of(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| format!("`{key}` is no list"))?;
    list.iter().map(|value| text_of(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildkit_reads() {
        let text = r#"
            debug = true
            root = "/x"
            insecure-entitlements = ["network.host"]
            [grpc]
            address = ["unix:///s"]
            gid = 7
            [grpc.tls]
            cert = "c"
            [worker.oci]
            enabled = true
            snapshotter = "auto"
            [worker.oci.labels]
            a = "b"
            [registry."docker.io"]
            mirrors = ["m:5000"]
            [frontend."gateway.v0"]
            allowedRepositories = ["a/b"]
            [history]
            maxAge = 1
            [otel]
            socketPath = "/run/otel.sock"
            [log]
            level = "info"
        "#;
        let config = Config::parse(text).unwrap();
        assert_eq!((config.root, config.group), (Some("/x".into()), Some(7)));
        assert_eq!((config.entitlements.len(), config.addresses.len(), config.labels.len()), (1, 1, 1));
        assert_eq!(config.frontend_images, Some(vec!["a/b".to_owned()]));
        assert_eq!(config.trace_socket, Some("/run/otel.sock".into()));
        assert_eq!(config.unknown, ["log", "worker.oci.snapshotter"]);
    }

    #[test]
    fn wrong_values_have_names() {
        for (text, word) in [
            ("root = 1", "`root` is no text"),
            ("[grpc]\naddress = 1", "`address` is no list"),
            ("[otel]\nsocketPath = \"x\"", "absolute"),
            ("x", "="),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
