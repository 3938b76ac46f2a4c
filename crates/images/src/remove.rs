//! Images taken out of the state directory: by name, or because nobody needs them.

use std::collections::BTreeSet;

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_oci::{Digest, ImageConfig, Reference};
use lapstrake_store::{Filter, ImageRow, Item, Rule, Store, StoreError};

use crate::listed::{Listed, until};
use crate::stored::{find_all, find_for};

/// A part of an image that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name, as Docker writes it.
    Name(String),
    /// The image itself.
    Image(Digest),
}

/// How [`remove_named`] removes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removing<'a> {
    /// Of a name that images for several platforms have, only the one for this.
    pub platform: Option<&'a str>,
    /// Take an image away from all of its names.
    pub force: bool,
}

/// Removes what `name` means: a name of an image, and the image with its last name. `gone` gets each part as it goes.
///
/// # Errors
/// There is no such image, something runs in it, or it has more names than `how` allows.
pub fn remove_named(store: &Store, name: &str, how: Removing<'_>, gone: &mut Vec<Removed>) -> Outcome<()> {
    let all = find_all(store, name)?;
    match (how.platform, all.len()) {
        (_, 1) => {}
        (None, _) => return remove_variants(store, name, all, gone),
        (Some(platform), _) => {
            let image = Listed::new(store, find_for(store, name, Some(platform))?)?;
            if image.tags.len() > 1 && !how.force {
                let id = image.row.id.short();
                return Err(Report::new(format!(
                    "image {id} has more than one name: use --force to take it away from all of them"
                )));
            }
            store.remove_unused_image(&image.row.id)?;
            gone.push(Removed::Image(image.row.id));
            return Ok(());
        }
    }
    let image = Listed::new(store, find_for(store, name, how.platform)?)?;
    let all = || image.tags.iter().chain(&image.digests);
    let named = name.parse::<Reference>().ok().and_then(|name| all().find(|own| **own == name));
    match named {
        // As in Docker, force is for ids: a name takes itself away, and no other one.
        Some(reference) if all().count() > 1 && others(&image, reference) => {
            store.untag(reference)?;
            gone.push(Removed::Name(reference.familiar()));
            // Digests of a repository go with its last tag.
            let own = |other: &&Reference| other.familiar_name() == reference.familiar_name();
            let last = !image.tags.iter().filter(own).any(|tag| tag != reference);
            for digest in image.digests.iter().filter(own).filter(|digest| last && *digest != reference) {
                store.untag(digest)?;
                gone.push(Removed::Name(digest.familiar()));
            }
            Ok(())
        }
        None if image.tags.len() > 1 && !how.force => {
            let id = image.row.id.short();
            Err(Report::new(format!("image {id} has more than one name: name one of them, or use --force")))
        }
        _ => {
            store.remove_unused_image(&image.row.id)?;
            gone.extend(all().map(|name| Removed::Name(name.familiar())));
            gone.push(Removed::Image(image.row.id.clone()));
            Ok(())
        }
    }
}

/// Takes a name away from the images for all platforms, and removes those that have no other.
fn remove_variants(store: &Store, name: &str, all: Vec<ImageRow>, told: &mut Vec<Removed>) -> Outcome<()> {
    let reference: Reference = name.parse().map_err(|error| Usage(format!("`{name}`: {error}")))?;
    let all = all.into_iter().map(|row| Listed::new(store, row)).collect::<Outcome<Vec<_>>>()?;
    let (gone, staying): (Vec<_>, Vec<_>) =
        all.iter().partition(|image| image.tags.iter().all(|tag| *tag == reference));
    if let Some(image) = gone.iter().find(|image| store.is_pinned(&image.row.id).unwrap_or(false)) {
        // Who runs something in it is told by this, before anything is taken away.
        store.remove_unused_image(&image.row.id)?;
    }
    for image in &gone {
        store.remove_unused_image(&image.row.id)?;
    }
    if !staying.is_empty() {
        store.untag(&reference)?;
    }
    let names = gone.iter().flat_map(|image| image.tags.iter().chain(&image.digests)).chain([&reference]);
    told.extend(names.map(Reference::familiar).collect::<BTreeSet<String>>().into_iter().map(Removed::Name));
    told.extend(gone.iter().map(|image| Removed::Image(image.row.id.clone())));
    Ok(())
}

/// Whether an image keeps a name that a person gave it when `gone` goes; the digests of a registry do not count.
fn others(image: &Listed, gone: &Reference) -> bool {
    if gone.digest().is_some() { !image.tags.is_empty() } else { image.tags.len() > 1 }
}

/// The images that may be pruned.
#[derive(Debug, Default)]
pub struct ImageFilter {
    /// Made before this.
    until: Option<jiff::Timestamp>,
    /// Labels that they have, or have not.
    labels: Vec<(bool, String, Option<String>)>,
}

impl ImageFilter {
    /// Reads the values of `--filter`.
    ///
    /// # Errors
    /// A filter that is not known, or its value.
    pub fn parse(texts: &[String]) -> Result<ImageFilter, Usage> {
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

/// An image that was pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The image's id.
    pub id: Digest,
    /// The names that the image had.
    pub names: Vec<String>,
}

/// The result of [`prune`].
#[derive(Debug, Default)]
pub struct PruneResult {
    /// The images that went.
    pub removed: Vec<Pruned>,
    /// Why the others that fit the filter stay: something runs in them.
    pub in_use: Vec<StoreError>,
}

/// The images that [`prune`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// Images without a name.
    Unnamed,
    /// Also images that a registry is known to have, as base images of builds.
    Fetchable,
    /// All images.
    All,
}

/// Removes the images in `scope` that fit `filter`.
///
/// # Errors
/// An image cannot be removed for another reason than that it is in use.
pub fn prune(store: &Store, scope: PruneScope, filter: &ImageFilter) -> Outcome<PruneResult> {
    let mut result = PruneResult::default();
    for Listed { row, config, tags, digests, .. } in Listed::all(store)? {
        let inside = match scope {
            PruneScope::Unnamed => tags.is_empty(),
            PruneScope::Fetchable => tags.is_empty() || !digests.is_empty(),
            PruneScope::All => true,
        };
        if !inside || !filter.takes(&config) {
            continue;
        }
        match store.remove_unused_image(&row.id) {
            Ok(()) => {
                let names = tags.iter().map(Reference::familiar).collect();
                result.removed.push(Pruned { id: row.id, names });
            }
            Err(error @ StoreError::InUse { .. }) => result.in_use.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(result)
}

/// As [`prune`], with the layers that nothing else needs: the second value lists them.
///
/// # Errors
/// As [`prune`], and a layer that cannot be removed.
pub fn prune_with_layers(
    store: &Store,
    scope: PruneScope,
    filter: &ImageFilter,
) -> Outcome<(PruneResult, Vec<Item>)> {
    let of_images = |item: &&Item| item.shared && !item.recorded;
    let before: BTreeSet<String> =
        store.items()?.iter().filter(of_images).map(|item| item.id.clone()).collect();
    let result = prune(store, scope, filter)?;
    let left = |item: &Item| !item.shared && !item.recorded && before.contains(&item.id);
    let ids: Vec<String> = store.items()?.into_iter().filter(left).map(|item| item.id).collect();
    // No id would mean all of them.
    let items = match ids.is_empty() {
        true => Vec::new(),
        false => store.collect(&[Rule { filter: Filter { ids, ..Filter::default() }, ..Rule::default() }])?,
    };
    Ok((result, items))
}
