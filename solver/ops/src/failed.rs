//! The trees that failed steps have left, for clients that look for the reason.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_graph::{FileAction, Op};
use lapstrake_snapshot::Active;
use lapstrake_store::Store;
use lapstrake_tree::copy::Copied;

use crate::error::OpsError;
use crate::stack::{SharedStack, Stack};

/// The failed steps of one build that are kept. The oldest ones go first.
const MOST: usize = 16;

/// The steps of one build that failed.
#[derive(Clone, Default)]
pub struct FailedSteps(Arc<Mutex<VecDeque<FailedStep>>>);

/// A step that failed.
#[derive(Clone)]
pub struct FailedStep {
    /// The digest of the step, as events name it.
    pub step: String,
    /// The trees of the step.
    pub trees: FailedTrees,
}

/// The trees of a step that failed.
#[derive(Clone)]
pub enum FailedTrees {
    /// Of a process, by the places of the mounts: before it began, and as it left them.
    Exec {
        /// Before.
        before: BTreeMap<String, SharedStack>,
        /// Afterwards. Mounts that were not written to are missing.
        after: BTreeMap<String, LeftTree>,
    },
    /// Of changes of files.
    File {
        /// The actions of the step.
        actions: Vec<FileAction>,
        /// The number of the action that failed.
        failed: usize,
        /// The inputs.
        inputs: Vec<SharedStack>,
        /// The tree that the actions before that one have made.
        made: LeftTree,
    },
    /// Of a step that did not begin, since a part of an input does not exist.
    Unread {
        /// The step.
        op: Box<Op>,
        /// The number of the input.
        input: usize,
        /// The tree of the input.
        tree: SharedStack,
    },
}

/// A tree with what a failed step has written to it. Becomes layers only when somebody wants to see the tree.
#[derive(Clone)]
pub struct LeftTree(Arc<Mutex<Left>>);

/// The state of a [`LeftTree`].
enum Left {
    /// As the step has left it.
    Open(Box<Open>),
    /// As layers.
    Made(SharedStack),
    /// It could not be made layers of.
    Lost,
}

/// A tree that is no layer yet.
struct Open {
    active: Active,
    base: Stack,
    changes: Changes,
}

/// Facts about the changes to a tree that the tree itself does not have.
pub(crate) enum Changes {
    /// Owners by device and inode, of a process.
    Owners(BTreeMap<(u64, u64), (u32, u32)>),
    /// Changes of files.
    Copied(Box<Copied>),
}

impl LeftTree {
    /// The tree `active`, which has `base` below.
    pub(crate) fn new(active: Active, base: Stack, changes: Changes) -> LeftTree {
        LeftTree(Arc::new(Mutex::new(Left::Open(Box::new(Open { active, base, changes })))))
    }

    /// The tree as layers. Blocks.
    ///
    /// # Errors
    /// The layers cannot be written, or could not be the first time.
    pub fn stack(&self, store: &Store, single_id: bool) -> Result<SharedStack, OpsError> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match std::mem::replace(&mut *left, Left::Lost) {
            Left::Open(open) => *open,
            Left::Made(stack) => {
                *left = Left::Made(stack.clone());
                return Ok(stack);
            }
            Left::Lost => return Err(OpsError::Worker),
        };
        let Open { active, base, changes } = open;
        let copied = match changes {
            Changes::Owners(owners) => active.owners(&owners)?,
            Changes::Copied(copied) => *copied,
        };
        let stack: SharedStack = base.with(active.commit(store, copied, single_id)?).into();
        *left = Left::Made(stack.clone());
        Ok(stack)
    }
}

impl From<SharedStack> for LeftTree {
    fn from(stack: SharedStack) -> LeftTree {
        LeftTree(Arc::new(Mutex::new(Left::Made(stack))))
    }
}

impl FailedSteps {
    /// Forgets all of them, with their files.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Keeps one more step.
    pub(crate) fn add(&self, step: FailedStep) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(step);
        if all.len() > MOST {
            all.pop_front();
        }
    }

    /// The trees of the step with this digest, if the step failed. The last failure counts.
    pub fn find(&self, digest: &str) -> Option<FailedTrees> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().find(|failed| failed.step == digest).map(|failed| failed.trees.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failures_are_kept() {
        let failed = FailedSteps::default();
        let one = |number: usize| FailedStep {
            step: number.to_string(),
            trees: FailedTrees::Exec { before: BTreeMap::new(), after: BTreeMap::new() },
        };
        (0..=MOST).for_each(|number| failed.add(one(number)));
        assert!(failed.find("0").is_none() && failed.find("1").is_some());
    }
}
