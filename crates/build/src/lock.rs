//! `lapstrake.lock`: which images a Dockerfile's names meant when it was first built, for `--locked` and `--hermetic`.
//!
//! A name that is in the file means what the file says, whatever the registry says by now. What is fetched from the web
//! has its pin in the Dockerfile itself (`ADD --checksum`, a commit), and must have one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::{Context as _, Outcome, Report, Usage};
use lapstrake_graph::{Edge, Exec, Graph, NetworkMode, Op, Plan, Source};
use lapstrake_lower::ImageRequest;
use lapstrake_oci::{Digest, Platform, Reference};
use lapstrake_request::{BuildRequest, PinRequest};
use serde::{Deserialize, Serialize};

use crate::sink::to_file;

/// The file's name, beside the Dockerfile.
const NAME: &str = "lapstrake.lock";
const VERSION: u32 = 1;
/// Of a commit in hex: SHA-1 or SHA-256.
const COMMIT: [usize; 2] = [40, 64];

/// The file's content. Keys are a reference and a platform.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    images: BTreeMap<String, Digest>,
}

/// The lock of a build with `--locked` or `--hermetic`.
pub struct Lock {
    path: PathBuf,
    /// `None` where there is no file yet.
    known: Option<Content>,
    /// Whether it must have everything already.
    locked: bool,
    /// Whether steps may have no network.
    hermetic: bool,
}

impl Lock {
    /// `None` where neither flag is given.
    pub fn open(request: &BuildRequest) -> Outcome<Option<Lock>> {
        let PinRequest { locked, hermetic } = request.pins;
        if !locked && !hermetic {
            return Ok(None);
        }
        let own =
            request.dockerfile.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
        let dir = own.unwrap_or(&request.context);
        if !dir.is_dir() {
            let text =
                "--locked and --hermetic need a Dockerfile in a directory, for `lapstrake.lock` beside it";
            return Err(Usage(text.to_owned()).into());
        }
        let path = dir.join(NAME);
        let known = match fs::read(&path) {
            Ok(bytes) => Some(parse(&bytes).with_context(|| format!("cannot use `{}`", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        Ok(Some(Lock { path, known, locked, hermetic }))
    }

    /// The image that is asked for, by the digest that the file has.
    pub fn pinned(&self, request: &ImageRequest) -> Reference {
        let pin = self
            .known
            .as_ref()
            .and_then(|known| known.images.get(&key(&request.reference.to_string(), &request.platform)));
        pin.map_or_else(|| request.reference.clone(), |digest| request.reference.pinned(digest.clone()))
    }

    /// The note for an image that cannot be had, if the file pins the image.
    pub fn told(&self, request: &ImageRequest) -> Option<String> {
        let pinned = self.pinned(request);
        let digest = pinned.digest().filter(|digest| request.reference.digest() != Some(digest))?;
        let (shown, name) = (self.path.display(), request.reference.familiar());
        Some(format!("`{shown}` pins {name} to {digest}: remove its line to take the current image"))
    }

    /// Refuses what is not pinned, then writes down what is new.
    pub fn hold(&self, plan: &Plan) -> Outcome<()> {
        let mut now = Content { version: VERSION, images: BTreeMap::new() };
        for target in &plan.targets {
            self.look(&plan.graph, target.edge, &mut now)?;
        }
        let none = BTreeMap::new();
        let known = self.known.as_ref().map_or(&none, |known| &known.images);
        if now.images == *known && self.known.is_some() {
            return Ok(());
        }
        let shown = self.path.display();
        if self.locked {
            let new = now.images.iter().find(|(name, digest)| known.get(*name) != Some(*digest));
            let text = match (new, &self.known) {
                (_, None) => format!("`{shown}` does not exist"),
                (Some((name, _)), _) => format!("`{shown}` does not have {name}"),
                (None, _) => format!("`{shown}` has images that are not used any more"),
            };
            return Err(refused(text, "build once with --hermetic and without --locked to update it"));
        }
        let mut text = serde_json::to_vec_pretty(&now)?;
        text.push(b'\n');
        to_file(&self.path, |out| Ok(out.write_all(&text)?))
    }

    fn look(&self, graph: &Graph, target: Edge, now: &mut Content) -> Outcome<()> {
        for vertex in graph.needed_by(target.vertex).into_iter().filter_map(|id| graph.get(id)) {
            let name = &vertex.meta.name;
            match &vertex.op {
                Op::Source(Source::Image { reference, manifest, platform, .. }) => {
                    now.images.insert(key(reference, platform), manifest.clone());
                }
                Op::Source(Source::Http(http)) if http.checksum.is_none() => {
                    return Err(refused(
                        format!("{name}: no checksum"),
                        "pin it with `ADD --checksum=sha256:…`",
                    ));
                }
                Op::Source(Source::Git(git))
                    if ![&git.reference, &git.checksum].iter().any(|text| is_commit(text)) =>
                {
                    return Err(refused(
                        format!("{name}: no commit"),
                        "pin it with the whole hash of a commit",
                    ));
                }
                Op::Source(Source::Rootfs { .. }) => {
                    return Err(refused(
                        format!("{name}: a directory of the host cannot be pinned"),
                        "use an image",
                    ));
                }
                Op::Exec(exec) if self.hermetic && has_network(exec) => {
                    return Err(refused(
                        format!("{name}: a hermetic build has no network"),
                        "leave `--network` away",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn has_network(exec: &Exec) -> bool {
    exec.network != NetworkMode::None
}

fn is_commit(text: &str) -> bool {
    COMMIT.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn key(reference: &str, platform: &Platform) -> String {
    format!("{reference} {platform}")
}

fn parse(bytes: &[u8]) -> Outcome<Content> {
    let content: Content = serde_json::from_slice(bytes)?;
    if content.version != VERSION {
        return Err(Report::new(format!("unknown version {}: only {VERSION} is supported", content.version)));
    }
    Ok(content)
}

fn refused(text: String, hint: &str) -> Report {
    Report::new(text).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_whole() {
        assert!(is_commit(&"0a".repeat(20)) && is_commit(&"0a".repeat(32)));
        assert!(!is_commit("main") && !is_commit("0a0a0a0") && !is_commit(&"0g".repeat(20)));
    }

    #[test]
    fn other_versions_are_refused() {
        assert!(parse(br#"{"version":1,"images":{}}"#).is_ok());
        assert!(parse(br#"{"version":2,"images":{}}"#).is_err());
    }
}
