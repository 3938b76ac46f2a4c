//! `--metadata-file`: what was built, in the words of buildx.

use std::collections::BTreeMap;

use lapstrake_assemble::Document;
use lapstrake_oci::{Digest, Platform, Reference};
use lapstrake_outputs::{Bundle, Manifest};
use serde::Serialize;

/// The values that exporters give buildx, and that buildx writes down.
#[derive(Default)]
pub struct Metadata {
    values: BTreeMap<&'static str, Value>,
    /// The documents of the images, without repetition.
    documents: BTreeMap<Digest, Vec<u8>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Descriptor(Box<Descriptor>),
}

/// In the order in which Go writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

impl Metadata {
    /// An image without a manifest: the local store needs none. Docker's own store answers the same. Of several platforms
    /// no config stands for all.
    pub fn image(&mut self, bundle: &Bundle, names: &[Reference]) {
        let id = bundle.main().image.document.digest.to_string();
        if bundle.index.is_none() {
            self.text("containerimage.config.digest", id.clone());
        }
        self.values.entry("containerimage.digest").or_insert(Value::Text(id));
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            self.text("image.name", names.join(","));
        }
    }

    /// Its manifest or its index, and what is said of that where it is listed.
    pub fn manifest(
        &mut self,
        bundle: &Bundle,
        Manifest { media_type, document }: &Manifest,
        annotations: BTreeMap<String, String>,
    ) {
        let descriptor = Descriptor {
            media_type: media_type.clone(),
            digest: document.digest.clone(),
            size: document.bytes.len(),
            annotations,
            platform: bundle.index.is_none().then(|| bundle.main().image.config.platform()),
        };
        self.text("containerimage.digest", document.digest.to_string());
        self.values.insert("containerimage.descriptor", Value::Descriptor(Box::new(descriptor)));
    }

    /// The image has this document: an index, a manifest or a config.
    pub(crate) fn add_document(&mut self, document: &Document) {
        self.documents.entry(document.digest.clone()).or_insert_with(|| document.bytes.clone());
    }

    /// The documents of all images, as far as they are text.
    pub(crate) fn documents(&self) -> Vec<String> {
        self.documents.values().filter_map(|bytes| String::from_utf8(bytes.clone()).ok()).collect()
    }

    /// The descriptor of the last image, as JSON.
    pub(crate) fn descriptor(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.values.get("containerimage.descriptor")?).ok()
    }

    fn text(&mut self, key: &'static str, value: String) {
        self.values.insert(key, Value::Text(value));
    }

    /// The id that `lapstrake builds` knows the build by. buildx puts builder and node before it, of which there is one.
    pub(crate) fn build(&mut self, id: &str) {
        self.text("buildx.build.ref", format!("default/default/{id}"));
    }

    /// The document, indented as Go's encoder indents.
    pub fn document(&self) -> Vec<u8> {
        lapstrake_go::to_json_indented(&self.values)
    }
}
