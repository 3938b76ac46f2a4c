//! The sessions that are open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::Session;

/// The longest wait for a session that a request names and that has not come yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// All open sessions by their ids.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<String, Arc<Session>>>,
    changed: Notify,
}

impl Sessions {
    /// Keeps `session` until it is over. The number of sessions is that of connections.
    ///
    /// # Errors
    /// Another session has the same id.
    pub(crate) fn add(self: &Arc<Self>, session: Session) -> Result<(), Status> {
        let session = Arc::new(session);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains_key(session.id()) {
            return Err(Status::already_exists(format!("session {} already exists", session.id())));
        }
        open.insert(session.id().to_owned(), session.clone());
        drop(open);
        self.changed.notify_waiters();
        let all = self.clone();
        tokio::spawn(async move {
            session.watch().await;
            all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(session.id());
        });
        Ok(())
    }

    /// The session `id`, which may come a little later than the request that names it.
    ///
    /// # Errors
    /// There is no such session.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Session>, Status> {
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            if let Some(found) = found {
                return Ok(found);
            }
            if timeout_at(until, changed).await.is_err() {
                return Err(Status::not_found(format!(
                    "no active session for {id}: context deadline exceeded"
                )));
            }
        }
    }

    /// Ends all sessions.
    pub(crate) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|session| session.close());
    }
}
