//! File actions.

use std::fs::File;
use std::io::Seek as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use lapstrake_graph::{Copy, CopyVariant, Owner, OwnerPart};
use lapstrake_snapshot::Active;
use lapstrake_tree::archive::{ExtractOptions, extract, is_archive};
use lapstrake_tree::copy::{self, Copied, CopyOptions, Dest};
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::select::{Picked, SelectedRoot, Selection, Selector};
use lapstrake_tree::skeleton::SkeletonTree;
use lapstrake_tree::unpack::UnpackOptions;
use lapstrake_tree::users::resolve_chown;
use lapstrake_tree::{Kind, TreeError, TreePath};
use rustix::fs::{Mode, OFlags};

use crate::error::OpsError;
use crate::file::context_reads::ContextReads;
use crate::file::copy_source::{CopySource, OpenSource, selector};
use crate::file::partial_extract::partial_extract;
use crate::file::selector_of;
use crate::stack::{SharedStack, Stack};

/// Input 0 as something that layers can be put on.
pub(crate) fn base_stack(reads: &ContextReads<'_>, inputs: &[SharedStack]) -> Result<SharedStack, OpsError> {
    layered(reads, &inputs.first().cloned().unwrap_or_default())
}

/// `base` as something that layers can be put on.
pub(crate) fn layered(reads: &ContextReads<'_>, base: &SharedStack) -> Result<SharedStack, OpsError> {
    let job = reads.job;
    if base.local.is_none() {
        return Ok(base.clone());
    }
    // A local context as a base: its files, as COPY would bring them.
    let active = Active::new(&job.store, &[])?;
    let copied = copy_all(reads, base, active.root())?;
    let layer = active.commit(&job.store, copied, job.worker.single_id())?;
    Ok(Stack::default().with(layer).into())
}

/// Copies all of `stack` to an empty root.
pub(crate) fn copy_all(
    reads: &ContextReads<'_>,
    stack: &Stack,
    root: BorrowedFd<'_>,
) -> Result<Copied, OpsError> {
    let origin = reads.origin(stack)?;
    let selection = origin.select(&Selector::new("/")).map_err(stack.checksum_error())?;
    copy_plain(reads, (stack, &origin), &selection, root)
}

/// Copies what is at `path` in `stack` to the same place in an empty root, and says where that is, free of links.
pub(crate) fn copy_in_place(
    reads: &ContextReads<'_>,
    stack: &Stack,
    path: &str,
    root: BorrowedFd<'_>,
) -> Result<TreePath, OpsError> {
    let origin = reads.origin(stack)?;
    // As it is in the step's key: this also fills in what files hold.
    let asked = Selector { wildcards: false, ..Selector::new(path) };
    let selection = origin.select(&asked).map_err(stack.checksum_error())?;
    let (selection, place) = origin.tree().in_place(selection, path).map_err(stack.checksum_error())?;
    copy_plain(reads, (stack, &origin), &selection, root)?;
    Ok(place)
}

fn copy_plain(
    reads: &ContextReads<'_>,
    (stack, origin): (&Stack, &CopySource),
    selection: &Selection,
    root: BorrowedFd<'_>,
) -> Result<Copied, OpsError> {
    let single_id = reads.job.worker.single_id();
    let options = CopyOptions { single_id, live: origin.is_live(), ..CopyOptions::default() };
    let from = origin.open(&reads.job.store, stack, single_id)?;
    let copied = copy::copy(from.dir.as_fd(), selection, Dest::plain(root), b"/", &options)?;
    reads.note(stack, &copied)?;
    Ok(copied)
}

/// What is copied in one go.
pub(crate) enum CopyPart {
    Files(Selection),
    /// It is unpacked.
    Archive(File),
}

/// A copy with what it copies.
pub(crate) struct PreparedCopy<'a> {
    pub(crate) copy: &'a Copy,
    /// What it copies, in order.
    pub(crate) parts: Vec<CopyPart>,
    from: OpenSource,
    stack: &'a Stack,
    /// Somebody may be writing what it copies.
    live: bool,
}

