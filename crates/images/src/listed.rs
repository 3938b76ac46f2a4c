//! The images in the store with their names, and which of them are meant.

use lapstrake_diag::{Outcome, Usage};
use lapstrake_oci::{ImageConfig, Reference};
use lapstrake_store::{ImageRow, Store};
use lapstrake_tree::ignore::path_match;
use serde_json::{Value, json};

use crate::stored::{config, find_image};

/// A stored image and what it is called.
pub struct Listed {
    /// The image.
    pub row: ImageRow,
    /// The document that the id is the digest of.
    pub config: ImageConfig,
    /// Names with tags.
    pub tags: Vec<Reference>,
    /// Names with digests.
    pub digests: Vec<Reference>,
}

impl Listed {
    /// The image `row` with all of its names.
    pub fn new(store: &Store, row: ImageRow) -> Outcome<Listed> {
        let config = config(store, &row.id)?;
        let of = |tag: lapstrake_store::TagRow| (tag.image == row.id).then_some(tag.reference);
        let tags = store.tags()?.into_iter().filter_map(of).collect();
        let digests = store.digests()?.into_iter().filter_map(of).collect();
        Ok(Listed { row, config, tags, digests })
    }

    /// All images of the state directory, the youngest first.
    pub fn all(store: &Store) -> Outcome<Vec<Listed>> {
        let (tags, digests) = (store.tags()?, store.digests()?);
        let mut all = Vec::new();
        for row in store.images()? {
            let config = config(store, &row.id)?;
            let of = |names: &[lapstrake_store::TagRow]| {
                names.iter().filter(|name| name.image == row.id).map(|name| name.reference.clone()).collect()
            };
            all.push(Listed { tags: of(&tags), digests: of(&digests), config, row });
        }
        all.sort_by(|a, b| b.config.created.cmp(&a.config.created));
        Ok(all)
    }
}

/// An image in the fields of `docker inspect`. Fields of the config that are not set are there all the same, so that a
/// template can name them.
///
/// # Errors
/// The config cannot be written as JSON.
pub fn inspect_document(image: &Listed) -> Outcome<Value> {
    let config = &image.config;
    let names = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    let mut of_containers = json!({"User": "", "ExposedPorts": {}, "Env": [], "Entrypoint": [], "Cmd": [],
        "Volumes": {}, "WorkingDir": "", "Labels": {}, "StopSignal": "", "OnBuild": [], "Shell": [],
        "Healthcheck": null});
    if let (Value::Object(all), Value::Object(set)) =
        (&mut of_containers, serde_json::to_value(&config.config)?)
    {
        all.extend(set);
    }
    Ok(json!({
        "Id": image.row.id,
        "RepoTags": names(&image.tags),
        "RepoDigests": names(&image.digests),
        "Comment": config.history.last().map_or("", |row| &row.comment),
        "Created": config.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": image.row.size,
        "Config": of_containers,
        "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
    }))
}

/// Docker's word for a part of a name that is not there.
const NONE: &str = "<none>";

/// A row of a list of images: repository, tag and digest.
pub type NameRow = (String, String, String);

/// Repository, tag and digest for each row of an image; with `digests` a row for each digest.
#[must_use]
pub fn name_rows(image: &Listed, digests: bool) -> Vec<NameRow> {
    let mut rows = Vec::new();
    let of = |name: &Reference| name.digest().map_or(NONE.to_owned(), ToString::to_string);
    for tag in &image.tags {
        let repository = tag.familiar_name();
        let own: Vec<&Reference> =
            image.digests.iter().filter(|digest| digest.familiar_name() == repository).collect();
        let tag = tag.tag().unwrap_or(NONE).to_owned();
        match own.as_slice() {
            some @ [_, ..] if digests => {
                rows.extend(some.iter().map(|digest| (repository.clone(), tag.clone(), of(digest))));
            }
            _ => rows.push((repository, tag, NONE.to_owned())),
        }
    }
    let named =
        |digest: &&Reference| !image.tags.iter().any(|tag| tag.familiar_name() == digest.familiar_name());
    for digest in image.digests.iter().filter(named) {
        let row = (digest.familiar_name(), NONE.to_owned(), of(digest));
        if digests || !rows.contains(&row) {
            rows.push(row);
        }
    }
    if !digests {
        rows.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    }
    if rows.is_empty() {
        rows.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    rows
}

/// One `--filter`. An image is listed if all of them hold.
#[derive(Debug, PartialEq)]
enum Filter {
    Dangling(bool),
    Label(String, Option<String>),
    Before(String),
    Since(String),
    Reference(String),
}

/// The images that a filter selects.
#[derive(Debug, Default)]
pub struct Filters {
    all: Vec<Filter>,
    /// Patterns for names: any of them will do.
    patterns: Vec<String>,
}

impl Filters {
    /// Reads `--filter`s and the pattern that stands for itself.
    pub fn parse(store: &Store, texts: &[String], pattern: Option<&str>) -> Outcome<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            match filter(store, text)? {
                Filter::Reference(pattern) => filters.patterns.push(pattern),
                filter => filters.all.push(filter),
            }
        }
        filters.patterns.extend(pattern.map(str::to_owned));
        Ok(filters)
    }

    /// Whether the image is meant; of one that is, only the names that fit stay.
    pub fn keep(&self, image: &mut Listed) -> bool {
        let holds = self.all.iter().all(|filter| match filter {
            Filter::Dangling(wanted) => image.tags.is_empty() == *wanted,
            Filter::Label(key, value) => {
                let found = image.config.config.labels.get(key);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Filter::Before(time) => image.config.created.as_ref().is_some_and(|made| made < time),
            Filter::Since(time) => image.config.created.as_ref().is_some_and(|made| made > time),
            Filter::Reference(_) => true,
        });
        if !holds || self.patterns.is_empty() {
            return holds;
        }
        let fits = |name: &Reference| self.patterns.iter().any(|pattern| named(pattern, name));
        image.tags.retain(fits);
        image.digests.retain(fits);
        !image.tags.is_empty() || !image.digests.is_empty()
    }
}

