//! The service `Control`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::{StreamExt as _, iter, unfold};
use lapstrake_diag::Outcome;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_proto::moby::buildkit::v1::control_server::Control as Service;
use lapstrake_store::Store;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status, Streaming};

use crate::history::Parent;
use crate::jobs::Job;
use crate::run::run;
use crate::session::{Outgoing, Session};
use crate::shared::Shared;
use crate::thread::on_thread;
use crate::{error, records, translate, usage, worker};

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

    /// Works with the store on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.shared.worker.store().clone();
        on_thread(move || async move {
            work(&store).map_err(|report| error::status(&report, None, &error::Texts::default()))
        })
        .await
    }

    /// The messages of the build `id` from its record, if there is one.
    async fn recorded(&self, id: String) -> Result<Option<Vec<api::StatusResponse>>, Status> {
        let replay = move |store: &Arc<Store>| match records::row(store, &id)? {
            Some(row) => records::replay(store, &row).map(Some),
            None => Ok(None),
        };
        self.blocking(replay).await
    }
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
        let traceparent = request.metadata().get("traceparent").and_then(|header| header.to_str().ok());
        let traceparent = traceparent.filter(|header| Parent::parse(header).is_some()).map(str::to_owned);
        let mut request = request.into_inner();
        translate::modernise(&mut request);
        let session = match request.session.as_str() {
            "" => None,
            id => Some(self.shared.sessions.get(id).await?),
        };
        let (job, answer) = Job::new(request, session, traceparent);
        // A client that goes away drops this call, and with it the registration, which cancels the build.
        let registered = self.shared.jobs.add(&job)?;
        if !job.request.internal {
            self.shared.history.tell(records::started(&job));
        }
        let shared = self.shared.clone();
        let answer = on_thread(move || async move { run(&shared, &job, answer).await }).await;
        drop(registered);
        answer.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        if self.shared.jobs.find(&id).is_none()
            && let Some(messages) = self.recorded(id.clone()).await?
        {
            return Ok(Response::new(Box::pin(iter(messages.into_iter().map(Ok)))));
        }
        let job = self.shared.jobs.get(&id).await?;
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
        request: Request<api::DiskUsageRequest>,
    ) -> Result<Response<api::DiskUsageResponse>, Status> {
        let request = request.into_inner();
        let record =
            self.blocking(move |store| usage::list(store, &request.filter, request.age_limit)).await?;
        Ok(Response::new(api::DiskUsageResponse { record }))
    }

    async fn prune(
        &self,
        request: Request<api::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let removed = self.blocking(move |store| usage::prune(store, &request)).await?;
        Ok(Response::new(Box::pin(iter(removed.into_iter().map(Ok)))))
    }

    async fn listen_build_history(
        &self,
        request: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let request = request.into_inner();
        // Subscribed first, so that nothing is missed in between.
        let listener = self.shared.history.subscribe();
        let wanted = |id: &str| request.r#ref.is_empty() || request.r#ref == id;
        let active = self.shared.jobs.active();
        let active = active.iter().filter(|job| !job.request.internal && wanted(&job.id));
        let mut events: Vec<_> = active.map(|job| records::started(job)).collect();
        if !request.active_only {
            let (history, asked) = (self.shared.history.clone(), request.clone());
            let known = self.blocking(move |_| history.list(&asked)).await?;
            let over = |event: &api::BuildHistoryEvent| known.iter().any(|known| of(known) == of(event));
            events.retain(|event| !over(event));
            events.extend(known);
        }
        let known = iter(events.into_iter().map(Ok));
        if request.early_exit {
            return Ok(Response::new(Box::pin(known)));
        }
        let id = request.r#ref;
        let later = unfold(listener, move |mut listener| {
            let id = id.clone();
            async move {
                loop {
                    match listener.recv().await {
                        Ok(event) => {
                            if id.is_empty() || id == of(&event) {
                                return Some((Ok(event), listener));
                            }
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return None,
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(known.chain(later))))
    }

    async fn update_build_history(
        &self,
        request: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>, Status> {
        let api::UpdateBuildHistoryRequest { r#ref: id, pinned, delete, finalize } = request.into_inner();
        let history = self.shared.history.clone();
        if delete || finalize {
            history.finalize(&id).await;
        }
        if finalize && !delete {
            return Ok(Response::new(api::UpdateBuildHistoryResponse {}));
        }
        let asked = id.clone();
        let found = self.blocking(move |_| {
            if delete {
                history.remove(&asked)
            } else {
                history.change(&asked, |record| record.pinned = pinned)
            }
        });
        if !found.await? {
            return Err(Status::not_found(format!("no such record: {id}")));
        }
        Ok(Response::new(api::UpdateBuildHistoryResponse {}))
    }
}

/// The build that an event is about.
fn of(event: &api::BuildHistoryEvent) -> &str {
    event.record.as_ref().map_or("", |record| record.r#ref.as_str())
}
