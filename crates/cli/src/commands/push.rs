//! `lapstrake push`, `pull` and `tag`: images under names, here and elsewhere.

use std::process::ExitCode;

use lapstrake_build::Machine;
use lapstrake_build::{pull_image, status};
use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_engine::{Progress, Step, StepId};
use lapstrake_images::{asked_platform, bundle, find_all, find_for, find_image, tags_of};
use lapstrake_oci::{Platform, Reference};
use lapstrake_outputs::Push;
use lapstrake_registry::{Client, RegistryError};

use serde_json::json;

use crate::args::images::{Pull, PushImage, Tag};
use crate::env;
use crate::progress::{self, Work};
use crate::session::{self, registries};

/// Does `work` as one step that is shown, and gives what it gives.
fn shown<T>(
    quiet: bool,
    (doing, name): (Work, &str),
    work: impl AsyncFnOnce(Step) -> Outcome<T>,
) -> Outcome<T> {
    let mode = if quiet { progress::Mode::Quiet } else { progress::Mode::Auto };
    let (progress, display) = progress::start(mode, doing);
    let result = super::block_on(one_step(progress, name, work));
    display.finish();
    result
}

async fn one_step<T>(
    progress: Progress,
    name: &str,
    work: impl AsyncFnOnce(Step) -> Outcome<T>,
) -> Outcome<T> {
    let step = progress.start(StepId(format!("internal:{name}")), name);
    let result = work(step.clone()).await;
    step.complete(false, result.as_ref().err().map(|error| error.message().to_owned()));
    result
}

/// Pushes an image that is here, or all that have the name.
pub(crate) fn push(args: &PushImage) -> Outcome<ExitCode> {
    let session = session::open()?;
    let reference = if args.all_tags { name(&args.image)? } else { new_name(&args.image)? };
    if !args.all_tags {
        push_one(args, &session, &reference, &args.image)?;
        return Ok(ExitCode::SUCCESS);
    }
    let repository = untagged(&args.image, &reference)?;
    let tags = tags_of(&session.store, &repository)?;
    if tags.is_empty() {
        return Err(Report::new(format!("no image here is called `{repository}`")));
    }
    for tag in &tags {
        push_one(args, &session, tag, &tag.familiar())?;
    }
    if args.quiet {
        say!("{}/{}", reference.registry(), reference.repository());
    }
    Ok(ExitCode::SUCCESS)
}

/// Pushes what `image` means as `reference`.
fn push_one(args: &PushImage, session: &Machine, reference: &Reference, image: &str) -> Outcome<()> {
    let store = &session.store;
    let rows = match &args.platform {
        Some(_) => vec![find_for(store, image, args.platform.as_deref())?],
        None => find_all(store, image)?,
    };
    let bundle = bundle(store, &rows)?;
    let pushed =
        shown(args.quiet || args.json, (Work::Push, &format!("pushing {reference}")), async |step| {
            let client = Client::new(registries())?;
            let push = Push { store, client: &client, bundle: &bundle, status: status(&step) };
            Ok(push.run(std::slice::from_ref(reference), false).await?.document)
        })?;
    store.set_digest(&reference.pinned(pushed.digest.clone()), &bundle.main().image.document.digest)?;
    if args.json {
        let size = pushed.bytes.len();
        say!("{}", json!({"Name": reference.to_string(), "Digest": pushed.digest, "Size": size}));
    } else if args.quiet {
        // One line tells of all tags.
        if !args.all_tags {
            say!("{reference}");
        }
    } else {
        say!(
            "{}: digest: {} size: {}",
            reference.tag().unwrap_or("latest"),
            pushed.digest,
            pushed.bytes.len()
        );
    }
    Ok(())
}

fn new_name(text: &str) -> Result<Reference, Usage> {
    Reference::new_name(text).map_err(|error| Usage(format!("`{text}`: {error}")))
}

fn name(text: &str) -> Result<Reference, Usage> {
    text.parse().map_err(|error| Usage(format!("`{text}`: {error}")))
}

/// The repository that `--all-tags` is about: nobody can ask for one tag of all.
fn untagged(text: &str, reference: &Reference) -> Result<String, Usage> {
    let last = text.rsplit('/').next().unwrap_or(text);
    if last.contains([':', '@']) {
        return Err(Usage(format!("`{text}`: a tag can't be used with --all-tags")));
    }
    Ok(reference.familiar_name())
}

