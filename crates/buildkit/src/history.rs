//! Records of builds for clients: lists, changes, and the blobs that records name.
//!
//! The log of a record is a blob only for clients. The store has the journal of each build, and the blob is made of the
//! journal when a client asks. So builds from the command line have logs and traces too, and nothing is stored twice.

mod blobs;
mod chosen;
mod spans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapstrake_build::{BuildRecord, Part};
use lapstrake_diag::{Outcome, Usage};
use lapstrake_engine::Secrets;
use lapstrake_proto::moby::buildkit::v1 as api;
use lapstrake_store::{BuildRow, Store};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

pub(crate) use blobs::Blob;
pub(crate) use spans::{Collector, Parent};

use blobs::Facts;
use chosen::Wanted;
use spans::Spans;

use crate::records;

/// The events that a slow listener may be behind.
const EVENTS: usize = 1024;
/// The time for which a record waits for the spans of its client.
const PATIENCE: Duration = Duration::from_secs(3);

/// The records of builds.
pub(crate) struct History {
    store: Arc<Store>,
    events: Sender<api::BuildHistoryEvent>,
    /// The blobs of records by the ids of the builds.
    facts: Mutex<BTreeMap<String, Arc<Facts>>>,
    /// The records that wait for spans.
    waiting: Mutex<BTreeMap<String, Waiting>>,
    spans: Arc<Spans>,
}

/// A record that waits for the spans of its client.
#[derive(Clone, Default)]
struct Waiting {
    /// Is done when a client wants no more waiting.
    hurry: CancellationToken,
    /// Is done when the trace is complete.
    complete: CancellationToken,
}

impl History {
    /// The records in `store`.
    pub(crate) fn new(store: Arc<Store>) -> History {
        History {
            store,
            events: channel(EVENTS).0,
            facts: Mutex::default(),
            waiting: Mutex::default(),
            spans: Arc::default(),
        }
    }

    /// The service that takes the spans of clients.
    pub(crate) fn collector(&self) -> Collector {
        Collector(self.spans.clone())
    }

    /// Listens to what happens from now on.
    pub(crate) fn subscribe(&self) -> Receiver<api::BuildHistoryEvent> {
        self.events.subscribe()
    }

    /// Whether somebody listens. Making an event reads the whole record, for which a build should not wait in vain.
    pub(crate) fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells those who listen.
    pub(crate) fn tell(&self, event: api::BuildHistoryEvent) {
        // Nobody may be listening.
        self.events.send(event).map(drop).unwrap_or_default();
    }

    /// The events of the records that `request` wants, the newest first.
    ///
    /// # Errors
    /// A filter or a limit that cannot be, or the store cannot be read.
    pub(crate) fn list(&self, request: &api::BuildHistoryRequest) -> Outcome<Vec<api::BuildHistoryEvent>> {
        let wanted = Wanted::parse(&request.filter, lapstrake_oci::now_seconds().0)?;
        let most = match (request.limit, usize::try_from(request.limit)) {
            (0, _) => usize::MAX,
            (_, Ok(most)) => most,
            (limit, Err(_)) => return Err(Usage(format!("invalid limit {limit}")).into()),
        };
        let rows = if request.r#ref.is_empty() {
            let rows = self.store.builds()?;
            self.forget_others(&rows);
            rows
        } else {
            records::row(&self.store, &request.r#ref)?.into_iter().collect()
        };
        let events = rows.iter().map(|row| self.event(row));
        let fits = |event: &Outcome<api::BuildHistoryEvent>| {
            event
                .as_ref()
                .map_or(true, |event| event.record.as_ref().is_some_and(|record| wanted.fits(record)))
        };
        events.filter(fits).take(most).collect()
    }

