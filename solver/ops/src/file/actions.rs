//! The actions of a file op: prepared first, and then applied in order.

use std::os::fd::BorrowedFd;

use lapstrake_graph::{CopyVariant, FileAction, MakeDir, MakeFile, Owner, Remove, Symlink};
use lapstrake_snapshot::{Active, UpperAndLower};
use lapstrake_tree::copy::{
    Copied, Dest, NewFile, Previous, make_directory, make_symlink, remove, write_file,
};

use crate::error::OpsError;
use crate::file::context_reads::ContextReads;
use crate::file::copy::{PreparedCopy, apply_copy, check_parent, copy_options, prepare_copy};
use crate::stack::SharedStack;

/// An action with what it copies, before anything is known of what it copies it to.
pub(crate) enum PreparedAction<'a> {
    MakeDir(&'a MakeDir),
    MakeFile(&'a MakeFile),
    Symlink(&'a Symlink),
    Remove(&'a Remove),
    Copy(PreparedCopy<'a>),
}

impl PreparedAction<'_> {
    /// Whom what it makes is to belong to.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        match self {
            PreparedAction::MakeDir(dir) => dir.owner.as_ref(),
            PreparedAction::MakeFile(file) => file.owner.as_ref(),
            PreparedAction::Symlink(link) => link.owner.as_ref(),
            PreparedAction::Remove(_) => None,
            PreparedAction::Copy(ready) => ready.copy.chown.as_ref(),
        }
    }
}

/// An action that failed.
pub(crate) struct FailedAction {
    /// The number of the action.
    pub(crate) number: usize,
    /// The changes of the actions before; `None` if none of them was applied.
    pub(crate) before: Option<Copied>,
    /// The reason.
    pub(crate) error: OpsError,
}

/// Selects what actions copy.
pub(crate) fn prepare_actions<'a>(
    reads: &ContextReads<'_>,
    actions: &'a [FileAction],
    inputs: &'a [SharedStack],
) -> Result<Vec<PreparedAction<'a>>, Box<FailedAction>> {
    let ready = actions.iter().enumerate().map(|(number, action)| {
        prepare_action(reads, action, inputs)
            .map_err(|error| Box::new(FailedAction { number, before: None, error }))
    });
    ready.collect()
}

fn prepare_action<'a>(
    reads: &ContextReads<'_>,
    action: &'a FileAction,
    inputs: &'a [SharedStack],
) -> Result<PreparedAction<'a>, OpsError> {
    match action {
        FileAction::MakeDir(dir) => Ok(PreparedAction::MakeDir(dir)),
        FileAction::MakeFile(file) => Ok(PreparedAction::MakeFile(file)),
        FileAction::Symlink(link) => Ok(PreparedAction::Symlink(link)),
        FileAction::Remove(remove) => Ok(PreparedAction::Remove(remove)),
        FileAction::Copy(copy) => prepare_copy(reads, copy, inputs).map(PreparedAction::Copy),
    }
}

/// Does all actions, in order, on what `active` shows. `previous` is what they made before, if that is known.
pub(crate) fn apply_all(
    reads: &ContextReads<'_>,
    actions: Vec<PreparedAction<'_>>,
    active: &Active,
    previous: Option<Previous<'_>>,
) -> Result<Copied, Box<FailedAction>> {
    let alone = actions.len() == 1;
    let mut all = Copied::default();
    for (number, action) in actions.into_iter().enumerate() {
        let applied = match action {
            // A copy that writes to the layer directly has to be alone: nothing may look at the mount afterwards.
            PreparedAction::Copy(copy) if alone && copy.copy.variant == CopyVariant::default() => {
                let copied = copy_to_layer(reads, copy, active, previous);
                return copied.map_err(|error| Box::new(FailedAction { number, before: None, error }));
            }
            other => apply(reads, other, active.root()),
        };
        match applied {
            Ok(copied) => all.owners.extend(copied.owners),
            Err(error) => return Err(Box::new(FailedAction { number, before: Some(all), error })),
        }
    }
    Ok(all)
}

/// Copies to the upper directory of `active`, as far as that is one.
fn copy_to_layer(
    reads: &ContextReads<'_>,
    copy: PreparedCopy<'_>,
    active: &Active,
    previous: Option<Previous<'_>>,
) -> Result<Copied, OpsError> {
    let halves = active.halves()?;
    let layers = halves.as_ref().map(UpperAndLower::layers);
    apply_copy(reads, copy, Dest { root: active.root(), layers, previous })
}

fn apply(
    reads: &ContextReads<'_>,
    action: PreparedAction<'_>,
    root: BorrowedFd<'_>,
) -> Result<Copied, OpsError> {
    let single_id = reads.job.worker.single_id();
    match action {
        PreparedAction::MakeDir(dir) => make_dir(single_id, dir, root),
        PreparedAction::MakeFile(file) => make_file(single_id, file, root),
        PreparedAction::Symlink(link) => {
            let options = copy_options(single_id, root, link.owner.as_ref(), link.timestamp)?;
            Ok(make_symlink(root, link.path.as_bytes(), link.text.as_bytes(), &options)?)
        }
        PreparedAction::Remove(Remove { path, optional, wildcards }) => {
            remove(root, path.as_bytes(), *wildcards, *optional)?;
            Ok(Copied::default())
        }
        PreparedAction::Copy(copy) => apply_copy(reads, copy, Dest::plain(root)),
    }
}

fn make_dir(single_id: bool, dir: &MakeDir, root: BorrowedFd<'_>) -> Result<Copied, OpsError> {
    let mut options = copy_options(single_id, root, dir.owner.as_ref(), dir.timestamp)?;
    options.chmod = Some(format!("{:o}", dir.mode).parse()?);
    if !dir.parents {
        check_parent(root, &dir.path)?;
    }
    Ok(make_directory(root, dir.path.as_bytes(), &options)?)
}

fn make_file(single_id: bool, file: &MakeFile, root: BorrowedFd<'_>) -> Result<Copied, OpsError> {
    let mut options = copy_options(single_id, root, file.owner.as_ref(), file.timestamp)?;
    options.chmod = file.chmod.as_deref().map(str::parse).transpose()?;
    if file.needs_parent {
        check_parent(root, &file.dest)?;
    }
    let new = NewFile { name: file.name.as_bytes(), content: &file.data, mode: file.mode };
    Ok(write_file(root, file.dest.as_bytes(), &new, &options)?)
}
