//! Drivers of builds: the client of a build, and the processes of frontends, each with its inputs and its containers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_proto::moby::buildkit::v1::frontend::ReturnRequest;
use lapstrake_proto::pb;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::held::Containers;

/// The frontends that one build may run at once.
const MOST_FRONTENDS: usize = 100;
/// How deep frontends may call each other.
const DEEPEST: usize = 10;

/// The inputs of a frontend by their names.
pub(crate) type Inputs = BTreeMap<String, pb::Definition>;

/// One that drives a build through the bridge.
pub(crate) struct Driver {
    /// The definitions that it was given.
    pub(crate) inputs: Inputs,
    /// The containers that it holds.
    pub(crate) containers: Containers,
    /// Is done when it is to stop, at the latest with the build.
    pub(crate) over: CancellationToken,
    /// The number of frontends that called each other to make this one; 0 for the client.
    depth: usize,
    returned: Mutex<Option<oneshot::Sender<ReturnRequest>>>,
}

/// The drivers of a build that are frontends.
#[derive(Default)]
pub(crate) struct Frontends(Mutex<List>);

#[derive(Default)]
struct List {
    all: Vec<Arc<Driver>>,
    /// The build is over.
    closed: bool,
}

impl Driver {
    /// The client of a build. The second value gets what the client returns.
    pub(crate) fn client(
        inputs: Inputs,
        over: CancellationToken,
    ) -> (Arc<Driver>, oneshot::Receiver<ReturnRequest>) {
        Driver::new(inputs, over, 0)
    }

    /// A frontend that this driver calls with `inputs`. The second value gets what the frontend returns.
    ///
    /// # Errors
    /// Too many frontends call each other.
    pub(crate) fn frontend(
        &self,
        inputs: Inputs,
    ) -> Result<(Arc<Driver>, oneshot::Receiver<ReturnRequest>), Status> {
        let depth = self.depth + 1;
        if depth > DEEPEST {
            return Err(Status::resource_exhausted(format!("more than {DEEPEST} frontends call each other")));
        }
        Ok(Driver::new(inputs, self.over.child_token(), depth))
    }

    fn new(
        inputs: Inputs,
        over: CancellationToken,
        depth: usize,
    ) -> (Arc<Driver>, oneshot::Receiver<ReturnRequest>) {
        let (returned, answer) = oneshot::channel();
        let containers = Containers::default();
        let driver = Driver { inputs, containers, over, depth, returned: Mutex::new(Some(returned)) };
        (Arc::new(driver), answer)
    }

    /// The driver says how its part of the build has ended.
    ///
    /// # Errors
    /// It has said so before.
    pub(crate) fn end(&self, answer: ReturnRequest) -> Result<(), Status> {
        let sender = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sender = sender.ok_or_else(|| Status::failed_precondition("the build has returned already"))?;
        // A build that was canceled meanwhile needs no answer.
        sender.send(answer).map_err(|_| Status::cancelled("the build is over"))
    }
}

impl Frontends {
    /// Adds a frontend.
    ///
    /// # Errors
    /// There are too many, or the build is over.
    pub(crate) fn add(&self, driver: &Arc<Driver>) -> Result<(), Status> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.closed {
            return Err(Status::cancelled("the build is over"));
        }
        if list.all.len() >= MOST_FRONTENDS {
            return Err(Status::resource_exhausted(format!(
                "the build has {MOST_FRONTENDS} frontends already"
            )));
        }
        list.all.push(driver.clone());
        Ok(())
    }

    /// Forgets a frontend that has ended.
    pub(crate) fn remove(&self, driver: &Arc<Driver>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.all.retain(|known| !Arc::ptr_eq(known, driver));
    }

    /// The build is over: ends all frontends, and releases their containers.
    pub(crate) async fn close(&self) {
        let all = {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.closed = true;
            std::mem::take(&mut list.all)
        };
        all.iter().for_each(|driver| driver.over.cancel());
        futures_util::future::join_all(all.iter().map(|driver| driver.containers.close())).await;
    }
}
