//! What of a changed root gets into a layer: one rule a row.
//!
//! Every row also mounts the layer on what was below it, and expects to find what the changed root was.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, but with a main of its own clippy cannot know"
)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapstrake_snapshot::{Active, Lower, View};
use lapstrake_store::{Stacking, Store};
use lapstrake_testkit::{ALL, MANY, Mode, Test};
use lapstrake_tree::copy::Copied;
use lapstrake_tree::inroot::open_host_dir;
use lapstrake_tree::scan::{ScanMode, ScanOptions, scan};
use lapstrake_tree::{Entry, Kind, Tree};
use rustix::fs::{CWD, FileType, XattrFlags};

const TESTS: &[Test] = &[
    ("files", ALL, files),
    ("attributes", ALL, attributes),
    ("directories", ALL, directories),
    ("deletions", ALL, deletions),
    ("links", ALL, links),
    ("owners", MANY, owners),
    ("capabilities", &[Mode::Root], capabilities),
    ("large_files", ALL, large_files),
    ("files_by_classic_mounts", ALL, |mode| classic(files, mode)),
    ("attributes_by_classic_mounts", ALL, |mode| classic(attributes, mode)),
    ("directories_by_classic_mounts", ALL, |mode| classic(directories, mode)),
    ("deletions_by_classic_mounts", ALL, |mode| classic(deletions, mode)),
    ("links_by_classic_mounts", ALL, |mode| classic(links, mode)),
    ("files_by_copies", ALL, |mode| copied(files, mode)),
    ("attributes_by_copies", ALL, |mode| copied(attributes, mode)),
    ("directories_by_copies", ALL, |mode| copied(directories, mode)),
    ("deletions_by_copies", ALL, |mode| copied(deletions, mode)),
    ("links_by_copies", ALL, |mode| copied(links_of_copies, mode)),
    ("owners_by_copies", MANY, |mode| copied(owners, mode)),
    ("capabilities_by_copies", &[Mode::Root], |mode| copied(capabilities, mode)),
    ("large_files_by_copies", ALL, |mode| copied(large_files, mode)),
    ("views_share_copies", ALL, |mode| copied(views, mode)),
];

/// As on a kernel before 6.5.
fn classic(test: fn(Mode), mode: Mode) {
    lapstrake_snapshot::use_legacy_mount();
    test(mode);
}

/// By copies, as where no overlay can be mounted.
fn copied(test: fn(Mode), mode: Mode) {
    COPIES.store(true, Ordering::Relaxed);
    test(mode);
}

static COPIES: AtomicBool = AtomicBool::new(false);

/// Sets how the test puts layers on each other.
fn stack(store: &Store) {
    if COPIES.load(Ordering::Relaxed) {
        store.set_stacking(Stacking::Copy { why: "this is a test".to_owned() });
    }
}

fn main() -> ExitCode {
    lapstrake_testkit::main(TESTS)
}

