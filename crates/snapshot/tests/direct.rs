//! Copies that go to the upper directory past the mount give the layer that copies through the mount give, and what
//! they say that they wrote is what is there.
//!
//! Needs the right to mount: an ordinary user has it in a user namespace only, where whole builds are tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use lapstrake_snapshot::{Active, Lower};
use lapstrake_store::{LayerId, Store};
use lapstrake_tree::copy::{Copied, CopyOptions, Dest, copy};
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use lapstrake_tree::{Entry, Tree, TreeError};
use proptest::prelude::*;

/// What is made: a path of at most three names out of two, and what it becomes.
type Made = (Vec<bool>, u8);

fn fill(top: &Path, things: &[Made]) {
    fs::create_dir_all(top).unwrap();
    for (number, (names, kind)) in things.iter().enumerate() {
        let path = names.iter().fold(top.to_owned(), |path, b| path.join(if *b { "a" } else { "b" }));
        // What is in the way stays: the trees need not be what the list says, only of all kinds.
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        match kind % 4 {
            0 => fs::create_dir(&path).unwrap(),
            1 => symlink("/a", &path).unwrap(),
            2 => fs::write(&path, format!("{number}")).unwrap(),
            _ => {
                fs::write(&path, "linked").unwrap();
                fs::hard_link(&path, path.with_extension("x")).unwrap_or_default();
            }
        }
    }
}

/// The layer that a copy makes, and what the copy thought of it.
fn copied(store: &Store, lower: &Path, source: &Path, directly: bool) -> Result<Tree, TreeError> {
    let from = open_host_dir(source).unwrap();
    let tree = scan(from.as_fd(), &ScanOptions::default()).unwrap();
    let selection = tree.select(&Selector::new("/")).unwrap();
    let active = Active::new(store, &[Lower::Host(lower.to_owned())]).unwrap();
    let halves = active.halves().unwrap().unwrap();
    let dest = Dest { root: active.root(), layers: directly.then(|| halves.layers()), previous: None };
    let done = copy(from.as_fd(), &selection, dest, b"/a/", &CopyOptions::default())?;
    assert_eq!(done.known.is_some(), directly);
    let layer = active.commit(store, done, false).unwrap();
    if directly {
        let read = reread(store, lower, source);
        assert_eq!(entries(&stored(store, &layer)), entries(&read), "what was known is what is there");
    }
    Ok(stored(store, &layer))
}

/// The same copy, directly, with a layer that is read from the disk.
fn reread(store: &Store, lower: &Path, source: &Path) -> Tree {
    let from = open_host_dir(source).unwrap();
    let tree = scan(from.as_fd(), &ScanOptions::default()).unwrap();
    let selection = tree.select(&Selector::new("/")).unwrap();
    let active = Active::new(store, &[Lower::Host(lower.to_owned())]).unwrap();
    let halves = active.halves().unwrap().unwrap();
    let dest = Dest { root: active.root(), layers: Some(halves.layers()), previous: None };
    copy(from.as_fd(), &selection, dest, b"/a/", &CopyOptions::default()).unwrap();
    let layer = active.commit(store, Copied::default(), false).unwrap();
    stored(store, &layer)
}

fn stored(store: &Store, layer: &LayerId) -> Tree {
    Tree::decode(&store.layer_tree(layer).unwrap()).unwrap()
}

/// Everything but the destination and what is above it: they were written to just now, and whether that shows depends
/// on the clock.
fn entries(tree: &Tree) -> Vec<Entry> {
    tree.entries().iter().filter(|entry| entry.path.components().count() > 1).cloned().collect()
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    prop::collection::vec((prop::collection::vec(any::<bool>(), 1..4), any::<u8>()), 0..12)
}

#[test]
fn both_ways_give_one_layer() {
    if !rustix::process::geteuid().is_root() {
        return lapstrake_testkit::skipped("an ordinary user may mount in a user namespace only");
    }
    let config = ProptestConfig { cases: 48, ..ProptestConfig::default() };
    proptest!(config, |(below in made(), source in made())| {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fill(&at("lower"), &below);
        fill(&at("source"), &source);
        let store = Store::open(&at("state")).unwrap();
        let through = copied(&store, &at("lower"), &at("source"), false);
        if at("lower/a").is_symlink() {
            // It leads to itself.
            prop_assert!(through.is_err());
            return Ok(());
        }
        let direct = copied(&store, &at("lower"), &at("source"), true);
        match (through, direct) {
            (Ok(through), Ok(direct)) => prop_assert_eq!(entries(&through), entries(&direct)),
            (Err(through), Err(direct)) => prop_assert_eq!(through.to_string(), direct.to_string()),
            (through, direct) => prop_assert!(false, "{:?} but directly {:?}", through, direct),
        }
    });
}