impl PreparedCopy<'_> {
    /// Takes in what it looks at where it goes to. False if that is not all, or cannot be told.
    pub(crate) fn sketch(&self, sketch: &mut SkeletonTree<'_>) -> Result<bool, OpsError> {
        let dest = self.copy.dest.as_bytes();
        let is_archive = |part: &CopyPart| matches!(part, CopyPart::Archive(_));
        // What is copied beside archives may be put over their links.
        if self.parts.iter().any(is_archive) && !self.parts.iter().all(is_archive) {
            return Ok(false);
        }
        if self.copy.variant != CopyVariant::default() {
            return Ok(false);
        }
        if self.parts.is_empty() {
            sketch.follow(dest)?;
        }
        for part in &self.parts {
            let enough = match part {
                CopyPart::Files(selection) => sketch.copy(selection, dest)?,
                CopyPart::Archive(archive) => {
                    let mut archive: &File = archive;
                    let enough = sketch.archive(archive, dest, &ExtractOptions::default())?;
                    archive.rewind().map_err(OpsError::io("read", Path::new("the archive")))?;
                    enough
                }
            };
            if !enough {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The options of a copy into `root`, where names of owners are looked up.
pub(crate) fn copy_options(
    single_id: bool,
    root: BorrowedFd<'_>,
    chown: Option<&Owner>,
    timestamp: Option<i64>,
) -> Result<CopyOptions, OpsError> {
    Ok(CopyOptions {
        chown: owner(&Root::from_fd(root), chown)?,
        chmod: None,
        chmod_made: false,
        mtime: timestamp.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        single_id,
        live: false,
        replace: false,
    })
}

/// Selects what `copy` copies, and opens it.
pub(crate) fn prepare_copy<'a>(
    reads: &ContextReads<'_>,
    copy: &'a Copy,
    inputs: &'a [SharedStack],
) -> Result<PreparedCopy<'a>, OpsError> {
    let job = reads.job;
    let stack = inputs.get(copy.input).ok_or(OpsError::Worker)?;
    let origin = reads.origin(stack)?;
    let asked = selector_of(copy);
    let mut selection = origin.select(&selector(&asked)?).map_err(stack.checksum_error())?;
    check_required(&copy.variant.required, &selection)?;
    let from = match partial_extract(job, stack, &selection)? {
        Some(part) => part,
        None => origin.open(&job.store, stack, job.worker.single_id())?,
    };
    let live = origin.is_live();
    let mut parts = Vec::new();
    for root in std::mem::take(&mut selection.roots) {
        let archive = match if copy.unpack { open_archive(from.dir.as_fd(), &root)? } else { None } {
            Some(_) if live => Some(stable_archive(reads, stack, from.dir.as_fd(), &root)?),
            archive => archive,
        };
        match (archive, parts.last_mut()) {
            (Some(archive), _) => parts.push(CopyPart::Archive(archive)),
            (None, Some(CopyPart::Files(files))) => files.roots.push(root),
            (None, _) => parts.push(CopyPart::Files(Selection { roots: vec![root] })),
        }
    }
    Ok(PreparedCopy { copy, parts, from, stack, live })
}

/// A copy of an archive that somebody may be writing.
fn stable_archive(
    reads: &ContextReads<'_>,
    stack: &Stack,
    from: BorrowedFd<'_>,
    root: &SelectedRoot,
) -> Result<File, OpsError> {
    let temp = reads.job.store.temp_dir()?;
    let dir = open_host_dir(temp.path())?;
    let only = Selection { roots: vec![root.clone()] };
    let options = CopyOptions { single_id: true, live: true, ..CopyOptions::default() };
    let copied = copy::copy(from, &only, Dest::plain(dir.as_fd()), b"/", &options)?;
    reads.note(stack, &copied)?;
    match open_archive_at(dir.as_fd(), &TreePath::parse(&root.name).map_err(TreeError::from)?) {
        Ok(Some(archive)) => Ok(archive),
        // It is none any more, or nothing: what is known now tells.
        _ => Err(TreeError::Changed { path: TreePath::parse(&root.name).map_err(TreeError::from)? }.into()),
    }
}

/// Carries out a prepared copy.
pub(crate) fn apply_copy(
    reads: &ContextReads<'_>,
    ready: PreparedCopy<'_>,
    dest: Dest<'_>,
) -> Result<Copied, OpsError> {
    let PreparedCopy { copy, parts, from, stack, live } = ready;
    let single_id = reads.job.worker.single_id();
    let mut options = copy_options(single_id, dest.root, copy.chown.as_ref(), copy.timestamp)?;
    options.chmod = copy.chmod.as_deref().map(str::parse).transpose()?;
    options.chmod_made = copy.chmod_made;
    options.live = live;
    options.replace = copy.variant.replace;
    if copy.variant.needs_parent {
        check_parent(dest.root, &copy.dest)?;
    }
    // What one part finds at its place has to show in the mount for the next one.
    let dest = if parts.len() == 1 { dest } else { Dest::plain(dest.root) };
    let mut all = Copied::default();
    for part in parts {
        let (copied, selection) = match part {
            CopyPart::Archive(archive) => (extract_archive(archive, dest.root, copy, &options)?, None),
            CopyPart::Files(mut selection) => {
                if copy.variant.all_times {
                    set_times(&mut selection, options.mtime);
                }
                if copy.variant.whole_directory {
                    let all_of = (from.dir.as_fd(), selection);
                    all = copy_whole(reads, (stack, &options), all_of, dest.root, &copy.dest, all)?;
                    continue;
                }
                let copied = copy::copy(from.dir.as_fd(), &selection, dest, copy.dest.as_bytes(), &options)?;
                (copied, Some(selection))
            }
        };
        reads.note(stack, &copied)?;
        if let Some(selection) = selection.filter(|_| copy.unpack && !copied.retaken.is_empty()) {
            check_no_archives(from.dir.as_fd(), &selection)?;
        }
        let owners = std::mem::take(&mut all.owners);
        all = copied;
        // Later parts replace what earlier ones put.
        for (path, owner) in owners {
            all.owners.entry(path).or_insert(owner);
        }
    }
    Ok(all)
}

/// Whether all of `required` is selected.
fn check_required(required: &[String], selection: &Selection) -> Result<(), OpsError> {
    for path in required {
        let clean = TreePath::clean(path.as_bytes()).map_err(TreeError::from)?;
        let mut selected = selection.roots.iter().flat_map(|root| &root.entries);
        if !selected.any(|entry| entry.to.starts_with(&clean)) {
            let path = clean.to_string();
            return Err(TreeError::NotFound { path, hidden_by: None, nearest: String::new() }.into());
        }
    }
    Ok(())
}

/// Whether the parent of a destination is there.
pub(crate) fn check_parent(root: BorrowedFd<'_>, dest: &str) -> Result<(), OpsError> {
    let clean = TreePath::clean(dest.as_bytes()).map_err(TreeError::from)?;
    let parent = clean.parent().unwrap_or_default();
    Root::from_fd(root).stat(parent.as_bytes(), true)?;
    Ok(())
}

/// Gives one time to all that is copied.
fn set_times(selection: &mut Selection, mtime: Option<i64>) {
    let Some(mtime) = mtime else { return };
    for root in &mut selection.roots {
        root.mtime = root.mtime.map(|_| mtime);
        root.entries.iter_mut().chain(&mut root.own).for_each(|entry| entry.meta.mtime = mtime);
    }
}

/// Copies directories themselves, as `cp -r` does: into a directory that is there, or to a new place.
fn copy_whole(
    reads: &ContextReads<'_>,
    (stack, options): (&Stack, &CopyOptions),
    (from, selection): (BorrowedFd<'_>, Selection),
    root: BorrowedFd<'_>,
    dest: &str,
    mut all: Copied,
) -> Result<Copied, OpsError> {
    for mut one in selection.roots {
        let mut place = dest.as_bytes().to_vec();
        if let Some(own) = one.own.take() {
            let inside = Root::from_fd(root);
            let is_there = inside.stat(dest.as_bytes(), true).is_ok();
            let name = if is_there || copy::names_directory(dest.as_bytes()) {
                one.name.clone()
            } else {
                let place_of = inside.place(dest.as_bytes(), true)?.path();
                let parent = place_of.parent().unwrap_or_default();
                place = [b"/", parent.as_bytes()].concat();
                place_of.name().into()
            };
            let below = TreePath::parse(&name).map_err(TreeError::from)?;
            for entry in &mut one.entries {
                entry.to = below.join(&entry.to);
            }
            one.entries.insert(0, Picked { to: below, ..own });
            one.mtime = None;
        }
        let only = Selection { roots: vec![one] };
        let copied = copy::copy(from, &only, Dest::plain(root), &place, options)?;
        reads.note(stack, &copied)?;
        all.owners.extend(copied.owners);
    }
    Ok(all)
}

/// What has become an archive meanwhile has to be unpacked.
fn check_no_archives(from: BorrowedFd<'_>, selection: &Selection) -> Result<(), OpsError> {
    for root in &selection.roots {
        if let Ok(Some(_)) = open_archive(from, root) {
            return Err(
                TreeError::Changed { path: TreePath::parse(&root.name).map_err(TreeError::from)? }.into()
            );
        }
    }
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
fn open_archive(from: BorrowedFd<'_>, root: &SelectedRoot) -> Result<Option<File>, OpsError> {
    let [entry] = root.entries.as_slice() else { return Ok(None) };
    if root.is_dir || !matches!(entry.kind, Kind::File { .. }) {
        return Ok(None);
    }
    open_archive_at(from, &entry.source)
}

fn open_archive_at(from: BorrowedFd<'_>, path: &TreePath) -> Result<Option<File>, OpsError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut file = File::from(Root::from_fd(from).open_plain(path, flags, Mode::empty())?);
    Ok(is_archive(&mut file)?.then_some(file))
}

fn extract_archive(
    archive: File,
    root: BorrowedFd<'_>,
    copy: &Copy,
    options: &CopyOptions,
) -> Result<Copied, OpsError> {
    let options = ExtractOptions {
        chown: options.chown,
        mtime: options.mtime,
        limits: UnpackOptions { single_id: options.single_id, ..UnpackOptions::default() },
    };
    Ok(extract(archive, root, copy.dest.as_bytes(), &options)?)
}
