//! The builds that run, by the ids that clients give them.

mod failed;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use lapstrake_build::{BuildRecord, Journal, Planned, Resolved, Subject, Tools, Trace};
use lapstrake_diag::{Fault, Report, SourceFile};
use lapstrake_engine::{Progress, Secrets, Warning};
use lapstrake_llb::SourceMap;
use lapstrake_oci::Reference;
use lapstrake_ops::{FailedSteps, LeftTree, StackReport};
use lapstrake_proto::google::rpc;
use lapstrake_proto::moby::buildkit::v1::SolveRequest;
use lapstrake_proto::moby::buildkit::v1::frontend;
use lapstrake_proto::pb;
use lapstrake_request::BuildRequest;
use lapstrake_sys::memory;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::caller::{Names, SessionCaller};
use crate::driver::{Driver, Frontends};
use crate::error::{self, Texts};
use crate::reports::Reports;
use crate::session::Session;
use crate::status::{Messages, StatusLog};
use crate::uploads::Uploads;

/// The beginning of options that are arguments of a Dockerfile.
const ARGUMENT: &str = "build-arg:";
/// The longest wait for a build that a call names and that has not come yet.
const PATIENCE: Duration = Duration::from_secs(6);
/// The time for which a finished build can still be asked about.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// The longest id.
const LONGEST_ID: usize = 128;
/// The longest id that a record takes over from a client.
const RECORD_ID: usize = 64;
/// The results that one build may hold at once.
const MOST_RESULTS: usize = 1000;

/// All builds.
#[derive(Default)]
pub(crate) struct Jobs {
    running: Mutex<BTreeMap<String, Arc<Job>>>,
    changed: Notify,
}

/// One build.
pub(crate) struct Job {
    /// The id that the client gave.
    pub(crate) id: String,
    /// The call that began it.
    pub(crate) request: SolveRequest,
    /// The client's session. A build that only asks for capabilities may have none.
    pub(crate) session: Option<Arc<Session>>,
    /// The span of the client that it is a part of, as the header `traceparent`.
    pub(crate) traceparent: Option<String>,
    /// The time at which it began.
    pub(crate) begun: SystemTime,
    /// Its messages.
    pub(crate) log: Arc<StatusLog>,
    /// Is done when the build is to stop.
    pub(crate) canceled: CancellationToken,
    /// The error that the client returned, with its details.
    failure: OnceLock<rpc::Status>,
    /// The last refusal with details.
    refusal: Mutex<Option<rpc::Status>>,
    /// The client as the driver of the build.
    pub(crate) client: Arc<Driver>,
    /// The frontends that drive parts of the build.
    pub(crate) frontends: Frontends,
    /// What the build is about, where the client says it in the options of a frontend.
    pub(crate) told: OnceLock<Subject>,
    /// The sink of its events, until the build is over.
    reports: Reports,
    /// Takes in the events, and gives the journal of all of them at the end.
    events: Mutex<Option<JoinHandle<Journal>>>,
    /// The names of the client's directories, once they are known.
    names: Mutex<Option<Names>>,
    /// The texts of the client that steps were made from.
    texts: Mutex<Texts>,
    /// The tools that all definitions of the build share, once there is a definition.
    pub(crate) definitions: tokio::sync::Mutex<Option<Arc<Definitions>>>,
    /// The result that the record of the build tells of.
    subject: Mutex<Option<Arc<Prepared>>>,
    results: Mutex<BTreeMap<String, Arc<Prepared>>>,
    /// The trees of failed steps, if a client drives the build.
    pub(crate) failed: FailedSteps,
    /// The trees of these that the client knows, by their references.
    held: Mutex<BTreeMap<String, LeftTree>>,
    /// Values of arguments that are not to be stored.
    secrets: Mutex<Secrets>,
    /// The values that the client's frontend has for the client of the build.
    answer: Mutex<BTreeMap<String, String>>,
}

