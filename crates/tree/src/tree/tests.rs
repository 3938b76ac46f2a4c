//! Tests of the tree as data, and the generator of trees other tests use.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::entry::{ContentDigest, Meta, Xattr};

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

pub(crate) fn meta(mode: u32) -> Meta {
    Meta { mode, mtime: 1_700_000_000_123_456_789, ..Meta::default() }
}

pub(crate) fn file(at: &str, content: &[u8]) -> Entry {
    let kind = Kind::File { size: content.len() as u64, content: ContentDigest::of(content) };
    Entry { path: path(at), kind, meta: meta(0o644) }
}

pub(crate) fn dir(at: &str) -> Entry {
    Entry { path: path(at), kind: Kind::Dir { opaque: false }, meta: meta(0o755) }
}

/// Contents a generated file can have, so that a test can write them back to a disk.
pub(crate) const CONTENTS: [&[u8]; 4] = [b"", b"hello", b"#!/bin/sh\necho\n", &[7; 3000]];

fn any_meta() -> impl Strategy<Value = Meta> {
    let times = prop_oneof![Just(0), 0..2_000_000_000_000_000_000i64, -5_000_000_000..0i64];
    let caps = proptest::option::weighted(0.1, Just(()));
    (0..0o10000u32, 0..70_000u32, 0..5u32, times, caps).prop_map(|(mode, uid, gid, mtime, caps)| {
        let value: Box<[u8]> = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into();
        let xattrs =
            caps.map(|()| Xattr { name: (*b"security.capability").into(), value }).into_iter().collect();
        Meta { mode, uid, gid, mtime, xattrs }
    })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (0..CONTENTS.len()).prop_map(|i| Kind::File {
            size: CONTENTS[i].len() as u64,
            content: ContentDigest::of(CONTENTS[i]),
        }),
        4 => any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
        1 => "[a-z/.]{1,8}|[a-z]{120,130}".prop_map(|t| Kind::Symlink { target: t.into_bytes().into() }),
        1 => (1..5u32, 0..9u32).prop_map(|(major, minor)| Kind::CharDev { major, minor }),
        1 => (1..5u32, 0..9u32).prop_map(|(major, minor)| Kind::BlockDev { major, minor }),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Whiteout),
        2 => Just(Kind::Hardlink { to: TreePath::root() }),
    ]
}

/// Trees with every kind of entry, long and non-ASCII names, hard links and capabilities.
pub(crate) fn any_tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof![8 => "[a-c]", 2 => "[a-zäß \\-!]{1,6}", 1 => "[x-z]{90,110}"];
    let at = proptest::collection::vec(name, 1..4);
    proptest::collection::vec((at, any_kind(), any_meta()), 0..24).prop_map(build)
}

fn build(raw: Vec<(Vec<String>, Kind, Meta)>) -> Tree {
    let mut all: BTreeMap<TreePath, Entry> = BTreeMap::new();
    for (names, mut kind, mut meta) in raw {
        let path = TreePath::clean(names.join("/").as_bytes()).unwrap();
        if path.is_root() || all.contains_key(&path) {
            continue;
        }
        for above in path.ancestors().skip(1) {
            let made =
                Entry { path: above.clone(), kind: Kind::Dir { opaque: false }, meta: self::meta(0o755) };
            all.entry(above)
                .and_modify(|e| {
                    if !e.is_dir() {
                        *e = made.clone();
                    }
                })
                .or_insert(made);
        }
        match &mut kind {
            Kind::Whiteout => meta = Meta::default(),
            Kind::Symlink { .. } => (meta.mode, meta.xattrs) = (0o777, vec![]),
            Kind::Hardlink { to } => {
                let Some(file) = all.values().find(|e| matches!(e.kind, Kind::File { .. }) && e.path < path)
                else {
                    continue;
                };
                (*to, meta) = (file.path.clone(), file.meta.clone());
            }
            Kind::File { .. } => {}
            _ => meta.xattrs = vec![],
        }
        all.insert(path.clone(), Entry { path, kind, meta });
    }
    // A file that became a directory later leaves its links behind.
    let keep: Vec<Entry> = all
        .values()
        .filter(|e| match &e.kind {
            Kind::Hardlink { to } => matches!(all[to].kind, Kind::File { .. }),
            _ => true,
        })
        .cloned()
        .collect();
    Tree::from_entries(keep).unwrap()
}

