//! `lapstrake prune`

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lapstrake_store::{Filter, ItemKind, Limits, Rule, Store, StoreError};
use serde_json::json;

use super::df::{item_json, line};
use super::options::size;
use super::sweeper;
use crate::args::space::Prune;
use crate::exit::Usage;
use crate::rows::size as bytes;
use crate::session::{self, Session};

/// Removes images that nobody needs, and the build cache.
pub(crate) fn prune(args: &Prune) -> anyhow::Result<ExitCode> {
    let rule = rule(args)?;
    let session = session::open_to_remove()?;
    if args.background {
        sweeper::sweep(&session)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A filter or a limit is about the cache; images go only if nothing like that was said.
    let images = rule == Rule::default();
    if !args.force && !confirmed(args.all, images)? {
        return Ok(ExitCode::from(1));
    }
    let removed = if images { remove_images(&session.store, args.all)? } else { Vec::new() };
    report(args, &session, &removed, &rule)?;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Prune, session: &Session, images: &[String], rule: &Rule) -> anyhow::Result<()> {
    let store = &session.store;
    let items = store.collect(std::slice::from_ref(rule))?;
    let freed: u64 = items.iter().map(|item| item.size).sum();
    let reclaimed = store.reclaim()?;
    if args.json {
        let items: Vec<_> = items.iter().map(item_json).collect();
        say!(
            "{}",
            json!({"Images": images, "BuildCache": items, "SpaceReclaimed": freed, "Waiting": reclaimed.waiting})
        );
        return Ok(());
    }
    for image in images {
        say!("Deleted: {image}");
    }
    if !items.is_empty() {
        say!("{:<14} {:<15} {:<9} {:<22} {:<7} DESCRIPTION", "ID", "TYPE", "SIZE", "LAST USED", "SHARED");
    }
    for item in &items {
        say!("{}", line(item));
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

/// What the flags say.
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
            "--filter {text}: not known; there are `until=24h`, `type=TYPE`, `id=ID` and `description~=TEXT`"
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

/// A duration as Go writes it: `1h30m`, also days.
fn seconds(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0i64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let factor = match unit.bytes().next()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = &unit[1..];
    }
    (!text.is_empty()).then_some(total)
}

fn confirmed(all: bool, images: bool) -> anyhow::Result<bool> {
    let which = match (images, all) {
        (true, true) => "all images, and all build cache",
        (true, false) => "all images without a name, and all build cache that no image has",
        (false, _) => "the build cache that the flags choose, if no image has it",
    };
    tell!("WARNING! This will remove {which}.");
    if !std::io::stdin().is_terminal() {
        return Err(Usage("nobody is there to confirm it: say so with `--force`".to_owned()).into());
    }
    write!(std::io::stderr(), "Are you sure you want to continue? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn remove_images(store: &Store, all: bool) -> anyhow::Result<Vec<String>> {
    let tags = store.tags()?;
    let mut removed = Vec::new();
    for image in store.images()? {
        if all || !tags.iter().any(|tag| tag.image == image.id) {
            match store.remove_unused_image(&image.id) {
                Ok(()) => removed.push(image.id.to_string()),
                Err(error @ StoreError::InUse { .. }) => tell!("{error}"),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(seconds("1h30m"), Some(5_400));
        assert_eq!(seconds("2d"), Some(172_800));
        assert!(
            seconds("").is_none()
                && seconds("5").is_none()
                && seconds("h").is_none()
                && seconds("1y").is_none()
        );
    }
}