/// A result that a client holds, and that is solved when somebody needs it.
pub(crate) struct Prepared {
    /// The graph. Solving a result for an output takes it.
    pub(crate) planned: tokio::sync::Mutex<Option<Planned>>,
    /// The caller, with the directories that it has brought.
    pub(crate) caller: Arc<SessionCaller>,
    /// The record of what was done until now.
    pub(crate) trace: tokio::sync::Mutex<Trace>,
    /// The record of the build before its end, as far as it is known.
    pub(crate) record: BuildRecord,
    /// The metadata that the client was given with the result; unset where it was given none.
    pub(crate) described: OnceLock<BTreeMap<String, Vec<u8>>>,
    /// The definitions of its references, by the names of the targets.
    pub(crate) definitions: OnceLock<BTreeMap<String, pb::Definition>>,
}

/// The tools that all definitions of one build share, so that contexts are read and images are asked for once.
pub(crate) struct Definitions {
    pub(crate) tools: Tools,
    pub(crate) caller: Arc<SessionCaller>,
    /// The outputs, caches and entitlements.
    pub(crate) request: BuildRequest,
    /// The client's uploads that the definitions name.
    pub(crate) uploads: Uploads,
}

impl Job {
    /// A build for `request`. The second value gets what the client returns.
    pub(crate) fn new(
        request: SolveRequest,
        session: Option<Arc<Session>>,
        traceparent: Option<String>,
    ) -> (Arc<Job>, oneshot::Receiver<frontend::ReturnRequest>) {
        let log = Arc::new(StatusLog::default());
        let (sender, events) = channel();
        let to = log.clone();
        // Events come from many threads, without waiting. The task ends when the last sender goes.
        let events = tokio::task::spawn_blocking(move || {
            let (mut messages, mut journal) = (Messages::new(), Journal::default());
            for event in events {
                journal.note(&event);
                if let Some(message) = messages.of(event) {
                    to.add(message);
                }
            }
            to.end();
            journal
        });
        let canceled = CancellationToken::new();
        let (client, answer) = Driver::client(request.frontend_inputs.clone(), canceled.clone());
        let job = Job {
            id: request.r#ref.clone(),
            request,
            session,
            traceparent,
            begun: SystemTime::now(),
            log,
            canceled,
            failure: OnceLock::new(),
            client,
            refusal: Mutex::default(),
            frontends: Frontends::default(),
            told: OnceLock::new(),
            reports: Reports::new(Progress::new(sender)),
            events: Mutex::new(Some(events)),
            names: Mutex::default(),
            texts: Mutex::default(),
            definitions: tokio::sync::Mutex::default(),
            subject: Mutex::default(),
            results: Mutex::default(),
            failed: FailedSteps::default(),
            held: Mutex::default(),
            secrets: Mutex::default(),
            answer: Mutex::default(),
        };
        job.learn(&job.request.frontend_attrs);
        (Arc::new(job), answer)
    }

    /// Remembers which of the arguments in the options of a frontend are secrets.
    pub(crate) fn learn(&self, opt: &BTreeMap<String, String>) {
        let arguments = opt.iter().filter_map(|(key, value)| Some((key.strip_prefix(ARGUMENT)?, &**value)));
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        *secrets = std::mem::take(&mut *secrets).and(&Secrets::among(arguments));
    }

    /// Values that are not to be stored: those of the arguments of all frontends until now.
    pub(crate) fn secrets(&self) -> Secrets {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sink of events. Events of a build that is over go nowhere.
    pub(crate) fn progress(&self) -> Progress {
        self.reports.progress()
    }

    /// The sink of events for parts that may outlive the build.
    pub(crate) fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Remembers the texts of the client that the steps of a definition were made from.
    pub(crate) fn add_text(&self, source: Arc<SourceMap>) {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).add(source);
    }

