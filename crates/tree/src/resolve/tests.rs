//! All that follows links agrees with a naive model, and with the kernel, on random trees.

use std::collections::BTreeMap;
use std::fs as std_fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use crate::inroot::Root;
use crate::select::Selector;
use crate::skeleton::SkeletonTree;
use crate::tree::tests::{dir, file};
use crate::unpack::{UnpackOptions, read_layer};
use crate::{Entry, Kind, Tree, TreePath};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File,
    Link(String),
}

/// By path, without a leading slash; only directories have something below them.
type World = BTreeMap<String, Node>;

/// What the model says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The real path.
    Found(String),
    /// Nothing there: the real path that would be made, and whether the first missing name was in a link.
    Missing(String, bool),
    NotADirectory,
    Loop,
}

/// The naive way: components in a list, the text of a link put in front of it.
fn model(world: &World, path: &str, follow_last: bool) -> Answer {
    let split = |text: &str, of_link: bool| {
        let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
        names.map(|name| (name.to_owned(), of_link)).collect::<Vec<_>>()
    };
    let mut todo = split(path, false);
    let (mut real, mut links, mut missing): (Vec<String>, _, _) = (Vec::new(), 0, None);
    while !todo.is_empty() {
        let (name, of_link) = todo.remove(0);
        if name == ".." {
            real.pop();
            continue;
        }
        real.push(name);
        // Once something is missing, the rest is taken literally.
        if missing.is_some() {
            continue;
        }
        match world.get(&real.join("/")) {
            Some(Node::Dir) => {}
            Some(Node::File) if todo.is_empty() => {}
            Some(Node::File) => return Answer::NotADirectory,
            Some(Node::Link(_)) if todo.is_empty() && !follow_last => {}
            Some(Node::Link(target)) => {
                links += 1;
                if links > 255 {
                    return Answer::Loop;
                }
                real.pop();
                if target.starts_with('/') {
                    real.clear();
                }
                let mut next = split(target, true);
                next.append(&mut todo);
                todo = next;
            }
            None => missing = Some(of_link),
        }
    }
    match missing {
        Some(by_link) => Answer::Missing(real.join("/"), by_link),
        None => Answer::Found(real.join("/")),
    }
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn paths() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "a", "b", "..", ".", "", "n"]);
    (any::<bool>(), prop::collection::vec(part, 1..6))
        .prop_map(|(rooted, parts)| format!("{}{}", if rooted { "/" } else { "" }, parts.join("/")))
        .prop_filter("a link has a text", |path| !path.is_empty())
}

fn worlds() -> impl Strategy<Value = World> {
    let node =
        prop_oneof![3 => Just(None), 1 => Just(Some(None)), 4 => paths().prop_map(|to| Some(Some(to)))];
    prop::collection::vec((prop::collection::vec(names(), 1..4), node), 1..14).prop_map(|list| {
        let mut world = World::new();
        for (parts, node) in list {
            let above = (1..parts.len()).map(|end| parts[..end].join("/"));
            if above.clone().any(|dir| world.get(&dir).is_some_and(|node| *node != Node::Dir)) {
                continue;
            }
            world.extend(above.map(|dir| (dir, Node::Dir)));
            let node = match node {
                None => Node::Dir,
                Some(None) => Node::File,
                Some(Some(target)) => Node::Link(target),
            };
            world.entry(parts.join("/")).or_insert(node);
        }
        world
    })
}

/// The world on a disk.
fn on_disk(world: &World) -> (tempfile::TempDir, OwnedFd) {
    let place = tempfile::tempdir().unwrap();
    for (path, node) in world {
        let at = place.path().join(path);
        match node {
            Node::Dir => std_fs::create_dir(at).unwrap(),
            Node::File => std_fs::write(at, "").unwrap(),
            Node::Link(target) => symlink(target, at).unwrap(),
        }
    }
    let root = std_fs::File::open(place.path()).unwrap().into();
    (place, root)
}

/// The world as a tree.
fn in_tree(world: &World) -> Tree {
    let entry = |(path, node): (&String, &Node)| match node {
        Node::Dir => dir(path),
        Node::File => file(path, b""),
        Node::Link(target) => {
            Entry { kind: Kind::Symlink { target: target.as_bytes().into() }, ..file(path, b"") }
        }
    };
    Tree::from_entries(world.iter().map(entry).collect()).unwrap()
}

/// The world as an archive, with an entry `probe` in the directory `path` behind it.
fn archive(world: &World, path: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, node: &Node| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(match node {
            Node::Dir => tar::EntryType::Directory,
            Node::File => tar::EntryType::Regular,
            Node::Link(_) => tar::EntryType::Symlink,
        });
        if let Node::Link(target) = node {
            header.set_link_name_literal(target).unwrap();
        }
        // As it is written: the library refuses `..` in names.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    };
    for (path, node) in world {
        put(path, node);
    }
    put(&format!("{path}/probe"), &Node::File);
    tar.into_inner().unwrap()
}

