//! A result's root as a tar: all layers as one tree.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};

use lapstrake_tree::TreePath;
use lapstrake_tree::inroot::Root;
use lapstrake_tree::layer_tar::{TarOptions, write_layer};
use lapstrake_tree::scan::{ScanOptions, scan};
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
