//! A build as one of its drivers sees it.

use std::sync::Arc;

use lapstrake_proto::moby::buildkit::v1::frontend::ReturnRequest;
use tokio::sync::oneshot;
use tonic::Status;

use crate::driver::{Driver, Inputs};
use crate::jobs::Job;

/// A build with one of its drivers.
#[derive(Clone)]
pub(crate) struct Driven {
    pub(crate) job: Arc<Job>,
    pub(crate) driver: Arc<Driver>,
}

impl Driven {
    /// A frontend that the driver calls with `inputs`. The second value gets what the frontend returns. Its containers are
    /// released when the first value goes, or with the build.
    ///
    /// # Errors
    /// Too many frontends call each other, or the build is over.
    pub(crate) fn call(&self, inputs: Inputs) -> Result<(Called, oneshot::Receiver<ReturnRequest>), Status> {
        let (driver, answer) = self.driver.frontend(inputs)?;
        self.job.frontends.add(&driver)?;
        Ok((Called(Driven { job: self.job.clone(), driver }), answer))
    }
}

/// A frontend that was called.
pub(crate) struct Called(Driven);

impl Called {
    /// The build with this frontend for a driver.
    pub(crate) fn driven(&self) -> &Driven {
        &self.0
    }

    /// Ends all that the frontend holds, and waits for that.
    pub(crate) async fn end(self) {
        self.0.driver.over.cancel();
        self.0.driver.containers.close().await;
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        let Driven { job, driver } = self.0.clone();
        driver.over.cancel();
        tokio::spawn(async move {
            driver.containers.close().await;
            job.frontends.remove(&driver);
        });
    }
}
