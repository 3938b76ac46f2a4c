//! Building the targets of a definition: all at once, on one worker, so that equal steps run once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapstrake_bake::{Target, TargetSet};
use lapstrake_build::{
    Build as Building, BuildRecord, Client, Delivered, Failure, Machine, Resolved, Subject, Trace,
    check_engine,
};
use lapstrake_diag::{Fault, Outcome, Report};
use lapstrake_engine::Progress;
use lapstrake_oci::Reference;
use lapstrake_ops::Worker;
use lapstrake_request::BuildRequest;
use lapstrake_store::Store;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::requests::{Baking, keep_for_others, linked_name};
use crate::args::bake::Bake;
use crate::commands::build::{print_failures, progress_mode, tell_stacking};
use crate::commands::file::put;
use crate::commands::sweeper;
use crate::progress::{Joint, Mode, Part};

/// The most targets that are built at once.
const AT_ONCE: usize = 16;

/// A target before it is built.
struct Job {
    name: String,
    request: BuildRequest,
    client: Arc<dyn Client>,
    resolved: Resolved,
    links: Vec<String>,
    progress: Progress,
    part: Part,
    record: BuildRecord,
}

/// A target that was built, or was not.
struct Done {
    name: String,
    result: Outcome<Delivered>,
    trace: Trace,
    part: Part,
    record: BuildRecord,
    secrets: lapstrake_engine::Secrets,
}

/// Whether the targets are there that are contexts of others.
type Ready = BTreeMap<String, watch::Sender<bool>>;

/// Builds all targets of `chosen`.
pub(super) fn run(args: &Bake, chosen: &TargetSet, machine: &mut Machine) -> Outcome<()> {
    let mode = progress_mode(args.progress);
    let quiet = matches!(mode, Mode::Quiet | Mode::Rawjson);
    let linked: BTreeSet<String> = links(chosen);
    let joint = Joint::start(mode);
    let jobs = chosen.targets.values().map(|target| job(args, target, &linked, &joint));
    let jobs = jobs.collect::<Outcome<Vec<Job>>>();
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => {
            joint.finish();
            return Err(error);
        }
    };
    let stacking = lapstrake_snapshot::stacking(&machine.store)?;
    if !quiet {
        tell_stacking(&machine.store, &stacking);
    }
    let kept =
        Kept { store: machine.store.clone(), names: linked.iter().map(|name| linked_name(name)).collect() };
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let mut done = Vec::new();
    let ran = crate::commands::block_on(build_all(jobs, worker, &mut done));
    drop(kept);
    let finished: Vec<_> = done.into_iter().map(|done| finish(done, &machine.store)).collect();
    joint.finish();
    sweeper::start_if_needed(&machine.store);
    let (mut metadata, mut first) = (BTreeMap::new(), None);
    for Finished { name, result, failures, notes, summary } in finished {
        summary.into_iter().filter(|_| !quiet).for_each(|text| tell!("{text}\n"));
        notes.iter().for_each(|note| tell!("{name}: {note}"));
        match result {
            Ok(delivered) => {
                let described = described(&delivered, chosen.targets.get(&name));
                metadata.insert(name, described);
            }
            Err(error) if first.is_none() && !matches!(error.fault(), Fault::Canceled(_)) => {
                print_failures(&failures);
                first = Some(error.context(format!("target {name}")));
            }
            Err(_) => {}
        }
    }
    first.map_or(Ok(()), Err)?;
    ran?;
    if let Some(path) = &args.metadata_file {
        put(path, lapstrake_go::to_json_indented(&metadata))?;
    }
    Ok(())
}

/// The metadata of a target. The image of one that others use alone has no name outside.
fn described(delivered: &Delivered, target: Option<&Target>) -> serde_json::Value {
    let mut value: serde_json::Value =
        serde_json::from_slice(&delivered.metadata.document()).unwrap_or_default();
    if let (true, Some(fields)) = (target.is_some_and(|target| target.linked), value.as_object_mut()) {
        fields.retain(|name, _| name.starts_with("buildx.build"));
    }
    value
}

