//! A layer's tar into the store.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;

use lapstrake_oci::{DiffId, Digest};
use lapstrake_store::{LayerId, LayerSize, Store, StoreError};
use lapstrake_tree::inroot::{open_host_dir, open_plain_in};
use lapstrake_tree::members::{Member, members};
use lapstrake_tree::unpack::{UnpackOptions, read_layer, unpack_layer};
use lapstrake_tree::{ContentDigest, Kind, Tree, TreeError, TreePath};
use rustix::fs::OFlags;

use crate::active::store_layer;
use crate::error::SnapshotError;
use crate::stacking::{marks, note_marks};

/// Beside a layer's files: the directories that its tar did not name, each ended by a NUL. Missing where there are none.
pub(crate) const IMPLIED: &str = "implied";

/// A layer that came from a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The layer.
    pub layer: LayerId,
    /// The digest of the tar that it came from.
    pub diff_id: DiffId,
}

/// Unpacks a layer's tar, compressed or not, into the store, and remembers which tar it came from. With `single_id`
/// owners are kept in the tree only. On other layers it may need [`crate::resolve_implicit_parents`].
pub fn import_layer(
    store: &Store,
    tar: impl Read + Send,
    single_id: bool,
) -> Result<Imported, SnapshotError> {
    let temp = store.temp_dir()?;
    let dir = temp.join("layer");
    let files = dir.join("fs");
    fs::create_dir_all(&files).map_err(|source| SnapshotError::Directory { path: files.clone(), source })?;
    let root = open_host_dir(&files)?;
    let marks = marks(store)?;
    let options = UnpackOptions { single_id, marks, ..UnpackOptions::default() };
    let unpacked = unpack_layer(tar, root.as_fd(), &options)?;
    note_implied(&dir, &unpacked.implied_dirs)?;
    note_marks(&dir, &unpacked.tree, marks)?;
    let layer = store_layer(store, &dir, &unpacked.tree, None, single_id)?;
    let diff_id = DiffId(digest(&unpacked.diff_id));
    store.link_diff(&diff_id, &layer)?;
    Ok(Imported { layer, diff_id })
}

/// Takes a layer in without its files: whoever needs those has them unpacked by [`unpack_lazy`] from the blob that `tar`
/// is, which the caller links to the diff id.
pub fn import_lazy(store: &Store, tar: impl Read + Send) -> Result<Imported, SnapshotError> {
    let temp = store.temp_dir()?;
    let dir = temp.join("layer");
    fs::create_dir_all(&dir).map_err(|source| SnapshotError::Directory { path: dir.clone(), source })?;
    let read = read_layer(tar, &UnpackOptions::default())?;
    note_implied(&dir, &read.implied_dirs)?;
    let layer: LayerId = read.tree.l_digest().to_string().parse()?;
    let size = LayerSize { files: read.tree.content_size(), own: None };
    store.put_layer(&layer, &dir, |to| read.tree.write_to(to), read.tree.k_digest().0, size)?;
    let diff_id = DiffId(digest(&read.diff_id));
    store.link_diff(&diff_id, &layer)?;
    Ok(Imported { layer, diff_id })
}

/// Unpacks a layer's files if they are not there yet.
///
/// # Errors
/// [`SnapshotError`] if its blob is gone, or is not what it was.
pub fn unpack_lazy(store: &Store, layer: &LayerId, single_id: bool) -> Result<(), SnapshotError> {
    if store.has_files(layer) {
        return Ok(());
    }
    let missing = || StoreError::Missing { what: "layer", name: layer.to_string() };
    // One unpacks, the others wait for it.
    let lock = store.lock(&format!("unpack-{layer}"))?;
    if !store.has_files(layer) {
        let blob = store.lazy_blob(layer)?.ok_or_else(missing)?;
        let found = import_layer(store, store.open_blob(&blob.digest)?, single_id)?.layer;
        if found != *layer || !store.has_files(layer) {
            return Err(
                StoreError::WrongDigest { expected: layer.to_string(), found: found.to_string() }.into()
            );
        }
    }
    drop(lock);
    Ok(())
}

/// What is in the file `path` of a layer, packed or not, if that can be found without unpacking anything.
pub fn read_file(store: &Store, layer: &LayerId, path: &TreePath) -> Result<Option<Vec<u8>>, SnapshotError> {
    let tree = Tree::decode(&store.layer_tree(layer)?)?;
    let Some(file) = tree.get(path).map(|entry| tree.resolve_hardlink(entry)) else { return Ok(None) };
    let Kind::File { content: expected, .. } = file.kind else { return Ok(None) };
    let mut found = Vec::new();
    let Some(blob) = store.lazy_blob(layer)? else {
        let dirs: Vec<_> =
            store.layer_dirs(layer).iter().rev().map(|dir| open_host_dir(dir)).collect::<Result<_, _>>()?;
        let Ok(opened) = open_plain_in(&dirs, &file.path, OFlags::RDONLY | OFlags::NONBLOCK) else {
            return Ok(None);
        };
        let read = fs::File::from(opened).read_to_end(&mut found);
        return Ok(read.is_ok().then_some(found));
    };
    let limits = UnpackOptions::default();
    let limits = (limits.max_entries, limits.max_bytes);
    members(store.open_blob(&blob.digest)?, limits, |member, content| {
        let Member::File { name } = member else { return Ok::<_, TreeError>(()) };
        if TreePath::clean(name)? == file.path {
            found.clear();
            if content.read_to_end(&mut found).is_err() {
                // Whoever reads on is told why.
                found.clear();
            }
        }
        Ok(())
    })?;
    Ok((ContentDigest::of(&found) == expected).then_some(found))
}

/// Scans the plain directory `dir` (with its files in `fs/`, in `tmp/`) and takes it in as a layer.
pub fn adopt_layer(store: &Store, dir: &Path) -> Result<LayerId, SnapshotError> {
    let root = open_host_dir(&dir.join("fs"))?;
    let options = lapstrake_tree::scan::ScanOptions { owner_default: Some((0, 0)), ..Default::default() };
    let tree = lapstrake_tree::scan::scan(root.as_fd(), &options)?;
    store_layer(store, dir, &tree, None, false)
}

/// Notes the directories in the layer's directory-to-be.
fn note_implied(dir: &Path, implied: &[TreePath]) -> Result<(), SnapshotError> {
    if implied.is_empty() {
        return Ok(());
    }
    let text: Vec<u8> = implied.iter().flat_map(|path| path.as_bytes().iter().copied().chain([0])).collect();
    let path = dir.join(IMPLIED);
    fs::write(&path, text).map_err(|source| SnapshotError::Directory { path, source })
}

/// SHA-256 bytes as a digest.
pub(crate) fn digest(bytes: &[u8; 32]) -> Digest {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().expect("32 bytes are 64 hex digits")
}
