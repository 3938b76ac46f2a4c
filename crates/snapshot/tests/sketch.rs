//! A copy onto a skeleton of the lower layers gives the layer that it gives on the layers themselves, and the same errors.
//!
//! Needs the right to mount: an ordinary user has it in a user namespace only, where whole builds are tested
//! (`packed_layers`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapstrake_snapshot::{Active, Lower};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::copy::{CopyOptions, Dest, NewFile, copy, write_file};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::{Selection, Selector};
use lapstrake_tree::skeleton::SkeletonTree;
use lapstrake_tree::{Entry, Tree, TreeError};
use proptest::prelude::*;

/// What is made: a path of at most three names out of two, and what it becomes.
type Made = (Vec<bool>, u8);

const LINKS: [&str; 6] = ["a", "/b", "../b", "/a/b/../a", "b/a", "/new/x"];
const DESTS: [&str; 12] = [
    "/",
    "/a",
    "/a/",
    "/b/a",
    "/b/a/",
    "/a/b/c",
    "/new/x/",
    "/b/../a",
    "/a/a/a/",
    "/new/../b",
    "/a/b/b",
    "/b",
];

fn fill(top: &Path, things: &[Made]) {
    fs::create_dir_all(top).unwrap();
    for (names, kind) in things {
        let path = names.iter().fold(top.to_owned(), |path, b| path.join(if *b { "a" } else { "b" }));
        if fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        // What is in the way stays, if it is of another kind.
        match kind % 8 {
            1 | 2 => fs::create_dir(&path).unwrap_or_default(),
            3 => symlink(LINKS[usize::from(*kind) % LINKS.len()], &path).unwrap_or_default(),
            4 => fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap_or_default(),
            5 => fs::hard_link(&path, path.with_extension("x")).unwrap_or_default(),
            6 => chown(&path, Some(7), Some(8)).unwrap_or_default(),
            _ => fs::write(&path, "1".repeat(usize::from(*kind) % 3)).unwrap_or_default(),
        }
    }
}

fn of_dir(dir: &Path) -> Tree {
    let opened = open_host_dir(dir).unwrap();
    Tree::default().with_layer(&scan(opened.as_fd(), &ScanOptions::default()).unwrap())
}

/// The layer, without the times of directories: some are of just now.
fn stored(store: &Store, layer: &LayerId) -> Vec<Entry> {
    let mut entries = Tree::decode(&store.layer_tree(layer).unwrap()).unwrap().into_entries();
    for entry in &mut entries {
        if entry.is_dir() {
            entry.meta.mtime = 0;
        }
    }
    entries
}

fn copied(
    store: &Store,
    active: Active,
    from: &Path,
    selection: &Selection,
    dest: &str,
) -> Result<Vec<Entry>, TreeError> {
    let from = open_host_dir(from).unwrap();
    let halves = active.halves().unwrap().unwrap();
    let to = Dest { root: active.root(), layers: Some(halves.layers()), previous: None };
    let done = copy(from.as_fd(), selection, to, dest.as_bytes(), &CopyOptions::default())?;
    drop(halves);
    Ok(stored(store, &active.commit(store, done, false).unwrap()))
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    prop::collection::vec((prop::collection::vec(any::<bool>(), 1..4), any::<u8>()), 0..14)
}

#[test]
fn a_sketch_does_for_the_whole() {
    if !rustix::process::geteuid().is_root() {
        return lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
    }
    let sketches = AtomicUsize::new(0);
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    let sources = prop::sample::select(vec!["/", "/a", "/b/a", "/*"]);
    proptest!(config, |(below in made(), source in made(), what in sources, dest in prop::sample::select(&DESTS[..]))| {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fill(&at("lower"), &below);
        fill(&at("source"), &source);
        let Ok(selection) = of_dir(&at("source")).select(&Selector::new(what)) else { return Ok(()) };
        let store = Store::open(&at("state")).unwrap();
        let tree = of_dir(&at("lower"));
        let mut sketch = SkeletonTree::new(&tree);
        let Ok(true) = sketch.copy(&selection, dest.as_bytes()) else { return Ok(()) };
        let sketched = copied(&store, Active::sketched(&store, sketch, false).unwrap(), &at("source"), &selection, dest);
        let whole = copied(&store, Active::new(&store, &[Lower::Host(at("lower"))]).unwrap(), &at("source"), &selection, dest);
        match (sketched, whole) {
            (Ok(sketched), Ok(whole)) => {
                sketches.fetch_add(usize::from(!tree.is_empty() && !whole.is_empty()), Ordering::Relaxed);
                prop_assert_eq!(sketched, whole);
            }
            (Err(sketched), Err(whole)) => prop_assert_eq!(sketched.to_string(), whole.to_string()),
            (sketched, whole) => prop_assert!(false, "{:?} but on the whole {:?}", sketched, whole),
        }
    });
    assert!(sketches.into_inner() > 10, "too few cases were about sketches");
}

#[test]
fn a_file_and_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    fs::create_dir_all(at("lower/d")).unwrap();
    symlink("../d/f", at("lower/d/l")).unwrap();
    fs::write(at("lower/d/f"), "of the base").unwrap();
    chown(at("lower/d"), Some(7), Some(8)).unwrap();
    let (store, tree) = (Store::open(&at("state")).unwrap(), of_dir(&at("lower")));
    let new = NewFile { name: b"EOF", content: b"new", mode: 0o644 };
    let mut sketch = SkeletonTree::new(&tree);
    assert!(sketch.write_file(new.name, new.content, b"/d/l").unwrap());
    let write = |active: Active| {
        let options = CopyOptions { mtime: Some(0), ..CopyOptions::default() };
        let done = write_file(active.root(), b"/d/l", &new, &options).unwrap();
        stored(&store, &active.commit(&store, done, false).unwrap())
    };
    let sketched = write(Active::sketched(&store, sketch, false).unwrap());
    assert_eq!(sketched, write(Active::new(&store, &[Lower::Host(at("lower"))]).unwrap()));
    let seen: Vec<(String, u32)> = sketched.iter().map(|e| (e.path.to_string(), e.meta.uid)).collect();
    assert_eq!(seen, [("/d".to_owned(), 7), ("/d/f".to_owned(), 0)]);
}