/// What is done to the root, and the entries that a layer of it has.
type Row = (&'static str, fn(&Path), &'static [&'static str]);

/// Runs each row on a fresh copy of the base.
fn check(rows: &[Row], mode: Mode) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    stack(&store);
    let single_id = mode == Mode::Oneid;
    let base = Active::new(&store, &[]).unwrap();
    fill(&path_of(&base));
    let base = base.commit(&store, Copied::default(), single_id).unwrap();
    let below = Lower::Layer(base);
    for (name, change, expected) in rows {
        let active = Active::new(&store, std::slice::from_ref(&below)).unwrap();
        change(&path_of(&active));
        let seen = scan(active.root(), &ScanOptions::default()).unwrap();
        let layer = active.commit(&store, Copied::default(), single_id).unwrap();
        let tree = Tree::decode(&store.layer_tree(&layer).unwrap()).unwrap();
        let entries: Vec<String> = tree.entries().iter().map(describe).collect();
        assert_eq!(entries, *expected, "{name}");
        let again = View::new(&store, &[below.clone(), Lower::Layer(layer.clone())]).unwrap();
        let found = scan(again.as_fd(), &ScanOptions::default()).unwrap();
        let timeless = |mut entries: Vec<Entry>| {
            // Times of directories that nobody has set make no layer.
            entries
                .iter_mut()
                .filter(|entry| entry.is_dir() && expected.is_empty())
                .for_each(|dir| dir.meta.mtime = 0);
            entries
        };
        assert_eq!(timeless(unlinked(&found)), timeless(unlinked(&seen)), "{name}, mounted again");
        if store.is_unmarked(&layer) {
            // Where the state directory takes them, marks are made once they are needed.
            store.set_stacking(Stacking::Overlay);
            drop(View::new(&store, &[below.clone(), Lower::Layer(layer.clone())]).unwrap());
            stack(&store);
        }
        let options = ScanOptions {
            mode: ScanMode::OverlayUpper,
            owner_default: single_id.then_some((0, 0)),
            ..ScanOptions::default()
        };
        let on_disk = scan(open_host_dir(&store.layer_dirs(&layer)[0]).unwrap().as_fd(), &options).unwrap();
        let on_disk: Vec<String> = on_disk.entries().iter().map(describe).collect();
        assert_eq!(on_disk, *expected, "{name}, on the disk");
    }
}

/// The entries with every link as a file of its own: in a user namespace overlayfs does not tell of lower layers' links.
fn unlinked(tree: &Tree) -> Vec<Entry> {
    let plain = |entry: &Entry| Entry { kind: tree.resolve_hardlink(entry).kind.clone(), ..entry.clone() };
    tree.entries().iter().map(plain).collect()
}

/// Paths of the root: it is attached nowhere, so it is reached through its descriptor.
fn path_of(active: &Active) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", active.root().as_raw_fd()))
}

fn fill(root: &Path) {
    for dir in ["d", "d/deep", "empty"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for file in ["a", "d/x", "d/y", "d/deep/z", "attr", "cap"] {
        fs::write(root.join(file), "1234").unwrap();
        settle(&root.join(file));
    }
    symlink("a", root.join("l")).unwrap();
    fs::hard_link(root.join("d/y"), root.join("twin")).unwrap();
    give(&root.join("attr"), "user.old");
    for dir in ["d/deep", "d", "empty"] {
        settle(&root.join(dir));
    }
}

fn day() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(86_400)
}

fn settle(path: &Path) {
    File::open(path).unwrap().set_modified(day()).unwrap();
}

fn give(path: &Path, name: &str) {
    rustix::fs::setxattr(path, name, b"value", XattrFlags::empty()).unwrap();
}

fn take(path: &Path, name: &str) {
    rustix::fs::removexattr(path, name).unwrap();
}

fn touch_up(path: &Path) {
    drop(OpenOptions::new().write(true).open(path).unwrap());
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Letter and path, then what is out of the ordinary.
fn describe(entry: &Entry) -> String {
    let (letter, mode, rest) = match &entry.kind {
        Kind::File { .. } => ("f", 0o644, String::new()),
        Kind::Hardlink { to } => ("h", 0o644, format!(" = {}", to.as_path().display())),
        Kind::Dir { opaque: true } => ("d", 0o755, " opaque".to_owned()),
        Kind::Dir { opaque: false } => ("d", 0o755, String::new()),
        Kind::Symlink { target } => ("l", 0o777, format!(" -> {}", String::from_utf8_lossy(target))),
        Kind::CharDev { .. } => ("c", 0o644, String::new()),
        Kind::BlockDev { .. } => ("b", 0o644, String::new()),
        Kind::Fifo => ("p", 0o644, String::new()),
        Kind::Whiteout => ("gone", 0, String::new()),
    };
    let mut text = format!("{letter} {}{rest}", entry.path.as_path().display());
    let meta = &entry.meta;
    if meta.mode != mode {
        text.push_str(&format!(" {:o}", meta.mode));
    }
    if (meta.uid, meta.gid) != (0, 0) {
        text.push_str(&format!(" {}:{}", meta.uid, meta.gid));
    }
    for xattr in &meta.xattrs {
        text.push_str(&format!(" {}", String::from_utf8_lossy(&xattr.name)));
    }
    text
}

fn files(mode: Mode) {
    let rows: &[Row] = &[
        ("nothing", |_| {}, &[]),
        ("opened to write", |root| touch_up(&root.join("a")), &[]),
        ("opened to write, in a directory", |root| touch_up(&root.join("d/deep/z")), &[]),
        ("appended", |root| fs::write(root.join("d/x"), "12345").unwrap(), &["d d", "f d/x"]),
        ("rewritten, same size and time", rewrite, &["f a"]),
        ("replaced by the same", replace_by_same, &[]),
        ("time only", |root| set_time(&root.join("a")), &["f a"]),
        ("new", |root| fs::write(root.join("new"), "").unwrap(), &["f new"]),
        ("renamed", |root| fs::rename(root.join("a"), root.join("z")).unwrap(), &["gone a", "f z"]),
        ("pipe", pipe, &["p pipe"]),
        ("metadata of the root", |root| chmod(root, 0o700), &[]),
    ];
    check(rows, mode);
}

fn rewrite(root: &Path) {
    fs::write(root.join("a"), "4321").unwrap();
    settle(&root.join("a"));
}

fn replace_by_same(root: &Path) {
    fs::remove_file(root.join("a")).unwrap();
    fs::write(root.join("a"), "1234").unwrap();
    settle(&root.join("a"));
}

fn pipe(root: &Path) {
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, 0o644.into(), 0).unwrap();
}

