//! Images in the state directory: found by the names that people give them, and made ready to be exported.

use std::sync::Arc;

use lapstrake_assemble::Document;
use lapstrake_diag::{Code, Outcome, Report, Reported, Usage};
use lapstrake_oci::{Digest, History, ImageConfig, Platform, Reference};
use lapstrake_outputs::{Bundle, Encoding, Finished, IndexNotes, Manifest, Variant};
use lapstrake_store::{ImageRow, Store};

/// An image that is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("no such image: {0}")]
pub struct NoImage(String);

impl NoImage {
    /// The code of reports of this error.
    pub const CODE: Code = Code::new("image", "not-found");
}

impl Reported for NoImage {
    fn code(&self) -> Code {
        NoImage::CODE
    }
}

/// The image that a person means: a name, a name with a digest, or the beginning of an id.
///
/// # Errors
/// [`NoImage`], or the beginning of several ids.
pub fn find_image(store: &Store, name: &str) -> Outcome<ImageRow> {
    if let Ok(reference) = name.parse::<Reference>()
        && let Some(row) = by_reference(store, &reference)?
    {
        return Ok(row);
    }
    let wanted = name.strip_prefix("sha256:").unwrap_or(name);
    let wanted = wanted.to_ascii_lowercase();
    let is_id = !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let rows = if is_id { store.images()? } else { Vec::new() };
    let mut found = rows.into_iter().filter(|row| row.id.hex().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => {
            Err(Usage(format!("`{name}` is the beginning of more than one image id")).into())
        }
        (None, _) => Err(NoImage(name.to_owned()).into()),
    }
}

/// As [`find_image`]; with a platform, the image of that name for the platform.
///
/// # Errors
/// As [`find_image`], and for a name that has no image for the platform.
pub fn find_for(store: &Store, name: &str, platform: Option<&str>) -> Outcome<ImageRow> {
    let Some(platform) = platform else { return find_image(store, name) };
    let (asked, mut found) = (asked_platform(platform)?, Vec::new());
    for row in find_all(store, name)? {
        let has = config(store, &row.id)?.platform();
        if asked.accepts(&has) {
            return Ok(row);
        }
        found.push(has.to_string());
    }
    let text = format!("image `{name}` is for {}, not {platform}", found.join(", "));
    let hint = format!("`lapstrake pull --platform {platform}` brings the other one, under the same name");
    Err(Report::new(text).with_hint(hint))
}

