//! Outputs of each kind.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;

fn place(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lapstrake-outfile-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    write_output(path, NewMode::Masked, |out| out.write_all(text.as_bytes()))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn regular_files_are_replaced_and_keep_their_mode() {
    let dir = place("regular");
    let file = dir.join("f");
    put(&file, "one").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&file).unwrap();
    put(&file, "two").unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(before.ino(), after.ino());
    // A failure leaves the old content and nothing else.
    let failed: io::Result<()> = write_output(&file, NewMode::Masked, |out| {
        out.write_all(b"half")?;
        Err(io::Error::other("no"))
    });
    assert!(failed.is_err());
    assert_eq!((fs::read(&file).unwrap().as_slice(), names(&dir)), (&b"two"[..], vec!["f".to_owned()]));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn links_are_followed_also_to_what_is_not_there() {
    let dir = place("links");
    fs::create_dir(dir.join("d")).unwrap();
    symlink("d/target", dir.join("one")).unwrap();
    symlink("one", dir.join("two")).unwrap();
    put(&dir.join("two"), "a").unwrap();
    assert_eq!(fs::read(dir.join("d/target")).unwrap(), b"a");
    put(&dir.join("two"), "b").unwrap();
    assert_eq!(fs::read(dir.join("d/target")).unwrap(), b"b");
    assert!(fs::symlink_metadata(dir.join("two")).unwrap().is_symlink());
    symlink("loop", dir.join("loop")).unwrap();
    assert!(put(&dir.join("loop"), "x").is_err());
    assert!(put(&dir.join("d"), "x").is_err() && put(&dir.join("d/"), "x").is_err());
    assert!(put(&dir.join("none/x"), "x").is_err());
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn pipes_are_written_through() {
    let dir = place("pipes");
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let reader = {
        let fifo = fifo.clone();
        std::thread::spawn(move || fs::read(fifo).unwrap())
    };
    let much = "x".repeat(300_000);
    put(&fifo, &much).unwrap();
    assert_eq!(reader.join().unwrap().len(), much.len());
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn only_inherited_descriptors_are_written() {
    let dir = place("descriptors");
    let file = File::create(dir.join("f")).unwrap();
    let own = PathBuf::from(format!("/dev/fd/{}", file.as_raw_fd()));
    // Rust's own are close-on-exec: such a number was never passed on by the caller.
    assert!(put(&own, "x").unwrap_err().to_string().contains("not open"));
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    put(&own, "x").unwrap();
    put(&own, "y").unwrap();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"xy");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_stale_file_is_emptied_and_goes_after_a_failure() {
    let dir = place("stale");
    let file = dir.join("id");
    clear_output(&file).unwrap();
    assert!(!file.exists());
    put(&file, "old").unwrap();
    clear_output(&file).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"");
    remove_cleared(&file);
    assert!(!file.exists());
    fs::remove_dir_all(&dir).unwrap();
}