fn attributes(mode: Mode) {
    let rows: &[Row] = &[
        ("mode of a file", |root| chmod(&root.join("a"), 0o600), &["f a 600"]),
        ("mode of a directory", |root| chmod(&root.join("empty"), 0o700), &["d empty 700"]),
        ("mode there and back", there_and_back, &[]),
        ("attribute given", |root| give(&root.join("a"), "user.new"), &["f a user.new"]),
        ("attribute taken", |root| take(&root.join("attr"), "user.old"), &["f attr"]),
        ("attribute there and untouched", |root| touch_up(&root.join("attr")), &[]),
        ("attribute of a directory", |root| give(&root.join("d"), "user.new"), &["d d user.new"]),
    ];
    check(rows, mode);
}

fn there_and_back(root: &Path) {
    chmod(&root.join("a"), 0o600);
    chmod(&root.join("a"), 0o644);
}

fn directories(mode: Mode) {
    let rows: &[Row] = &[
        ("empty and new", |root| fs::create_dir(root.join("new")).unwrap(), &["d new"]),
        ("made again", made_again, &["d d opaque", "f d/new"]),
        ("with the time that it had", |root| settle(&root.join("d")), &[]),
        ("with a time that was set", |root| set_time(&root.join("d")), &["d d"]),
        ("with a time that was set, and passed through", set_and_passed_through, &[]),
        ("passed through", passed_through, &[]),
        ("made again with what was in it", made_again_the_same, &["d d opaque", "f d/x"]),
        ("replaced by a file", replaced_by_a_file, &["f d"]),
        ("replaced by a file and back", replaced_and_back, &["d d opaque"]),
        ("file replaced by a directory", file_to_directory, &["d a opaque", "f a/f"]),
        (
            "renamed",
            rename_directory,
            &["gone d", "d moved", "d moved/deep", "f moved/deep/z", "f moved/x", "f moved/y"],
        ),
    ];
    check(rows, mode);
}

fn passed_through(root: &Path) {
    fs::write(root.join("d/new"), "").unwrap();
    fs::remove_file(root.join("d/new")).unwrap();
}

fn set_time(path: &Path) {
    File::open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
}

fn set_and_passed_through(root: &Path) {
    set_time(&root.join("d"));
    passed_through(root);
}

fn made_again(root: &Path) {
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/new"), "").unwrap();
}

/// What is hidden does not count as being there.
fn made_again_the_same(root: &Path) {
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/x"), "1234").unwrap();
    settle(&root.join("d/x"));
    settle(&root.join("d"));
}

fn replaced_by_a_file(root: &Path) {
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d"), "").unwrap();
}

