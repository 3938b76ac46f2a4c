//! `lapstrake prune`

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lapstrake_build::{Machine, attrs};
use lapstrake_diag::{Outcome, Usage};
use lapstrake_go::size::human as bytes;
use lapstrake_images::{ImageFilter, PruneResult, PruneScope, Pruned, prune_with_layers};
use lapstrake_oci::Digest;
use lapstrake_store::{Item, Limits, Rule};
use lapstrake_sys::SingleThreaded;
use lapstrake_sys::fd::close_others;
use serde_json::json;

use super::df::{item_json, listed};
use super::sweeper;
use crate::args::space::{Only, Prune};
use crate::session;

/// Removes images that nobody needs, and the build cache.
pub(crate) fn prune(args: &Prune) -> Outcome<ExitCode> {
    if args.only == Some(Only::Images) {
        return prune_images(args);
    }
    if args.background
        && let Some(alone) = SingleThreaded::check()
    {
        // A pipe that the build was given would stay open for its reader until this process ends.
        close_others(&alone, &[]).unwrap_or_default();
    }
    let rule = rule(args)?;
    let session = session::open_to_remove()?;
    if args.background {
        sweeper::sweep(&session)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A filter or a limit is about the cache; images go only if nothing like that was said.
    let only = args.only.or((rule != Rule::default()).then_some(Only::Cache));
    if !args.force && !confirmed(args, only)? {
        return Ok(ExitCode::from(1));
    }
    let removed = match only {
        None => told(lapstrake_images::prune(&session.store, scope(args.all), &ImageFilter::default())?),
        Some(_) => Vec::new(),
    };
    let items = session.store.collect(std::slice::from_ref(&rule))?;
    report(args, &session, &removed, &items)?;
    Ok(ExitCode::SUCCESS)
}

/// Images alone, with what nothing else needs of them.
fn prune_images(args: &Prune) -> Outcome<ExitCode> {
    let filter = ImageFilter::parse(&args.filter)?;
    if args.has_limit() {
        return Err(Usage("a limit is about the build cache: `--only cache`".to_owned()).into());
    }
    let session = session::open_to_remove()?;
    if !args.force && !confirmed(args, args.only)? {
        return Ok(ExitCode::from(1));
    }
    let (result, items) = prune_with_layers(&session.store, scope(args.all), &filter)?;
    let removed = told(result);
    report(args, &session, &removed, &items)?;
    Ok(ExitCode::SUCCESS)
}

/// Unnamed images, or with `--all` all of them.
fn scope(all: bool) -> PruneScope {
    if all { PruneScope::All } else { PruneScope::Unnamed }
}

/// The images that went. The others that something runs in are told of.
fn told(result: PruneResult) -> Vec<Pruned> {
    result.in_use.iter().for_each(|error| tell!("{error}"));
    result.removed
}

fn report(args: &Prune, session: &Machine, images: &[Pruned], items: &[Item]) -> Outcome<()> {
    let freed: u64 = items.iter().map(|item| item.size).sum();
    let reclaimed = session.store.reclaim()?;
    if args.json {
        let items: Vec<_> = items.iter().map(item_json).collect();
        let ids: Vec<&Digest> = images.iter().map(|image| &image.id).collect();
        say!(
            "{}",
            json!({"Images": ids, "BuildCache": items, "SpaceReclaimed": freed, "Waiting": reclaimed.waiting})
        );
        return Ok(());
    }
    if !images.is_empty() {
        say!("Deleted Images:");
        for image in images {
            for name in &image.names {
                say!("untagged: {name}");
            }
            say!("deleted: {}", image.id);
        }
        say!("");
    }
    // What images had is told by the images.
    if !items.is_empty() && args.only != Some(Only::Images) {
        say!("{}", listed(items).trim_end_matches('\n'));
    }
    say!("Total reclaimed space: {}", bytes(freed));
    if reclaimed.waiting > 0 {
        tell!(
            "{} of these may be in use: they go when the builds and containers that run now have ended",
            reclaimed.waiting
        );
    }
    Ok(())
}

/// The rule of the flags.
fn rule(args: &Prune) -> Result<Rule, Usage> {
    let size = |text: &Option<String>| text.as_deref().map(attrs::size).transpose();
    let limits = Limits {
        reserved: size(&args.keep_storage)?,
        max_used: size(&args.max_used_space)?,
        min_free: size(&args.min_free_space)?,
    };
    Ok(Rule { filter: attrs::cache_filter(&args.filter)?, limits })
}

/// Asks whether that is to be removed.
fn confirmed(args: &Prune, only: Option<Only>) -> Outcome<bool> {
    let chosen = !args.filter.is_empty() || args.has_limit();
    let which = match (only, args.all) {
        (None, true) => "all images, and all build cache",
        (None, false) => "all images without a name, and all build cache that no image has",
        (Some(Only::Images), true) => "all images",
        (Some(Only::Images), false) => "all dangling images",
        (Some(Only::Cache), _) if chosen => "the build cache that the flags choose, if no image has it",
        (Some(Only::Cache), _) => "all build cache that no image has",
    };
    tell!("WARNING! This will remove {which}.");
    if !std::io::stdin().is_terminal() {
        return Err(Usage("cannot ask for confirmation without a terminal: use `--force`".to_owned()).into());
    }
    write!(std::io::stderr(), "Are you sure you want to continue? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
