//! Into a running containerd: its content, images and leases services over its socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use lapstrake_assemble::Document;
use lapstrake_oci::{Digest, Reference};
use lapstrake_store::Store;

use crate::bundle::Bundle;
use crate::error::OutputError;
use crate::grpc::{Channel, Message, Status};
use crate::image::Manifest;
use crate::manifest::{Written, written};

const WRITE: &str = "/containerd.services.content.v1.Content/Write";
const CREATE: &str = "/containerd.services.images.v1.Images/Create";
const UPDATE: &str = "/containerd.services.images.v1.Images/Update";
const LEASE: &str = "/containerd.services.leases.v1.Leases/Create";
const RETURN: &str = "/containerd.services.leases.v1.Leases/Delete";

/// How much of a blob goes at once: servers take messages of 4 MiB at least.
const PIECE: usize = 1 << 20;

/// What a `WriteContentRequest` is about.
const ACTION_WRITE: u64 = 1;
const ACTION_COMMIT: u64 = 2;

/// Where a containerd listens, and whose images are meant there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// Its socket.
    pub socket: PathBuf,
    /// The namespace of its that images get into.
    pub namespace: String,
}

impl Containerd {
    /// Gives it an image under these names. What it has is not sent again. Gives the manifest, or the index.
    ///
    /// # Errors
    /// [`OutputError::NoEngine`] if nobody listens, [`OutputError::Engine`] if it refuses, and what is wrong with a layer.
    pub async fn load(
        &self,
        store: &Store,
        bundle: &Bundle,
        names: &[Reference],
    ) -> Result<Manifest, OutputError> {
        let variants = bundle.variants.iter();
        let written = variants.map(|variant| written(store, &variant.image, &variant.encoding));
        let written = written.collect::<Result<Vec<_>, _>>()?;
        let manifests: Vec<Manifest> = written.iter().map(|written| written.manifest.clone()).collect();
        let top = bundle.top(&manifests);
        let lease = format!("lapstrake-{}-{}", std::process::id(), top.document.digest.short());
        let headers =
            vec![("containerd-namespace", self.namespace.clone()), ("containerd-lease", lease.clone())];
        let absent = |source| OutputError::NoEngine { socket: self.socket.clone(), source };
        let channel = Channel::connect(&self.socket, headers).await.map_err(absent)?;
        // Until the image names them, blobs are kept by a lease; one that nobody returns goes after a day.
        let expiry = lapstrake_oci::rfc3339(lapstrake_oci::now_seconds().0.saturating_add(86_400), 0);
        let labels = [("containerd.io/gc.expire".to_owned(), expiry)].into();
        let leased = Message::default().bytes(1, lease.as_bytes()).map(3, &labels);
        made(channel.ask(LEASE, leased).await)?;
        let mut sent = BTreeSet::new();
        for (variant, Written { manifest, blobs }) in bundle.variants.iter().zip(&written) {
            for blob in blobs.iter().filter(|blob| sent.insert(&blob.digest)) {
                let file = store.open_blob(&blob.digest)?;
                content(&channel, (&blob.digest, blob.size), file, &BTreeMap::new()).await?;
            }
            let config = &variant.image.document;
            document(&channel, config, []).await?;
            let layers = blobs.iter().enumerate();
            let layers = layers.map(|(number, blob)| (format!("l.{number}"), &blob.digest));
            let kept = std::iter::once(("config".to_owned(), &config.digest)).chain(layers);
            document(&channel, &manifest.document, kept).await?;
        }
        if bundle.index.is_some() {
            let kept = manifests.iter().enumerate();
            let kept = kept.map(|(number, manifest)| (format!("m.{number}"), &manifest.document.digest));
            document(&channel, &top.document, kept).await?;
        }
        let target = Message::default()
            .bytes(1, top.media_type.as_bytes())
            .bytes(2, top.document.digest.to_string().as_bytes())
            .number(3, top.document.bytes.len() as u64);
        for name in names {
            self.name(&channel, name, &target).await?;
        }
        made(channel.ask(RETURN, Message::default().bytes(1, lease.as_bytes())).await)?;
        Ok(top)
    }

    /// Gives what `target` describes a name, which something else may have had.
    async fn name(&self, channel: &Channel, name: &Reference, target: &Message) -> Result<(), OutputError> {
        let image = Message::default().bytes(1, name.to_string().as_bytes()).message(3, target);
        let created = channel.ask(CREATE, Message::default().message(1, &image)).await;
        match created {
            Err(status) if status.is_there_already() => {
                let mask = Message::default().bytes(1, b"target");
                let update = Message::default().message(1, &image).message(2, &mask);
                channel.ask(UPDATE, update).await.map_err(OutputError::from)
            }
            created => created.map_err(OutputError::from),
        }
    }
}

impl From<Status> for OutputError {
    fn from(status: Status) -> OutputError {
        OutputError::Engine { why: format!("containerd says: {}", status.why) }
    }
}

/// As a result of ours; what is there already is as good as made.
fn made(result: Result<(), Status>) -> Result<(), OutputError> {
    match result {
        Err(status) if !status.is_there_already() => Err(status.into()),
        _ => Ok(()),
    }
}

/// Sends a document, which keeps the blobs that it names from being collected.
async fn document(
    channel: &Channel,
    document: &Document,
    keeps: impl IntoIterator<Item = (String, &Digest)>,
) -> Result<(), OutputError> {
    let label = |(name, digest): (String, &Digest)| {
        (format!("containerd.io/gc.ref.content.{name}"), digest.to_string())
    };
    let labels = keeps.into_iter().map(label).collect();
    let size = document.bytes.len() as u64;
    content(channel, (&document.digest, size), document.bytes.as_slice(), &labels).await
}

/// Sends a blob, unless it is there. Each piece is acknowledged before the next one goes.
async fn content(
    channel: &Channel,
    (digest, size): (&Digest, u64),
    mut from: impl Read,
    labels: &BTreeMap<String, String>,
) -> Result<(), OutputError> {
    let (name, expected) = (format!("lapstrake-{digest}-{}", std::process::id()), digest.to_string());
    let request = |action, offset| {
        let request = Message::default().number(1, action).bytes(2, name.as_bytes());
        request.number(3, size).bytes(4, expected.as_bytes()).number(5, offset)
    };
    let mut call = channel.call(WRITE).await.map_err(OutputError::from)?;
    let (mut offset, mut piece) = (0, vec![0; PIECE]);
    loop {
        let failed = |source| OutputError::Write { what: "blob to containerd", source };
        let got = from.read(&mut piece).map_err(failed)?;
        let last = got == 0;
        let message = if last {
            request(ACTION_COMMIT, offset).map(7, labels)
        } else {
            request(ACTION_WRITE, offset).bytes(6, &piece[..got])
        };
        offset += got as u64;
        let said = call.say(message, last).await;
        match call.hear().await {
            Ok(Some(_)) => said.map_err(OutputError::from)?,
            Ok(None) => return said.map_err(OutputError::from),
            // It had it before the first piece, or somebody else was quicker.
            Err(status) => return made(Err(status)),
        }
        if last {
            return made(call.hear().await.map(drop));
        }
    }
}
