//! Removing what is not needed any more while the build goes on.
//!
//! After a step the upper and the work directory of its overlay are left, some ten entries. On ext4 their removal takes
//! a millisecond or more, which the next step need not wait for.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use lapstrake_tree::removal::remove_all;

/// So many directories wait for their removal at most: whoever has one more removes it, so that what is dead does not
/// fill the disk faster than it goes.
const WAITING: usize = 8;

/// Removes directories on a thread of its own, which is started when there is the first one.
#[derive(Debug, Default)]
pub(crate) struct AsyncDelete(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Working(SyncSender<PathBuf>, JoinHandle<()>),
    Stopped,
}

impl AsyncDelete {
    /// Removes what is at `path`, now or soon.
    pub(crate) fn remove(&self, path: PathBuf) {
        if let Err(path) = self.send(path) {
            remove(&path);
        }
    }

    /// Gives the path back if nobody takes it.
    fn send(&self, path: PathBuf) -> Result<(), PathBuf> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Idle) {
            let (sender, receiver) = sync_channel::<PathBuf>(WAITING);
            let work = move || receiver.iter().for_each(|path| remove(&path));
            if let Ok(thread) = Builder::new().name("remover".to_owned()).spawn(work) {
                *state = State::Working(sender, thread);
            }
        }
        match &*state {
            State::Working(sender, _) => sender.try_send(path).map_err(|error| match error {
                std::sync::mpsc::TrySendError::Full(path)
                | std::sync::mpsc::TrySendError::Disconnected(path) => path,
            }),
            State::Idle | State::Stopped => Err(path),
        }
    }

    /// Waits until all is removed; what comes later is removed at once.
    pub(crate) fn stop(&self) {
        let state =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Stopped);
        if let State::Working(sender, thread) = state {
            drop(sender);
            // A panic there left something for the next process's sweep.
            thread.join().unwrap_or_default();
        }
    }
}

/// It is gone already if it was renamed away whole; else the next process sweeps what cannot be removed.
fn remove(path: &std::path::Path) {
    remove_all(path).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn more_than_may_wait_are_all_gone_after_the_stop() {
        let root = tempfile::tempdir().unwrap();
        let remover = AsyncDelete::default();
        for number in 0..WAITING * 4 {
            let dir = root.path().join(number.to_string());
            fs::create_dir_all(dir.join("work/work")).unwrap();
            remover.remove(dir);
        }
        remover.stop();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_comes_after_the_stop_goes_at_once() {
        let root = tempfile::tempdir().unwrap();
        let remover = AsyncDelete::default();
        remover.stop();
        let late = root.path().join("late");
        fs::create_dir(&late).unwrap();
        remover.remove(late.clone());
        assert!(!late.exists());
    }
}
