//! The service `Content`: what clients may read by its digest.
//!
//! The layers and images of the cache are given to nobody: they may be of private images, whose registry asks for a login.

use std::pin::Pin;

use futures_util::Stream;
use lapstrake_proto::containerd::services::content::v1 as api;
use lapstrake_proto::containerd::services::content::v1::content_server::Content as Service;
use tonic::{Request, Response, Status, Streaming};

/// The namespace of the blobs of build records.
const HISTORY: &str = "buildkit_history";

/// The service.
pub(crate) struct Content;

/// Refuses the blobs of build records, which are not built yet.
fn check_namespace<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("containerd-namespace").and_then(|name| name.to_str().ok()) {
        Some(HISTORY) => {
            Err(Status::unimplemented("blobs of build records are not supported by `lapstrake serve` yet"))
        }
        _ => Ok(()),
    }
}

fn not_found<T>(digest: &str) -> Result<T, Status> {
    Err(Status::not_found(format!("content {digest}: not found")))
}

#[tonic::async_trait]
impl Service for Content {
    type ListStream = Pin<Box<dyn Stream<Item = Result<api::ListContentResponse, Status>> + Send>>;
    type ReadStream = Pin<Box<dyn Stream<Item = Result<api::ReadContentResponse, Status>> + Send>>;
    type WriteStream = Pin<Box<dyn Stream<Item = Result<api::WriteContentResponse, Status>> + Send>>;

    async fn info(&self, request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        check_namespace(&request)?;
        not_found(&request.get_ref().digest)
    }

    async fn list(
        &self,
        request: Request<api::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        check_namespace(&request)?;
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        check_namespace(&request)?;
        not_found(&request.get_ref().digest)
    }

    async fn write(
        &self,
        _request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(Status::unimplemented("the content of `lapstrake serve` is only read"))
    }
}
