//! `lapstrake push`, `pull`, `tag` and `save`: images under names, here and elsewhere.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_graph::ImageStore;
use lapstrake_oci::{Platform, Reference};
use lapstrake_ops::Images;
use lapstrake_outputs::{Encoding, Flavour, Push, Status, write_archive};
use lapstrake_registry::Client;

use super::export::to_file;
use crate::args::images::{Pull, PushImage, Save, Tag};
use crate::exit::Usage;
use crate::progress;
use crate::session::{self, Session, credentials, find_image, finished};

/// Reports to a step.
pub(super) fn status(step: &Step) -> Status {
    let step = step.clone();
    Arc::new(move |what: &str, done, of, over| step.status(what, done, of, over))
}

/// Does `work` as one step that is shown, and gives what it gives.
fn shown<T>(quiet: bool, name: &str, work: impl AsyncFnOnce(Step) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mode = if quiet { progress::Mode::Quiet } else { progress::Mode::Auto };
    let (progress, display) = progress::start(mode);
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
    let image = Arc::new(finished(store, &find_image(store, &args.image)?)?);
    let encoding = Encoding::default();
    let pushed = shown(args.quiet, &format!("pushing {reference}"), async |step| {
        let client = Client::new(credentials())?;
        let push = Push { store, client: &client, image: &image, encoding: &encoding, status: status(&step) };
        Ok(push.run(std::slice::from_ref(&reference), false).await?)
    })?;
    if args.quiet {
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
    let digest = shown(args.quiet, &format!("pulling {reference}"), async |step| {
        pull_one(&session, &reference, &platform, &step).await
    })?;
    if !args.quiet {
        say!("Digest: {digest}");
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
    let images = Images::new(session.store.clone(), session.single_id, true, credentials());
    let known = images.resolve(reference, &ImageStore::Registry, platform).await?;
    images.fetch(&known.manifest, &reference.to_string(), step).await?;
    Ok(known.manifest)
}

/// Gives an image another name.
pub(crate) fn tag(args: &Tag) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let image = find_image(&session.store, &args.image)?;
    let new = name(&args.name)?;
    if new.digest().is_some() {
        return Err(Usage(format!("`{}`: a name with a digest cannot be given", args.name)).into());
    }
    session.store.put_image(&image, &[new])?;
    session.store.sync()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes images to an archive.
pub(crate) fn save(args: &Save) -> anyhow::Result<ExitCode> {
    let session = session::open()?;
    let store = &session.store;
    if args.output.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Usage("an archive is nothing for a terminal: use `-o FILE`".to_owned()).into());
    }
    let image = finished(store, &find_image(store, &args.image)?)?;
    // An id is no name, and an image saved by it has none.
    let named = name(&args.image).ok().filter(|name| name.digest().is_none());
    let named = match named {
        Some(name) => store.tagged(&name)?.map(|_| name),
        None => None,
    };
    let flavour = if args.oci { Flavour::Oci } else { Flavour::Docker };
    to_file(args.output.as_deref(), |out| {
        Ok(write_archive(store, &image, named.as_slice(), flavour, &Encoding::default(), out)?)
    })
    .with_context(|| format!("cannot save `{}`", args.image))?;
    Ok(ExitCode::SUCCESS)
}
