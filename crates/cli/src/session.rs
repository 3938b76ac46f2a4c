//! The start of every verb that touches state: the namespace and the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_assemble::Document;
use lapstrake_build::Machine;
use lapstrake_diag::{Code, Context as _, Fault, Outcome, Report, Reported, Usage, text};
use lapstrake_oci::{Digest, Platform, Reference};
use lapstrake_outputs::{Bundle, Encoding, Finished, IndexNotes, Manifest, Variant};
use lapstrake_registry::{Credentials, Registries};
use lapstrake_store::{ImageRow, Store, spend_ballast};
use lapstrake_sys::userns::{Asked, Entered, Ids, UsernsError, enter_with};

use crate::env;

/// An image that is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("no such image: {0}")]
pub(crate) struct NoImage(String);

impl NoImage {
    /// The code of its reports.
    pub(crate) const CODE: Code = Code::new("image", "not-found");
}

impl Reported for NoImage {
    fn code(&self) -> Code {
        NoImage::CODE
    }
}

/// The report of a user namespace that cannot be had.
fn no_namespace(error: &UsernsError) -> Report {
    let report = Report::new(text(error)).with_fault(Fault::Environment);
    match error.hint() {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

/// Why layers are copied where an overlay could be mounted.
pub(crate) const BY_WISH: &str = "chosen by LAPSTRAKE_MOUNTS";

/// Enters a user namespace as an ordinary user, then opens the state. Must come before the first thread.
pub(crate) fn open() -> Outcome<Machine> {
    open_at(&root()?)
}

/// As [`open`], for a verb that makes room: it is to work where there is none.
pub(crate) fn open_to_remove() -> Outcome<Machine> {
    let root = root()?;
    spend_ballast(&root);
    open_at(&root)
}

fn root() -> Result<PathBuf, Usage> {
    let is_root = rustix::process::geteuid().is_root();
    env::state_root(is_root).ok_or_else(|| Usage("no state directory: set HOME or LAPSTRAKE_ROOT".to_owned()))
}

fn open_at(root: &Path) -> Outcome<Machine> {
    let mounts = env::mounts();
    match mounts.as_deref() {
        None | Some("" | "copy") => {}
        Some("classic") => lapstrake_snapshot::mount_classically(),
        Some(other) => {
            return Err(Usage(format!("LAPSTRAKE_MOUNTS={other}: not `classic` or `copy`")).into());
        }
    }
    let entered = enter_with(&asked_ids()?).map_err(|error| no_namespace(&error))?;
    let single_id = matches!(entered, Entered::User { ids: Ids::Single { .. } });
    let store = Store::open(root).with_context(|| "cannot open the state directory")?;
    if mounts.as_deref() == Some("copy") {
        store.set_stacking(lapstrake_snapshot::copy(&store, BY_WISH)?);
    }
    Ok(Machine { store: Arc::new(store), single_id })
}

/// The ids of an ordinary user.
pub(crate) fn asked_ids() -> Result<Asked, Usage> {
    let one_id = match env::ids().as_deref() {
        None | Some("") => false,
        Some("one") => true,
        Some(other) => return Err(Usage(format!("LAPSTRAKE_IDS={other}: not `one`"))),
    };
    Ok(Asked { one_id, login_name: env::login_name() })
}

/// The image that a person means: a name, a name with a digest, or the beginning of an id.
pub(crate) fn find_image(store: &Store, name: &str) -> Outcome<ImageRow> {
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

/// As [`find_image`]; if a platform was asked for, the image that is for it.
pub(crate) fn find_for(store: &Store, name: &str, platform: Option<&str>) -> Outcome<ImageRow> {
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

/// As [`find_for`]; where none is asked for, the one that the environment prefers, if that is there.
pub(crate) fn find_to_run(store: &Store, name: &str, platform: Option<&str>) -> Outcome<ImageRow> {
    match (platform, env::default_platform()) {
        (None, Some(preferred)) => {
            find_for(store, name, Some(&preferred)).or_else(|_| find_image(store, name))
        }
        (asked, _) => find_for(store, name, asked),
    }
}

/// As [`find_image`], all that have the name: an image for each platform that it was built for together.
pub(crate) fn find_all(store: &Store, name: &str) -> Outcome<Vec<ImageRow>> {
    let main = find_image(store, name)?;
    let reference = name.parse::<Reference>().ok().filter(|name| name.digest().is_none());
    let ids = reference.map(|name| store.variants(&name)).transpose()?.unwrap_or_default();
    if !ids.contains(&main.id) {
        return Ok(vec![main]);
    }
    let rows = ids.iter().map(|id| Ok(store.image(id)?)).collect::<Outcome<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Stored images, which have one name, as something that can be exported.
pub(crate) fn bundle(store: &Store, rows: &[ImageRow]) -> Outcome<Bundle> {
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

/// `--platform`
pub(crate) fn asked_platform(text: &str) -> Result<Platform, Usage> {
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

/// Registries: who we are to them by Docker's configuration, and how they are reached by ours.
pub(crate) fn registries() -> Registries {
    let credentials = env::docker_config().map_or(Credentials::None, Credentials::Docker);
    Registries { credentials, files: env::settings(), insecure: false, proxies: env::proxies() }
}

fn finished(store: &Store, image: &ImageRow) -> Outcome<Finished> {
    let bytes = store.read_blob(&image.id)?;
    let config = lapstrake_oci::ImageConfig::read(&bytes)?;
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

/// The config of a stored image.
pub(crate) fn config(store: &Store, id: &Digest) -> Outcome<lapstrake_oci::ImageConfig> {
    Ok(lapstrake_oci::ImageConfig::read(&store.read_blob(id)?)?)
}
