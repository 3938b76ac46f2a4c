//! What archives may do to a tree.

use std::io::Write;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use tar::{Builder, Header};

use super::*;
use crate::inroot::open_host_dir;
use crate::path::TreePath;

fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for &(kind, name, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let content = if kind == EntryType::Regular { text } else { "" };
        if kind != EntryType::Regular {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_mode(0o750);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn root() -> (tempfile::TempDir, OwnedFd) {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("root/run")).unwrap();
    std::fs::create_dir_all(temp.path().join("root/var")).unwrap();
    std::fs::create_dir(temp.path().join("host")).unwrap();
    symlink("/run", temp.path().join("root/var/run")).unwrap();
    symlink("../../host", temp.path().join("root/var/up")).unwrap();
    let fd = open_host_dir(&temp.path().join("root")).unwrap();
    (temp, fd)
}

fn options() -> ExtractOptions {
    let limits = UnpackOptions { single_id: true, ..UnpackOptions::default() };
    ExtractOptions { limits, ..ExtractOptions::default() }
}

#[test]
fn told_by_content() {
    let plain = tar(&[(EntryType::Regular, "f", "x")]);
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    let not = zstd::encode_all(&b"just text"[..], 1).unwrap();
    for (bytes, want) in
        [(&plain[..], true), (&zst, true), (&not, false), (b"text", false), (b"", false), (&[0; 1024], false)]
    {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        assert_eq!(is_archive(&mut file).unwrap(), want);
        assert_eq!(file.stream_position().unwrap(), 0);
    }
}

#[test]
fn onto_a_tree() {
    use EntryType::{Directory as D, Link as H, Regular as F, Symlink as S};
    let (temp, fd) = root();
    let bytes = tar(&[
        (F, "var/run/x", "1"),
        (H, "var/y", "var/run/x"),
        (S, "l", "/etc"),
        (D, "d", ""),
        (F, "deep/er/f", "2"),
        (F, ".wh.d", ""),
    ]);
    let copied = extract(&bytes[..], fd.as_fd(), b"/", &options()).unwrap();
    let at = |p: &str| temp.path().join("root").join(p);
    assert_eq!(std::fs::read(at("run/x")).unwrap(), b"1");
    assert_eq!(std::fs::metadata(at("var/y")).unwrap().nlink(), 2);
    assert_eq!(std::fs::metadata(at("d")).unwrap().mtime(), 1_000_000_000);
    assert!(at(".wh.d").exists() && at("deep/er/f").exists());
    assert_eq!(copied.owners[&TreePath::parse(b"run/x").unwrap()].uid, 1);
    extract(&bytes[..], fd.as_fd(), b"/new/place", &options()).unwrap();
    assert!(at("new/place/var/run/x").exists());
}

#[test]
fn hostile() {
    use EntryType::{Char as C, Link as H, Regular as F, Symlink as S};
    let refused: &[&[(EntryType, &str, &str)]] = &[
        &[(H, "h", "../../host")],
        &[(H, "h", "nope")],
        &[(H, "h", "h")],
        &[(H, "h", "var")],
        &[(S, "s", "")],
        // What replaces the destination itself.
        &[(F, "..", "x")],
        &[(C, "/", "")],
        // Links to nothing are not made true, neither those of the tree nor those of the archive.
        &[(F, "var/up/x", "1")],
        &[(S, "a", "../../../host"), (F, "a/y", "2")],
        &[(S, "a", "/nowhere"), (F, "a/y", "2")],
        &[(S, "a", "/nowhere"), (F, "a/b/y", "2")],
        &[(S, "a", "run/missing"), (F, "a/b/y", "2")],
        // A file is no directory.
        &[(F, "f", "x"), (F, "f/x", "1")],
        &[(F, "f", "x"), (S, "l", "f"), (F, "l/x/y", "1")],
    ];
    for entries in refused {
        let (temp, fd) = root();
        assert!(extract(&tar(entries)[..], fd.as_fd(), b"/", &options()).is_err(), "{entries:?}");
        assert_eq!(std::fs::read_dir(temp.path().join("host")).unwrap().count(), 0, "{entries:?}");
    }
    let (temp, fd) = root();
    std::fs::create_dir(temp.path().join("root/host")).unwrap();
    let inside = tar(&[
        (F, "../../w", "0"),
        (F, "var/up/x", "1"),
        (S, "a", "../../../host"),
        (F, "a/y", "2"),
        (S, "b", "/"),
        (F, "b/z", "3"),
        (H, "../v", "../../../host/y"),
    ]);
    extract(&inside[..], fd.as_fd(), b"/", &options()).unwrap();
    assert_eq!(std::fs::read_dir(temp.path().join("host")).unwrap().count(), 0);
    for name in ["w", "host/x", "host/y", "z", "v"] {
        assert!(temp.path().join("root").join(name).is_file(), "{name}");
    }
}

/// The destination is the root of all that the archive says, wherever it lies.
#[test]
fn confined_to_the_destination() {
    use EntryType::{Link as H, Regular as F, Symlink as S};
    let (temp, fd) = root();
    let at = |p: &str| temp.path().join("root").join(p);
    std::fs::create_dir_all(at("run/in/etc")).unwrap();
    std::fs::create_dir_all(at("etc")).unwrap();
    symlink("/etc", at("run/in/there")).unwrap();
    let entries = tar(&[
        (F, "../f", "0"),
        (S, "l", ".."),
        (F, "l/g", "1"),
        (F, "l/new/h", "1"),
        (S, "abs", "/etc"),
        (F, "abs/i", "2"),
        (F, "there/j", "2"),
        (H, "k", "/etc/i"),
    ]);
    extract(&entries[..], fd.as_fd(), b"/var/run/in", &options()).unwrap();
    for name in ["f", "g", "new/h", "etc/i", "etc/j", "k"] {
        assert!(at("run/in").join(name).is_file(), "{name}");
    }
    let count = |dir: &str| std::fs::read_dir(at(dir)).unwrap().count();
    assert_eq!((count("etc"), count("run"), count("")), (0, 1, 3));
    // What the tree has there is of no use to a link of the archive.
    let abs = tar(&[(S, "l", "/var"), (F, "l/f", "x")]);
    assert!(extract(&abs[..], fd.as_fd(), b"/run/in", &options()).is_err());
    extract(&abs[..], fd.as_fd(), b"/", &options()).unwrap();
    assert!(at("var/f").is_file());
}

/// Whatever has an entry's name goes, with all that is in it; directories are merged.
#[test]
fn kinds_over_kinds() {
    use EntryType::{Directory as D, Fifo as P, Link as H, Regular as F, Symlink as S};
    let before: &[(EntryType, &str, &str)] = &[(F, "d/in/x", "1"), (F, "f", "2"), (S, "s", "d")];
    let kind = |path: &std::path::Path| {
        let kind = std::fs::symlink_metadata(path).unwrap().file_type();
        if kind.is_dir() {
            D
        } else if kind.is_symlink() {
            S
        } else if kind.is_file() {
            F
        } else {
            P
        }
    };
    for over in ["d", "f", "s"] {
        for (new, text) in [(F, "new"), (S, "elsewhere"), (P, ""), (H, "t"), (D, "")] {
            for together in [true, false] {
                let (temp, fd) = root();
                let after = [(F, "t", "3"), (new, over, text)];
                let archives = match together {
                    true => vec![tar(&[before, &after].concat())],
                    false => vec![tar(before), tar(&after)],
                };
                for archive in archives {
                    extract(&archive[..], fd.as_fd(), b"/", &options()).unwrap();
                }
                let at = temp.path().join("root").join(over);
                assert_eq!(kind(&at), if new == H { F } else { new }, "{new:?} over {over}");
                let kept = temp.path().join("root/d/in/x").exists();
                assert_eq!(kept, over != "d" || new == D, "{new:?} over {over}");
            }
        }
    }
}

struct Meta {
    kind: EntryType,
    name: &'static str,
    link: &'static str,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
}

fn tar_of(entries: &[Meta]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_size(0);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(entry.mtime);
        if entry.kind == EntryType::Char {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        }
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The last entry of a name says what is true of it, a hard link's of all names of its file; a chown is for entries.
#[test]
fn the_last_entry_counts() {
    use EntryType::{Char as C, Directory as D, Link as H, Regular as F, Symlink as S};
    let entry = |kind, name, link, mode, owner, mtime| Meta { kind, name, link, mode, owner, mtime };
    let archive = tar_of(&[
        entry(D, "d", "", 0o700, (1, 1), 100),
        entry(F, "d/f", "", 0o600, (1, 1), 200),
        entry(H, "d/h", "d/f", 0o4755, (5, 6), 300),
        entry(D, "d", "", 0o751, (2, 3), 400),
        entry(S, "s", "d/f", 0o777, (1, 1), 500),
        entry(H, "t", "s", 0o644, (7, 8), 600),
        entry(F, "im/plied/f", "", 0o644, (1, 1), 1 << 40),
        entry(C, "null", "", 0o666, (0, 0), 1),
        entry(H, "zero", "null", 0o666, (0, 0), 1),
        entry(D, "..", "", 0o711, (4, 4), 700),
        entry(D, ".", "", 0o777, (9, 9), 1),
    ]);
    let (temp, fd) = root();
    let copied = extract(&archive[..], fd.as_fd(), b"/to", &options()).unwrap();
    let meta = |p: &str| std::fs::symlink_metadata(temp.path().join("root/to").join(p)).unwrap();
    let found = |p: &str| {
        let owner =
            copied.owners[&TreePath::parse(format!("to/{p}").trim_end_matches('/').as_bytes()).unwrap()];
        ((owner.uid, owner.gid), meta(p).mode() & 0o7777, meta(p).mtime())
    };
    assert_eq!(found(""), ((4, 4), 0o711, 700));
    assert_eq!(found("d"), ((2, 3), 0o751, 400));
    assert_eq!(found("d/f"), ((5, 6), 0o4755, 300));
    assert_eq!(found("d/h"), found("d/f"));
    assert_eq!(found("s"), ((7, 8), 0o777, 500));
    assert_eq!((found("t"), meta("s").ino()), (found("s"), meta("t").ino()));
    // A time that no 64 bits of nanoseconds tell.
    assert_eq!(found("im/plied/f"), ((1, 1), 0o644, 0));
    assert_eq!((found("im").0, found("im/plied").1), ((0, 0), 0o755));
    let skipped: Vec<String> = copied.skipped_devices.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["/to/null", "/to/zero"]);
    let chown = ExtractOptions { chown: Some((10, 20)), mtime: Some(5_000_000_000), ..options() };
    let (temp, fd) = root();
    let copied = extract(&archive[..], fd.as_fd(), b"/to", &chown).unwrap();
    for (path, want) in
        [("to", 10), ("to/d/h", 10), ("to/t", 10), ("to/im", 0), ("to/im/plied", 0), ("to/im/plied/f", 10)]
    {
        assert_eq!(copied.owners[&TreePath::parse(path.as_bytes()).unwrap()].uid, want, "{path}");
    }
    let time = |p: &str| std::fs::metadata(temp.path().join("root/to").join(p)).unwrap().mtime();
    assert_eq!((time("im"), time("im/plied"), time("d"), time("")), (5, 5, 400, 700));
}
