//! Which image of an index is the one for a platform, whoever has its documents.

use lapstrake_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, is_artifact,
    is_image_config, read_index, read_manifest,
};

use crate::error::RegistryError;

/// More documents are not looked at for one image.
const MOST: usize = 200;

/// An entry of an index that may be the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The digest of the document that it names.
    pub digest: Digest,
    /// The index says that it is for the platform. Else its config does, or it is an index itself.
    said: bool,
}

/// What a document of a candidate is.
#[derive(Debug)]
pub enum Looked {
    /// The image.
    Image(ImageManifest),
    /// An image: whether it is the one, its config says ([`Search::fits`]).
    Perhaps(ImageManifest),
    /// None: the next candidate is to be looked at.
    No,
}

/// The search for a platform's image. Whoever has the documents reads one candidate after the other.
pub struct Search<'a> {
    reference: &'a Reference,
    platform: &'a Platform,
    /// The next one is the last.
    left: Vec<Candidate>,
    offered: Vec<Platform>,
    looked: usize,
}

impl<'a> Search<'a> {
    /// In `index`.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] for a digest that is none.
    pub fn of(
        reference: &'a Reference,
        index: &ImageIndex,
        platform: &'a Platform,
    ) -> Result<Search<'a>, RegistryError> {
        let mut search = Search { reference, platform, left: Vec::new(), offered: Vec::new(), looked: 0 };
        search.take_in(index)?;
        Ok(search)
    }

    /// The document to be read next.
    ///
    /// # Errors
    /// [`RegistryError::NoPlatform`] if there is none left.
    pub fn next_candidate(&mut self) -> Result<Candidate, RegistryError> {
        self.looked += 1;
        let next = self.left.pop().filter(|_| self.looked <= MOST);
        next.ok_or_else(|| RegistryError::NoPlatform {
            name: self.reference.familiar(),
            platform: Box::new(self.platform.clone()),
            offered: self.offered.clone(),
        })
    }

    /// Looks at a candidate's document.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] for what cannot be read.
    pub fn look(&mut self, candidate: &Candidate, bytes: &[u8]) -> Result<Looked, RegistryError> {
        if is_index(bytes) {
            self.take_in(&read_index(bytes).map_err(malformed(self.reference, "the index"))?)?;
            return Ok(Looked::No);
        }
        let manifest = read_manifest(bytes).map_err(malformed(self.reference, "the manifest"))?;
        if !is_image_config(manifest.config().media_type().as_ref()) {
            return Ok(Looked::No);
        }
        Ok(if candidate.said { Looked::Image(manifest) } else { Looked::Perhaps(manifest) })
    }

    /// Whether an image with this config is for the platform.
    pub fn fits(&mut self, config: &ImageConfig) -> bool {
        let found = config.platform();
        let fits = self.platform.accepts(&found);
        if !fits {
            self.offered.push(found);
        }
        fits
    }

    /// The candidates of an index go before all that are left: an exact match first, then what leaves the variant open,
    /// then what does not say what it is for.
    fn take_in(&mut self, index: &ImageIndex) -> Result<(), RegistryError> {
        let mut found: Vec<(u8, &Descriptor)> = Vec::new();
        for entry in index.manifests().iter().filter(|entry| !is_artifact(entry)) {
            let Some(there) = entry.platform() else {
                found.push((2, entry));
                continue;
            };
            let variant = there.variant().as_deref().unwrap_or_default();
            let version = there.os_version().clone().unwrap_or_default();
            let there = Platform::new(&there.os().to_string(), &there.architecture().to_string(), variant);
            let there = Platform { os_version: version, ..there };
            if self.platform.accepts(&there) {
                let exact = there.variant == self.platform.variant
                    && (self.platform.os_version.is_empty() || there.os_version == self.platform.os_version);
                found.push((u8::from(!exact), entry));
            }
            self.offered.push(there);
        }
        found.sort_by_key(|(rank, _)| *rank);
        for (rank, entry) in found.into_iter().rev() {
            let digest = digest_of(self.reference, entry)?;
            self.left.push(Candidate { digest, said: rank < 2 });
        }
        Ok(())
    }
}

