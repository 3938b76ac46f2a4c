//! File actions and content keys, on contexts and on trees.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use lapstrake_engine::{Key, Selector};
use lapstrake_graph::{Copy, FileAction, Owner, OwnerPart};
use lapstrake_snapshot::Active;
use lapstrake_tree::copy::{CopyTo, Filter, Target, content_key, copy, make_dir, make_file, select};
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::scan::Ownership;
use lapstrake_tree::unpack::{UnpackOptions, unpack_layer};
use lapstrake_tree::users::resolve_chown;
use lapstrake_tree::{TreeError, TreePath};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::OpsError;
use crate::executor::Inner;
use crate::settings::{LocalContext, Settings};
use crate::stack::Stack;

/// The local context `name`.
pub(crate) fn context<'a>(settings: &'a Settings, name: &str) -> Result<&'a LocalContext, OpsError> {
    settings.contexts.get(name).ok_or_else(|| OpsError::NoContext { name: name.to_owned() })
}

fn checksum(source: TreeError) -> OpsError {
    OpsError::Checksum { source: Box::new(source) }
}

fn excludes(list: &[String]) -> Result<Option<Patterns>, OpsError> {
    if list.is_empty() { Ok(None) } else { Ok(Some(Patterns::from_list(list)?)) }
}

/// The content of selected paths of a local context.
pub(crate) fn content_of_context(inner: &Inner, name: &str, selector: &Selector) -> Result<Key, OpsError> {
    let context = context(&inner.settings, name)?;
    let dir = open_host_dir(&context.path)?;
    let exclude = excludes(&selector.exclude)?;
    let filter = Filter { ignore: Some(&context.ignore), exclude: exclude.as_ref() };
    let key = content_key(&Root::new(&dir), &selector.paths, &filter, false).map_err(checksum)?;
    Ok(Key::from_bytes(key))
}

/// The content of selected paths of a tree.
pub(crate) fn content_of_tree(root: BorrowedFd<'_>, selector: &Selector) -> Result<Key, OpsError> {
    let exclude = excludes(&selector.exclude)?;
    let filter = Filter { ignore: None, exclude: exclude.as_ref() };
    let key = content_key(&Root::from_fd(root), &selector.paths, &filter, true).map_err(checksum)?;
    Ok(Key::from_bytes(key))
}

/// Copies all of a local context to an empty root.
pub(crate) fn copy_context(inner: &Inner, name: &str, root: BorrowedFd<'_>) -> Result<(), OpsError> {
    let context = context(&inner.settings, name)?;
    let dir = open_host_dir(&context.path)?;
    let source = Root::new(&dir);
    let filter = Filter { ignore: Some(&context.ignore), exclude: None };
    let mut owners = BTreeMap::new();
    let mut target = Target {
        root: Root::from_fd(root),
        owner: Some((0, 0)),
        chmod: None,
        timestamp: None,
        recorded: inner.settings.single_id.then_some(&mut owners),
    };
    let picked = select(&source, &[], &filter)?;
    Ok(copy(&source, &picked, &filter, &mut target, CopyTo { dest: "/", parents: false })?)
}

/// Fills a fresh cache directory.
pub(crate) fn seed(inner: &Inner, seed: &Stack, dir: BorrowedFd<'_>) -> Result<(), OpsError> {
    let tree = inner.open(seed)?;
    let source = Root::new(&tree);
    let filter = Filter::default();
    let mut owners = BTreeMap::new();
    let mut target = Target {
        root: Root::from_fd(dir),
        owner: None,
        chmod: None,
        timestamp: None,
        recorded: inner.settings.single_id.then_some(&mut owners),
    };
    let picked = select(&source, &[], &filter)?;
    Ok(copy(&source, &picked, &filter, &mut target, CopyTo { dest: "/", parents: false })?)
}

