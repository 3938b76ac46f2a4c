//! What file actions stand on: lower layers mounted, or, where those are packed, only what the actions look at.

use lapstrake_graph::{Owner, OwnerPart};
use lapstrake_snapshot::{Active, is_copied, read_file, stacking};
use lapstrake_store::{Stacking, Store};
use lapstrake_tree::skeleton::SkeletonTree;
use lapstrake_tree::{Tree, TreePath};

use crate::error::OpsError;
use crate::file::actions::PreparedAction;
use crate::job::context::BuildContext;
use crate::stack::Stack;

/// Where owners' names are looked up, and how large a file there can be: see `lapstrake_tree::users`.
const DATABASES: [&str; 2] = ["/etc/passwd", "/etc/group"];
const MAX_DATABASE: u64 = 10 << 20;

/// `base` with a fresh upper directory for `actions`. Its packed layers stay packed if the actions do not need their files;
/// where all of it would have to be copied, no more than they look at is.
pub(crate) fn base_view(
    job: &BuildContext,
    base: &Stack,
    actions: &[PreparedAction<'_>],
) -> Result<Active, OpsError> {
    let (store, single_id) = (&job.store, job.worker.single_id());
    // A step that comes before may have left a copy of all of it.
    let copies = matches!(stacking(store)?, Stacking::Copy { .. })
        && !base.layers.is_empty()
        && !is_copied(store, &base.as_lowers());
    if base.below.is_none() && (copies || base.has_lazy(store)) {
        let tree = base.tree(store)?;
        if let Some(sketch) = skeleton(store, base, &tree, actions)? {
            return Ok(Active::sketched(store, sketch, single_id)?);
        }
    }
    Ok(Active::new(store, &base.lowers(store, single_id)?)?)
}

/// What `actions` look at, if they do not need more than can be told of files that are packed.
fn skeleton<'t>(
    store: &Store,
    base: &Stack,
    tree: &'t Tree,
    actions: &[PreparedAction<'_>],
) -> Result<Option<SkeletonTree<'t>>, OpsError> {
    let mut sketch = SkeletonTree::new(tree);
    let mut dests: Vec<&str> = Vec::new();
    for action in actions {
        // What a path that leads nowhere is told as is the business of whoever carries the action out.
        let enough = match action {
            PreparedAction::MakeDir(dir) => {
                dests.push(&dir.path);
                sketch.follow(dir.path.as_bytes()).is_ok()
            }
            PreparedAction::MakeFile(file) => {
                dests.push(&file.dest);
                sketch.write_file(file.name.as_bytes(), &file.data, file.dest.as_bytes()).unwrap_or(false)
            }
            // A copy of the real layers shows what is there.
            PreparedAction::Symlink(_) | PreparedAction::Remove(_) => false,
            PreparedAction::Copy(ready) => {
                dests.push(&ready.copy.dest);
                ready.sketch(&mut sketch).unwrap_or(false)
            }
        };
        if !enough {
            return Ok(None);
        }
    }
    // The way to another place may lead over what an earlier action has made.
    if dests.windows(2).any(|pair| pair[0] != pair[1]) {
        return Ok(None);
    }
    if actions.iter().filter_map(PreparedAction::owner).any(by_name) && !add_users(store, base, &mut sketch)?
    {
        return Ok(None);
    }
    Ok(Some(sketch))
}

fn by_name(owner: &Owner) -> bool {
    [Some(&owner.user), owner.group.as_ref()]
        .into_iter()
        .flatten()
        .any(|part| matches!(part, OwnerPart::Name(_)))
}

/// Takes in who there is. False if a file that says so cannot be had.
fn add_users(store: &Store, base: &Stack, sketch: &mut SkeletonTree<'_>) -> Result<bool, OpsError> {
    for path in DATABASES {
        let Ok(found) = sketch.file(path.as_bytes()) else { return Ok(false) };
        let Some((place, size)) = found else { continue };
        if size > MAX_DATABASE {
            return Ok(false);
        }
        match content(store, base, &place)? {
            Some(content) => sketch.fill(place, content),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What is in a file of `base`: what the topmost layer has that has it.
fn content(store: &Store, base: &Stack, place: &TreePath) -> Result<Option<Vec<u8>>, OpsError> {
    for layer in base.layers.iter().rev() {
        let tree = Tree::decode(&store.layer_tree(&layer.id)?)?;
        if tree.get(place).is_some() {
            return Ok(read_file(store, &layer.id, place)?);
        }
    }
    Ok(None)
}