    /// Remembers the names of the client's directories.
    pub(crate) fn name(&self, names: &Names) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = Some(names.clone());
    }

    /// A report as the status for the client.
    pub(crate) fn status(&self, report: &Report) -> Status {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let same = refusal.as_ref().filter(|refusal| report.to_string().contains(&refusal.message));
        if let Some(refusal) = same {
            return error::of_rpc(refusal);
        }
        let status = error::status(report, names.as_ref(), &texts);
        drop((names, texts, refusal));
        match report.step().and_then(|step| failed::detail(self, step)) {
            Some(detail) => error::with_detail(&status, detail),
            None => status,
        }
    }

    /// Whether the client drives the build, call by call.
    pub(crate) fn is_driven(&self) -> bool {
        self.request.frontend.is_empty() && self.request.definition.is_none()
    }

    /// The place where failed steps leave their trees; nothing unless the client drives the build.
    pub(crate) fn failures(&self) -> Option<FailedSteps> {
        self.is_driven().then(|| self.failed.clone())
    }

    /// All results of the build that are known.
    pub(crate) fn prepared(&self) -> Vec<Arc<Prepared>> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.into_iter().chain(results.values().cloned()).collect()
    }

    /// A reference of a tree that a failed step has left. Empty if the client has very many.
    pub(crate) fn hold(&self, tree: impl Into<LeftTree>) -> String {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= MOST_RESULTS {
            return String::new();
        }
        let id = format!("{}:failed:{}", self.id, held.len());
        held.insert(id.clone(), tree.into());
        id
    }

    /// The tree of [`Job::hold`].
    pub(crate) fn held(&self, id: &str) -> Option<LeftTree> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// `status` with a line of the Dockerfile for its place.
    pub(crate) fn at_line(&self, status: &Status, file: &Arc<SourceFile>, line: u32) -> Status {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        error::at_line(status, file, line, names.as_ref())
    }

    /// The report of a refusal. [`Job::status`] makes the refusal with its details of the report again.
    pub(crate) fn refused(&self, status: &Status) -> Report {
        let whole = error::to_rpc(status);
        if !whole.details.is_empty() {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(whole);
        }
        let fault = if status.code() == Code::InvalidArgument { Fault::Usage } else { Fault::Build };
        Report::new(status.message().to_owned()).with_fault(fault)
    }

    /// The client returned an error.
    pub(crate) fn fail_with(&self, error: rpc::Status) {
        // A build returns once.
        self.failure.set(error).unwrap_or_default();
    }

    /// The error that the client returned, as the client gave it.
    pub(crate) fn failure(&self) -> Option<Status> {
        self.failure.get().map(error::of_rpc)
    }

    /// The record of the build tells of `prepared`, the last result that was begun.
    pub(crate) fn tell_of(&self, prepared: &Arc<Prepared>) {
        *self.subject.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared.clone());
    }

    /// The record of the build has these reports of steps too, behind those of earlier results.
    pub(crate) async fn add_steps(&self, steps: Vec<StackReport>) {
        let subject = self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(subject) = subject else { return };
        let known = &mut subject.trace.lock().await.steps;
        // The reports name their inputs by their places in one list.
        let first = known.len();
        known.extend(steps.into_iter().map(|mut step| {
            step.inputs.iter_mut().for_each(|input| *input += first);
            step
        }));
    }

    /// Warns the client, of no place in a text.
    pub(crate) fn warn(&self, short: String) {
        let (detail, url, file) = (String::new(), None, String::new());
        self.progress().warn(Warning { short, detail, url, file, lines: (0, 0), own: None });
    }

    /// The reports of steps that the record of the build has.
    pub(crate) async fn steps(&self) -> Vec<StackReport> {
        let subject = self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match subject {
            Some(subject) => subject.trace.lock().await.steps.clone(),
            None => Vec::new(),
        }
    }

    /// The record of a build that begins now. It has the client's id for the build, if that looks as our own do.
    pub(crate) fn new_record(&self, subject: Subject, resolved: &Resolved) -> BuildRecord {
        let mut record = BuildRecord::begin(subject);
        if is_plain(&self.id) {
            record.id.clone_from(&self.id);
        }
        record.names = resolved.names.iter().map(Reference::familiar).collect();
        record
    }

    /// The build is over: ends its messages, and gives what a record needs.
    pub(crate) async fn close(&self) -> (Option<Arc<Prepared>>, Journal) {
        self.client.containers.close().await;
        self.frontends.close().await;
        self.results.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.failed.clear();
        // The directories of the client are free for its next build.
        drop(self.definitions.lock().await.take());
        self.reports.end();
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        let journal = match events {
            Some(events) => events.await.unwrap_or_default(),
            None => Journal::default(),
        };
        (self.subject.lock().unwrap_or_else(PoisonError::into_inner).take(), journal)
    }

    /// Keeps a result under a new id.
    ///
    /// # Errors
    /// The client holds too many.
    pub(crate) fn keep(&self, prepared: &Arc<Prepared>) -> Result<String, Status> {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if results.len() >= MOST_RESULTS {
            return Err(Status::resource_exhausted(format!("the build has {MOST_RESULTS} results already")));
        }
        let id = format!("{}:{}", self.id, results.len());
        results.insert(id.clone(), prepared.clone());
        Ok(id)
    }

    /// The result `id`.
    ///
    /// # Errors
    /// There is no such result.
    pub(crate) fn result(&self, id: &str) -> Result<Arc<Prepared>, Status> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(id).cloned().ok_or_else(|| Status::not_found(format!("no such reference: {id}")))
    }

    /// The result and the target that the reference `id` names: `RESULT/TARGET`. The target is a platform, or empty for a
    /// result with one target. Ids of builds may have slashes, too, and platforms do.
    pub(crate) fn split<'i>(&self, id: &'i str) -> (&'i str, &'i str) {
        let own = id.strip_prefix(&*self.id).map_or(0, |_| self.id.len());
        match id[own..].split_once('/') {
            Some((number, target)) => (&id[..own + number.len()], target),
            None => (id, ""),
        }
    }

    /// The answer to the client of the build has these values.
    pub(crate) fn answer(&self, values: BTreeMap<String, String>) {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
    }

    /// The values of [`Job::answer`].
    pub(crate) fn take_answer(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut *self.answer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Jobs {
    /// Keeps `job` until a little after `guard` goes.
    ///
    /// # Errors
    /// The id is none, or another build has it.
    pub(crate) fn add(self: &Arc<Self>, job: &Arc<Job>) -> Result<Registered, Status> {
        if job.id.is_empty() || job.id.len() > LONGEST_ID {
            return Err(Status::invalid_argument("the build has no id, or a very long one"));
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(&job.id) {
            return Err(Status::already_exists(format!("job ID {} exists", job.id)));
        }
        running.insert(job.id.clone(), job.clone());
        drop(running);
        self.changed.notify_waiters();
        Ok(Registered { jobs: self.clone(), job: job.clone() })
    }

    /// The build `id`, which may come a little later than the call that names it.
    ///
    /// # Errors
    /// There is no such build.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Job>, Status> {
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            if let Some(found) = found {
                return Ok(found);
            }
            if timeout_at(until, changed).await.is_err() {
                return Err(Status::not_found(format!("no such job {id}")));
            }
        }
    }
}