#[test]
fn invariants_are_checked() {
    let ok = Tree::from_entries(vec![file("a/b", b"x"), dir("a")]).unwrap();
    assert_eq!(ok.entries()[0].path, path("a"));
    assert!(matches!(Tree::from_entries(vec![file("a/b", b"")]), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(
        Tree::from_entries(vec![file("a", b""), file("a/b", b"")]),
        Err(TreeError::NotADirectory { .. })
    ));
    assert!(matches!(Tree::from_entries(vec![dir("a"), dir("a")]), Err(TreeError::Duplicate { .. })));
    let mut link = file("b", b"x");
    link.kind = Kind::Hardlink { to: path("a") };
    assert!(matches!(Tree::from_entries(vec![link.clone()]), Err(TreeError::LinkTarget { .. })));
    assert!(Tree::from_entries(vec![link, file("a", b"x")]).is_ok());
}

#[test]
fn children_and_subtree() {
    let tree =
        Tree::from_entries(vec![dir("a"), dir("a/b"), file("a/b/c", b""), file("a-", b""), file("a/z", b"")])
            .unwrap();
    let names = |p: &str| tree.children(&path(p)).map(|e| e.path.to_string()).collect::<Vec<_>>();
    assert_eq!(names(""), ["/a", "/a-"]);
    assert_eq!(names("a"), ["/a/b", "/a/z"]);
    assert_eq!(tree.subtree(&path("a")).len(), 4);
    assert!(tree.subtree(&path("q")).is_empty());
}

#[test]
fn k_ignores_times_and_l_does_not() {
    let one = Tree::from_entries(vec![dir("d"), file("d/f", b"x")]).unwrap();
    let mut entries = one.clone().into_entries();
    entries[1].meta.mtime = 5;
    let two = Tree::from_entries(entries).unwrap();
    assert_eq!(one.k_digest(), two.k_digest());
    assert_ne!(one.l_digest(), two.l_digest());
}

#[test]
fn k_of_a_part_does_not_depend_on_where_it_is() {
    let mut link = file("e/g", b"x");
    link.kind = Kind::Hardlink { to: path("d/f") };
    link.path = path("e/f");
    let tree = Tree::from_entries(vec![dir("d"), file("d/f", b"x"), dir("e"), link]).unwrap();
    assert_eq!(tree.k_digest_of(&path("d")), tree.k_digest_of(&path("e")));
    assert_eq!(tree.k_digest_of(&path("d/f")), tree.k_digest_of(&path("e/f")));
    assert_eq!(tree.k_digest_of(&path("nope")), None);
    assert_eq!(tree.k_digest_of(&TreePath::root()), Some(tree.k_digest()));
}

/// Digests are stored: a change here needs another number in the hash contexts.
#[test]
fn digests_are_stable() {
    let tree = Tree::from_entries(vec![dir("d"), file("d/f", b"x"), Entry::whiteout(path("w"))]).unwrap();
    assert_eq!(
        tree.k_digest().to_string(),
        "337a9948dfc1558e2ea4e6fbb842296596052708c786bdb660d63b15d41a7123"
    );
    assert_eq!(
        tree.l_digest().to_string(),
        "c58e4ca35150909f12c714aabb5b9b786e7154cd809425e5cd37cefb15bea451"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codec_round_trip(tree in any_tree()) {
        prop_assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    }

    #[test]
    fn codec_survives_damage(tree in any_tree(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let good = tree.encode();
        let mut bad = good.clone();
        let at = at.index(bad.len());
        bad[at] ^= flip;
        prop_assert!(Tree::decode(&bad).is_err());
        prop_assert!(Tree::decode(&good[..cut.index(good.len())]).is_err());
        // The same with a checksum that is right, so that the body's own checks are what stands.
        let body = bad.len() - 16;
        let check = *blake3::hash(&bad[..body]).as_bytes();
        bad[body..].copy_from_slice(&check[..16]);
        drop(Tree::decode(&bad));
    }
}