/// The targets that are contexts of others.
fn links(chosen: &TargetSet) -> BTreeSet<String> {
    let contexts = chosen.targets.values().flat_map(|target| target.contexts.values());
    contexts.filter_map(|value| value.strip_prefix("target:")).map(str::to_owned).collect()
}

/// The names of images that only the definition's targets use. They are taken away in the end.
struct Kept {
    store: Arc<Store>,
    names: Vec<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for name in &self.names {
            // A target that was not built has no image.
            let how = lapstrake_images::Removing { platform: None, force: false };
            lapstrake_images::remove_named(&self.store, name, how, &mut Vec::new()).unwrap_or_default();
        }
    }
}

fn job(args: &Bake, target: &Target, linked: &BTreeSet<String>, joint: &Joint) -> Outcome<Job> {
    let name = target.name.clone();
    let in_target = |error: Report| error.context(format!("target {name}"));
    let Baking { mut request, client, links } = Baking::of(args, target)?;
    if linked.contains(&target.name) {
        keep_for_others(&mut request, target);
    }
    let resolved = Resolved::parse(&request, &client).map_err(in_target)?;
    resolved.warnings.iter().for_each(|warning| tell!("{warning}"));
    check_engine(&resolved, &*client).map_err(in_target)?;
    let mut record = BuildRecord::begin(Subject::of(&request, &resolved)?);
    record.names = resolved.names.iter().map(Reference::familiar).collect();
    let (progress, part) = joint.part(&name);
    Ok(Job { name, request, client, resolved, links, progress, part, record })
}

/// Builds all jobs at once; a job waits for those that are its contexts. The first failure ends the others.
async fn build_all(jobs: Vec<Job>, worker: Arc<Worker>, done: &mut Vec<Done>) -> Outcome<()> {
    let (cancel, canceled) = watch::channel(false);
    let ready: Arc<Ready> =
        Arc::new(jobs.iter().map(|job| (job.name.clone(), watch::channel(false).0)).collect());
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for job in jobs {
        running.spawn(build_one(job, worker.clone(), (ready.clone(), slots.clone()), canceled.clone()));
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(one) => {
                let failed = one.result.is_err();
                done.push(one);
                if failed {
                    cancel.send_replace(true);
                }
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(())
}

async fn build_one(
    job: Job,
    worker: Arc<Worker>,
    (ready, slots): (Arc<Ready>, Arc<Semaphore>),
    mut canceled: watch::Receiver<bool>,
) -> Done {
    let Job { name, request, client, resolved, links, progress, part, record } = job;
    let mut trace = Trace { build: record.id.clone(), ..Trace::default() };
    let secrets = resolved.secrets();
    let building = async {
        for link in &links {
            if let Some(sender) = ready.get(link) {
                // The sender lives as long as the table.
                sender.subscribe().wait_for(|ready| *ready).await.map(drop).unwrap_or_default();
            }
        }
        let _slot = slots.acquire().await;
        let building = Building { worker: &worker, client: &*client, progress };
        lapstrake_build::build(building, &request, resolved, &mut trace).await
    };
    let result = tokio::select! {
        result = building => result,
        _ = canceled.wait_for(|canceled| *canceled) => Err(Report::canceled(0)),
    };
    if let (Ok(_), Some(sender)) = (&result, ready.get(&name)) {
        sender.send_replace(true);
    }
    Done { name, result, trace, part, record, secrets }
}

/// A target whose record is kept.
struct Finished {
    name: String,
    result: Outcome<Delivered>,
    failures: Vec<Failure>,
    notes: Vec<String>,
    summary: Option<String>,
}

fn finish(done: Done, store: &Store) -> Finished {
    let Done { name, result, trace, part, mut record, secrets } = done;
    let (failures, mut journal) = part.finish();
    let Trace { checked, steps, notes, network, .. } = trace;
    record.steps = steps;
    record.end(result.as_ref().map(Some));
    record.hide(&secrets);
    journal.hide(&secrets);
    if let Err(error) = record.keep(store, &journal) {
        tell!("the record of this build could not be kept: {}", error);
    }
    if let Some(chosen) = &network {
        crate::commands::run::tell_network(chosen);
    }
    let summary = checked.and_then(|(file, findings)| lapstrake_build::summary(&findings, &file));
    Finished { name, result, failures, notes, summary }
}
