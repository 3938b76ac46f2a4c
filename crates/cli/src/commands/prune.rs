//! `lapstrake prune`

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lapstrake_build::Machine;
use lapstrake_diag::{Outcome, Usage};
use lapstrake_go::size::human as bytes;
use lapstrake_oci::{Digest, ImageConfig, Reference};
use lapstrake_store::{Filter, Item, ItemKind, Limits, Rule, Store, StoreError};
use lapstrake_sys::SingleThreaded;
use lapstrake_sys::fd::close_others;
use serde_json::json;

use super::df::{item_json, listed};
use super::listed::{Listed, until};
use super::sweeper;
use crate::args::space::{Only, Prune};
use crate::session;
use lapstrake_build::attrs::{seconds, size};

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
        None => remove_images(&session.store, args.all, &ImageFilter::default())?,
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
    let store = &session.store;
    let of_images = |item: &&Item| item.shared && !item.recorded;
    let before: BTreeSet<String> =
        store.items()?.iter().filter(of_images).map(|item| item.id.clone()).collect();
    let removed = remove_images(store, args.all, &filter)?;
    let left = |item: &Item| !item.shared && !item.recorded && before.contains(&item.id);
    let ids: Vec<String> = store.items()?.into_iter().filter(left).map(|item| item.id).collect();
    // No id would mean all of them.
    let items = match ids.is_empty() {
        true => Vec::new(),
        false => store.collect(&[Rule { filter: Filter { ids, ..Filter::default() }, ..Rule::default() }])?,
    };
    report(args, &session, &removed, &items)?;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Prune, session: &Machine, images: &[Removed], items: &[Item]) -> Outcome<()> {
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

/// The images that may be removed.
#[derive(Debug, Default)]
struct ImageFilter {
    /// Made before this.
    until: Option<jiff::Timestamp>,
    /// Labels that they have, or have not.
    labels: Vec<(bool, String, Option<String>)>,
}

impl ImageFilter {
    fn parse(texts: &[String]) -> Result<ImageFilter, Usage> {
        let mut filter = ImageFilter::default();
        for text in texts {
            let bad = |why: &str| Usage(format!("--filter {text}: {why}"));
            let label = |wanted: bool, value: &str| match value.split_once('=') {
                Some((key, value)) => (wanted, key.to_owned(), Some(value.to_owned())),
                None => (wanted, value.to_owned(), None),
            };
            match text.split_once('=') {
                Some(("until", time)) => {
                    let time = until(time);
                    filter.until = Some(time.ok_or_else(|| bad("neither a time nor a duration: try `24h`"))?);
                }
                Some(("label", value)) => filter.labels.push(label(true, value)),
                Some(("label!", value)) => filter.labels.push(label(false, value)),
                _ => {
                    return Err(bad(
                        "unknown filter of images: use `until=24h`, `label=KEY[=VALUE]` or `label!=KEY[=VALUE]`",
                    ));
                }
            }
        }
        Ok(filter)
    }

    fn takes(&self, config: &ImageConfig) -> bool {
        let made = config.created.as_ref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        self.until.is_none_or(|until| made.is_some_and(|made| made < until))
            && self.labels.iter().all(|(wanted, key, value)| {
                let found = config.config.labels.get(key);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found)) == *wanted
            })
    }
}

/// The rule of the flags.
fn rule(args: &Prune) -> Result<Rule, Usage> {
    let limit = |text: &Option<String>| text.as_deref().map(size).transpose();
    let limits = Limits {
        reserved: limit(&args.keep_storage)?,
        max_used: limit(&args.max_used_space)?,
        min_free: limit(&args.min_free_space)?,
    };
    let mut filter = Filter::default();
    for text in &args.filter {
        add(&mut filter, text)?;
    }
    Ok(Rule { filter, limits })
}

fn add(filter: &mut Filter, text: &str) -> Result<(), Usage> {
    let unknown = || {
        Usage(format!(
            "--filter {text}: unknown filter: use `until=24h`, `type=TYPE`, `id=ID` or `description~=TEXT`"
        ))
    };
    let (key, value) = text.split_once('=').ok_or_else(unknown)?;
    match key {
        "until" => {
            filter.unused_for = seconds(value)
                .ok_or_else(|| Usage(format!("--filter {text}: not a duration: try `24h` or `30m`")))?;
        }
        "type" => {
            let kind = ItemKind::ALL.into_iter().find(|kind| kind.name() == value);
            let names = ItemKind::ALL.map(ItemKind::name).join("`, `");
            filter.kinds.push(kind.ok_or_else(|| Usage(format!("--filter {text}: there are `{names}`")))?);
        }
        "id" => filter.ids.push(value.to_owned()),
        "description~" => filter.descriptions.push(value.to_owned()),
        _ => return Err(unknown()),
    }
    Ok(())
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

/// An image that went.
struct Removed {
    id: Digest,
    names: Vec<String>,
}

fn remove_images(store: &Store, all: bool, filter: &ImageFilter) -> Outcome<Vec<Removed>> {
    let mut removed = Vec::new();
    for Listed { row, config, tags, .. } in Listed::all(store)? {
        if !(all || tags.is_empty()) || !filter.takes(&config) {
            continue;
        }
        match store.remove_unused_image(&row.id) {
            Ok(()) => {
                let names = tags.iter().map(Reference::familiar).collect();
                removed.push(Removed { id: row.id, names });
            }
            Err(error @ StoreError::InUse { .. }) => tell!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}