/// The real path of what a disk has at `path`, by the walk that opens one name after the other.
fn walked(root: &OwnedFd, path: &str, last: bool) -> Result<(TreePath, bool), rustix::io::Errno> {
    let place = Root::new(root).place(path.as_bytes(), last);
    place.map(|place| (place.path(), place.by_link)).map_err(|error| error.errno().unwrap())
}

fn real(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_agree(world in worlds(), asked in prop::collection::vec((paths(), any::<bool>()), 8)) {
        let (place, root) = on_disk(&world);
        let tree = in_tree(&world);
        for (path, last) in asked {
            let expected = model(&world, &path, last);
            // A disk, one name at a time.
            let here = walked(&root, &path, last);
            match &expected {
                Answer::Found(at) => prop_assert_eq!(here, Ok((real(at), false)), "{}", path),
                Answer::Missing(at, by_link) => prop_assert_eq!(here, Ok((real(at), *by_link)), "{}", path),
                Answer::NotADirectory => prop_assert_eq!(here, Err(rustix::io::Errno::NOTDIR), "{}", path),
                Answer::Loop => prop_assert_eq!(here, Err(rustix::io::Errno::LOOP), "{}", path),
            }
            // The kernel; a slash or a dot at the end has it follow the last link, and demand a directory.
            let plain = !path.ends_with('/') && !path.ends_with("/.") && !path.ends_with("..") && path != ".";
            if plain && let Ok(stat) = Root::new(&root).stat(path.as_bytes(), last) {
                let Answer::Found(at) = &expected else { panic!("{path}: the kernel finds it: {expected:?}") };
                let there = std_fs::symlink_metadata(place.path().join(at)).unwrap();
                prop_assert_eq!(stat.st_ino, there.ino(), "{}", path);
            }
            // A tree that is selected from: paths are made normal first.
            let clean = TreePath::clean(path.as_bytes()).unwrap();
            let selector = Selector {
                sources: vec![path.clone()], wildcards: false, follow: last,
                ..Selector::new("")
            };
            let found = tree.select(&selector).is_ok();
            prop_assert_eq!(found, matches!(model(&world, &clean.to_string(), last), Answer::Found(_)), "{}", path);
            // A skeleton goes on over what is missing; files count as directories there.
            if let (Answer::Found(at) | Answer::Missing(at, _), true) = (&expected, last) {
                let sketched = SkeletonTree::new(&tree).follow(path.as_bytes());
                let literal = expected == Answer::Found(at.clone()) || !path.contains("..");
                if literal && !world.values().any(|node| matches!(node, Node::Link(to) if to.contains(".."))) {
                    prop_assert_eq!(sketched.unwrap(), real(at), "{}", path);
                }
            }
        }
    }

    #[test]
    fn archives_agree(world in worlds(), path in paths()) {
        // Names of archives are made normal first.
        let Ok(clean) = TreePath::clean_strict(path.as_bytes()) else { return Ok(()) };
        let expected = model(&world, &clean.to_string(), true);
        let unpacked = read_layer(&archive(&world, &path)[..], &UnpackOptions::default());
        let probe = |unpacked: &crate::unpack::Unpacked, at: &str| {
            unpacked.tree.get(&real(at).join_name(b"probe")).is_some()
        };
        match (&expected, unpacked) {
            (Answer::Found(at), Ok(unpacked)) => prop_assert!(probe(&unpacked, at), "{path} is not in {at}"),
            (Answer::Found(at), Err(error)) => prop_assert_eq!(world.get(at), Some(&Node::File), "{}: {}", path, error),
            // Made on the way, so that a `..` behind it leads back to what is there.
            (Answer::Missing(..), _) => {}
            (Answer::NotADirectory | Answer::Loop, result) => prop_assert!(result.is_err(), "{path}"),
        }
    }
}

#[test]
fn chains_of_links_end() {
    // As many as Docker follows, and one more.
    for (count, expected) in [(255, true), (256, false)] {
        let mut world = World::from([("end".to_owned(), Node::File)]);
        for link in 0..count {
            let target = if link == 0 { "end".to_owned() } else { format!("l{}", link - 1) };
            world.insert(format!("l{link}"), Node::Link(target));
        }
        let path = format!("l{}", count - 1);
        let (_place, root) = on_disk(&world);
        assert_eq!(walked(&root, &path, true).is_ok(), expected, "{count}");
        assert_eq!(SkeletonTree::new(&in_tree(&world)).follow(path.as_bytes()).is_ok(), expected, "{count}");
        assert_eq!(model(&world, &path, true) != Answer::Loop, expected, "{count}");
    }
}

#[test]
fn a_sketch_counts_the_links_of_one_path() {
    let world = World::from([("end".to_owned(), Node::File), ("l".to_owned(), Node::Link("end".to_owned()))]);
    let tree = in_tree(&world);
    let mut sketch = SkeletonTree::new(&tree);
    for _ in 0..300 {
        assert_eq!(sketch.follow(b"l").unwrap(), real("end"));
    }
}
