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

/// A header of a regular file as GNU tar writes it, with the fields given as they stand there.
fn raw(kind: u8, name: &str, size: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000001\0");
    put(116, b"0000002\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000017\0");
    put(156, &[kind]);
    put(257, b"ustar  \0");
    for (at, bytes) in fields {
        put(*at, bytes);
    }
    put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn padded(mut content: Vec<u8>) -> Vec<u8> {
    content.resize(content.len().next_multiple_of(512), 0);
    content
}

/// Records in front of a regular file with `content`.
fn with_records(records: &[(&str, String)], content: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let length = (1..).find(|n| format!("{n} {key}={value}\n").len() == *n).unwrap();
        text.extend(format!("{length} {key}={value}\n").into_bytes());
    }
    let mut all = raw(b'x', "records", text.len(), &[]);
    all.extend(padded(text));
    all.extend(raw(b'0', "GNUSparseFile.0/f", content.len(), &[]));
    all.extend(padded(content.to_vec()));
    all
}

/// Pieces of data at 512 and behind, in a file that ends in a hole.
fn holes(pieces: usize) -> (Vec<(u64, u64)>, Vec<u8>, Vec<u8>) {
    let map: Vec<(u64, u64)> = (0..pieces as u64).map(|number| (512 + 1024 * number, 512)).collect();
    let data: Vec<u8> = (0..512 * pieces).map(|at| (at % 251) as u8 + 1).collect();
    let mut whole = vec![0; 1024 * (pieces + 1) + 7];
    for ((start, length), piece) in map.iter().zip(data.chunks(512)) {
        whole[*start as usize..(start + length) as usize].copy_from_slice(piece);
    }
    (map, data, whole)
}

/// The form in headers, with as many further blocks as it takes.
fn in_headers(map: &[(u64, u64)], data: &[u8], size: u64) -> Vec<u8> {
    let octal = |number: u64| format!("{number:011o}\0").into_bytes();
    let pairs: Vec<Vec<u8>> =
        map.iter().map(|(start, length)| [octal(*start), octal(*length)].concat()).collect();
    let (first, rest) = pairs.split_at(pairs.len().min(4));
    let more = [u8::from(!rest.is_empty())];
    let mut all = raw(b'S', "f", data.len(), &[(386, &first.concat()), (482, &more), (483, &octal(size))]);
    let blocks: Vec<&[Vec<u8>]> = rest.chunks(21).collect();
    for (number, block) in blocks.iter().enumerate() {
        let mut bytes = block.concat();
        bytes.resize(512, 0);
        bytes[504] = u8::from(number + 1 < blocks.len());
        all.extend(bytes);
    }
    all.extend(padded(data.to_vec()));
    all
}

/// The three forms in records.
fn in_records(map: &[(u64, u64)], data: &[u8], size: u64) -> [Vec<u8>; 3] {
    let text = |name: &'static str, value: &dyn ToString| (name, value.to_string());
    let mut oldest = vec![text("GNU.sparse.size", &size), text("GNU.sparse.numblocks", &map.len())];
    for (start, length) in map {
        oldest.extend([text("GNU.sparse.offset", start), text("GNU.sparse.numbytes", length)]);
    }
    oldest.push(text("path", &"f"));
    let list: Vec<String> = map.iter().map(|(start, length)| format!("{start},{length}")).collect();
    let middle = [
        text("GNU.sparse.size", &size),
        text("GNU.sparse.numblocks", &map.len()),
        text("GNU.sparse.map", &list.join(",")),
        text("GNU.sparse.name", &"f"),
    ];
    let newest = [
        text("GNU.sparse.major", &1),
        text("GNU.sparse.minor", &0),
        text("GNU.sparse.name", &"f"),
        text("GNU.sparse.realsize", &size),
    ];
    let lines: String = map.iter().map(|(start, length)| format!("{start}\n{length}\n")).collect();
    let mut content = padded(format!("{}\n{lines}", map.len()).into_bytes());
    content.extend(data);
    [with_records(&oldest, data), with_records(&middle, data), with_records(&newest, &content)]
}

/// Files with holes have their whole content, in each form that GNU tar writes, and what follows them is found.
#[test]
fn sparse_files() {
    for pieces in [0, 1, 4, 5, 25, 26, 300] {
        let (map, data, whole) = holes(pieces);
        let size = whole.len() as u64;
        let forms = [in_headers(&map, &data, size)].into_iter().chain(in_records(&map, &data, size));
        for (number, mut bytes) in forms.enumerate() {
            bytes.extend(raw(b'0', "after", 1, &[]));
            bytes.extend(padded(vec![b'x']));
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            assert!(is_archive(&mut file).unwrap(), "{number}");
            let (temp, fd) = root();
            extract(&bytes[..], fd.as_fd(), b"/", &options()).unwrap();
            let read = |name: &str| std::fs::read(temp.path().join("root").join(name)).unwrap();
            assert_eq!(read("f"), whole, "{pieces} pieces in form {number}");
            assert_eq!(read("after"), b"x", "{number}");
        }
    }
}