fn filter(store: &Store, text: &str) -> Outcome<Filter> {
    let bad = |why: &str| Usage(format!("--filter {text}: {why}"));
    let (key, value) = text.split_once('=').ok_or_else(|| bad("not KEY=VALUE"))?;
    let made = |image: &str| -> Outcome<String> {
        Ok(config(store, &find_image(store, image)?.id)?.created.unwrap_or_default())
    };
    Ok(match key {
        "dangling" => match value {
            "true" | "1" => Filter::Dangling(true),
            "false" | "0" => Filter::Dangling(false),
            _ => return Err(bad("neither true nor false").into()),
        },
        "label" => match value.split_once('=') {
            Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        },
        "before" => Filter::Before(made(value)?),
        "since" => Filter::Since(made(value)?),
        "until" => {
            let time =
                until(value).ok_or_else(|| bad("not a time as 2025-01-31T12:00:00Z, nor one as 24h"))?;
            Filter::Before(time.to_string())
        }
        "reference" => Filter::Reference(value.to_owned()),
        _ => return Err(bad("not one of before, dangling, label, reference, since, until").into()),
    })
}

/// A time as people write it: how long ago it was, seconds since 1970, a day, or a whole time.
pub fn until(text: &str) -> Option<jiff::Timestamp> {
    if let Some(seconds) = lapstrake_go::duration::seconds(text) {
        return jiff::Timestamp::from_second(jiff::Timestamp::now().as_second().checked_sub(seconds)?).ok();
    }
    if let Ok(seconds) = text.parse() {
        return jiff::Timestamp::from_second(seconds).ok();
    }
    let of_day =
        |at: jiff::civil::DateTime| Some(at.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp());
    text.parse().ok().or_else(|| of_day(text.parse().ok()?))
}

/// Whether a pattern fits a name, with its tag or without, as people write it.
fn named(pattern: &str, name: &Reference) -> bool {
    path_match(pattern, &name.familiar()) || path_match(pattern, &name.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_many_ways() {
        let at = |text: &str| until(text).map(jiff::Timestamp::as_second);
        assert_eq!(at("2025-01-31T12:00:00Z"), Some(1_738_324_800));
        assert_eq!(at("2025-01-31T13:00:00+01:00"), Some(1_738_324_800));
        assert_eq!(at("1738324800"), Some(1_738_324_800));
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 5_402..=now - 5_400).contains(&at("1h30m").unwrap()));
        assert!(at("2025-01-31").is_some() && at("2025-01-31T12:00:00").is_some());
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn patterns_of_names() {
        for (pattern, name, fits) in [
            ("busybox", "busybox", true),
            ("busybox:*", "busybox:1.36", true),
            ("busy*", "busybox", true),
            ("*box", "busybox", true),
            ("b?sybox", "busybox", true),
            ("b[a-u]sybox", "busybox", true),
            ("b[^u]sybox", "busybox", false),
            ("team/*", "team/app", true),
            ("*", "team/app", false),
            ("*/*", "team/app", true),
            ("team", "team/app", false),
            ("local*:5000/*", "localhost:5000/app", true),
        ] {
            assert_eq!(named(pattern, &name.parse().unwrap()), fits, "{pattern} {name}");
        }
        let (stars, text) = ("*a".repeat(40), "a".repeat(39));
        assert!(!path_match(&stars, &text));
    }
}
