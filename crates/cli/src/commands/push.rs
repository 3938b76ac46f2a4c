//! `lapstrake push`, `pull` and `tag`: images under names, here and elsewhere.

use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::{Files, Images};
use lapstrake_outputs::{Encoding, Push, Status};
use lapstrake_registry::Client;

use serde_json::json;

use crate::args::images::{Pull, PushImage, Tag};
use crate::exit::Usage;
use crate::progress::{self, Work};
use crate::session::{self, Session, find_image, finished, registries};

/// Reports to a step.
pub(super) fn status(step: &Step) -> Status {
    let step = step.clone();
    Arc::new(move |what: &str, done, of, over| step.status(what, done, of, over))
}

/// Does `work` as one step that is shown, and gives what it gives.
fn shown<T>(
    quiet: bool,
    (doing, name): (Work, &str),
    work: impl AsyncFnOnce(Step) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mode = if quiet { progress::Mode::Quiet } else { progress::Mode::Auto };
    let (progress, display) = progress::start(mode, doing);
    let result = super::block_on(one_step(progress, name, work));
    display.finish();
    result
}

async fn one_step<T>(
    progress: Progress,
    name: &str,
    work: impl AsyncFnOnce(Step) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let step = progress.start(StepId(format!("internal:{name}")), name);
    let result = work(step.clone()).await;
    step.complete(false, result.as_ref().err().map(ToString::to_string));
    result
}

/// Pushes an image that is here.
pub(crate) fn push(args: &PushImage) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let store = &session.store;
    let reference = name(&args.image)?;
    let row = find_image(store, &args.image)?;
    let image = Arc::new(finished(store, &row)?);
    let encoding = Encoding::default();
    let pushed =
        shown(args.quiet || args.json, (Work::Push, &format!("pushing {reference}")), async |step| {
            let client = Client::new(registries())?;
            let push =
                Push { store, client: &client, image: &image, encoding: &encoding, status: status(&step) };
            Ok(push.run(std::slice::from_ref(&reference), false).await?)
        })?;
    store.set_digest(&reference.pinned(pushed.digest.clone()), &row.id)?;
    if args.json {
        let size = pushed.bytes.len();
        say!("{}", json!({"Name": reference.to_string(), "Digest": pushed.digest, "Size": size}));
    } else if args.quiet {
        say!("{reference}");
    } else {
        say!(
            "{}: digest: {} size: {}",
            reference.tag().unwrap_or("latest"),
            pushed.digest,
            pushed.bytes.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn name(text: &str) -> Result<Reference, Usage> {
    text.parse().map_err(|error| Usage(format!("`{text}`: {error}")))
}

/// Pulls an image.
pub(crate) fn pull(args: &Pull) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let reference = name(&args.image)?;
    let platform = match &args.platform {
        Some(text) => text.parse().map_err(|error| Usage(format!("--platform {text}: {error}")))?,
        None => Platform::host(),
    };
    let before = session.store.tagged(&reference)?;
    let digest =
        shown(args.quiet || args.json, (Work::Pull, &format!("pulling {reference}")), async |step| {
            pull_one(&session, &reference, &platform, &step).await
        })?;
    if args.json {
        let id = find_image(&session.store, &args.image)?.id;
        say!("{}", json!({"Name": reference.to_string(), "Digest": digest, "ID": id}));
        return Ok(ExitCode::SUCCESS);
    }
    if !args.quiet {
        let same = before.is_some() && before == session.store.tagged(&reference)?;
        let status = if same { "Image is up to date" } else { "Downloaded newer image" };
        say!("Digest: {digest}\nStatus: {status} for {}", reference.familiar());
    }
    say!("{reference}");
    Ok(ExitCode::SUCCESS)
}

async fn pull_one(
    session: &Session,
    reference: &Reference,
    platform: &Platform,
    step: &Step,
) -> anyhow::Result<lapstrake_oci::Digest> {
    let images = Images::new(session.store.clone(), session.single_id, true, registries());
    let known = images.resolve_there(reference, platform).await?;
    images.fetch(&known.manifest, &reference.to_string(), Files::Later, step).await?;
    Ok(known.digest().clone())
}

/// Gives an image another name.
pub(crate) fn tag(args: &Tag) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let image = find_image(&session.store, &args.image)?;
    let new = name(&args.name)?;
    if new.digest().is_some() {
        return Err(Usage(format!("`{}`: a name with a digest cannot be given", args.name)).into());
    }
    session.store.put_image(&image, std::slice::from_ref(&new))?;
    session.store.sync()?;
    if args.json {
        say!("{}", json!({"ID": image.id, "Name": new.familiar()}));
    }
    Ok(ExitCode::SUCCESS)
}
