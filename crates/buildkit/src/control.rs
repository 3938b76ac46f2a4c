//! The service `Control`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::control_server::Control as Service;
use tonic::{Request, Response, Status, Streaming};

use crate::host::Shared;
use crate::jobs::Job;
use crate::run::{on_thread, run};
use crate::session::{Outgoing, Session};
use crate::{translate, worker};

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(crate) struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Control {
        Control { shared }
    }
}

/// The error for what is not built yet.
fn not_yet<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not supported by `lapstrake serve` yet")))
}

#[tonic::async_trait]
impl Service for Control {
    type PruneStream = Answers<api::UsageRecord>;
    type StatusStream = Answers<api::StatusResponse>;
    type SessionStream = Outgoing;
    type ListenBuildHistoryStream = Answers<api::BuildHistoryEvent>;

    async fn solve(
        &self,
        request: Request<api::SolveRequest>,
    ) -> Result<Response<api::SolveResponse>, Status> {
        let mut request = request.into_inner();
        translate::modernise(&mut request);
        let session = match request.session.as_str() {
            "" => None,
            id => Some(self.shared.sessions.get(id).await?),
        };
        let (job, answer) = Job::new(request, session);
        // A client that goes away drops this call, and with it the registration, which cancels the build.
        let registered = self.shared.jobs.add(&job)?;
        let shared = self.shared.clone();
        let answer = on_thread(move || async move { run(&shared, &job, answer).await }).await;
        drop(registered);
        answer.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let job = self.shared.jobs.get(&request.into_inner().r#ref).await?;
        let log = job.log.clone();
        let messages = unfold((log, 0), |(log, number)| async move {
            let message = log.get(number).await?;
            Some((Ok(message), (log, number + 1)))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn session(
        &self,
        request: Request<Streaming<api::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (headers, _, incoming) = request.into_parts();
        let (session, outgoing) = Session::open(&headers, incoming).await?;
        self.shared.sessions.add(session)?;
        Ok(Response::new(outgoing))
    }

    async fn list_workers(
        &self,
        _request: Request<api::ListWorkersRequest>,
    ) -> Result<Response<api::ListWorkersResponse>, Status> {
        let record = vec![worker::record(&self.shared.host)];
        Ok(Response::new(api::ListWorkersResponse { record }))
    }

    async fn info(&self, _request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        Ok(Response::new(api::InfoResponse { buildkit_version: Some(worker::version()) }))
    }

    async fn disk_usage(
        &self,
        _request: Request<api::DiskUsageRequest>,
    ) -> Result<Response<api::DiskUsageResponse>, Status> {
        not_yet("disk usage")
    }

    async fn prune(
        &self,
        _request: Request<api::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        not_yet("prune")
    }

    async fn listen_build_history(
        &self,
        _request: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        not_yet("build history")
    }

    async fn update_build_history(
        &self,
        _request: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>, Status> {
        not_yet("build history")
    }
}