impl Jobs {
    /// The build `id`, if it is here now.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The builds that are not over.
    pub(crate) fn active(&self) -> Vec<Arc<Job>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().filter(|job| !job.canceled.is_cancelled()).cloned().collect()
    }
}

/// A build in the list. It leaves the list a little later than this goes.
pub(crate) struct Registered {
    jobs: Arc<Jobs>,
    job: Arc<Job>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.job.canceled.cancel();
        let (jobs, id) = (self.jobs.clone(), self.job.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(AFTERLIFE).await;
            let mut running = jobs.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.remove(&id);
            let idle = running.is_empty();
            drop(running);
            if idle {
                // Many builds at once need much memory, and the allocator keeps the memory otherwise.
                drop(tokio::task::spawn_blocking(memory::give_back));
            }
        });
    }
}

/// Whether an id of a client looks as our own do.
fn is_plain(id: &str) -> bool {
    id.len() <= RECORD_ID
        && !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn platforms_and_ids_have_slashes() {
        let (job, _) =
            Job::new(SolveRequest { r#ref: "a/b".to_owned(), ..SolveRequest::default() }, None, None);
        assert_eq!(job.split("a/b:0/linux/arm64/v8"), ("a/b:0", "linux/arm64/v8"));
        assert_eq!(job.split("a/b:0/"), ("a/b:0", ""));
        assert_eq!(job.split("other/x"), ("other", "x"));
        assert_eq!(job.split("a/b"), ("a/b", ""));
    }
}
