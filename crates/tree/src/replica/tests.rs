//! Copies of layers, and what changes in them.

use std::fs as std_fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use super::*;
use crate::inroot::open_host_dir;
use crate::scan::{ScanMode, scan};

fn layer(dir: &Path, tree: Tree) -> LayerFiles {
    LayerFiles { tree: Some(tree), dirs: vec![open_host_dir(dir).unwrap()] }
}

fn scanned(dir: &Path) -> Tree {
    let options = ScanOptions { mode: ScanMode::Plain, ..ScanOptions::default() };
    scan(open_host_dir(dir).unwrap().as_fd(), &options).unwrap()
}

fn names(tree: &Tree) -> Vec<String> {
    tree.entries()
        .iter()
        .map(|entry| {
            let path = entry.path.to_string();
            match entry.kind {
                Kind::Whiteout => format!("gone {path}"),
                Kind::Dir { opaque: true } => format!("{path} opaque"),
                _ => path,
            }
        })
        .collect()
}

#[test]
fn layers_are_copied_and_never_linked() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for dir in ["low/d/e", "high/d", "root"] {
        std_fs::create_dir_all(at(dir)).unwrap();
    }
    std_fs::write(at("low/d/f"), vec![7; 200_000]).unwrap();
    std_fs::hard_link(at("low/d/f"), at("low/twin")).unwrap();
    std_fs::write(at("low/d/e/gone"), "").unwrap();
    std_fs::write(at("low/kept"), "low").unwrap();
    symlink("f", at("high/d/l")).unwrap();
    std_fs::write(at("high/kept"), "high").unwrap();
    let mut high = scanned(&at("high")).into_entries();
    high.push(Entry::whiteout(TreePath::parse(b"d/e").unwrap()));
    let high = Tree::from_entries(high).unwrap();
    let layers = vec![layer(&at("low"), scanned(&at("low"))), layer(&at("high"), high)];
    let root = open_host_dir(&at("root")).unwrap();
    let replica = Replica::make(layers, root.as_fd()).unwrap();
    assert_eq!(names(&scanned(&at("root"))), ["/d", "/d/f", "/d/l", "/kept", "/twin"]);
    assert_eq!(std_fs::read(at("root/kept")).unwrap(), b"high");
    let inode = |name: &str| std_fs::metadata(at(name)).unwrap().ino();
    assert_eq!(inode("root/d/f"), inode("root/twin"));
    assert_ne!(inode("root/twin"), inode("low/twin"));
    assert_eq!(
        std_fs::metadata(at("root/d")).unwrap().mtime_nsec(),
        std_fs::metadata(at("high/d")).unwrap().mtime_nsec()
    );
    assert!(replica.changes(root.as_fd(), &ScanOptions::default()).unwrap().tree.is_empty());
}

/// A file whose size and time are put back has another content all the same.
#[test]
fn changes_are_found_whatever_times_say() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    std_fs::create_dir_all(at("low/d")).unwrap();
    std_fs::create_dir_all(at("root")).unwrap();
    std_fs::create_dir_all(at("layer")).unwrap();
    for name in ["a", "d/x", "d/y"] {
        std_fs::write(at("low").join(name), "1234").unwrap();
    }
    let root = open_host_dir(&at("root")).unwrap();
    let replica = Replica::make(vec![layer(&at("low"), scanned(&at("low")))], root.as_fd()).unwrap();
    let time = std_fs::metadata(at("root/a")).unwrap().modified().unwrap();
    std_fs::write(at("root/a"), "4321").unwrap();
    std_fs::File::open(at("root/a")).unwrap().set_modified(time).unwrap();
    std_fs::remove_file(at("root/d/x")).unwrap();
    // Written again with what was in it.
    std_fs::write(at("root/d/y"), "1234").unwrap();
    let time = std_fs::metadata(at("low/d/y")).unwrap().modified().unwrap();
    std_fs::File::open(at("root/d/y")).unwrap().set_modified(time).unwrap();
    rustix::fs::setxattr(at("root/a"), "user.overlay.metacopy", b"", rustix::fs::XattrFlags::empty())
        .unwrap_or_default();
    let changes = replica.changes(root.as_fd(), &ScanOptions::default()).unwrap();
    assert_eq!(names(&changes.tree), ["/a", "/d", "gone /d/x"]);
    let to = open_host_dir(&at("layer")).unwrap();
    copy_changes(root.try_clone().unwrap(), &changes.tree, to.as_fd()).unwrap();
    assert_eq!(names(&scanned(&at("layer"))), ["/a", "/d"]);
    let mut value = [0; 8];
    assert!(rustix::fs::getxattr(at("layer/a"), "user.overlay.metacopy", &mut value[..]).is_err());
    // The same root goes on, and what it was changed to is no change any more.
    let replica = replica.go_on(root.as_fd(), &changes, to).unwrap().unwrap();
    assert!(replica.changes(root.as_fd(), &ScanOptions::default()).unwrap().tree.is_empty());
    std_fs::write(at("root/a"), "5678").unwrap();
    std_fs::write(at("root/d/x"), "back").unwrap();
    let again = replica.changes(root.as_fd(), &ScanOptions::default()).unwrap();
    assert_eq!(names(&again.tree), ["/a", "/d", "/d/x"]);
    assert_eq!(std_fs::read(at("layer/a")).unwrap(), b"4321");
}