/// Whether a document is an index by what is in it.
#[must_use]
pub fn is_index(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Seen {
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Seen>(bytes).is_ok_and(|seen| seen.manifests.is_some() && seen.config.is_none())
}

pub(crate) fn digest_of(reference: &Reference, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| RegistryError::Corrupt {
        what: "a digest",
        name: reference.familiar(),
        expected: "sha256 or sha512".to_owned(),
        found: text,
    })
}

/// A document that cannot be read.
pub(crate) fn malformed(
    reference: &Reference,
    what: &'static str,
) -> impl FnOnce(serde_json::Error) -> RegistryError {
    let name = reference.familiar();
    move |source| RegistryError::Malformed { what, name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::sha256(&[n]).to_string()
    }

    fn entry(n: u8, os: &str, arch: &str, variant: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": lapstrake_oci::media::OCI_MANIFEST, "size": 1, "digest": digest(n),
            "platform": {"os": os, "architecture": arch, "variant": variant}})
    }

    fn index(entries: &[serde_json::Value]) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": entries})).unwrap()
    }

    fn order(index: &[u8], platform: &str) -> Result<Vec<String>, RegistryError> {
        let (name, platform): (Reference, Platform) = ("x".parse().unwrap(), platform.parse().unwrap());
        let mut search = Search::of(&name, &read_index(index).unwrap(), &platform)?;
        let mut found = vec![search.next_candidate()?.digest.to_string()];
        while let Ok(next) = search.next_candidate() {
            found.push(next.digest.to_string());
        }
        Ok(found)
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let bare = serde_json::json!({"mediaType": lapstrake_oci::media::OCI_MANIFEST, "size": 1, "digest": digest(5)});
        let attestation = serde_json::json!({"mediaType": lapstrake_oci::media::OCI_MANIFEST, "size": 1,
            "digest": digest(6), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}});
        let all = index(&[
            attestation,
            bare,
            entry(1, "linux", "arm", "v6"),
            entry(2, "linux", "arm", "v7"),
            entry(3, "linux", "amd64", ""),
            entry(4, "unknown", "unknown", ""),
        ]);
        assert_eq!(order(&all, "linux/arm/v7").unwrap(), [digest(2), digest(5)]);
        assert_eq!(order(&all, "linux/amd64").unwrap(), [digest(3), digest(5)]);
        assert_eq!(order(&all, "linux/s390x").unwrap(), [digest(5)]);
        let error = order(&index(&[entry(1, "linux", "arm", "v6")]), "linux/s390x").unwrap_err();
        assert!(error.to_string().ends_with("it is for linux/arm/v6"), "{error}");
    }

    #[test]
    fn an_index_in_an_index_is_searched() {
        let (name, platform): (Reference, Platform) = ("x".parse().unwrap(), "linux/amd64".parse().unwrap());
        let inner = index(&[entry(3, "linux", "amd64", "")]);
        let outer = index(&[
            serde_json::json!({"mediaType": lapstrake_oci::media::OCI_INDEX, "size": 1, "digest": digest(9)}),
        ]);
        let mut search = Search::of(&name, &read_index(&outer).unwrap(), &platform).unwrap();
        let first = search.next_candidate().unwrap();
        assert!(matches!(search.look(&first, &inner).unwrap(), Looked::No));
        assert_eq!(search.next_candidate().unwrap().digest.to_string(), digest(3));
        // One that names itself ends some day.
        let mut search = Search::of(&name, &read_index(&outer).unwrap(), &platform).unwrap();
        let error = loop {
            match search.next_candidate() {
                Ok(next) => assert!(matches!(search.look(&next, &outer), Ok(Looked::No))),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, RegistryError::NoPlatform { .. }));
    }
}