/// What GNU tar makes of a file with holes.
#[test]
fn sparse_files_of_gnu_tar() {
    let temp = tempfile::tempdir().unwrap();
    let mut content = Vec::new();
    for number in 0..40_u8 {
        content.extend([number + 1; 4096]);
        content.resize(content.len() + (8192 << (number % 3)), 0);
    }
    let file = std::fs::File::create(temp.path().join("f")).unwrap();
    for (number, piece) in content.chunks(4096).enumerate().filter(|(_, piece)| piece[0] != 0) {
        std::os::unix::fs::FileExt::write_all_at(&file, piece, 4096 * number as u64).unwrap();
    }
    file.set_len(content.len() as u64).unwrap();
    for format in
        ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"]
    {
        let mut tar = std::process::Command::new("tar");
        tar.args(["--sparse", "--hole-detection=raw", "-cf", "-", "-C"]).arg(temp.path());
        let made = tar.args(format!("--format={format}").split(' ')).arg("f").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert!(made.stdout.len() < content.len(), "{format}");
        let (target, fd) = root();
        extract(&made.stdout[..], fd.as_fd(), b"/", &options()).unwrap();
        assert!(std::fs::read(target.path().join("root/f")).unwrap() == content, "{format}");
    }
}

/// A map that is out of order, says more than there is, or makes a file too large is refused.
#[test]
fn sparse_files_that_cannot_be() {
    let data = vec![1; 512];
    let maps: [(&[(u64, u64)], u64); 6] = [
        (&[(512, 512), (0, 0)], 4096),
        (&[(0, 512), (256, 512)], 4096),
        (&[(0, 512)], 511),
        (&[(0, 1024)], 4096),
        (&[(0, 512)], 1 << 40),
        (&[(u64::from(u32::MAX), 512)], 1024),
    ];
    for (map, size) in maps {
        let [oldest, middle, newest] = in_records(map, &data, size);
        // Numbers in headers have eleven digits here.
        let headers = (size < 1 << 33).then(|| in_headers(map, &data, size));
        for (number, bytes) in [oldest, middle, newest].into_iter().chain(headers).enumerate() {
            let (_temp, fd) = root();
            assert!(extract(&bytes[..], fd.as_fd(), b"/", &options()).is_err(), "{map:?} {size} {number}");
        }
    }
    let (map, data, whole) = holes(4);
    let bytes = in_headers(&map, &data, whole.len() as u64);
    assert!(crate::unpack::read_layer(&bytes[..], &UnpackOptions::default()).is_err(), "a layer has none");
}

/// Fields as old and careless writers leave them are read as Go reads them, also where a file is judged.
#[test]
fn careless_fields() {
    let fields: [&[(usize, &[u8])]; 6] = [
        &[(108, b"        "), (116, b"\0\0\0\0\0\0\0\0")],
        &[(108, b"     1 \0"), (116, b" 2     \0")],
        &[(108, b"\x80\0\0\0\0\0\0\x01"), (116, b"\x80\0\0\0\0\0\0\x02")],
        &[(100, b"   644 \0"), (136, b"          17")],
        &[(100, b"        "), (124, b"          1\0")],
        &[(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x01"), (136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")],
    ];
    for fields in fields {
        let mut bytes = raw(b'0', "f", 1, fields);
        bytes.extend(padded(vec![b'x']));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        assert!(is_archive(&mut file).unwrap(), "{fields:?}");
        let (temp, fd) = root();
        let copied = extract(&bytes[..], fd.as_fd(), b"/", &options()).unwrap();
        assert_eq!(std::fs::read(temp.path().join("root/f")).unwrap(), b"x", "{fields:?}");
        let owner = copied.owners[&TreePath::parse(b"f").unwrap()];
        let expected = if fields[0].1.iter().all(|byte| matches!(byte, b' ' | 0)) && fields[0].0 == 108 {
            (0, 0)
        } else {
            (1, 2)
        };
        assert_eq!((owner.uid, owner.gid), expected, "{fields:?}");
    }
    let mut bytes = raw(b'0', "f", 1, &[(108, b"12x4567\0")]);
    bytes.extend(padded(vec![b'x']));
    let (_temp, fd) = root();
    assert!(extract(&bytes[..], fd.as_fd(), b"/", &options()).is_err());
}
