//! A copy that is made again after changes gives the layer that it would give alone, however little of it is put: the same
//! tree, the same tar, the same files on whatever lies below.
//!
//! Needs the right to mount: an ordinary user has it in a user namespace only, where whole builds are tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use lapstrake_snapshot::{Active, Lower, SnapshotError, damage, mount, write_tar};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::context::{ContextIndex, Trust, file_clock};
use lapstrake_tree::copy::{CopyOptions, Dest, Previous, copy};
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use lapstrake_tree::{Entry, Tree, TreeError};
use proptest::prelude::*;

/// What is made: a path of at most three names out of two, and what it becomes.
type Made = (Vec<bool>, u8);

fn fill(top: &Path, things: &[Made]) {
    fs::create_dir_all(top).unwrap();
    for (names, kind) in things {
        let path = names.iter().fold(top.to_owned(), |path, b| path.join(if *b { "a" } else { "b" }));
        if fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        if kind % 7 == 0 {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap_or_default();
            continue;
        }
        // What is in the way stays, if it is of another kind.
        match kind % 7 {
            1 => fs::create_dir(&path).unwrap_or_default(),
            2 => symlink(format!("/{kind}"), &path).unwrap_or_default(),
            3 => fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap_or_default(),
            4 => fs::hard_link(&path, path.with_extension("x")).unwrap_or_default(),
            _ => fs::write(&path, format!("{kind}")).unwrap_or_default(),
        }
    }
}

/// Copies `source` to `/a/` on `lower`, where `earlier` may be what it was made of before. Also says whether only changes
/// were put.
fn copied(
    store: &Store,
    lower: &Path,
    source: &Path,
    earlier: Option<&LayerId>,
    delta: bool,
) -> Result<(LayerId, bool), TreeError> {
    let from = open_host_dir(source).unwrap();
    let index = source.with_extension("index");
    let context =
        ContextIndex::load(from.as_fd(), &index, &Patterns::default(), file_clock(), Trust::Nothing).unwrap();
    let selection = context.select(from.as_fd(), &Selector::new("/")).unwrap();
    let active = Active::new(store, &[Lower::Host(lower.to_owned())]).unwrap();
    let halves = active.halves().unwrap().unwrap();
    let shown = earlier.map(|id| (open_host_dir(&store.layer_dirs(id)[0]).unwrap(), stored(store, id)));
    let previous = shown.as_ref().map(|(files, tree)| Previous { files: files.as_fd(), tree, delta });
    let dest = Dest { root: active.root(), layers: Some(halves.layers()), previous };
    let done = copy(from.as_fd(), &selection, dest, b"/a/", &CopyOptions::default())?;
    drop(halves);
    let patched = done.delta.is_some();
    match active.commit_on(store, done, earlier, false) {
        Err(SnapshotError::NotADelta) => copied(store, lower, source, earlier, false),
        layer => Ok((layer.unwrap(), patched)),
    }
}

fn stored(store: &Store, layer: &LayerId) -> Tree {
    Tree::decode(&store.layer_tree(layer).unwrap()).unwrap()
}

/// What a process sees of a layer on `lower`, but for the destination and what is above it, whose times are of just now.
fn seen(store: &Store, lower: &Path, layer: &LayerId) -> Vec<Entry> {
    let dirs: Vec<PathBuf> = [lower.to_owned()].into_iter().chain(store.layer_dirs(layer)).collect();
    deeper(&scan(mount(&dirs, None).unwrap().as_fd(), &ScanOptions::default()).unwrap())
}

/// What there is of a layer on the disk.
fn shown(store: &Store, layer: &LayerId) -> Vec<Entry> {
    deeper(&scan(mount(&store.layer_dirs(layer), None).unwrap().as_fd(), &ScanOptions::default()).unwrap())
}

fn deeper(tree: &Tree) -> Vec<Entry> {
    tree.entries().iter().filter(|entry| entry.path.components().count() > 1).cloned().collect()
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    prop::collection::vec((prop::collection::vec(any::<bool>(), 1..4), any::<u8>()), 0..12)
}

#[test]
fn a_patch_is_the_whole_layer() {
    if !rustix::process::geteuid().is_root() {
        return lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
    }
    let patches = AtomicUsize::new(0);
    let config = ProptestConfig { cases: 128, ..ProptestConfig::default() };
    proptest!(config, |(below in made(), source in made(), edits in made(), below_later in made())| {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fill(&at("lower"), &below);
        fill(&at("source"), &source);
        let (store, fresh) = (Store::open(&at("state")).unwrap(), Store::open(&at("fresh")).unwrap());
        let Ok((first, _)) = copied(&store, &at("lower"), &at("source"), None, true) else { return Ok(()) };
        fill(&at("source"), &edits);
        fill(&at("lower"), &below_later);
        fill(&at("other"), &below);
        let patched = copied(&store, &at("lower"), &at("source"), Some(&first), true);
        let whole = copied(&fresh, &at("lower"), &at("source"), None, true);
        match (patched, whole) {
            (Ok((patched, delta)), Ok((whole, _))) => {
                patches.fetch_add(usize::from(delta), Ordering::Relaxed);
                prop_assert_eq!(deeper(&stored(&store, &patched)), deeper(&stored(&fresh, &whole)));
                prop_assert_eq!(seen(&store, &at("lower"), &patched), seen(&fresh, &at("lower"), &whole));
                // The layer may lie on another root, whose files its own must not hide by accident.
                prop_assert_eq!(seen(&store, &at("other"), &patched), seen(&fresh, &at("other"), &whole));
                prop_assert_eq!(shown(&store, &patched), deeper(&stored(&store, &patched)));
                prop_assert_eq!(damage(&store, &patched), None);
            }
            (Err(patched), Err(whole)) => prop_assert_eq!(patched.to_string(), whole.to_string()),
            (patched, whole) => prop_assert!(false, "{:?} but whole {:?}", patched, whole),
        }
    });
    assert!(patches.into_inner() > 10, "too few cases were about patches");
}

#[test]
fn one_saved_file_is_one_file_on_the_disk() {
    if !rustix::process::geteuid().is_root() {
        return lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    fs::create_dir(at("lower")).unwrap();
    fs::create_dir_all(at("source/deep/er")).unwrap();
    for number in 0..100 {
        fs::write(at(&format!("source/{number}")), "same").unwrap();
        fs::write(at(&format!("source/deep/er/{number}")), "same").unwrap();
    }
    let store = Store::open(&at("state")).unwrap();
    let (first, delta) = copied(&store, &at("lower"), &at("source"), None, true).unwrap();
    assert!(!delta);
    fs::write(at("source/deep/er/7"), "changed").unwrap();
    let (second, delta) = copied(&store, &at("lower"), &at("source"), Some(&first), true).unwrap();
    assert!(delta);
    assert_eq!(store.layer_base(&second), Some(first.clone()));
    let own = store.layer_dirs(&second).remove(1);
    let files = |dir: &str| fs::read_dir(own.join(dir)).unwrap().count();
    assert_eq!((files("a"), files("a/deep"), files("a/deep/er")), (1, 1, 1));
    // Its tar is that of all of it.
    let mut tar = Vec::new();
    write_tar(&store, &second, None, &mut tar).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    assert_eq!(names.count(), 203);
    assert!(tar.windows(7).any(|bytes| bytes == b"changed"));
    // Without the lower one there is nothing.
    fs::rename(at("state/layers").join(first.as_str()), at("away")).unwrap();
    assert!(!store.has_layer(&second) && damage(&store, &second).is_some());
}
