//! Manifests and indexes. Indented by two spaces: their digests depend on it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lapstrake_go::{to_json, to_json_indented};
use lapstrake_oci::{Digest, Platform, Reference, media};
use serde::Serialize;

use crate::Document;

/// A blob as documents name it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Desc<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
}

impl<'a> Desc<'a> {
    /// Of which nothing more is said.
    pub(crate) fn plain(media_type: &'a str, digest: &'a Digest, size: u64) -> Desc<'a> {
        Desc { media_type, digest, size, annotations: BTreeMap::new(), platform: None }
    }

    /// The same with this said of it.
    pub(crate) fn saying<const N: usize>(self, annotations: [(&'a str, String); N]) -> Desc<'a> {
        let owned = annotations.map(|(key, value)| (key, Cow::from(value)));
        Desc { annotations: owned.into(), ..self }
    }
}

/// A layer as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedLayer {
    /// How the blob is to be read.
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size.
    pub size: u64,
    /// What is said of it.
    pub annotations: BTreeMap<String, String>,
}

/// The manifest of one image, in the words of the OCI or of Docker.
pub fn manifest(
    config: (&Digest, u64),
    layers: &[ListedLayer],
    annotations: &BTreeMap<String, String>,
    docker_types: bool,
) -> Document {
    let (media_type, config_type) = if docker_types {
        (media::DOCKER_MANIFEST, media::DOCKER_CONFIG)
    } else {
        (media::OCI_MANIFEST, media::OCI_CONFIG)
    };
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: Desc<'a>,
        layers: Vec<Desc<'a>>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    Document::new(to_json_indented(&Manifest {
        schema_version: 2,
        media_type,
        config: Desc::plain(config_type, config.0, config.1),
        layers: layers.iter().map(ListedLayer::descriptor).collect(),
        annotations,
    }))
}

impl ListedLayer {
    fn descriptor(&self) -> Desc<'_> {
        let annotations = self.annotations.iter().map(|(key, value)| (key.as_str(), Cow::from(value)));
        Desc { annotations: annotations.collect(), ..Desc::plain(&self.media_type, &self.digest, self.size) }
    }
}

/// A manifest as the index of an image lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedManifest {
    /// What it is for.
    pub platform: Platform,
    /// The type of the manifest.
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size.
    pub size: u64,
    /// What is said of it there.
    pub annotations: BTreeMap<String, String>,
}

/// An index of the manifests of one image for several platforms. It is one of Docker's if all of these are.
pub fn index(
    manifests: &[ListedManifest],
    annotations: &BTreeMap<String, String>,
) -> (&'static str, Document) {
    let docker = manifests.iter().all(|listed| listed.media_type == media::DOCKER_MANIFEST);
    let media_type = if docker { media::DOCKER_INDEX } else { media::OCI_INDEX };
    let manifests = manifests.iter().map(ListedManifest::descriptor).collect();
    (media_type, index_of(media_type, manifests, annotations))
}

/// An index of these blobs.
pub(crate) fn index_of(
    media_type: &str,
    manifests: Vec<Desc<'_>>,
    annotations: &BTreeMap<String, String>,
) -> Document {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: Vec<Desc<'a>>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    Document::new(to_json_indented(&Index { schema_version: 2, media_type, manifests, annotations }))
}

impl ListedManifest {
    fn descriptor(&self) -> Desc<'_> {
        let annotations = self.annotations.iter().map(|(key, value)| (key.as_str(), Cow::from(value)));
        Desc {
            annotations: annotations.collect(),
            platform: Some(&self.platform),
            ..Desc::plain(&self.media_type, &self.digest, self.size)
        }
    }
}

/// An image in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutImage {
    /// The type of its manifest (or index).
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size.
    pub size: u64,
    /// The image's names; without any it stands there unnamed.
    pub names: Vec<Reference>,
    /// What is said of it there.
    pub annotations: BTreeMap<String, String>,
    /// What it is for; an index says that of each of its manifests.
    pub platform: Option<Platform>,
}

/// How containerd and BuildKit write down a whole name.
const NAME: &str = "io.containerd.image.name";
/// How the spec writes down a tag.
const REF: &str = "org.opencontainers.image.ref.name";

