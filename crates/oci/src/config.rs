//! The image config: OCI's with the fields of the Docker image spec, in the key order that BuildKit writes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::DiffId;
use crate::platform::Platform;

/// The whole config. Top-level keys are in alphabetical order, as Go writes a map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The processor, in Go's names.
    #[serde(deserialize_with = "null_is_default")]
    pub architecture: String,
    /// The author (`MAINTAINER`).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// The defaults of containers of this image.
    #[serde(deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// One entry for each instruction.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nulls_are_default")]
    pub history: Vec<History>,
    /// The operating system, in Go's names.
    #[serde(deserialize_with = "null_is_default")]
    pub os: String,
    /// Features that the operating system must have.
    #[serde(
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nulls_are_default"
    )]
    pub os_features: Vec<String>,
    /// The operating system's version (Windows).
    #[serde(
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_version: String,
    /// The layers.
    #[serde(deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// The processor's variant.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub variant: String,
}

impl ImageConfig {
    /// The config in a document. One that does not say what it is for is taken for this machine's, as Go's programs do.
    ///
    /// # Errors
    /// The fault in the JSON.
    pub fn read(bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
        let mut config: ImageConfig = serde_json::from_slice(bytes)?;
        let host = Platform::host();
        if config.os.is_empty() {
            config.os = host.os;
        }
        if config.architecture.is_empty() {
            (config.architecture, config.variant) = (host.architecture, String::new());
        }
        Ok(config)
    }

    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, &self.variant)
        }
    }
}

/// The `config` object. Its keys keep the order of Docker's struct.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// `port/protocol` keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_values_are_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `KEY=value` in the order of definition.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nulls_are_default")]
    pub env: Vec<String>,
    /// The program; the command's arguments are appended.
    #[serde(skip_serializing_if = "is_none_or_empty", deserialize_with = "some_nulls_are_default")]
    pub entrypoint: Option<Vec<String>>,
    /// The default arguments.
    #[serde(skip_serializing_if = "is_none_or_empty", deserialize_with = "some_nulls_are_default")]
    pub cmd: Option<Vec<String>>,
    /// Paths that the runtime gives a volume of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_values_are_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The image's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_values_are_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it, as written.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Set by `CMD`: the command line is already escaped (Windows).
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub args_escaped: bool,
    /// How the runtime tells that it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Triggers for images built from this one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nulls_are_default")]
    pub on_build: Vec<String>,
    /// The shell of shell forms; empty is the system's default.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nulls_are_default")]
    pub shell: Vec<String>,
}

impl ContainerConfig {
    /// The names of the exposed ports.
    pub fn ports(&self) -> BTreeSet<&str> {
        self.exposed_ports.keys().map(String::as_str).collect()
    }
}

/// The `{}` that Go's set-like maps have for values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A duration in nanoseconds, as Go's JSON writes one.
pub type GoDuration = i64;

/// `HEALTHCHECK`: zero durations mean "inherit" and are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nulls_are_default")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub interval: GoDuration,
    /// Until one check counts as failed.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub timeout: GoDuration,
    /// Before failures count.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_period: GoDuration,
    /// Between two checks while starting.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_interval: GoDuration,
    /// Failures until it counts as unhealthy.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub retries: i64,
}

/// One row of `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub created_by: String,
    /// The author.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// The builder.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// No layer belongs to it.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

/// The layers of an image, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    /// The digests of the uncompressed tars.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_none_or_empty(value: &Option<Vec<String>>) -> bool {
    value.as_ref().is_none_or(Vec::is_empty)
}

/// Go writes nil maps and slices as `null`.
fn null_is_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Lists whose members may be `null`.
fn nulls_are_default<'de, D, T>(input: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(some_nulls_are_default(input)?.unwrap_or_default())
}

fn some_nulls_are_default<'de, D, T>(input: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let all: Option<Vec<Option<T>>> = Option::deserialize(input)?;
    Ok(all.map(|all| all.into_iter().map(Option::unwrap_or_default).collect()))
}

/// Maps whose values may be `null`.
fn null_values_are_default<'de, D, T>(input: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let all: Option<BTreeMap<String, Option<T>>> = Option::deserialize(input)?;
    Ok(all.unwrap_or_default().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_order_and_omission() {
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            config: ContainerConfig {
                env: vec!["A=<b>".into()],
                cmd: Some(vec!["x".into()]),
                working_dir: "/".into(),
                ..Default::default()
            },
            ..Default::default()
        };
        assert_eq!(
            String::from_utf8(lapstrake_go::to_json(&config)).unwrap(),
            r#"{"architecture":"amd64","config":{"Env":["A=\u003cb\u003e"],"Cmd":["x"],"WorkingDir":"/"},"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }

    #[test]
    fn nulls_of_other_builders() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"Labels":null,"OnBuild":null},
            "rootfs":{"type":"layers","diff_ids":null},"history":null,"container":"x"}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config, ContainerConfig::default());
    }

    /// `null` stands for nothing wherever Go has a zero value.
    #[test]
    fn nulls_anywhere() {
        let text = r#"{"architecture":null,"os":null,"author":null,"created":null,"variant":null,"os.version":null,
            "os.features":null,"config":{"User":null,"ExposedPorts":{"80/tcp":null},"Env":[null,"A=b"],"Entrypoint":[null],
            "Cmd":null,"Volumes":{"/v":null},"WorkingDir":null,"Labels":{"a":null},"StopSignal":null,"ArgsEscaped":null,
            "Healthcheck":{"Test":null,"Interval":null,"Retries":null},"OnBuild":[null],"Shell":null},
            "rootfs":{"type":null,"diff_ids":null},
            "history":[null,{"created":null,"created_by":null,"author":null,"comment":null,"empty_layer":null}]}"#;
        let config = ImageConfig::read(text.as_bytes()).unwrap();
        let host = Platform::host();
        assert_eq!((config.os, config.architecture), (host.os, host.architecture));
        assert_eq!(config.history, [History::default(), History::default()]);
        assert_eq!(config.config.env, ["", "A=b"]);
        assert!(config.config.volumes.contains_key("/v") && config.config.labels["a"].is_empty());
        assert_eq!(config.config.healthcheck, Some(Healthcheck::default()));
        for text in [r#"{"config":null,"rootfs":null}"#, "{}"] {
            assert_eq!(ImageConfig::read(text.as_bytes()).unwrap().config, ContainerConfig::default());
        }
    }
}
