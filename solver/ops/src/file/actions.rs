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

/// Selects what actions copy.
pub(crate) fn prepare_actions<'a>(
    reads: &ContextReads<'_>,
    actions: &'a [FileAction],
    inputs: &'a [SharedStack],
) -> Result<Vec<PreparedAction<'a>>, OpsError> {
    let ready = actions.iter().map(|action| match action {
        FileAction::MakeDir(dir) => Ok(PreparedAction::MakeDir(dir)),
        FileAction::MakeFile(file) => Ok(PreparedAction::MakeFile(file)),
        FileAction::Symlink(link) => Ok(PreparedAction::Symlink(link)),
        FileAction::Remove(remove) => Ok(PreparedAction::Remove(remove)),
        FileAction::Copy(copy) => prepare_copy(reads, copy, inputs).map(PreparedAction::Copy),
    });
    ready.collect()
}

/// Does all actions, in order, on what `active` shows. `previous` is what they made before, if that is known.
pub(crate) fn apply_all(
    reads: &ContextReads<'_>,
    actions: Vec<PreparedAction<'_>>,
    active: &Active,
    previous: Option<Previous<'_>>,
) -> Result<Copied, OpsError> {
    let single_id = reads.job.worker.single_id();
    let alone = actions.len() == 1;
    let mut all = Copied::default();
    for action in actions {
        let root = active.root();
        all.owners.extend(match action {
            PreparedAction::MakeDir(dir) => make_dir(single_id, dir, root)?.owners,
            PreparedAction::MakeFile(file) => make_file(single_id, file, root)?.owners,
            // A copy that writes to the layer directly has to be alone: nothing may look at the mount afterwards.
            PreparedAction::Symlink(link) => {
                let options = copy_options(single_id, root, link.owner.as_ref(), link.timestamp)?;
                make_symlink(root, link.path.as_bytes(), link.text.as_bytes(), &options)?.owners
            }
            PreparedAction::Remove(Remove { path, optional, wildcards }) => {
                remove(root, path.as_bytes(), *wildcards, *optional)?;
                continue;
            }
            PreparedAction::Copy(copy) if alone && copy.copy.variant == CopyVariant::default() => {
                let halves = active.halves()?;
                let layers = halves.as_ref().map(UpperAndLower::layers);
                return apply_copy(reads, copy, Dest { root, layers, previous });
            }
            PreparedAction::Copy(copy) => apply_copy(reads, copy, Dest::plain(root))?.owners,
        });
    }
    Ok(all)
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
