//! Threads that may block.

use std::future::Future;

use tokio::runtime::Handle;
use tonic::Status;

/// Runs `work` on a thread of its own, which may block. A panic ends this work alone.
///
/// # Errors
/// Those of `work`, and [`tonic::Code::Internal`] for a panic.
pub(crate) async fn on_thread<T: Send + 'static, F: Future<Output = Result<T, Status>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, Status> {
    let handle = Handle::current();
    let done = tokio::task::spawn_blocking(move || handle.block_on(work())).await;
    done.unwrap_or_else(|_| {
        Err(Status::internal("this part of the build panicked, which is a bug of lapstrake"))
    })
}
