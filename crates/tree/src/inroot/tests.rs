//! Every trick a hostile tree can play with a path, against the kernel's way and the walk.

use std::fs as std_fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    std_fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// A canary outside, a root with links of all kinds.
fn hostile() -> (tempfile::TempDir, OwnedFd) {
    let temp = tempfile::tempdir().unwrap();
    std_fs::write(temp.path().join("secret"), "host").unwrap();
    let root = temp.path().join("root");
    std_fs::create_dir_all(root.join("etc")).unwrap();
    std_fs::create_dir_all(root.join("a/b")).unwrap();
    std_fs::write(root.join("etc/passwd"), "inside").unwrap();
    std_fs::write(root.join("secret"), "inside").unwrap();
    symlink("/etc", root.join("abs")).unwrap();
    symlink("../../../../etc/passwd", root.join("a/up")).unwrap();
    symlink("../../secret", root.join("a/escape")).unwrap();
    symlink(temp.path().join("secret"), root.join("host")).unwrap();
    symlink("loop2", root.join("loop1")).unwrap();
    symlink("loop1", root.join("loop2")).unwrap();
    symlink("/var/made/by/link", root.join("dangling")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let fd = open_host_dir(&root).unwrap();
    (temp, fd)
}

#[test]
fn links_stay_inside() {
    let (_temp, fd) = hostile();
    let root = Root::new(&fd);
    let both = |path: &str| {
        let kernel =
            root.open(path.as_bytes(), OFlags::RDONLY, Mode::empty()).map_err(|e| e.errno().unwrap());
        let walked = root.open_by_walk(path.as_bytes(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (kernel, walked) = (kernel.map(read), walked.map(read));
        assert_eq!(kernel, walked, "{path}");
        kernel
    };
    for path in [
        "etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "abs/passwd",
        "a/up",
        "a/escape",
        "a/b/../../secret",
    ] {
        assert_eq!(both(path), Ok("inside".into()), "{path}");
    }
    assert_eq!(both("host"), Err(Errno::NOENT));
    assert_eq!(both("loop1"), Err(Errno::LOOP));
    assert_eq!(both("secret/x"), Err(Errno::NOTDIR));
    assert_eq!(both("nope"), Err(Errno::NOENT));
    assert_eq!(root.readlink(b"/abs").unwrap(), b"/etc");
}

#[test]
fn plain_means_no_link_at_all() {
    let (_temp, fd) = hostile();
    let root = Root::new(&fd);
    let open =
        |p: &str| root.open_plain(&TreePath::parse(p.as_bytes()).unwrap(), OFlags::RDONLY, Mode::empty());
    assert!(open("etc/passwd").is_ok());
    for path in ["abs/passwd", "a/up", "host"] {
        assert_eq!(open(path).unwrap_err().errno(), Some(Errno::LOOP), "{path}");
    }
}

#[test]
fn magic_links_are_refused() {
    let (temp, _fd) = hostile();
    // A root that holds a procfs is the host's own: only the flag stands between.
    let host = open_host_dir(std::path::Path::new("/")).unwrap();
    let inside = temp.path().join("secret");
    let path = [b"/proc/self/root".as_slice(), inside.to_str().unwrap().as_bytes()].concat();
    assert!(Root::new(&host).open(&path, OFlags::RDONLY, Mode::empty()).is_err());
}

#[test]
fn mkdir_follows_links_inside_only() {
    let (temp, fd) = hostile();
    let root = Root::new(&fd);
    let new = NewDir { mode: 0o2751, owner: None, mtime: Some(1_000_000_000_000_000_007) };
    let made = root.mkdir_p(b"dangling/x/../y", &new).unwrap();
    assert_eq!(made.path.to_string(), "/var/made/by/link/y");
    assert_eq!(made.made.len(), 5);
    let stat = std_fs::metadata(temp.path().join("root/var/made")).unwrap();
    assert_eq!(
        (stat.permissions().mode() & 0o7777, stat.mtime(), stat.mtime_nsec()),
        (0o2751, 1_000_000_000, 7)
    );
    assert!(root.mkdir_p(b"dangling/x/../y", &new).unwrap().made.is_empty());
    assert_eq!(root.mkdir_p(b"../abs/new", &NewDir::default()).unwrap().path.to_string(), "/etc/new");
    assert!(matches!(root.mkdir_p(b"secret/x", &new), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(root.mkdir_p(b"secret", &new), Err(TreeError::NotADirectory { .. })));
    assert_eq!(root.mkdir_p(b"", &new).unwrap().path, TreePath::root());
    let outside: Vec<_> = std_fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "only the canary and the root");
}

#[test]
fn places_of_missing_paths() {
    let (_temp, fd) = hostile();
    let root = Root::new(&fd);
    let place = |p: &str, follow| root.place(p.as_bytes(), follow).unwrap().path().to_string();
    assert_eq!(place("abs/new", true), "/etc/new");
    assert_eq!(place("abs", false), "/abs");
    assert_eq!(place("abs", true), "/etc");
    assert_eq!(place("n/o/../p", true), "/n/p");
    assert_eq!(place("n/../..", true), "/");
    assert_eq!(place("a/b/n/../../c", true), "/a/c");
    assert_eq!(place("/", true), "/");
}