/// Pulls an image, or all that the repository has.
pub(crate) fn pull(args: &Pull) -> Outcome<ExitCode> {
    let session = session::open()?;
    let reference = name(&args.image)?;
    let platform = args.platform.clone().or_else(env::default_platform);
    let platform = platform.as_deref().map(asked_platform).transpose()?.unwrap_or_else(Platform::host);
    if !args.all_tags {
        pull_one(args, &session, &reference, &platform)?;
        return Ok(ExitCode::SUCCESS);
    }
    let repository = untagged(&args.image, &reference)?;
    let tags = super::block_on(async { Ok(Client::new(registries())?.tags(&reference).await?) })?;
    let mut pulled = false;
    for tag in &tags {
        let tagged = name(&format!("{repository}:{tag}"))?;
        match pull_one(args, &session, &tagged, &platform) {
            Ok(()) => pulled = true,
            // Of many tags some are for other machines.
            Err(error) if is_for_others(&error) => tell!("{}: ignored: {error}", tagged.familiar()),
            Err(error) => return Err(error),
        }
    }
    if !pulled {
        return Err(Report::new(format!("`{repository}` has no tag for {platform}")));
    }
    if !args.json {
        say!("{}/{}", reference.registry(), reference.repository());
    }
    Ok(ExitCode::SUCCESS)
}

fn is_for_others(error: &Report) -> bool {
    error.code() == RegistryError::NO_PLATFORM
}

fn pull_one(args: &Pull, session: &Machine, reference: &Reference, platform: &Platform) -> Outcome<()> {
    let before = session.store.tagged(reference)?;
    let known =
        shown(args.quiet || args.json, (Work::Pull, &format!("pulling {reference}")), async |step| {
            pull_image(session, registries(), (reference, platform), &step).await
        })?;
    let (digest, found) = (known.digest(), known.config.platform());
    // A tag that is no list has one image, which is taken whatever it is for, as Docker takes it.
    let asked = args.platform.is_some() || env::default_platform().is_some();
    if asked && !platform.accepts(&found) {
        let name = reference.familiar();
        tell!(
            "WARNING: image with reference {name} was found but its platform ({found}) does not match the specified platform ({platform})"
        );
    }
    if args.json {
        let id = find_image(&session.store, &reference.to_string())?.id;
        say!("{}", json!({"Name": reference.to_string(), "Digest": digest, "ID": id}));
        return Ok(());
    }
    if !args.quiet {
        if args.all_tags {
            say!("{}: Pulling from {}", reference.tag().unwrap_or("latest"), reference.repository());
        }
        let same = before.is_some() && before == session.store.tagged(reference)?;
        let status = if same { "Image is up to date" } else { "Downloaded newer image" };
        say!("Digest: {digest}\nStatus: {status} for {}", reference.familiar());
    }
    if !args.all_tags {
        say!("{reference}");
    }
    Ok(())
}

/// Pulls an image for `run`. Progress goes to standard error.
pub(super) fn pull_to_run(
    session: &Machine,
    reference: &Reference,
    platform: Option<&str>,
    quiet: bool,
) -> Outcome<()> {
    let platform = platform.map(str::to_owned).or_else(env::default_platform);
    let platform = platform.as_deref().map(asked_platform).transpose()?.unwrap_or_else(Platform::host);
    shown(quiet, (Work::Pull, &format!("pulling {reference}")), async |step| {
        pull_image(session, registries(), (reference, &platform), &step).await
    })?;
    Ok(())
}

/// Gives an image another name, with all of its platforms.
pub(crate) fn tag(args: &Tag) -> Outcome<ExitCode> {
    let session = session::open()?;
    let id = find_image(&session.store, &args.image)?.id;
    let images = find_all(&session.store, &args.image)?;
    let new = new_name(&args.name)?;
    let main = images.iter().position(|image| image.id == id).unwrap_or(0);
    session.store.put_variants(&images, main, std::slice::from_ref(&new))?;
    session.store.sync()?;
    if args.json {
        say!("{}", json!({"ID": id, "Name": new.familiar()}));
    }
    Ok(ExitCode::SUCCESS)
}
