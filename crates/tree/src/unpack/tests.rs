//! Round trips and the hostile corpus.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;
use crate::inroot::{PlainFiles, open_host_dir};
use crate::layer_tar::{HashStates, TarOptions, diff_id, write_layer};
use crate::scan::{ScanMode, ScanOptions, scan};
use crate::tree::tests::{CONTENTS, any_tree};

fn fresh() -> (tempfile::TempDir, OwnedFd) {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("root")).unwrap();
    std::fs::write(temp.path().join("canary"), "host").unwrap();
    let fd = open_host_dir(&temp.path().join("root")).unwrap();
    (temp, fd)
}

fn open_content(tree: &Tree) -> impl Fn(&TreePath) -> io::Result<std::fs::File> + '_ {
    |path| {
        let Some(Kind::File { content, .. }) = tree.get(path).map(|e| &e.kind) else { unreachable!() };
        let bytes = CONTENTS.iter().find(|c| ContentDigest::of(c) == *content).unwrap();
        let mut file = tempfile::tempfile()?;
        io::Write::write_all(&mut file, bytes)?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Tree → tar → unpack → the same tree; as root also the same on disk, and the same tar again.
    #[test]
    fn round_trip(tree in any_tree()) {
        let mut tar = Vec::new();
        write_layer(&tree, || open_content(&tree), &mut tar, &TarOptions::default()).unwrap();
        let root = rustix::process::geteuid().is_root();
        let (_temp, dest) = fresh();
        let options = UnpackOptions { single_id: !root, ..UnpackOptions::default() };
        let got = unpack_layer(&tar[..], dest.as_fd(), &options).unwrap();
        prop_assert_eq!(&got.tree, &tree);
        prop_assert_eq!(got.size, tar.len() as u64);
        prop_assert!(got.implied_dirs.is_empty());
        prop_assert_eq!(got.diff_id, diff_id(&tree, || open_content(&tree), &mut HashStates::default()).unwrap());
        if root && got.skipped_devices.is_empty() {
            let scanned = scan(dest.as_fd(), &ScanOptions { mode: ScanMode::OverlayUpper, ..ScanOptions::default() });
            let scanned = scanned.unwrap();
            prop_assert_eq!(&scanned, &tree);
            let roots = [rustix::io::dup(&dest).unwrap()];
            let open = || {
                let mut files = PlainFiles::new(&roots);
                move |path: &TreePath| Ok(files.open(path).map_err(io::Error::other)?.into())
            };
            let from_disk = diff_id(&scanned, open, &mut HashStates::default());
            prop_assert_eq!(from_disk.unwrap(), got.diff_id);
        }
    }

    #[test]
    fn garbage_never_panics(tree in any_tree(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut tar = Vec::new();
        write_layer(&tree, || open_content(&tree), &mut tar, &TarOptions::default()).unwrap();
        for (at, byte) in damage {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        let (_temp, dest) = fresh();
        drop(unpack_layer(&tar[..], dest.as_fd(), &UnpackOptions { single_id: true, ..UnpackOptions::default() }));
    }
}

/// One entry of a hand-made archive: kind, name, link or content.
type Raw<'a> = (EntryType, &'a str, &'a str);

fn archive(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for &(kind, name, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        // Written raw: the crate's own setters refuse most of what is tried here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let content = if kind == EntryType::Regular { text } else { "" };
        if kind != EntryType::Regular {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn try_unpack(entries: &[Raw<'_>]) -> (tempfile::TempDir, Result<Unpacked, TreeError>) {
    let (temp, dest) = fresh();
    let options =
        UnpackOptions { single_id: true, max_entries: 1000, max_bytes: 1 << 20, ..UnpackOptions::default() };
    let result = unpack_layer(&archive(entries)[..], dest.as_fd(), &options);
    let outside: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "{entries:?} made something outside");
    assert_eq!(std::fs::read(temp.path().join("canary")).unwrap(), b"host", "{entries:?} wrote outside");
    (temp, result)
}

#[test]
fn hostile_names() {
    use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
    let refused: &[&[Raw<'_>]] = &[
        &[(F, "../canary", "x")],
        &[(F, "a/../../canary", "x")],
        &[(D, "..", "")],
        &[(F, "", "x")],
        &[(F, "/", "x")],
        &[(H, "h", "../canary")],
        &[(H, "h", "/canary")],
        &[(H, "h", "missing")],
        &[(D, "d", ""), (H, "h", "d")],
        &[(S, "s", ".."), (H, "h", "s/canary")],
        &[(S, "l", "l"), (F, "l/x", "y")],
        &[(F, "f", "x"), (F, "f/x", "y")],
        &[(F, ".wh.", "")],
        &[(F, ".wh...", "")],
        &[(F, ".wh..", "")],
        &[(F, "../.wh.canary", "")],
        &[(S, "s", "")],
        &[(EntryType::Char, "c", "")],
        &[(F, "h", "x"), (H, "h/x", "h")],
    ];
    for entries in refused {
        let (_temp, result) = try_unpack(entries);
        assert!(result.is_err(), "{entries:?}");
    }
}

#[test]
fn hostile_links_stay_inside() {
    use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
    let cases: &[(&[Raw<'_>], &[&str])] = &[
        (&[(S, "s", "/"), (F, "s/x", "y")], &["/s", "/x"]),
        (&[(S, "s", "../../.."), (F, "s/canary", "y")], &["/canary", "/s"]),
        (&[(S, "s", "/etc"), (F, "s/x", "y")], &["/etc", "/etc/x", "/s"]),
        (&[(F, "/abs", "y")], &["/abs"]),
        (&[(S, "c", "../canary"), (F, "c", "y")], &["/c"]),
        (&[(S, "s", ".."), (F, "s/.wh.canary", "")], &["/canary", "/s"]),
        (&[(D, "d", ""), (F, "d/x", "1"), (S, "d", "/"), (F, "d/y", "2")], &["/d", "/y"]),
        (&[(F, "z", "1"), (H, "a", "z"), (F, "z", "2")], &["/a", "/z"]),
        (&[(S, "usr", "real"), (F, "real/f", ""), (H, "h", "usr/f")], &["/h", "/real", "/real/f", "/usr"]),
    ];
    for (entries, want) in cases {
        let (_temp, result) = try_unpack(entries);
        let tree = result.unwrap().tree;
        assert_eq!(
            tree.entries().iter().map(|e| e.path.to_string()).collect::<Vec<_>>(),
            *want,
            "{entries:?}"
        );
    }
}

#[test]
fn deletions() {
    use EntryType::{Directory as D, Regular as F};
    let kinds = |entries: &[Raw<'_>]| {
        let (temp, result) = try_unpack(entries);
        let tree = result.unwrap().tree;
        let fd = open_host_dir(&temp.path().join("root")).unwrap();
        let disk = scan(fd.as_fd(), &ScanOptions { mode: ScanMode::OverlayUpper, ..ScanOptions::default() })
            .unwrap();
        let kinds = |tree: &Tree| {
            tree.entries().iter().map(|e| (e.path.to_string(), e.kind.clone())).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&disk), kinds(&tree));
        kinds(&tree)
    };
    let opaque = Kind::Dir { opaque: true };
    assert_eq!(kinds(&[(F, ".wh.x", "")]), [("/x".into(), Kind::Whiteout)]);
    assert_eq!(kinds(&[(F, ".wh.d", ""), (D, "d", "")]), [("/d".into(), opaque.clone())]);
    assert_eq!(kinds(&[(D, "d", ""), (F, ".wh.d", "")]), [("/d".into(), opaque.clone())]);
    assert_eq!(kinds(&[(D, "d", ""), (F, "d/.wh..wh..opq", "")]), [("/d".into(), opaque.clone())]);
    assert_eq!(kinds(&[(F, "d/.wh..wh..opq", ""), (D, "d", "")]), [("/d".into(), opaque)]);
    assert_eq!(kinds(&[(F, ".wh..wh.plnk", ""), (F, ".wh..wh.aufs", "")]), []);
    let (_temp, result) = try_unpack(&[(F, "a/b/c", "x")]);
    assert_eq!(result.unwrap().implied_dirs.len(), 2);
}

#[test]
fn bombs() {
    let (_temp, dest) = fresh();
    let small =
        UnpackOptions { single_id: true, max_entries: 10, max_bytes: 1 << 20, ..UnpackOptions::default() };
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut io::repeat(0).take(8 << 20), &mut gz).unwrap();
    let result = unpack_layer(&gz.finish().unwrap()[..], dest.as_fd(), &small);
    assert!(matches!(result, Err(TreeError::TooBig { what: "bytes", .. })), "{result:?}");
    let many: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    let many: Vec<Raw<'_>> = many.iter().map(|n| (EntryType::Regular, n.as_str(), "")).collect();
    let result = unpack_layer(&archive(&many)[..], dest.as_fd(), &small);
    assert!(matches!(result, Err(TreeError::TooBig { what: "entries", .. })), "{result:?}");
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    let result = unpack_layer(&header.as_bytes()[..], dest.as_fd(), &small);
    assert!(matches!(result, Err(TreeError::TooBig { .. })), "{result:?}");
    header.set_entry_type(EntryType::Regular);
    header.as_old_mut().name[0] = b'f';
    header.set_size(u64::MAX);
    header.set_cksum();
    assert!(unpack_layer(&header.as_bytes()[..], dest.as_fd(), &small).is_err());
}

/// Headers without end, each a file of nothing.
struct Headers(u64, Vec<u8>);

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            let mut header = Header::new_ustar();
            header.set_path(format!("{:03}/{:06}", self.0 / 1000, self.0)).unwrap();
            header.set_entry_type(EntryType::Regular);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            self.1 = header.as_bytes().to_vec();
            self.0 += 1;
        }
        let length = buffer.len().min(self.1.len());
        buffer[..length].copy_from_slice(&self.1[..length]);
        self.1.drain(..length);
        Ok(length)
    }
}

#[test]
fn headers_without_end() {
    let mut headers = Headers(0, Vec::new());
    let options = UnpackOptions { max_entries: 50_000, ..UnpackOptions::default() };
    let result = read_layer(&mut headers, &options);
    assert!(matches!(result, Err(TreeError::TooBig { what: "entries", limit: 50_000 })), "{result:?}");
    // No more was read than what is read ahead.
    assert!(headers.0 < 60_000, "{}", headers.0);
}

#[test]
fn every_compression() {
    let plain = archive(&[(EntryType::Regular, "f", "hello")]);
    let gz = {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut out, &plain).unwrap();
        out.finish().unwrap()
    };
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    let mut bz = Vec::new();
    bzip2::read::BzEncoder::new(&plain[..], bzip2::Compression::fast()).read_to_end(&mut bz).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&plain[..], 1).read_to_end(&mut xz).unwrap();
    let mut ids = Vec::new();
    for bytes in [&plain, &gz, &zst, &bz, &xz] {
        let (_temp, dest) = fresh();
        let options = UnpackOptions { single_id: true, ..UnpackOptions::default() };
        ids.push(unpack_layer(&bytes[..], dest.as_fd(), &options).unwrap().diff_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[test]
fn overlay_attributes_of_an_archive_are_ignored() {
    let mut pax = crate::layer_tar::Pax::default();
    pax.add(b"SCHILY.xattr.user.overlay.redirect", b"/etc");
    pax.add(b"SCHILY.xattr.trusted.overlay.opaque", b"y");
    pax.add(b"SCHILY.xattr.user.kept", b"1");
    let records = pax.encode();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(records.len() as u64);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&records);
    bytes.resize(1024, 0);
    bytes.extend(archive(&[(EntryType::Directory, "d", "")]));
    let (_temp, dest) = fresh();
    let options = UnpackOptions { single_id: true, ..UnpackOptions::default() };
    let tree = unpack_layer(&bytes[..], dest.as_fd(), &options).unwrap().tree;
    assert_eq!(tree.entries()[0].kind, Kind::Dir { opaque: false });
    let names: Vec<_> = tree.entries()[0].meta.xattrs.iter().map(|x| x.name.clone()).collect();
    assert_eq!(names, [(*b"user.kept").into()]);
}