/// The `index.json` of an OCI layout that holds these images, beside those of the index that was there before. One that
/// has the same name, or the same digest and none, gives way.
pub fn layout_index(images: &[LayoutImage], before: Option<&[u8]>) -> Vec<u8> {
    let mut new: Vec<(Option<String>, serde_json::Value)> = Vec::new();
    for image in images {
        let full: Vec<Option<String>> = match image.names.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.to_string())).collect(),
        };
        for (number, full) in full.into_iter().enumerate() {
            let mut entry = Desc::plain(&image.media_type, &image.digest, image.size);
            entry.platform = image.platform.as_ref();
            entry.annotations =
                image.annotations.iter().map(|(key, value)| (key.as_str(), Cow::from(value))).collect();
            if let Some(full) = &full {
                entry.annotations.insert(NAME, full.into());
                entry.annotations.insert(REF, image.names[number].tag().unwrap_or("latest").into());
            }
            let value = serde_json::to_value(&entry).unwrap_or_default();
            new.push((full, value));
        }
    }
    let before: serde_json::Value =
        before.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let kept = before["manifests"].as_array().cloned().unwrap_or_default().into_iter().filter(|old| {
        let name = old["annotations"][NAME].as_str();
        !new.iter().any(|(full, entry)| match name {
            Some(name) => full.as_deref() == Some(name),
            None => entry["digest"] == old["digest"],
        })
    });
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Whole {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<serde_json::Value>,
    }
    let manifests = kept.collect::<Vec<_>>().into_iter().chain(new.iter().map(|(_, entry)| entry.clone()));
    to_json(&Whole { schema_version: 2, media_type: media::OCI_INDEX, manifests: manifests.collect() })
}

/// An image in a `docker save` archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerImage {
    /// The config's digest.
    pub config: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// Its layers' digests, lowest first.
    pub layers: Vec<Digest>,
}

/// The `manifest.json` of a `docker save` archive.
pub fn docker_manifest_json(images: &[DockerImage]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    let entry = |image: &DockerImage| Entry {
        config: path(&image.config),
        repo_tags: image.names.iter().map(Reference::familiar).collect(),
        layers: image.layers.iter().map(path).collect(),
    };
    to_json(&images.iter().map(entry).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str, names: &[&str]) -> LayoutImage {
        LayoutImage {
            media_type: media::OCI_MANIFEST.to_owned(),
            digest: Digest::sha256(text.as_bytes()),
            size: 1,
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            annotations: BTreeMap::new(),
            platform: Some("linux/amd64".parse().unwrap()),
        }
    }

    #[test]
    fn an_index_is_dockers_if_all_in_it_is() {
        let listed = |platform: &str, media_type: &str, annotations: &[(&str, &str)]| ListedManifest {
            platform: platform.parse().unwrap(),
            media_type: media_type.to_owned(),
            digest: Digest::sha256(platform.as_bytes()),
            size: 1,
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let docker = listed("linux/arm/v7", media::DOCKER_MANIFEST, &[]);
        assert_eq!(index(std::slice::from_ref(&docker), &BTreeMap::new()).0, media::DOCKER_INDEX);
        let both = [docker, listed("linux/amd64", media::OCI_MANIFEST, &[("k", "v")])];
        let (media_type, document) = index(&both, &[("a".to_owned(), "b".to_owned())].into());
        assert_eq!(media_type, media::OCI_INDEX);
        let text = String::from_utf8(document.bytes).unwrap();
        let (arm, amd) = (&both[0].digest, &both[1].digest);
        let expected = format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {{
      "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
      "digest": "{arm}",
      "size": 1,
      "platform": {{
        "architecture": "arm",
        "os": "linux",
        "variant": "v7"
      }}
    }},
    {{
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "{amd}",
      "size": 1,
      "annotations": {{
        "k": "v"
      }},
      "platform": {{
        "architecture": "amd64",
        "os": "linux"
      }}
    }}
  ],
  "annotations": {{
    "a": "b"
  }}
}}"#
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_layout_keeps_what_has_other_names() {
        let first = layout_index(&[image("a", &["x:1", "x:2"]), image("n", &[])], None);
        let second = layout_index(&[image("b", &["x:2"]), image("n", &[])], Some(&first));
        let index: serde_json::Value = serde_json::from_slice(&second).unwrap();
        let found: Vec<(String, String)> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let name = entry["annotations"][REF].as_str().unwrap_or_default().to_owned();
                (name, entry["digest"].as_str().unwrap().to_owned())
            })
            .collect();
        let digest = |text: &str| Digest::sha256(text.as_bytes()).to_string();
        assert_eq!(
            found,
            [("1".to_owned(), digest("a")), ("2".to_owned(), digest("b")), (String::new(), digest("n"))]
        );
    }
}
