//! OCI layouts: an index, and blobs by their digests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, is_artifact,
    is_image_config, read_index, read_manifest,
};
use lapstrake_registry::{Looked, Search, is_index};

use crate::error::ImagesError;

/// The annotation that has an entry's tag, or its name with one.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The files of a layout.
#[derive(Debug)]
enum Files {
    /// Those below a directory of this machine.
    Directory(PathBuf),
    /// Those of an archive: by their names there, and where they are.
    Listed(BTreeMap<String, PathBuf>),
}

/// An OCI layout.
#[derive(Debug)]
pub struct Layout {
    files: Files,
    /// The most bytes that a document may have.
    longest: u64,
}

/// A selector of an entry of a layout.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// The digest of the manifest or index; nothing else counts then.
    pub digest: Option<&'w Digest>,
    /// The tag; none is `latest`.
    pub tag: Option<&'w str>,
    /// The choice where neither a digest nor a tag is named and no entry has the tag `latest`.
    pub untagged: Untagged,
}

/// The choice of an entry where none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untagged {
    /// The only image that there is, whatever its tag: an image, also by the tag `latest`.
    OnlyImage,
    /// The only entry, if it has no tag itself: a cache.
    OnlyEntry,
}

/// The tag of an entry. Some programs write the whole name there.
#[must_use]
pub fn tag_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

/// Whether an entry has this tag, alone or at the end of a name.
fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    tag_of(entry)
        .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, of_name)| of_name == tag))
}

impl Layout {
    /// The layout in a directory of this machine. No document may have more than `longest` bytes.
    #[must_use]
    pub fn in_directory(dir: &Path, longest: u64) -> Layout {
        Layout { files: Files::Directory(dir.to_owned()), longest }
    }

    /// The layout of files that are found by their names in it.
    pub(crate) fn of_files(files: BTreeMap<String, PathBuf>, longest: u64) -> Layout {
        Layout { files: Files::Listed(files), longest }
    }

    /// The place of a file by its name in the layout.
    ///
    /// # Errors
    /// [`ImagesError::Missing`] if an archive does not have it.
    pub fn path(&self, name: &str) -> Result<PathBuf, ImagesError> {
        match &self.files {
            Files::Directory(dir) => Ok(dir.join(name)),
            Files::Listed(files) => {
                files.get(name).cloned().ok_or_else(|| ImagesError::Missing { name: name.to_owned() })
            }
        }
    }

