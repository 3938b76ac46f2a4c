//! Manifests and indexes as others write them: with `null` and with gaps where Go has a zero value.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde_json::{Map, Value, json};

use crate::media::{Kind, kind};

/// The manifest in a document.
///
/// # Errors
/// The fault in the JSON.
pub fn read_manifest(bytes: &[u8]) -> Result<ImageManifest, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    if let Some(all) = value.as_object_mut() {
        tidy(all);
        all.entry("layers").or_insert_with(|| json!([]));
    }
    serde_json::from_value(value)
}

/// The index in a document.
///
/// # Errors
/// The fault in the JSON.
pub fn read_index(bytes: &[u8]) -> Result<ImageIndex, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    if let Some(all) = value.as_object_mut() {
        tidy(all);
        all.entry("manifests").or_insert_with(|| json!([]));
    }
    serde_json::from_value(value)
}

/// `null` counts as missing, and missing required values are empty.
fn tidy(document: &mut Map<String, Value>) {
    document.retain(|_, value| !value.is_null());
    document.entry("schemaVersion").or_insert_with(|| json!(2));
    // An empty type is as good as none; of the document, that is.
    if document.get("mediaType").is_some_and(|found| found == "") {
        document.remove("mediaType");
    }
    annotations(document);
    for name in ["config", "subject"] {
        if let Some(Value::Object(one)) = document.get_mut(name) {
            descriptor(one);
        }
    }
    for name in ["layers", "manifests"] {
        let Some(Value::Array(all)) = document.get_mut(name) else { continue };
        all.retain(|value| !value.is_null());
        all.iter_mut().filter_map(Value::as_object_mut).for_each(descriptor);
    }
}

fn descriptor(one: &mut Map<String, Value>) {
    one.retain(|_, value| !value.is_null());
    one.entry("mediaType").or_insert_with(|| json!(""));
    one.entry("size").or_insert_with(|| json!(0));
    annotations(one);
    let Some(Value::Object(platform)) = one.get_mut("platform") else { return };
    platform.retain(|_, value| !value.is_null());
    let says = |name: &str| platform.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if !says("os") || !says("architecture") {
        // Half a platform says nothing: the image's own config does.
        one.remove("platform");
    }
}

fn annotations(of: &mut Map<String, Value>) {
    if let Some(Value::Object(all)) = of.get_mut("annotations") {
        all.values_mut().filter(|value| value.is_null()).for_each(|value| *value = json!(""));
    }
}

/// Whether a config's media type is an image's. The last ones are what registries wrote before 2017, and Docker takes them.
#[must_use]
pub fn is_image_config(media_type: &str) -> bool {
    kind(media_type) == Some(Kind::Config)
        || matches!(media_type, "application/octet-stream" | "application/json" | "text/html" | "")
}

/// Whether an entry of an index says that it is not an image: an attestation, a signature, a list of parts.
#[must_use]
pub fn is_artifact(entry: &Descriptor) -> bool {
    let has = |name: &str| entry.annotations().as_ref().is_some_and(|all| all.contains_key(name));
    let unknown = entry.platform().as_ref().is_some_and(|platform| platform.os().to_string() == "unknown");
    let artifact = entry.artifact_type().as_ref().is_some_and(|found| !is_image_config(found.as_ref()));
    let odd = !matches!(kind(entry.media_type().as_ref()), Some(Kind::Manifest | Kind::Index));
    unknown
        || artifact
        || has("vnd.docker.reference.type")
        || (odd && !entry.media_type().as_ref().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn nulls_and_gaps() {
        let manifest = format!(
            r#"{{"schemaVersion":null,"mediaType":"","config":{{"mediaType":"","digest":"{DIGEST}","size":1,"urls":null,
            "annotations":null,"platform":null}},"layers":null,"annotations":{{"a":null}},"subject":null}}"#
        );
        let manifest = read_manifest(manifest.as_bytes()).unwrap();
        assert!(manifest.layers().is_empty());
        assert!(is_image_config(manifest.config().media_type().as_ref()));
        let index = format!(
            r#"{{"manifests":[null,{{"digest":"{DIGEST}","platform":{{"os":"linux","architecture":null}}}}],"annotations":null}}"#
        );
        let index = read_index(index.as_bytes()).unwrap();
        assert!(index.manifests()[0].platform().is_none());
        assert!(read_index(br#"{"manifests":null}"#).unwrap().manifests().is_empty());
    }
}