fn replaced_and_back(root: &Path) {
    replaced_by_a_file(root);
    fs::remove_file(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
}

fn file_to_directory(root: &Path) {
    fs::remove_file(root.join("a")).unwrap();
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/f"), "").unwrap();
}

/// As `mv` does it when the kernel says that it cannot.
fn rename_directory(root: &Path) {
    let (from, to) = (root.join("d"), root.join("moved"));
    match fs::rename(&from, &to) {
        Err(refused) => assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices),
        // The other way is a row of its own.
        Ok(()) => fs::rename(&to, &from).unwrap(),
    }
    for dir in ["", "deep"] {
        fs::create_dir(to.join(dir)).unwrap();
    }
    for file in ["x", "y", "deep/z"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    fs::remove_dir_all(from).unwrap();
}

fn deletions(mode: Mode) {
    let rows: &[Row] = &[
        ("a file", |root| fs::remove_file(root.join("a")).unwrap(), &["gone a"]),
        ("a directory", |root| fs::remove_dir_all(root.join("d")).unwrap(), &["gone d"]),
        (
            "below a directory",
            |root| fs::remove_file(root.join("d/deep/z")).unwrap(),
            &["d d", "d d/deep", "gone d/deep/z"],
        ),
        ("what was never below", never_below, &[]),
        ("what was renamed", renamed_and_removed, &["gone a"]),
    ];
    check(rows, mode);
}

fn never_below(root: &Path) {
    fs::write(root.join("new"), "").unwrap();
    fs::remove_file(root.join("new")).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    fs::remove_dir(root.join("dir")).unwrap();
}

fn renamed_and_removed(root: &Path) {
    fs::rename(root.join("a"), root.join("b")).unwrap();
    fs::remove_file(root.join("b")).unwrap();
}

fn links(mode: Mode) {
    let rows: &[Row] = &[
        ("hard link to what is below", |root| link(root, "a", "z"), &["f a", "h z = a"]),
        ("named before it", |root| link(root, "d/x", "c"), &["f c", "d d", "h d/x = c"]),
        ("and what it was is gone", linked_and_removed, &["gone a", "f z"]),
        ("opened to write, one of two", |root| touch_up(&root.join("twin")), &[]),
        ("changed, one of two", |root| chmod(&root.join("twin"), 0o600), &["f twin 600"]),
        ("a third of two", |root| link(root, "twin", "z"), &["f twin", "h z = twin"]),
        ("symlink replaced", |root| replace_link(root, "b"), &["l l -> b"]),
        ("symlink to a directory in place of one", link_for_directory, &["l d -> empty"]),
    ];
    check(rows, mode);
}

/// An overlay copies one name of a file up, and leaves the other to the layers below. In a copy they stay together.
fn links_of_copies(mode: Mode) {
    let rows: &[Row] = &[
        ("hard link to what is below", |root| link(root, "a", "z"), &["f a", "h z = a"]),
        ("named before it", |root| link(root, "d/x", "c"), &["f c", "d d", "h d/x = c"]),
        ("and what it was is gone", linked_and_removed, &["gone a", "f z"]),
        ("opened to write, one of two", |root| touch_up(&root.join("twin")), &[]),
        (
            "changed, one of two",
            |root| chmod(&root.join("twin"), 0o600),
            &["d d", "f d/y 600", "h twin = d/y 600"],
        ),
        ("one of two is gone", |root| fs::remove_file(root.join("twin")).unwrap(), &["gone twin"]),
        (
            "one of two in place of another file",
            |root| {
                fs::remove_file(root.join("a")).unwrap();
                link(root, "twin", "a");
            },
            &["f a", "d d", "h d/y = a", "h twin = a"],
        ),
        (
            "a directory with one of two renamed",
            |root| fs::rename(root.join("d"), root.join("moved")).unwrap(),
            &[
                "gone d",
                "d moved",
                "d moved/deep",
                "f moved/deep/z",
                "f moved/x",
                "f moved/y",
                "h twin = moved/y",
            ],
        ),
        ("a third of two", |root| link(root, "twin", "z"), &["d d", "f d/y", "h twin = d/y", "h z = d/y"]),
        ("symlink replaced", |root| replace_link(root, "b"), &["l l -> b"]),
        ("symlink to a directory in place of one", link_for_directory, &["l d -> empty"]),
    ];
    check(rows, mode);
}

fn link(root: &Path, from: &str, to: &str) {
    fs::hard_link(root.join(from), root.join(to)).unwrap();
}

fn linked_and_removed(root: &Path) {
    link(root, "a", "z");
    fs::remove_file(root.join("a")).unwrap();
}

fn replace_link(root: &Path, target: &str) {
    fs::remove_file(root.join("l")).unwrap();
    symlink(target, root.join("l")).unwrap();
}

fn link_for_directory(root: &Path) {
    fs::remove_dir_all(root.join("d")).unwrap();
    symlink("empty", root.join("d")).unwrap();
}

fn owners(mode: Mode) {
    let rows: &[Row] = &[
        ("of a file", |root| chown(root.join("a"), Some(5), Some(6)).unwrap(), &["f a 5:6"]),
        ("of a directory", |root| chown(root.join("empty"), Some(5), None).unwrap(), &["d empty 5:0"]),
        ("there and back", owner_there_and_back, &[]),
    ];
    check(rows, mode);
}

fn owner_there_and_back(root: &Path) {
    chown(root.join("a"), Some(5), Some(6)).unwrap();
    chown(root.join("a"), Some(0), Some(0)).unwrap();
}

/// `cap_net_raw+ep`, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn capabilities(mode: Mode) {
    let rows: &[Row] = &[
        ("given", grant, &["f cap security.capability"]),
        ("lost with a change of owner", granted_and_lost, &["f cap 5:0"]),
    ];
    check(rows, mode);
}

