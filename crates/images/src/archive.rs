//! Image archives: those of `docker save`, and OCI layouts in a tar. Also a directory that one was unpacked to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use lapstrake_go::path::clean_rooted;
use lapstrake_store::TempDir;
use lapstrake_tree::TreeError;
use lapstrake_tree::members::{Member, members};

use crate::error::ImagesError;
use crate::layout::Layout;

/// An archive has a few files for each layer, and images a hundred layers at most.
pub const MOST_FILES: u64 = 100_000;
/// As much as a layer may have when it is unpacked.
const MOST_BYTES: u64 = 256 << 30;
/// Configs and manifests are small; more than this is an attack or a mistake.
const LONGEST_DOCUMENT: u64 = 8 << 20;

/// An image as `manifest.json` describes it.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The name of its config.
    pub config: String,
    #[serde(default)]
    repo_tags: Option<Vec<Option<String>>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerImage {
    /// The names of its layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        self.layers.as_deref().unwrap_or_default()
    }

    /// The names that it is to have.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten().flatten().filter(|tag| !tag.is_empty())
    }
}

/// An unpacked archive: plain files, found by the names that they have in it.
#[derive(Debug)]
pub struct Archive {
    layout: Layout,
    /// The files go with it. Those of a directory stay.
    _files: Option<TempDir>,
}

/// A link in an archive, in the place of a file.
struct Link {
    name: String,
    target: String,
}

/// Why reading an archive ended.
enum Ended {
    Archive(TreeError),
    Disk(io::Error),
}

impl From<TreeError> for Ended {
    fn from(error: TreeError) -> Ended {
        Ended::Archive(error)
    }
}

