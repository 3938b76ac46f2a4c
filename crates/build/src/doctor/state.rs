//! Whether what the state directory holds is still what was put there, and what can be done where it is not.

use std::path::Path;

use lapstrake_diag::text;
use lapstrake_oci::Digest;
use lapstrake_snapshot::{damage, readopt};
use lapstrake_store::{LayerId, Store, StoreError, restore_superblock, set_database_aside};

use super::{Finding, State, finding};

const REPAIR: &str = "`lapstrake doctor --repair` drops damaged objects; builds make them again";

/// Reads everything in the state directory at `root`; with `repair`, drops what is damaged.
pub(super) fn check(root: &Path, repair: bool) -> Vec<Finding> {
    let store = match opened(root, repair) {
        Ok((store, findings)) if findings.is_empty() => store,
        Ok((_, findings)) if !repair => return findings,
        Ok((store, mut findings)) => {
            findings.extend(contents(&store, repair));
            return findings;
        }
        Err(error) => {
            return vec![damaged("state", text(&error), repair)];
        }
    };
    contents(&store, repair)
}

fn damaged(name: &'static str, detail: String, repair: bool) -> Finding {
    let state = if repair { State::Limited } else { State::Missing };
    let hint = (!repair).then(|| REPAIR.to_owned());
    Finding { hint, ..finding(name, state, detail) }
}

/// Opens the directory, and makes it one that can be opened if that is asked for.
fn opened(root: &Path, repair: bool) -> Result<(Store, Vec<Finding>), StoreError> {
    let mut findings = Vec::new();
    let store = loop {
        let error = match Store::open(root) {
            Ok(store) => break store,
            Err(error) if !repair || findings.len() > 2 => return Err(error),
            Err(error) => error,
        };
        match &error {
            StoreError::Superblock { .. } => {
                restore_superblock(root).or_else(|error| match error {
                    // One thing after the other.
                    StoreError::Database { .. } => Ok(()),
                    other => Err(other),
                })?;
                findings.push(damaged("superblock", "written again".to_owned(), true));
            }
            StoreError::Database { .. } => findings.push(fresh_database(root)?),
            _ => return Err(error),
        }
    };
    let wrong = store.check_database().unwrap_or_else(|error| vec![text(&error)]);
    if wrong.is_empty() {
        if !findings.is_empty() {
            let count = readopt(&store).unwrap_or(0);
            findings.push(damaged("layers", format!("{count} taken into the new database"), true));
        }
        return Ok((store, findings));
    }
    if !repair {
        findings.push(damaged("database", wrong.join("; "), false));
        return Ok((store, findings));
    }
    drop(store);
    findings.push(fresh_database(root)?);
    let store = Store::open(root)?;
    let count = readopt(&store).unwrap_or(0);
    findings.push(damaged("layers", format!("{count} taken into the new database"), true));
    Ok((store, findings))
}

fn fresh_database(root: &Path) -> Result<Finding, StoreError> {
    let aside = set_database_aside(root)?;
    let detail = format!(
        "made again: its images and records are lost, and must be built or pulled again; the damaged database is `{}`",
        aside.display()
    );
    Ok(damaged("database", detail, true))
}

/// Layers and images.
fn contents(store: &Store, repair: bool) -> Vec<Finding> {
    let mut findings = vec![finding("database", State::Ok, "whole")];
    match layers(store, repair) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(damaged("layers", text(&error), false)),
    }
    match blobs(store, repair) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(damaged("blobs", text(&error), false)),
    }
    match images(store, repair) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(damaged("images", text(&error), false)),
    }
    findings
}

fn layers(store: &Store, repair: bool) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    // What is pruned is nobody's loss, and those who use it have it until they end.
    let condemned = store.tombstoned_layers()?;
    let all: Vec<LayerId> =
        store.layers_on_disk()?.into_iter().filter(|id| !condemned.contains(id)).collect();
    for id in &all {
        let Some(why) = damage(store, id) else { continue };
        let mut detail = format!("{id}: {why}");
        if repair {
            let images = store.forget_layer(id)?;
            detail.push_str("; dropped");
            for image in images {
                detail.push_str(&format!(", with image {}", image.short()));
            }
        }
        findings.push(damaged("layer", detail, repair));
    }
    if findings.is_empty() {
        findings.push(finding("layers", State::Ok, format!("{} are whole", all.len())));
    }
    Ok(findings)
}

fn blobs(store: &Store, repair: bool) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for digest in store.damaged_blobs()? {
        let mut detail = format!("{digest}: the content does not match the digest");
        if repair {
            let images = store.forget_blob(&digest)?;
            detail.push_str("; dropped");
            for image in images {
                detail.push_str(&format!(", with image {}", image.short()));
            }
        }
        findings.push(damaged("blob", detail, repair));
    }
    if findings.is_empty() {
        findings.push(finding("blobs", State::Ok, "all are whole"));
    }
    Ok(findings)
}

/// Whether images have their documents.
fn images(store: &Store, repair: bool) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let all = store.images()?;
    for image in &all {
        let documents: Vec<&Digest> = std::iter::once(&image.id).chain(&image.manifest).collect();
        let Some(error) = documents.into_iter().find_map(|digest| store.read_blob(digest).err()) else {
            continue;
        };
        let mut detail = format!("{}: {}", image.id.short(), text(&error));
        if repair {
            store.remove_image(&image.id)?;
            detail.push_str("; dropped");
        }
        findings.push(damaged("image", detail, repair));
    }
    if findings.is_empty() {
        findings.push(finding("images", State::Ok, format!("{} are whole", all.len())));
    }
    Ok(findings)
}