fn grant(root: &Path) {
    rustix::fs::setxattr(root.join("cap"), "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
}

fn granted_and_lost(root: &Path) {
    grant(root);
    chown(root.join("cap"), Some(5), None).unwrap();
}

/// Longer than what is read at once, and different in its last byte only.
fn large_files(mode: Mode) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    stack(&store);
    let single_id = mode == Mode::Oneid;
    let base = Active::new(&store, &[]).unwrap();
    let mut bytes = vec![7; 1 << 20];
    fs::write(path_of(&base).join("large"), &bytes).unwrap();
    settle(&path_of(&base).join("large"));
    let base = base.commit(&store, Copied::default(), single_id).unwrap();
    for last in [7, 8] {
        bytes[(1 << 20) - 1] = last;
        let active = Active::new(&store, &[Lower::Layer(base.clone())]).unwrap();
        fs::write(path_of(&active).join("large"), &bytes).unwrap();
        settle(&path_of(&active).join("large"));
        let layer = active.commit(&store, Copied::default(), single_id).unwrap();
        let tree = Tree::decode(&store.layer_tree(&layer).unwrap()).unwrap();
        assert_eq!(tree.len(), usize::from(last == 8));
    }
}

/// A copy of several layers that a view has made serves the views and the roots after it, and never two at once.
fn views(mode: Mode) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    stack(&store);
    let single_id = mode == Mode::Oneid;
    let mut lowers = Vec::new();
    for name in ["one", "two"] {
        let active = Active::new(&store, &lowers).unwrap();
        fs::write(path_of(&active).join(name), name).unwrap();
        let layer = active.commit(&store, Copied::default(), single_id).unwrap();
        lowers.push(Lower::Layer(layer));
    }
    let inode = |fd: &dyn std::os::fd::AsFd| {
        rustix::fs::statat(fd.as_fd(), "two", rustix::fs::AtFlags::empty()).unwrap().st_ino
    };
    // What the steps above have left.
    drop(Active::new(&store, &lowers).unwrap());
    let first = View::new(&store, &lowers).unwrap();
    let (shown, beside) = (inode(&first), View::new(&store, &lowers).unwrap());
    assert_ne!(inode(&beside), shown);
    drop(first);
    let again = View::new(&store, &lowers).unwrap();
    assert_eq!(inode(&again), shown);
    drop((again, beside));
    let root = Active::new(&store, &lowers).unwrap();
    assert_eq!(fs::read(path_of(&root).join("two")).unwrap(), b"two");
    // A step that has written in a root does not leave it to those who want it as it was.
    fs::write(path_of(&root).join("two"), "changed").unwrap();
    let other = View::new(&store, &lowers).unwrap();
    assert_eq!(rustix::fs::statat(other.as_fd(), "two", rustix::fs::AtFlags::empty()).unwrap().st_size, 3);
}