/// Does one action on `root`. Owners that cannot be set are recorded in `owners`.
pub(crate) fn apply(
    inner: &Inner,
    action: &FileAction,
    inputs: &[Stack],
    root: BorrowedFd<'_>,
    owners: &mut BTreeMap<TreePath, Ownership>,
) -> Result<(), OpsError> {
    let recorded = inner.settings.single_id.then_some(owners);
    let inside = Root::from_fd(root);
    let nanos = |time: Option<i64>| time.map(|seconds| seconds.saturating_mul(1_000_000_000));
    match action {
        FileAction::MakeDir(dir) => {
            let owner = owner(&inside, dir.owner.as_ref())?;
            let timestamp = nanos(dir.timestamp);
            let mut target = Target { root: inside, owner, chmod: None, timestamp, recorded };
            Ok(make_dir(&mut target, &dir.path, dir.mode)?)
        }
        FileAction::MakeFile(file) => {
            let owner = owner(&inside, file.owner.as_ref())?;
            let (chmod, timestamp) = (file.chmod.as_deref(), nanos(file.timestamp));
            let mut target = Target { root: inside, owner, chmod, timestamp, recorded };
            Ok(make_file(&mut target, &file.dest, &file.name, &file.data, file.mode)?)
        }
        FileAction::Copy(spec) => {
            let owner = owner(&inside, spec.chown.as_ref())?;
            let (chmod, timestamp) = (spec.chmod.as_deref(), nanos(spec.timestamp));
            let target = Target { root: inside, owner, chmod, timestamp, recorded };
            copy_input(inner, spec, inputs, target)
        }
    }
}

fn copy_input(inner: &Inner, spec: &Copy, inputs: &[Stack], mut target: Target<'_>) -> Result<(), OpsError> {
    let input = inputs.get(spec.input).ok_or(OpsError::Worker)?;
    let exclude = excludes(&spec.exclude)?;
    let (dir, ignore) = match &input.local {
        Some(name) => {
            let context = context(&inner.settings, name)?;
            // What comes from a client belongs to root, whoever the client is.
            target.owner = target.owner.or(Some((0, 0)));
            (open_host_dir(&context.path)?, Some(&context.ignore))
        }
        None => (inner.open(input)?, None),
    };
    let source = Root::new(&dir);
    let filter = Filter { ignore, exclude: exclude.as_ref() };
    let mut picked = select(&source, &spec.sources, &filter).map_err(checksum)?;
    if spec.unpack {
        let archives: Vec<_> =
            picked.extract_if(.., |picked| is_archive(&source, &picked.real, picked.kind)).collect();
        for archive in archives {
            extract(inner, &source, &archive.real, spec, &mut target)?;
        }
    }
    let to = CopyTo { dest: &spec.dest, parents: spec.parents };
    Ok(copy(&source, &picked, &filter, &mut target, to)?)
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

/// Whether the file is a tar, compressed or not: its content tells, not its name.
fn is_archive(source: &Root<'_>, path: &TreePath, kind: FileType) -> bool {
    use std::io::Read as _;
    if kind != FileType::RegularFile {
        return false;
    }
    let Ok(fd) = source.open_plain(path, OFlags::RDONLY, Mode::empty()) else { return false };
    let file = std::io::BufReader::new(std::fs::File::from(fd));
    let Ok((_, mut plain)) = lapstrake_tree::decompress::decompress(file) else { return false };
    let mut block = [0u8; 512];
    if plain.read_exact(&mut block).is_err() {
        return false;
    }
    let text = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let told = u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok();
    let spaces = 8 * u64::from(b' ');
    let sum: u64 =
        block.iter().enumerate().filter(|(at, _)| !(148..156).contains(at)).map(|(_, b)| u64::from(*b)).sum();
    told == Some(sum + spaces)
}

/// Unpacks an archive to a place of its own, then copies that to the destination.
fn extract(
    inner: &Inner,
    source: &Root<'_>,
    path: &TreePath,
    spec: &Copy,
    target: &mut Target<'_>,
) -> Result<(), OpsError> {
    let scratch = Active::new(&inner.store, Vec::new())?;
    let unpacked = open_host_dir(&scratch.upper())?;
    let file = std::fs::File::from(source.open_plain(path, OFlags::RDONLY, Mode::empty())?);
    let options = UnpackOptions { squash_ids: inner.settings.single_id, ..UnpackOptions::default() };
    unpack_layer(file, unpacked.as_fd(), &options)?;
    let from = Root::new(&unpacked);
    let filter = Filter::default();
    let picked = select(&from, &[], &filter)?;
    // The archive's owners, unless the instruction says otherwise.
    let explicit = if spec.chown.is_some() { target.owner } else { None };
    let (owner, chmod) = (std::mem::replace(&mut target.owner, explicit), target.chmod.take());
    let copied = copy(&from, &picked, &filter, target, CopyTo { dest: &spec.dest, parents: false });
    (target.owner, target.chmod) = (owner, chmod);
    Ok(copied?)
}
