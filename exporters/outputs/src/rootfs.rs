//! A result's root as a tar: all layers as one tree.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};

use lapstrake_tree::TreePath;
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::layer_tar::{TarOptions, write_layer};
use lapstrake_tree::put::{CopyOptions, Dest, put};
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use rustix::fs::{Mode, OFlags};

use crate::error::OutputError;

/// Writes everything in the mounted root as a tar.
pub fn write_rootfs(root: BorrowedFd<'_>, clamp: Option<i64>, out: impl Write) -> Result<(), OutputError> {
    let tree = scan(root, &ScanOptions::default())?;
    let inside = Root::from_fd(root.as_fd());
    let open = |path: &TreePath| -> io::Result<File> {
        inside.open_plain(path, OFlags::RDONLY, Mode::empty()).map(File::from).map_err(io::Error::other)
    };
    let options =
        TarOptions { clamp_mtime: clamp.map(|s| s.saturating_mul(1_000_000_000)), ..TarOptions::default() };
    write_layer(&tree, open, out, &options)?;
    Ok(())
}

/// Puts everything in the mounted root into the directory `dest`, as the files of whoever runs this.
pub fn write_files(root: BorrowedFd<'_>, dest: &std::path::Path) -> Result<(), OutputError> {
    let target = open_host_dir(dest)?;
    let tree = scan(root, &ScanOptions::default())?;
    let selection = tree.select(&Selector::new("/"))?;
    let options = CopyOptions { squash_ids: true, ..CopyOptions::default() };
    put(root, &selection, Dest::plain(target.as_fd()), b"/", &options)?;
    Ok(())
}
