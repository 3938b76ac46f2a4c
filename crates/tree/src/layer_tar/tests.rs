//! The bytes of a layer.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::tar_read::TarReader;
use crate::tree::tests::{dir, file, meta, path};

fn open(content: &'static [u8]) -> impl Fn(&TreePath) -> io::Result<File> {
    move |_| {
        let mut file = tempfile::tempfile()?;
        file.write_all(content)?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }
}

#[test]
fn bytes_are_stable() {
    let long = format!("d/{}", "n".repeat(120));
    let tree =
        Tree::from_entries(vec![dir("d"), file("d/f", b"x"), file(&long, b"x"), Entry::whiteout(path("w"))]);
    let tree = tree.unwrap();
    let mut out = Vec::new();
    let written = write_layer(&tree, || open(b"x"), &mut out, &TarOptions::default()).unwrap();
    assert_eq!((written, out.len() % BLOCK), (out.len() as u64, 0));
    let digest = diff_id(&tree, || open(b"x"), &mut HashStates::default()).unwrap();
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&out)));
    assert_eq!(
        blake3::hash(&out).to_hex().as_str(),
        "d0455546f814bebe8e6290e22ecac1bc96edad8568c70d8f06f2d55f7ade3205"
    );
}

#[test]
fn pax_only_when_needed() {
    let mut plain = file("f", b"");
    plain.meta.mtime = 1_000_000_000;
    let count = |entry: Entry, options: &TarOptions| {
        let tree = Tree::from_entries(vec![entry]).unwrap();
        write_layer(&tree, || open(b""), io::sink(), options).unwrap() / BLOCK as u64 - 2
    };
    let none = TarOptions::default();
    assert_eq!(count(plain.clone(), &none), 1);
    let mut entry = plain.clone();
    entry.meta.mtime += 1;
    assert_eq!(count(entry.clone(), &none), 3);
    assert_eq!(count(entry, &TarOptions { clamp_mtime: Some(0), ..none }), 1);
    let mut entry = plain.clone();
    entry.meta.uid = 3_000_000;
    assert_eq!(count(entry, &none), 3);
    let mut entry = plain.clone();
    entry.meta.xattrs = vec![crate::Xattr { name: (*b"user.x").into(), value: (*b"y").into() }];
    assert_eq!(count(entry.clone(), &none), 1);
    assert_eq!(count(entry, &TarOptions { all_xattrs: true, ..none }), 3);
    let mut entry = plain;
    entry.path = TreePath::parse("ü".as_bytes()).unwrap();
    assert_eq!(count(entry, &none), 3);
}

#[test]
fn a_file_that_changed_is_an_error() {
    let tree = Tree::from_entries(vec![file("f", b"xyz")]).unwrap();
    for content in [&b"xy"[..], b"xyzz"] {
        let result = write_layer(&tree, || open(content), io::sink(), &TarOptions::default());
        assert!(matches!(result, Err(TreeError::Changed { .. })));
    }
}

/// GNU tar, if the machine has one, lists what we mean.
#[test]
fn gnu_tar_reads_it() {
    let mut wide = file("ü", b"x");
    wide.meta = crate::Meta { uid: 3_000_000, gid: 5, ..meta(0o640) };
    let tree =
        Tree::from_entries(vec![dir("d"), wide, file(&format!("d/{}", "n".repeat(150)), b"x")]).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let at = temp.path().join("x.tar");
    write_layer(&tree, || open(b"x"), File::create(&at).unwrap(), &TarOptions::default()).unwrap();
    let Ok(output) = std::process::Command::new("tar").arg("-tvnf").arg(&at).env("LC_ALL", "C").output()
    else {
        return lapstrake_testkit::skipped("there is no tar");
    };
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(listing.contains(&"n".repeat(150)), "{listing}");
    assert!(listing.contains("3000000/5"), "{listing}");
}

#[test]
fn the_reader_reads_the_writer() {
    let tree = Tree::from_entries(vec![dir("d"), file("d/f", b"xyz")]).unwrap();
    let mut out = Vec::new();
    write_layer(&tree, || open(b"xyz"), &mut out, &TarOptions::default()).unwrap();
    let mut reader = TarReader::new(&out[..], 100);
    let first = reader.next_entry().unwrap().unwrap();
    assert_eq!((first.name.as_slice(), first.mtime), (&b"d/"[..], meta(0).mtime));
    assert_eq!(reader.next_entry().unwrap().unwrap().size, 3);
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn long_names_are_split_as_go_splits_them() {
    let split = |name: &str| {
        super::split(name.as_bytes())
            .map(|(dir, name)| (dir.len(), String::from_utf8_lossy(name).into_owned()))
    };
    let long = "n".repeat(90);
    assert_eq!(split(&format!("{long}/{long}")), Some((90, long.clone())));
    assert_eq!(split(&format!("{long}/{long}/")), Some((90, format!("{long}/"))));
    assert_eq!(split(&format!("a/{long}/{long}")), Some((92, long.clone())));
    // Not in 155 and 100 bytes, not ASCII, or nothing in front of the slash.
    assert_eq!(split(&format!("{long}/{long}/{long}")), None);
    assert_eq!(split(&format!("a/{}", "n".repeat(101))), None);
    assert_eq!(split(&format!("ü/{long}/{long}")), None);
    assert_eq!(split(&format!("/{}", "n".repeat(100))), None);
}

#[test]
fn a_clamped_tar_has_the_checksums_of_gos_writer() {
    let tree = Tree::from_entries(vec![file("f", b"x")]).unwrap();
    let header = |clamp_mtime| {
        let mut tar = Vec::new();
        let options = TarOptions { clamp_mtime, ..TarOptions::default() };
        write_layer(&tree, || open(b"x"), &mut tar, &options).unwrap();
        tar[148..156].to_vec()
    };
    let (plain, clamped) = (header(None), header(Some(0)));
    assert!(plain.starts_with(b"00") && plain.ends_with(b"\0"), "{plain:?}");
    assert!(clamped.ends_with(b"\0 "), "{clamped:?}");
}