/// As [`find_image`], all images that have the name: one for each platform that they were built for together.
///
/// # Errors
/// As [`find_image`].
pub fn find_all(store: &Store, name: &str) -> Outcome<Vec<ImageRow>> {
    let main = find_image(store, name)?;
    let reference = name.parse::<Reference>().ok().filter(|name| name.digest().is_none());
    let ids = reference.map(|name| store.variants(&name)).transpose()?.unwrap_or_default();
    if !ids.contains(&main.id) {
        return Ok(vec![main]);
    }
    let rows = ids.iter().map(|id| Ok(store.image(id)?)).collect::<Outcome<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Stored images of one name, in the form that exporters take.
///
/// # Errors
/// A document cannot be read, or a layer was pruned.
pub fn bundle(store: &Store, rows: &[ImageRow]) -> Outcome<Bundle> {
    let variant = |row: &ImageRow| {
        let image = finished(store, row)?;
        // As the build that made an index of them had it.
        let platform = image.config.platform().normalised();
        Ok(Variant { platform, image: Arc::new(image), encoding: Encoding::default() })
    };
    let variants = rows.iter().map(variant).collect::<Outcome<Vec<_>>>()?;
    let index = (rows.len() > 1).then(IndexNotes::default);
    Ok(Bundle { variants, index })
}

/// The platform that `text` names, as `--platform` has it.
///
/// # Errors
/// It names none.
pub fn asked_platform(text: &str) -> Result<Platform, Usage> {
    text.parse().map_err(|error| Usage(format!("--platform {text}: {error}")))
}

fn by_reference(store: &Store, reference: &Reference) -> Outcome<Option<ImageRow>> {
    if let Some(digest) = reference.digest() {
        if let Some(id) = store.by_digest(&reference.pinned(digest.clone()))? {
            return Ok(store.image(&id)?);
        }
        let by_manifest = store.image_by_manifest(digest)?;
        return Ok(match by_manifest {
            Some(row) => Some(row),
            None => store.image(digest)?,
        });
    }
    match store.tagged(reference)? {
        Some(id) => Ok(store.image(&id)?),
        None => Ok(None),
    }
}

fn finished(store: &Store, image: &ImageRow) -> Outcome<Finished> {
    let bytes = store.read_blob(&image.id)?;
    let config = ImageConfig::read(&bytes)?;
    let layers = &image.layers;
    if let Some(missing) = layers.iter().find(|layer| !store.has_layer(&layer.id)) {
        return Err(Report::new(format!(
            "layer {} of image {} is not in the store any more",
            missing.id,
            image.id.short()
        )));
    }
    let clamps = layers.iter().map(|layer| layer.clamp).collect();
    let layers: Vec<_> =
        layers.iter().map(|layer| layer.id.clone()).zip(config.rootfs.diff_ids.iter().cloned()).collect();
    let document = Document::new(bytes);
    // One that was pruned is made anew.
    let came = image.manifest.as_ref().and_then(|manifest| store.read_blob(manifest).ok()).map(Manifest::of);
    Ok(Finished { config, document, below: Vec::new(), layers, clamps, came })
}

/// The config of the stored image `id`.
///
/// # Errors
/// The config cannot be read.
pub fn config(store: &Store, id: &Digest) -> Outcome<ImageConfig> {
    Ok(ImageConfig::read(&store.read_blob(id)?)?)
}

/// The rows of the history of `image`, oldest first, each with the bytes of its layer.
///
/// # Errors
/// The config cannot be read.
pub fn history(store: &Store, image: &ImageRow) -> Outcome<Vec<(History, u64)>> {
    let mut sizes = Vec::new();
    for layer in &image.layers {
        sizes.push(store.layer(&layer.id)?.map_or(0, |row| row.size));
    }
    let mut sizes = sizes.into_iter();
    let rows = config(store, &image.id)?.history.into_iter();
    Ok(rows
        .map(|row| {
            let size = if row.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
            (row, size)
        })
        .collect())
}

/// An image that is saved, with all images of its name.
pub struct Selected {
    /// The image, in the form that exporters take.
    pub bundle: Bundle,
    /// The names by which it was asked for.
    pub names: Vec<Reference>,
}

/// The images that `wanted` names, each once. Without a platform, all that have a name are one bundle.
///
/// # Errors
/// As [`find_for`] and [`bundle`].
pub fn select(store: &Store, wanted: &[String], platform: Option<&str>) -> Outcome<Vec<Selected>> {
    let (mut known, mut selected): (Vec<Vec<ImageRow>>, Vec<Selected>) = (Vec::new(), Vec::new());
    for text in wanted {
        let rows = match platform {
            Some(_) => vec![find_for(store, text, platform)?],
            None => find_all(store, text)?,
        };
        let number = match known.iter().position(|other| *other == rows) {
            Some(number) => number,
            None => {
                selected.push(Selected { bundle: bundle(store, &rows)?, names: Vec::new() });
                known.push(rows);
                known.len() - 1
            }
        };
        let names = &mut selected[number].names;
        names.extend(tag_named(store, text)?.filter(|name| !names.contains(name)));
    }
    Ok(selected)
}

/// An id is no name, and an image saved by it has none.
fn tag_named(store: &Store, text: &str) -> Outcome<Option<Reference>> {
    let Some(name) = text.parse::<Reference>().ok().filter(|name| name.digest().is_none()) else {
        return Ok(None);
    };
    Ok(store.tagged(&name)?.map(|_| name))
}

/// The names with tags of the repository `repository`, as Docker writes it. A name of images for several platforms is there once.
///
/// # Errors
/// The state directory cannot be read.
pub fn tags_of(store: &Store, repository: &str) -> Outcome<Vec<Reference>> {
    let mine = |tag: &Reference| tag.digest().is_none() && tag.familiar_name() == repository;
    let mut tags: Vec<_> = store.tags()?.into_iter().map(|tag| tag.reference).filter(mine).collect();
    tags.dedup();
    Ok(tags)
}

/// The name that a registry could know an image by; `None` for an id and its beginning.
#[must_use]
pub fn registry_name(text: &str) -> Option<Reference> {
    let is_id = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id || text.starts_with("sha256:") { None } else { text.parse().ok() }
}
