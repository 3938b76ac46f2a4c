//! File actions.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::BorrowedFd;

use lapstrake_graph::{Copy, FileAction, MakeDir, MakeFile, Owner, OwnerPart};
use lapstrake_tree::archive::{ExtractOptions, extract, is_archive};
use lapstrake_tree::inroot::Root;
use lapstrake_tree::put::{Copied, CopyOptions, NewFile, make_directory, put, write_file};
use lapstrake_tree::scan::Ownership;
use lapstrake_tree::select::{SelectedRoot, Selection, Selector};
use lapstrake_tree::unpack::UnpackOptions;
use lapstrake_tree::users::resolve_chown;
use lapstrake_tree::{Kind, TreePath};
use rustix::fs::{Mode, OFlags};

use crate::error::OpsError;
use crate::executor::Inner;
use crate::origin::{Origin, selector};
use crate::stack::Stack;

/// Owners that the disk cannot hold.
pub(crate) type Owners = BTreeMap<TreePath, Ownership>;

/// Copies all of `stack` to an empty root.
pub(crate) fn copy_all(inner: &Inner, stack: &Stack, root: BorrowedFd<'_>) -> Result<Owners, OpsError> {
    let origin = Origin::of(inner, stack)?;
    let selection = origin.select(&Selector::new("/")).map_err(OpsError::checksum)?;
    let options = CopyOptions { squash_ids: inner.settings.single_id, ..CopyOptions::default() };
    let from = origin.open(inner, stack)?;
    Ok(put(std::os::fd::AsFd::as_fd(&from), &selection, root, b"/", &options)?.owners)
}

/// Does one action on `root`. Owners that cannot be set are recorded in `owners`.
pub(crate) fn apply(
    inner: &Inner,
    action: &FileAction,
    inputs: &[Stack],
    root: BorrowedFd<'_>,
    owners: &mut Owners,
) -> Result<(), OpsError> {
    match action {
        FileAction::MakeDir(dir) => owners.extend(make_dir(inner, dir, root)?.owners),
        FileAction::MakeFile(file) => owners.extend(make_file(inner, file, root)?.owners),
        FileAction::Copy(copy) => copy_input(inner, copy, inputs, root, owners)?,
    }
    Ok(())
}

fn options(
    inner: &Inner,
    root: BorrowedFd<'_>,
    chown: Option<&Owner>,
    timestamp: Option<i64>,
) -> Result<CopyOptions, OpsError> {
    Ok(CopyOptions {
        chown: owner(&Root::from_fd(root), chown)?,
        chmod: None,
        mtime: timestamp.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        squash_ids: inner.settings.single_id,
    })
}

fn make_dir(inner: &Inner, dir: &MakeDir, root: BorrowedFd<'_>) -> Result<Copied, OpsError> {
    let mut options = options(inner, root, dir.owner.as_ref(), dir.timestamp)?;
    options.chmod = Some(format!("{:o}", dir.mode).parse()?);
    Ok(make_directory(root, dir.path.as_bytes(), &options)?)
}

fn make_file(inner: &Inner, file: &MakeFile, root: BorrowedFd<'_>) -> Result<Copied, OpsError> {
    let mut options = options(inner, root, file.owner.as_ref(), file.timestamp)?;
    options.chmod = file.chmod.as_deref().map(str::parse).transpose()?;
    let new = NewFile { name: file.name.as_bytes(), content: &file.data, mode: file.mode };
    Ok(write_file(root, file.dest.as_bytes(), &new, &options)?)
}

fn copy_input(
    inner: &Inner,
    copy: &Copy,
    inputs: &[Stack],
    root: BorrowedFd<'_>,
    owners: &mut Owners,
) -> Result<(), OpsError> {
    let stack = inputs.get(copy.input).ok_or(OpsError::Worker)?;
    let origin = Origin::of(inner, stack)?;
    let asked = lapstrake_engine::Selector {
        paths: copy.sources.clone(),
        exclude: copy.exclude.clone(),
        parents: copy.parents,
        wildcards: true,
    };
    let mut selection = origin.select(&selector(&asked)?).map_err(OpsError::checksum)?;
    let mut options = options(inner, root, copy.chown.as_ref(), copy.timestamp)?;
    options.chmod = copy.chmod.as_deref().map(str::parse).transpose()?;
    let from = origin.open(inner, stack)?;
    let from = std::os::fd::AsFd::as_fd(&from);
    if copy.unpack {
        let mut rest = Selection::default();
        for root_entry in std::mem::take(&mut selection.roots) {
            match archive(from, &root_entry)? {
                Some(archive) => owners.extend(unpack(archive, root, copy, &options)?.owners),
                None => rest.roots.push(root_entry),
            }
        }
        selection = rest;
    }
    owners.extend(put(from, &selection, root, copy.dest.as_bytes(), &options)?.owners);
    Ok(())
}

fn owner(root: &Root<'_>, owner: Option<&Owner>) -> Result<Option<(u32, u32)>, OpsError> {
    let Some(owner) = owner else { return Ok(None) };
    let text = |part: &OwnerPart| match part {
        OwnerPart::Id(id) => id.to_string(),
        OwnerPart::Name(name) => name.clone(),
    };
    let mut spec = text(&owner.user);
    if let Some(group) = &owner.group {
        spec = format!("{spec}:{}", text(group));
    }
    Ok(Some(resolve_chown(Some(root), &spec)?))
}

/// The file, if it is a tar, compressed or not: its content tells, not its name.
fn archive(from: BorrowedFd<'_>, root: &SelectedRoot) -> Result<Option<File>, OpsError> {
    let [entry] = root.entries.as_slice() else { return Ok(None) };
    if root.is_dir || !matches!(entry.kind, Kind::File { .. }) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut file = File::from(Root::from_fd(from).open_plain(&entry.source, flags, Mode::empty())?);
    Ok(is_archive(&mut file)?.then_some(file))
}

fn unpack(
    archive: File,
    root: BorrowedFd<'_>,
    copy: &Copy,
    options: &CopyOptions,
) -> Result<Copied, OpsError> {
    let options = ExtractOptions {
        chown: options.chown,
        mtime: options.mtime,
        limits: UnpackOptions { squash_ids: options.squash_ids, ..UnpackOptions::default() },
    };
    Ok(extract(archive, root, copy.dest.as_bytes(), &options)?)
}
