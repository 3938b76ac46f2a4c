//! The containers that a build holds for one of its drivers, by the ids that the driver gives them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapstrake_ops::Container;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The containers that one build may hold at once.
const MOST_CONTAINERS: usize = 100;
/// The longest wait for the processes of a released container.
const PATIENCE: Duration = Duration::from_secs(10);

/// The containers of one driver.
#[derive(Default)]
pub(crate) struct Containers(Mutex<List>);

#[derive(Default)]
struct List {
    held: BTreeMap<String, Arc<Held>>,
    /// The container that the driver itself runs in.
    own: Option<Arc<Held>>,
    /// The driver is over.
    closed: bool,
}

/// A container with its processes.
pub(crate) struct Held {
    /// The container.
    pub(crate) container: Container,
    /// The mounts in the client's order.
    pub(crate) mounts: Vec<MountPlace>,
    /// Is done once the client wants no more of the container.
    pub(crate) released: CancellationToken,
    /// A copy is with each process. The receiver hears of the end of the last.
    alive: Mutex<Option<Sender<()>>>,
    ended: tokio::sync::Mutex<Receiver<()>>,
}

/// Where a mount that the client asked for is in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountPlace {
    /// The root.
    Root,
    /// The mount of this number.
    Mount(usize),
}

impl Held {
    /// A container without processes.
    pub(crate) fn new(container: Container, mounts: Vec<MountPlace>) -> Held {
        let (alive, ended) = channel(1);
        Held {
            container,
            mounts,
            released: CancellationToken::new(),
            alive: Mutex::new(Some(alive)),
            ended: ended.into(),
        }
    }

    /// Is kept by a process as long as it runs; `None` if the container was released.
    pub(crate) fn begin(&self) -> Option<Sender<()>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills all processes, and removes the directories of the container once they have ended.
    pub(crate) async fn release(self: Arc<Held>) {
        self.released.cancel();
        drop(self.alive.lock().unwrap_or_else(PoisonError::into_inner).take());
        let held = self.clone();
        // Both may take long: a process that just begins is waited for, and directories are removed.
        let killed = tokio::task::spawn_blocking(move || held.container.kill()).await;
        if killed.is_ok() {
            // A process that hangs in the kernel must not hang its client.
            let _ = timeout(PATIENCE, async { self.ended.lock().await.recv().await }).await;
        }
        tokio::task::spawn_blocking(move || drop(self)).await.unwrap_or_default();
    }
}

impl Containers {
    /// Keeps a container under `id`.
    ///
    /// # Errors
    /// The id is taken, there are too many, or the build is over; the container comes back.
    pub(crate) fn add(&self, id: &str, held: Arc<Held>) -> Result<(), (Status, Arc<Held>)> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = if list.closed {
            Status::cancelled("the build is over")
        } else if list.held.contains_key(id) {
            Status::already_exists(format!("Container {id} already exists"))
        } else if list.held.len() >= MOST_CONTAINERS {
            Status::resource_exhausted(format!("the build has {MOST_CONTAINERS} containers already"))
        } else {
            list.held.insert(id.to_owned(), held);
            return Ok(());
        };
        Err((why, held))
    }

    /// Keeps the container that the driver itself runs in. No id names it.
    ///
    /// # Errors
    /// The driver is over.
    pub(crate) fn hold(&self, held: &Arc<Held>) -> Result<(), Status> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.closed {
            return Err(Status::cancelled("the build is over"));
        }
        list.own = Some(held.clone());
        Ok(())
    }

    /// The container `id`.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held.get(id).cloned()
    }

    /// The container `id`, which is not in the list any more.
    pub(crate) fn take(&self, id: &str) -> Option<Arc<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held.remove(id)
    }

    /// The driver is over: releases all.
    pub(crate) async fn close(&self) {
        let (held, own) = {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.closed = true;
            (std::mem::take(&mut list.held), list.own.take())
        };
        futures_util::future::join_all(held.into_values().chain(own).map(Held::release)).await;
    }
}
