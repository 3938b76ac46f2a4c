//! From a reference and a platform to one manifest and its config.

use lapstrake_oci::media::{Kind, kind};
use lapstrake_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference};

use crate::client::{Client, Fetched};
use crate::error::RegistryError;

/// An image, known to its last layer but not yet fetched.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The digest that the reference has in the registry: of the index, where there is one.
    pub digest: Digest,
    /// The manifest for the platform: its bytes and digest.
    pub manifest: Fetched,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Client {
    /// Resolves `reference` for `platform`.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        let top = self.manifest(reference).await?;
        let digest = top.digest.clone();
        let manifest = match what(reference, &top)? {
            Kind::Manifest => top,
            _ => {
                let chosen = choose(reference, &parse(reference, "the index", &top.bytes)?, platform)?;
                let chosen = self.manifest(&reference.with_digest(chosen)).await?;
                if what(reference, &chosen)? != Kind::Manifest {
                    let (name, media_type) = (reference.familiar(), chosen.media_type);
                    return Err(RegistryError::NotAnImage { name, media_type });
                }
                chosen
            }
        };
        let parsed: ImageManifest = parse(reference, "the manifest", &manifest.bytes)?;
        if let media_type = parsed.config().media_type().as_ref()
            && kind(media_type) != Some(Kind::Config)
        {
            let media_type = media_type.to_owned();
            return Err(RegistryError::NotAnImage { name: reference.familiar(), media_type });
        }
        let config_digest = digest_of(reference, parsed.config())?;
        let mut config_bytes = Vec::new();
        self.blob(reference, &config_digest, parsed.config().size(), &mut config_bytes).await?;
        let config = parse(reference, "the config", &config_bytes)?;
        Ok(Resolved { digest, manifest, config_bytes, config, layers: parsed.layers().clone() })
    }
}

/// The digest of the manifest that fits `platform` best: an exact match before one that leaves the variant open.
pub fn choose(
    reference: &Reference,
    index: &ImageIndex,
    platform: &Platform,
) -> Result<Digest, RegistryError> {
    let mut offered = Vec::new();
    let mut best: Option<(&Descriptor, bool)> = None;
    for descriptor in index.manifests() {
        let Some(there) = descriptor.platform() else { continue };
        let variant = there.variant().as_deref().unwrap_or_default();
        let there = Platform::new(&there.os().to_string(), &there.architecture().to_string(), variant);
        if there.os == "unknown" {
            continue;
        }
        let exact = there == *platform;
        if platform.accepts(&there) && best.is_none_or(|(_, had)| exact && !had) {
            best = Some((descriptor, exact));
        }
        offered.push(there);
    }
    match best {
        Some((descriptor, _)) => digest_of(reference, descriptor),
        None => Err(RegistryError::NoPlatform {
            name: reference.familiar(),
            platform: Box::new(platform.clone()),
            offered,
        }),
    }
}

/// Whether a document is a manifest or an index. What the registry says and what the document says must agree: who can
/// make us take one for the other chooses what a digest stands for.
fn what(reference: &Reference, document: &Fetched) -> Result<Kind, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Seen {
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let seen: Seen = parse(reference, "the manifest", &document.bytes)?;
    let name = || reference.familiar();
    let told = &document.media_type;
    let ambiguous = |found: String| RegistryError::Ambiguous { name: name(), told: told.clone(), found };
    let found = match (seen.manifests.is_some(), seen.layers.is_some() || seen.config.is_some()) {
        (true, false) => Kind::Index,
        (false, true) => Kind::Manifest,
        (true, true) => return Err(ambiguous("both an index and a manifest".to_owned())),
        (false, false) => {
            let media_type = if seen.media_type.is_empty() { told.clone() } else { seen.media_type };
            return Err(RegistryError::NotAnImage { name: name(), media_type });
        }
    };
    let said = |text: &str| kind(text).filter(|kind| matches!(kind, Kind::Index | Kind::Manifest));
    let by_registry =
        said(told).ok_or_else(|| RegistryError::NotAnImage { name: name(), media_type: told.clone() })?;
    if by_registry != found {
        let found = if found == Kind::Index { "an index" } else { "a manifest" };
        return Err(ambiguous(found.to_owned()));
    }
    if !seen.media_type.is_empty() && said(&seen.media_type) != Some(found) {
        return Err(ambiguous(format!("a `{}`", seen.media_type)));
    }
    Ok(found)
}

fn digest_of(reference: &Reference, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| RegistryError::Corrupt {
        what: "a digest",
        name: reference.familiar(),
        expected: "sha256 or sha512".to_owned(),
        found: text,
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    reference: &Reference,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Malformed {
        what,
        name: reference.familiar(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_thing() {
        use lapstrake_oci::media::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
        let name: Reference = "x".parse().unwrap();
        let seen = |media_type: &str, text: &str| {
            let document = Fetched {
                media_type: media_type.to_owned(),
                digest: Digest::sha256(text.as_bytes()),
                bytes: text.as_bytes().to_vec(),
            };
            what(&name, &document)
        };
        assert_eq!(seen(OCI_MANIFEST, r#"{"config": {}, "layers": []}"#).unwrap(), Kind::Manifest);
        assert_eq!(seen(OCI_INDEX, r#"{"manifests": []}"#).unwrap(), Kind::Index);
        let docker = format!(r#"{{"mediaType": "{DOCKER_MANIFEST}", "config": {{}}, "layers": []}}"#);
        assert_eq!(seen(DOCKER_MANIFEST, &docker).unwrap(), Kind::Manifest);
        for (told, text, word) in [
            (OCI_MANIFEST, r#"{"manifests": []}"#, "it is an index"),
            (OCI_INDEX, r#"{"config": {}, "layers": []}"#, "it is a manifest"),
            (OCI_INDEX, r#"{"manifests": [], "config": {}, "layers": []}"#, "both"),
            (OCI_INDEX, r#"{"mediaType": "application/x", "manifests": []}"#, "`application/x`"),
            ("text/html", r#"{"manifests": []}"#, "`text/html`, not an image"),
            (OCI_MANIFEST, "{}", "not an image"),
            (OCI_MANIFEST, "<html>", "cannot be read"),
        ] {
            let error = seen(told, text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let entry = |n: u8, os: &str, arch: &str, variant: &str| {
            serde_json::json!({"mediaType": lapstrake_oci::media::OCI_MANIFEST, "size": 1,
                "digest": Digest::sha256(&[n]).to_string(),
                "platform": {"os": os, "architecture": arch, "variant": variant}})
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            entry(1, "linux", "arm", "v6"), entry(2, "linux", "arm", "v7"), entry(3, "linux", "amd64", ""),
            entry(4, "unknown", "unknown", "")]});
        let index: ImageIndex = serde_json::from_value(index).unwrap();
        let name: Reference = "x".parse().unwrap();
        let chosen = |platform: &str| choose(&name, &index, &platform.parse().unwrap());
        assert_eq!(chosen("linux/arm/v7").unwrap(), Digest::sha256(&[2]));
        assert_eq!(chosen("linux/amd64").unwrap(), Digest::sha256(&[3]));
        let error = chosen("linux/s390x").unwrap_err();
        assert!(error.to_string().ends_with("it is for linux/arm/v6, linux/arm/v7, linux/amd64"), "{error}");
    }
}