impl Archive {
    /// Unpacks an archive to `dir`. Only regular files are taken, under numbers of our own, so that no name in the archive
    /// becomes a path.
    ///
    /// # Errors
    /// [`ImagesError::Archive`] and [`ImagesError::Unpack`].
    pub fn unpack(dir: TempDir, input: impl Read + Send) -> Result<Archive, ImagesError> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut links = Vec::new();
        let text = |name: &[u8]| plain_name(&String::from_utf8_lossy(name));
        let read = members(input, (MOST_FILES, MOST_BYTES), |member, content| {
            match member {
                Member::File { name } => {
                    let path = dir.path().join(files.len().to_string());
                    let copied = File::create(&path).and_then(|mut file| io::copy(content, &mut file));
                    copied.map_err(Ended::Disk)?;
                    files.insert(text(name), path);
                }
                // `docker save` used to link layers that it had twice, also before they came.
                Member::Link { name, target } => {
                    let target = String::from_utf8_lossy(target).into_owned();
                    links.push(Link { name: text(name), target });
                }
            }
            Ok::<_, Ended>(())
        });
        match read {
            Ok(_) => Ok(Archive::of(with_links(files, links), Some(dir))),
            Err(Ended::Archive(source)) => Err(ImagesError::Archive { source }),
            Err(Ended::Disk(source)) => Err(ImagesError::Unpack { source }),
        }
    }

    /// The same of a directory: a layout, or an archive that was unpacked. Links lead to files of the directory only.
    ///
    /// # Errors
    /// [`ImagesError::Read`] and [`ImagesError::ManyFiles`].
    pub fn of_directory(top: &Path) -> Result<Archive, ImagesError> {
        let (mut files, mut links) = (BTreeMap::new(), Vec::new());
        let mut left = vec![PathBuf::new()];
        while let Some(below) = left.pop() {
            let dir = top.join(&below);
            let failed = |source| ImagesError::Read { path: dir.clone(), source };
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (kind, path) = (entry.file_type().map_err(failed)?, below.join(entry.file_name()));
                let name = path.to_string_lossy().into_owned();
                if kind.is_dir() {
                    left.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).map_err(failed)?;
                    links.push(Link { name, target: target.to_string_lossy().into_owned() });
                } else if kind.is_file() {
                    files.insert(name, entry.path());
                }
                if (files.len() + links.len() + left.len()) as u64 > MOST_FILES {
                    return Err(ImagesError::ManyFiles { path: top.to_owned(), most: MOST_FILES });
                }
            }
        }
        Ok(Archive::of(with_links(files, links), None))
    }

    fn of(files: BTreeMap<String, PathBuf>, dir: Option<TempDir>) -> Archive {
        Archive { layout: Layout::of_files(files, LONGEST_DOCUMENT), _files: dir }
    }

    /// The archive's files as a layout. It may have no index: then only its files count.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The file that the archive has by this name.
    ///
    /// # Errors
    /// [`ImagesError::Missing`].
    pub fn path(&self, name: &str) -> Result<PathBuf, ImagesError> {
        self.layout.path(&plain_name(name)).map_err(|_| ImagesError::Missing { name: name.to_owned() })
    }

    /// A document; `None` if the archive has no such file.
    ///
    /// # Errors
    /// As [`Layout::document`].
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImagesError> {
        match self.layout.document(&plain_name(name)) {
            Err(ImagesError::Missing { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The images in `manifest.json`; `None` if the archive has no such file.
    ///
    /// # Errors
    /// [`ImagesError`]: it cannot be read, or is no list.
    pub fn docker_images(&self) -> Result<Option<Vec<DockerImage>>, ImagesError> {
        let Some(list) = self.document("manifest.json")? else { return Ok(None) };
        serde_json::from_slice(&list).map(Some).map_err(ImagesError::malformed("the archive's manifest.json"))
    }
}

/// A name from the top, without `.` and `..`.
fn plain_name(name: &str) -> String {
    clean_rooted(name).split_off(1)
}

/// Files by their names, with those that are links.
fn with_links(mut files: BTreeMap<String, PathBuf>, mut links: Vec<Link>) -> BTreeMap<String, PathBuf> {
    // A link may name a link, also one that comes later: as long as that gives something new.
    loop {
        let before = links.len();
        links.retain(|link| {
            // Symbolic links count from where they are, hard links from the top, and some take the one for the other.
            let dir = link.name.rsplit_once('/').map_or("", |(dir, _)| dir);
            let places = [format!("{dir}/{}", link.target), link.target.clone()];
            let places = if link.target.starts_with('/') { &places[1..] } else { &places[..] };
            let found = places.iter().find_map(|place| files.get(&plain_name(place)).cloned());
            match found {
                Some(path) => drop(files.insert(link.name.clone(), path)),
                None => return true,
            }
            false
        });
        if links.is_empty() || links.len() == before {
            return files;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use lapstrake_store::Store;

    use super::*;

    fn tar(entries: &[(&str, &str, tar::EntryType)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (name, content, kind) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let is_file = *kind == tar::EntryType::Regular;
            header.set_size(if is_file { content.len() as u64 } else { 0 });
            if !is_file {
                header.set_link_name_literal(content).unwrap();
            }
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            out.append(&header, if is_file { content.as_bytes() } else { b"" }).unwrap();
        }
        out.into_inner().unwrap()
    }

    #[test]
    fn files_and_links_by_their_names() {
        use tar::EntryType::{Link, Regular, Symlink};
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("state")).unwrap();
        let bytes = tar(&[
            (
                "./manifest.json",
                r#"[{"Config":"c.json","RepoTags":["a:1",null,""],"Layers":["b/layer.tar"]}]"#,
                Regular,
            ),
            ("b/layer.tar", "../a/layer.tar", Symlink),
            ("a/layer.tar", "c/hard", Link),
            ("c/hard", "layer", Regular),
            ("out", "/etc/passwd", Symlink),
            ("../up", "up", Regular),
        ]);
        let archive = Archive::unpack(store.temp_dir().unwrap(), &bytes[..]).unwrap();
        let read =
            |name: &str| archive.document(name).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(read("b/layer.tar").as_deref(), Some("layer"));
        assert_eq!(read("/a/./layer.tar").as_deref(), Some("layer"));
        // No name is a path, and no link leads out.
        assert_eq!((read("out"), read("up").as_deref()), (None, Some("up")));
        assert!(matches!(archive.path("none"), Err(ImagesError::Missing { name }) if name == "none"));
        let images = archive.docker_images().unwrap().unwrap();
        assert_eq!(images[0].names().collect::<Vec<_>>(), ["a:1"]);
        assert_eq!((images[0].config.as_str(), images[0].layers().len()), ("c.json", 1));
        assert!(matches!(
            Archive::unpack(store.temp_dir().unwrap(), &b"no tar"[..]),
            Err(ImagesError::Archive { .. })
        ));
    }

    #[test]
    fn directories_as_archives() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("layout");
        fs::create_dir_all(top.join("blobs")).unwrap();
        fs::write(top.join("blobs/one"), "one").unwrap();
        symlink("blobs/one", top.join("inside")).unwrap();
        fs::write(place.path().join("secret"), "secret").unwrap();
        symlink("../secret", top.join("outside")).unwrap();
        symlink(place.path().join("secret"), top.join("absolute")).unwrap();
        let archive = Archive::of_directory(&top).unwrap();
        assert_eq!(archive.document("inside").unwrap().as_deref(), Some(&b"one"[..]));
        for name in ["outside", "absolute", "manifest.json"] {
            assert_eq!(archive.document(name).unwrap(), None, "{name}");
        }
        assert!(archive.docker_images().unwrap().is_none());
        assert!(matches!(Archive::of_directory(&place.path().join("none")), Err(ImagesError::Read { .. })));
    }
}
