//! Manifests and indexes. Indented by two spaces: their digests depend on it.

use std::collections::BTreeMap;

use lapstrake_oci::{Digest, Platform, Reference, media, to_json, to_json_indented};
use serde::Serialize;

use crate::Document;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Desc<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
}

/// The manifest of one image, in the words of the OCI or of Docker.
pub fn manifest(
    config: (&Digest, u64),
    layers: &[(String, Digest, u64)],
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
        config: plain(config_type, config.0, config.1),
        layers: layers.iter().map(|(media_type, digest, size)| plain(media_type, digest, *size)).collect(),
        annotations,
    }))
}

fn plain<'a>(media_type: &'a str, digest: &'a Digest, size: u64) -> Desc<'a> {
    Desc { media_type, digest, size, annotations: BTreeMap::new(), platform: None }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Desc<'a>>,
}

/// An index of the manifests of one image for several platforms.
pub fn index(manifests: &[(Platform, Digest, u64)]) -> Document {
    Document::new(to_json_indented(&Index {
        schema_version: 2,
        media_type: media::OCI_INDEX,
        manifests: manifests
            .iter()
            .map(|(platform, digest, size)| Desc {
                platform: Some(platform),
                ..plain(media::OCI_MANIFEST, digest, *size)
            })
            .collect(),
    }))
}

/// The `index.json` of an OCI layout that holds one image (or index) under these names; without names it stands there
/// unnamed.
pub fn layout_index(
    media_type: &str,
    digest: &Digest,
    size: u64,
    names: &[Reference],
    created: Option<&str>,
) -> Vec<u8> {
    let full: Vec<String> = names.iter().map(ToString::to_string).collect();
    let entry = || {
        let mut entry = plain(media_type, digest, size);
        entry.annotations.extend(created.map(|time| ("org.opencontainers.image.created", time)));
        entry
    };
    let mut manifests = vec![];
    for (name, full) in names.iter().zip(&full) {
        let mut named = entry();
        named.annotations.insert("io.containerd.image.name", full);
        named.annotations.insert("org.opencontainers.image.ref.name", name.tag().unwrap_or("latest"));
        manifests.push(named);
    }
    if names.is_empty() {
        manifests.push(entry());
    }
    to_json(&Index { schema_version: 2, media_type: media::OCI_INDEX, manifests })
}

/// The `manifest.json` of a `docker save` archive.
pub fn docker_manifest_json(config: &Digest, names: &[Reference], layers: &[Digest]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    to_json(&[Entry {
        config: path(config),
        repo_tags: names.iter().map(Reference::familiar).collect(),
        layers: layers.iter().map(path).collect(),
    }])
}
