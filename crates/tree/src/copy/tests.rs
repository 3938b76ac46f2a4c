//! Destination rules, metadata, hostile destinations.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::entry::ContentDigest;
use crate::inroot::open_host_dir;
use crate::scan::{ScanOptions, scan};
use crate::select::Selector;
use crate::tree::Tree;

struct Two {
    temp: tempfile::TempDir,
    from: OwnedFd,
    to: OwnedFd,
}

impl Two {
    fn new(files: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("from")).unwrap();
        std::fs::create_dir_all(temp.path().join("to")).unwrap();
        for file in files {
            let at = temp.path().join("from").join(file);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, file).unwrap();
        }
        let from = open_host_dir(&temp.path().join("from")).unwrap();
        let to = open_host_dir(&temp.path().join("to")).unwrap();
        Self { temp, from, to }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.temp.path().join(path)
    }

    fn options() -> CopyOptions {
        CopyOptions { single_id: !rustix::process::geteuid().is_root(), ..CopyOptions::default() }
    }

    fn copy(&self, source: &str, dest: &str) -> Result<Copied, TreeError> {
        self.copy_with(source, dest, &Self::options())
    }

    fn copy_with(&self, source: &str, dest: &str, options: &CopyOptions) -> Result<Copied, TreeError> {
        let tree = scan(self.from.as_fd(), &ScanOptions::default()).unwrap();
        let selection = tree.select(&Selector::new(source)).unwrap();
        copy(self.from.as_fd(), &selection, Dest::plain(self.to.as_fd()), dest.as_bytes(), options)
    }

    fn result(&self) -> Tree {
        scan(self.to.as_fd(), &ScanOptions::default()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.result().entries().iter().map(|e| e.path.to_string()).collect()
    }
}

#[test]
fn destinations() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("f", "/g", &["/g"]),
        ("f", "/d/", &["/d", "/d/f"]),
        ("f", "/d/e/g", &["/d", "/d/e", "/d/e/g"]),
        ("f", "/d/.", &["/d", "/d/f"]),
        ("f", "/", &["/f"]),
        ("s", "/t", &["/t", "/t/x", "/t/y", "/t/y/z"]),
        ("s", "/", &["/x", "/y", "/y/z"]),
        ("*", "/t", &["/t", "/t/f", "/t/x", "/t/y", "/t/y/z"]),
    ];
    for (source, dest, want) in cases {
        let two = Two::new(&["f", "s/x", "s/y/z"]);
        if *source == "*" {
            std::fs::create_dir(two.at("to/t")).unwrap();
        }
        two.copy(source, dest).unwrap();
        assert_eq!(two.names(), *want, "{source} {dest}");
    }
}

