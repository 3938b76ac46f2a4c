//! From a reference and a platform to one manifest and its config.

use lapstrake_oci::media::{Kind, kind};
use lapstrake_oci::{
    Descriptor, Digest, ImageConfig, ImageManifest, Platform, Reference, is_image_config, read_index,
    read_manifest,
};

use crate::choose::{Looked, Search, digest_of, malformed};
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
        if what(reference, &top)? == Kind::Manifest {
            let parsed = read_manifest(&top.bytes).map_err(malformed(reference, "the manifest"))?;
            let media_type = parsed.config().media_type().as_ref().to_owned();
            if !is_image_config(&media_type) {
                return Err(RegistryError::NotAnImage { name: reference.familiar(), media_type });
            }
            let (config_bytes, config) = self.config(reference, &parsed).await?;
            let layers = parsed.layers().clone();
            return Ok(Resolved { digest, manifest: top, config_bytes, config, layers });
        }
        let index = read_index(&top.bytes).map_err(malformed(reference, "the index"))?;
        let mut search = Search::of(reference, &index, platform)?;
        loop {
            let candidate = search.next_candidate()?;
            let manifest = self.manifest(&reference.with_digest(candidate.digest.clone())).await?;
            what(reference, &manifest)?;
            let (parsed, sure) = match search.look(&candidate, &manifest.bytes)? {
                Looked::Image(parsed) => (parsed, true),
                Looked::Perhaps(parsed) => (parsed, false),
                Looked::No => continue,
            };
            let (config_bytes, config) = self.config(reference, &parsed).await?;
            if sure || search.fits(&config) {
                let layers = parsed.layers().clone();
                return Ok(Resolved { digest, manifest, config_bytes, config, layers });
            }
        }
    }

    /// The config of an image.
    async fn config(
        &self,
        reference: &Reference,
        manifest: &ImageManifest,
    ) -> Result<(Vec<u8>, ImageConfig), RegistryError> {
        let digest = digest_of(reference, manifest.config())?;
        let mut bytes = Vec::new();
        self.blob(reference, &digest, manifest.config().size(), &mut bytes).await?;
        let config = ImageConfig::read(&bytes).map_err(malformed(reference, "the config"))?;
        Ok((bytes, config))
    }
}

/// Whether a document is a manifest or an index. What the registry says and what the document says must agree: who can
/// make us take one for the other chooses what a digest stands for.
fn what(reference: &Reference, document: &Fetched) -> Result<Kind, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Seen {
        media_type: Option<String>,
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
            let media_type =
                seen.media_type.filter(|found| !found.is_empty()).unwrap_or_else(|| told.clone());
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
    if let Some(own) = seen.media_type.filter(|own| !own.is_empty() && said(own) != Some(found)) {
        return Err(ambiguous(format!("a `{own}`")));
    }
    Ok(found)
}

fn parse<T: serde::de::DeserializeOwned>(
    reference: &Reference,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(malformed(reference, what))
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
}