    /// The event about the record of a build that is over.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(crate) fn event(&self, row: &BuildRow) -> Outcome<api::BuildHistoryEvent> {
        let record = BuildRecord::decode(row)?;
        let facts = self.facts(&record)?;
        let mut described = records::described(&record);
        facts.describe(&mut described, !self.is_waiting(&record.id));
        Ok(records::event(api::BuildHistoryEventType::Complete, described))
    }

    /// Removes the record `id`; says whether it was there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn remove(&self, id: &str) -> Outcome<bool> {
        let Some(row) = records::row(&self.store, id)? else { return Ok(false) };
        let found = self.store.remove_build(&row.id)?;
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).remove(&row.id);
        self.tell(records::deleted(&row.id));
        Ok(found)
    }

    /// Changes the record `id`, and tells those who listen; says whether the record is there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut BuildRecord)) -> Outcome<bool> {
        let Some(row) = records::row(&self.store, id)? else { return Ok(false) };
        let mut record = BuildRecord::decode(&row)?;
        change(&mut record);
        record.generation += 1;
        if !record.change(&self.store)? {
            return Ok(false);
        }
        if self.is_heard()
            && let Some(row) = records::row(&self.store, id)?
        {
            self.tell(self.event(&row)?);
        }
        Ok(true)
    }

    /// The record `id` waits for the spans of its client from now on.
    /// The spans are kept without `secrets`: clients put their command lines into spans.
    pub(crate) fn wait_for_spans(self: &Arc<Self>, id: &str, parent: Parent, secrets: Secrets) {
        let waiting = Waiting::default();
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.to_owned(), waiting.clone());
        drop(all);
        let (this, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = waiting.hurry.cancelled() => {}
                () = tokio::time::sleep(PATIENCE) => {}
            }
            let keeper = this.clone();
            let kept = tokio::task::spawn_blocking(move || keeper.keep_spans(&id, &parent, &secrets)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "the spans of a build could not be kept");
            }
            waiting.complete.cancel();
        });
    }

    /// The record `id` has its trace now.
    fn keep_spans(&self, id: &str, parent: &Parent, secrets: &Secrets) -> Outcome<()> {
        let spans = spans::hidden(&self.spans.take(&parent.trace), secrets);
        let kept = match spans.is_empty() {
            true => Ok(()),
            false => BuildRecord::put_part(&self.store, id, Part::Spans, &spans),
        };
        // Also if the spans cannot be kept, the record waits no longer.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        kept?;
        self.change(id, |_| {}).map(drop)
    }

    fn is_waiting(&self, id: &str) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Does not wait for more spans of the client of build `id`, and is done when the record has its trace.
    pub(crate) async fn finalize(&self, id: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(waiting) = waiting {
            waiting.hurry.cancel();
            waiting.complete.cancelled().await;
        }
    }

    /// The blobs of a record.
    fn facts(&self, record: &BuildRecord) -> Outcome<Arc<Facts>> {
        let known = self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(&record.id).cloned();
        if let Some(known) = known.filter(|known| known.generation == record.generation) {
            return Ok(known);
        }
        let facts = Arc::new(Facts::of(&self.store, record)?);
        let mut all = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(record.id.clone(), facts.clone());
        Ok(facts)
    }

    /// The blob with the digest `digest` that a record has: its log, its error, its trace, or a document of its images.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn blob(&self, digest: &str) -> Outcome<Option<Blob>> {
        for row in self.store.builds()? {
            let record = BuildRecord::decode(&row)?;
            if let Some(blob) = self.facts(&record)?.blob(&self.store, &record, digest)? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// The digests, sizes and times of all blobs of records. The times are in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn blobs(&self) -> Outcome<BTreeMap<String, (u64, i64)>> {
        let mut all = BTreeMap::new();
        let rows = self.store.builds()?;
        for row in &rows {
            let record = BuildRecord::decode(row)?;
            all.extend(self.facts(&record)?.list(&record));
        }
        self.forget_others(&rows);
        Ok(all)
    }

    /// Records that are gone leave nothing here. `rows` are the records that are there.
    fn forget_others(&self, rows: &[BuildRow]) {
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.retain(|id, _| ids.contains(id.as_str()));
    }
}