#[test]
fn metadata() {
    let two = Two::new(&["s/x"]);
    std::fs::set_permissions(two.at("from/s/x"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    crate::inroot::set_times_at(two.from.as_fd(), b"s/x", 1_000_000_000_000_000_001).unwrap();
    crate::inroot::set_times_at(two.from.as_fd(), b"s", 2_000_000_000).unwrap();
    two.copy("s", "/a/b").unwrap();
    let stat = |p: &str| std::fs::symlink_metadata(two.at(p)).unwrap();
    assert_eq!((stat("to/a/b/x").mode() & 0o7777, stat("to/a/b/x").mtime_nsec()), (0o4750, 1));
    assert_eq!((stat("to/a/b").mode() & 0o7777, stat("to/a/b").mtime()), (0o755, 2));
    let options = CopyOptions {
        chmod: Some("u=rwX,go=".parse().unwrap()),
        mtime: Some(7_000_000_000),
        ..Two::options()
    };
    two.copy_with("s", "/c/d", &options).unwrap();
    // Only an octal mode is for directories that are made, too.
    assert_eq!((stat("to/c").mode() & 0o7777, stat("to/c").mtime()), (0o755, 7));
    assert_eq!(stat("to/c/d/x").mode() & 0o777, 0o700);
    let whole = CopyOptions { chmod: Some("g+w,o=".parse().unwrap()), chmod_made: true, ..Two::options() };
    two.copy_with("s", "/w/d", &whole).unwrap();
    two.copy_with("s", "/c/d", &whole).unwrap();
    let modes = ["to/w", "to/w/d", "to/c/d"].map(|path| stat(path).mode() & 0o7777);
    assert_eq!(modes, [0o755, 0o770, 0o755], "the last directory, if it is made");
    let octal = CopyOptions { chmod: Some("2710".parse().unwrap()), ..Two::options() };
    two.copy_with("s", "/g/d", &octal).unwrap();
    assert_eq!((stat("to/g").mode() & 0o7777, stat("to/g/d/x").mode() & 0o7777), (0o710, 0o2710));
    if rustix::process::geteuid().is_root() {
        two.copy_with("s", "/e", &CopyOptions { chown: Some((5, 6)), ..Two::options() }).unwrap();
        assert_eq!((stat("to/e").uid(), stat("to/e/x").gid()), (5, 6));
    }
    let squash = CopyOptions { chown: Some((5, 6)), single_id: true, ..CopyOptions::default() };
    let copied = two.copy_with("s", "/q", &squash).unwrap();
    assert_eq!(copied.owners.len(), 2);
    assert!(copied.owners.values().all(|o| (o.uid, o.gid) == (5, 6)));
}

#[test]
fn links_are_kept() {
    let two = Two::new(&["s/a", "s/big"]);
    std::fs::write(two.at("from/s/big"), vec![1; 300_000]).unwrap();
    std::fs::hard_link(two.at("from/s/a"), two.at("from/s/b")).unwrap();
    symlink("/etc/passwd", two.at("from/s/l")).unwrap();
    two.copy("s", "/t").unwrap();
    assert_eq!(std::fs::metadata(two.at("to/t/a")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(two.at("to/t/l")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(std::fs::read(two.at("to/t/big")).unwrap().len(), 300_000);
    let (from, to) = (scan(two.from.as_fd(), &ScanOptions::default()).unwrap(), two.result());
    let part = |tree: &Tree, at: &str| tree.select(&Selector::new(at)).unwrap().k_digest();
    assert_eq!(part(&from, "s"), part(&to, "t"));
}

#[test]
fn replacing() {
    let two = Two::new(&["s/x", "f", "d/x/y"]);
    std::fs::create_dir_all(two.at("to/s/x")).unwrap();
    std::fs::write(two.at("to/file"), "old").unwrap();
    let text = |r: Result<Copied, TreeError>| r.unwrap_err().to_string();
    assert_eq!(text(two.copy("s", "/s")), "cannot replace to directory /s/x with file");
    assert_eq!(text(two.copy("s", "/file")), "cannot copy to non-directory: /file");
    std::fs::create_dir_all(two.at("to/d")).unwrap();
    std::fs::write(two.at("to/d/x"), "old").unwrap();
    assert_eq!(text(two.copy("d", "/d")), "cannot copy to non-directory: /d/x");
    two.copy("f", "/file").unwrap();
    assert_eq!(std::fs::read(two.at("to/file")).unwrap(), b"f");
}

#[test]
fn hostile_destinations() {
    let two = Two::new(&["s/x", "s/d/y", "f"]);
    std::fs::create_dir(two.at("canary")).unwrap();
    std::fs::write(two.at("canary/x"), "host").unwrap();
    symlink("../canary", two.at("to/up")).unwrap();
    symlink(two.at("canary"), two.at("to/abs")).unwrap();
    symlink("/real/dir", two.at("to/inside")).unwrap();
    std::fs::create_dir_all(two.at("to/n")).unwrap();
    symlink("../../canary/x", two.at("to/n/x")).unwrap();
    two.copy("s", "/up").unwrap();
    two.copy("f", "/up/f").unwrap();
    two.copy("s", "/abs").unwrap();
    two.copy("s", "/inside").unwrap();
    two.copy("s", "/n").unwrap();
    assert!(two.at("to/real/dir/d/y").exists());
    assert!(two.at("to/canary/x").exists(), "the link leads to a place inside");
    assert!(two.at("to/n/x").symlink_metadata().unwrap().is_file(), "nested links are replaced");
    symlink("../../canary", two.at("to/n2")).unwrap();
    std::fs::create_dir_all(two.at("to/m")).unwrap();
    symlink("../../canary", two.at("to/m/d")).unwrap();
    assert!(matches!(two.copy("s", "/m"), Err(TreeError::CopyToNonDirectory { .. })));
    assert_eq!(std::fs::read(two.at("canary/x")).unwrap(), b"host");
    assert_eq!(std::fs::read_dir(two.at("canary")).unwrap().count(), 1);
}

#[test]
fn making() {
    let two = Two::new(&[]);
    make_directory(two.to.as_fd(), b"/w/x", &Two::options()).unwrap();
    let options = CopyOptions { chmod: Some("600".parse().unwrap()), ..Two::options() };
    let text = NewFile { name: b"EOF", content: b"text", mode: 0o644 };
    let climbing = NewFile { name: b"../x", ..text };
    write_file(two.to.as_fd(), b"/w/x/", &text, &options).unwrap();
    write_file(two.to.as_fd(), b"/w/new", &text, &Two::options()).unwrap();
    assert_eq!(two.names(), ["/w", "/w/new", "/w/x", "/w/x/EOF"]);
    assert_eq!(std::fs::metadata(two.at("to/w/x/EOF")).unwrap().mode() & 0o7777, 0o600);
    assert!(write_file(two.to.as_fd(), b"/w/", &climbing, &Two::options()).is_err());
    assert!(matches!(
        make_directory(two.to.as_fd(), b"/w/new/x", &Two::options()),
        Err(TreeError::NotADirectory { .. })
    ));
}

/// Paths go through links, and wildcards do not. A last link is removed itself.
#[test]
fn removals() {
    let two = Two::new(&[]);
    for dir in ["to/a/x", "to/b/x", "to/real/x", "to/c"] {
        std::fs::create_dir_all(two.at(dir)).unwrap();
    }
    std::fs::create_dir_all(two.at("kept/x")).unwrap();
    symlink("real", two.at("to/link")).unwrap();
    symlink("../kept", two.at("to/out")).unwrap();
    let remove =
        |path: &str, wildcards, optional| remove(two.to.as_fd(), path.as_bytes(), wildcards, optional);
    // The link leads to a directory of the root, and not outwards.
    assert!(remove("/out/x", false, false).is_err() && two.at("kept/x").exists());
    remove("/link/x", false, false).unwrap();
    assert!(!two.at("to/real/x").exists() && two.at("to/link").is_symlink());
    std::fs::create_dir(two.at("to/real/x")).unwrap();
    remove("/link*/x", true, true).unwrap();
    assert!(two.at("to/real/x").exists(), "a wildcard does not go through a link");
    remove("/*/x", true, false).unwrap();
    assert!(!two.at("to/a/x").exists() && !two.at("to/real/x").exists() && two.at("to/c").exists());
    remove("/l*", true, false).unwrap();
    assert!(!two.at("to/link").is_symlink() && two.at("to/real").exists());
    for (path, wildcards) in [("/nothing", false), ("/nothing/x", false), ("/z*", true), ("/", false)] {
        assert!(remove(path, wildcards, false).is_err(), "{path}");
    }
    remove("/nothing/x", false, true).unwrap();
    assert!(matches!(remove("/[", true, false), Err(TreeError::Pattern { .. })));
}

/// A large file that was put alone need not be read again, as long as nobody has touched it.
#[test]
fn a_large_file_is_known() {
    let two = Two::new(&["small"]);
    let content: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
    std::fs::write(two.at("from/large"), &content).unwrap();
    assert!(two.copy("/small", "/a").unwrap().known_content.is_none());
    let known = two.copy("/large", "/d/large").unwrap().known_content.unwrap();
    assert_eq!(
        (&known.path, known.digest),
        (&TreePath::parse(b"d/large").unwrap(), ContentDigest::of(&content))
    );
    let with = |known| {
        let options = ScanOptions { known_content: Some(known), ..ScanOptions::default() };
        scan(two.to.as_fd(), &options).unwrap()
    };
    assert_eq!(with(&known), two.result());
    // The digest is taken as it is: a wrong one would show.
    let wrong = {
        let mut wrong = known.clone();
        wrong.digest = ContentDigest::of(b"other");
        wrong
    };
    assert_ne!(with(&wrong), two.result());
    // Whatever the file's times say.
    let file = std::fs::File::options().write(true).open(two.at("to/d/large")).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 1 << 20).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(with(&wrong), two.result());
    assert_eq!(with(&known), two.result());
}
