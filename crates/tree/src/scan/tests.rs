//! Scans of real directories.

use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::inroot::{open_child, open_host_dir};

fn scan_path(path: &std::path::Path, options: &ScanOptions<'_>) -> Result<Tree, TreeError> {
    scan(open_host_dir(path).unwrap().as_fd(), options)
}

#[test]
fn kinds_and_links() {
    let temp = tempfile::tempdir().unwrap();
    let at = |p: &str| temp.path().join(p);
    std::fs::create_dir_all(at("d/e")).unwrap();
    std::fs::write(at("d/e/z"), "one").unwrap();
    std::fs::hard_link(at("d/e/z"), at("d/a")).unwrap();
    std::fs::write(at("big"), vec![3; 300_000]).unwrap();
    std::fs::set_permissions(at("big"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("/etc/passwd", at("s")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("p"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
    let tree = scan_path(temp.path(), &ScanOptions::default()).unwrap();
    drop(socket);
    let names: Vec<String> = tree.entries().iter().map(|e| e.path.to_string()).collect();
    assert_eq!(names, ["/big", "/d", "/d/a", "/d/e", "/d/e/z", "/p", "/s"]);
    let kind = |i: usize| &tree.entries()[i].kind;
    assert_eq!(*kind(0), Kind::File { size: 300_000, content: ContentDigest::of(&vec![3; 300_000]) });
    assert_eq!(tree.entries()[0].meta.mode, 0o4711);
    assert_eq!(*kind(2), Kind::File { size: 3, content: ContentDigest::of(b"one") });
    assert_eq!(*kind(4), Kind::Hardlink { to: tree.entries()[2].path.clone() });
    assert_eq!(*kind(5), Kind::Fifo);
    assert_eq!(*kind(6), Kind::Symlink { target: (*b"/etc/passwd").into() });
}

#[test]
fn overlay_marks() {
    let temp = tempfile::tempdir().unwrap();
    let at = |p: &str| temp.path().join(p);
    std::fs::create_dir_all(at("opaque")).unwrap();
    std::fs::create_dir_all(at("plain")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    rustix::fs::setxattr(at("opaque"), "user.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("plain"), "user.note", b"kept", fs::XattrFlags::empty()).unwrap();
    let upper = ScanOptions { mode: ScanMode::OverlayUpper, with_root: true, ..ScanOptions::default() };
    let tree = scan_path(temp.path(), &upper).unwrap();
    let kinds: Vec<&Kind> = tree.entries().iter().map(|e| &e.kind).collect();
    assert_eq!(
        kinds,
        [
            &Kind::Dir { opaque: false },
            &Kind::Whiteout,
            &Kind::Dir { opaque: true },
            &Kind::Dir { opaque: false }
        ]
    );
    assert!(tree.entries()[2].meta.xattrs.is_empty());
    assert_eq!(&*tree.entries()[3].meta.xattrs[0].value, b"kept");
    rustix::fs::setxattr(at("plain"), "user.overlay.redirect", b"/x", fs::XattrFlags::empty()).unwrap();
    assert!(matches!(scan_path(temp.path(), &upper), Err(TreeError::Overlay { .. })));
}

#[test]
fn recorded_owners_win() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("a"), "").unwrap();
    std::fs::write(temp.path().join("b"), "").unwrap();
    let a = TreePath::parse(b"a").unwrap();
    let owners = BTreeMap::from([(a, Ownership { uid: 7, gid: 8, mode: Some(0o4755) })]);
    let options =
        ScanOptions { owners: Some(&owners), owner_default: Some((0, 0)), ..ScanOptions::default() };
    let tree = scan_path(temp.path(), &options).unwrap();
    let who: Vec<_> = tree.entries().iter().map(|e| (e.meta.uid, e.meta.gid)).collect();
    assert_eq!(who, [(7, 8), (0, 0)]);
    assert_eq!(tree.entries()[0].meta.mode, 0o4755);
}

#[test]
fn deep_trees_end_in_an_error_not_in_an_overflow() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = open_host_dir(temp.path()).unwrap();
    for _ in 0..2200 {
        fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = open_child(dir.as_fd(), b"d", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    }
    let error = scan_path(temp.path(), &ScanOptions::default()).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::NAMETOOLONG));
}