    /// A file whole, by its name in the layout.
    ///
    /// # Errors
    /// [`ImagesError`]: it is not there, cannot be read, or is longer than a document.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, ImagesError> {
        let path = self.path(name)?;
        let read = |source| ImagesError::Read { path: path.clone(), source };
        if fs::metadata(&path).map_err(read)?.len() > self.longest {
            return Err(ImagesError::Long { name: name.to_owned(), longest: self.longest });
        }
        fs::read(&path).map_err(read)
    }

    /// The layout's own index.
    ///
    /// # Errors
    /// [`ImagesError`]: it is not there, or is none.
    pub fn index(&self) -> Result<ImageIndex, ImagesError> {
        read_index(&self.document("index.json")?).map_err(ImagesError::malformed("the layout's index"))
    }

    /// The name of a blob's file.
    ///
    /// # Errors
    /// [`ImagesError::Digest`] for what is no digest: such a text names no file.
    pub fn blob_name(digest: &str) -> Result<String, ImagesError> {
        let digest: Digest = digest.parse()?;
        Ok(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    /// The file of a blob.
    ///
    /// # Errors
    /// [`ImagesError`]: what is asked for is no digest, or an archive does not have it.
    pub fn blob_path(&self, digest: &str) -> Result<PathBuf, ImagesError> {
        self.path(&Layout::blob_name(digest)?)
    }

    /// Whether a blob is there.
    #[must_use]
    pub fn has_blob(&self, digest: &str) -> bool {
        self.blob_path(digest).is_ok_and(|path| path.is_file())
    }

    /// A document by its digest, which is checked.
    ///
    /// # Errors
    /// As [`Self::document`], and [`ImagesError::Damaged`].
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>, ImagesError> {
        let name = Layout::blob_name(digest)?;
        let bytes = self.document(&name)?;
        let found = Digest::sha256(&bytes).to_string();
        if found == digest {
            return Ok(bytes);
        }
        Err(ImagesError::Damaged { name, expected: digest.to_owned(), found })
    }

    /// The entry of `index`, the layout's own, that is meant.
    #[must_use]
    pub fn find<'i>(&self, index: &'i ImageIndex, wanted: Wanted<'_>) -> Option<&'i Descriptor> {
        let entries = || index.manifests().iter();
        let tag = wanted.tag.unwrap_or("latest");
        let named = |entry: &&Descriptor| match wanted.digest {
            Some(digest) => entry.digest().to_string() == digest.to_string(),
            None => has_tag(entry, tag),
        };
        let mut images = entries().filter(|entry| self.may_be_image(entry));
        let only = match (wanted.untagged, wanted.digest, wanted.tag, index.manifests().as_slice()) {
            (_, Some(_), ..) => None,
            (Untagged::OnlyImage, None, None | Some("latest"), _) => match (images.next(), images.next()) {
                (Some(only), None) => Some(only),
                _ => None,
            },
            (Untagged::OnlyEntry, None, None, [only]) if tag_of(only).is_none() => Some(only),
            _ => None,
        };
        entries().find(named).or(only)
    }

    /// Whether an entry is an image, or an index, which may have one. An entry that says itself that it is none does not
    /// count, nor does one with another kind of config.
    fn may_be_image(&self, entry: &Descriptor) -> bool {
        if is_artifact(entry) {
            return false;
        }
        // What cannot be read is reported where it is needed.
        let Ok(bytes) = self.blob(entry.digest().as_ref()) else { return true };
        match read_manifest(&bytes) {
            Ok(manifest) if !is_index(&bytes) => is_image_config(manifest.config().media_type().as_ref()),
            _ => true,
        }
    }

    /// The image for `platform` in an index of the layout, with its digest. Messages name the image `name`.
    ///
    /// # Errors
    /// [`ImagesError`]: there is none, or a document cannot be read.
    pub fn image_for(
        &self,
        index: &[u8],
        name: &Reference,
        platform: &Platform,
    ) -> Result<(String, ImageManifest), ImagesError> {
        let index = read_index(index).map_err(ImagesError::malformed("the image's index"))?;
        let mut search = Search::of(name, &index, platform)?;
        loop {
            let candidate = search.next_candidate()?;
            let digest = candidate.digest.to_string();
            match search.look(&candidate, &self.blob(&digest)?)? {
                Looked::Image(manifest) => return Ok((digest, manifest)),
                Looked::Perhaps(manifest) => {
                    let config = ImageConfig::read(&self.blob(manifest.config().digest().as_ref())?);
                    if search.fits(&config.map_err(ImagesError::malformed("the image's config"))?) {
                        return Ok((digest, manifest));
                    }
                }
                Looked::No => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Made {
        dir: tempfile::TempDir,
        entries: Vec<serde_json::Value>,
    }

    impl Made {
        fn new() -> Made {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
            Made { dir, entries: Vec::new() }
        }

        fn blob(&self, bytes: &[u8]) -> String {
            let digest = Digest::sha256(bytes);
            fs::write(self.dir.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            digest.to_string()
        }

        /// A manifest whose config has this type; its digest.
        fn manifest(&self, config_type: &str, note: &str) -> String {
            let config = self
                .blob(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
            let manifest = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": config_type, "digest": config, "size": 78},
                "layers": [], "annotations": {"note": note},
            });
            self.blob(manifest.to_string().as_bytes())
        }

        fn entry(mut self, digest: &str, name: Option<&str>) -> Made {
            let mut entry = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            });
            if let Some(name) = name {
                entry["annotations"] = json!({ REF_NAME: name });
            }
            self.entries.push(entry);
            self
        }

        fn layout(&self) -> (Layout, ImageIndex) {
            let index = json!({"schemaVersion": 2, "manifests": self.entries});
            fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
            let layout = Layout::in_directory(self.dir.path(), 1 << 20);
            let index = layout.index().unwrap();
            (layout, index)
        }
    }

    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";

    #[test]
    fn entries_by_tag_name_and_digest() {
        let made = Made::new();
        let (one, two) = (made.manifest(IMAGE, "1"), made.manifest(IMAGE, "2"));
        let made = made.entry(&one, Some("v1")).entry(&two, Some("reg.example:5000/app:v2"));
        let (layout, index) = made.layout();
        let digest = |text: &str| text.parse::<Digest>().unwrap();
        for untagged in [Untagged::OnlyImage, Untagged::OnlyEntry] {
            let found = |digest: Option<&Digest>, tag: Option<&str>| {
                let wanted = Wanted { digest, tag, untagged };
                layout.find(&index, wanted).map(|entry| entry.digest().to_string())
            };
            assert_eq!(found(None, Some("v1")), Some(one.clone()));
            assert_eq!(found(None, Some("v2")), Some(two.clone()));
            assert_eq!(found(None, Some("v3")), None);
            assert_eq!(found(None, None), None, "there are two");
            assert_eq!(found(Some(&digest(&two)), None), Some(two.clone()));
            // The digest alone counts.
            assert_eq!(found(Some(&digest(&two)), Some("v1")), Some(two.clone()));
            assert_eq!(found(Some(&Digest::sha256(b"no")), Some("v1")), None);
        }
    }

    #[test]
    fn the_only_one() {
        let found = |made: &Made, untagged| {
            let (layout, index) = made.layout();
            layout.find(&index, Wanted { digest: None, tag: None, untagged }).map(|e| e.digest().to_string())
        };
        let made = Made::new();
        let image = made.manifest(IMAGE, "");
        let artifact = made.manifest("application/vnd.example.sbom", "");
        let tagged = made.entry(&image, Some("v1"));
        assert_eq!(found(&tagged, Untagged::OnlyImage), Some(image.clone()));
        // A cache with a tag is asked for by its tag.
        assert_eq!(found(&tagged, Untagged::OnlyEntry), None);
        let beside = tagged.entry(&artifact, None);
        assert_eq!(found(&beside, Untagged::OnlyImage), Some(image.clone()));
        let made = Made::new();
        let image = made.manifest(IMAGE, "");
        let bare = made.entry(&image, None);
        assert_eq!(found(&bare, Untagged::OnlyEntry), Some(image.clone()));
        assert_eq!(found(&bare, Untagged::OnlyImage), Some(image));
    }

    #[test]
    fn blobs_are_checked() {
        let made = Made::new();
        let digest = made.blob(b"content");
        let (layout, _) = made.layout();
        assert_eq!(layout.blob(&digest).unwrap(), b"content");
        fs::write(layout.blob_path(&digest).unwrap(), "other").unwrap();
        assert!(matches!(layout.blob(&digest), Err(ImagesError::Damaged { .. })));
        for text in ["", "sha256:", "../../etc/passwd", "sha256:../../../etc/passwd", "sha256:zz"] {
            assert!(matches!(layout.blob(text), Err(ImagesError::Digest(_))), "{text}");
        }
        let absent = Digest::sha256(b"absent").to_string();
        assert!(matches!(layout.blob(&absent), Err(ImagesError::Read { .. })) && !layout.has_blob(&absent));
        let listed = Layout::of_files(BTreeMap::new(), 1);
        assert!(matches!(listed.blob(&absent), Err(ImagesError::Missing { .. })));
        let short = Layout::in_directory(made.dir.path(), 3);
        assert!(matches!(short.document("index.json"), Err(ImagesError::Long { longest: 3, .. })));
    }
}
