//! Content stores of the client, as OCI layouts on this machine.
//!
//! What comes from a store is checked by its digest. A layout is a directory of this build alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_diag::{Outcome, Report};
use lapstrake_oci::{Digest, Sha256};
use lapstrake_proto::containerd::services::content::v1 as api;
use lapstrake_proto::containerd::services::content::v1::content_client::ContentClient;
use lapstrake_store::{Store, TempDir};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::session::{Session, Sessions};

/// The header that says which store of the client is meant.
const STORE: &str = "buildkit-attachable-store-id";
/// The beginning of the ids of stores for caches.
pub(crate) const CACHE: &str = "local:";
/// The beginning of the ids of stores for images.
pub(crate) const IMAGES: &str = "oci:";
/// The longest document, in bytes.
const LONGEST: u64 = 64 << 20;
/// The most documents of one layout: indexes may name each other in a circle.
const MOST_DOCUMENTS: usize = 10_000;
/// The most blobs that the documents of one layout name.
const MOST_BLOBS: usize = 100_000;
/// The bytes of one message.
const PIECE: usize = 1 << 20;

/// A content store of a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoreName {
    /// The session that has it; empty for the session of the build.
    pub(crate) session: String,
    /// The id of the store in the session.
    pub(crate) id: String,
}

impl StoreName {
    /// As an absolute path, by which requests name the store.
    pub(crate) fn to_path(&self) -> PathBuf {
        let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        Path::new("/").join(format!("s{}", part(&self.session))).join(format!("i{}", part(&self.id)))
    }

    /// The store that a path names.
    fn of_path(path: &Path) -> Option<StoreName> {
        let mut parts = path.components();
        parts.next().filter(|root| *root == Component::RootDir)?;
        let mut part = |prefix: char| {
            let Component::Normal(name) = parts.next()? else { return None };
            let text = name.to_str()?.strip_prefix(prefix)?;
            Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
        };
        let (session, id) = (part('s')?, part('i')?);
        parts.next().is_none().then_some(StoreName { session, id })
    }
}

/// The directory of a layout, made once.
type Layout = Arc<OnceCell<TempDir>>;

/// The content stores of one build's client.
pub(super) struct Stores {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
    store: Arc<Store>,
    /// Layouts that are here, by the store and by the image or cache in them; by nothing where they are written.
    here: Mutex<BTreeMap<(PathBuf, Option<Digest>), Layout>>,
    /// What the client is told at the end of the build.
    answers: Mutex<BTreeMap<String, String>>,
}

/// A document that names others: an index, a manifest, or the manifest of a cache.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Naming {
    config: Option<Named>,
    layers: Vec<Named>,
    manifests: Vec<Named>,
}

/// A descriptor, as far as matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    media_type: String,
    digest: Digest,
}

impl Named {
    /// Whether the blob names others.
    fn is_document(&self) -> bool {
        ["index.v1+json", "manifest.v1+json", "manifest.v2+json", "manifest.list.v2+json"]
            .iter()
            .any(|end| self.media_type.ends_with(end))
    }
}

impl Stores {
    pub(super) fn new(session: Arc<Session>, sessions: Arc<Sessions>, store: Arc<Store>) -> Stores {
        Stores { session, sessions, store, here: Mutex::default(), answers: Mutex::default() }
    }

    /// The place of the layout `named`: an empty one, or one with everything that `digest` stands on.
    pub(super) async fn layout(&self, named: &Path, digest: Option<&Digest>) -> Outcome<PathBuf> {
        let name = StoreName::of_path(named)
            .ok_or_else(|| Report::new(format!("`{}` is no content store of the client", named.display())))?;
        let key = (named.to_owned(), digest.cloned());
        let cell = self.here.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        // Several steps may ask for one layout at once: one of them brings it.
        let dir = cell.get_or_try_init(|| self.bring(&name, digest)).await?;
        Ok(dir.path().to_owned())
    }

    async fn bring(&self, name: &StoreName, digest: Option<&Digest>) -> Outcome<TempDir> {
        let dir = self.store.temp_dir()?;
        if let Some(digest) = digest {
            let remote = self.remote(name).await?;
            remote.mirror(&self.store, digest, dir.path()).await.map_err(|error| error.of(name))?;
        }
        Ok(dir)
    }

    /// Brings what was written to the layout `named` to the client.
    pub(super) async fn written(&self, named: &Path) -> Outcome<()> {
        let Some(name) = StoreName::of_path(named) else { return Ok(()) };
        let place = self.layout(named, None).await?;
        let remote = self.remote(&name).await?;
        let descriptor = remote.upload(&place).await.map_err(|error| error.of(&name))?;
        if name.id.starts_with(CACHE) {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.insert("cache.manifest".to_owned(), descriptor.to_string());
        }
        Ok(())
    }

    /// What the client is told at the end of the build.
    pub(super) fn take_answers(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn remote(&self, name: &StoreName) -> Outcome<Remote> {
        let session = match name.session.as_str() {
            "" => self.session.clone(),
            id => self.sessions.get(id).await.map_err(|status| Report::new(status.message().to_owned()))?,
        };
        // Bytes that are no ASCII are not for headers of gRPC, though some clients take them.
        let is_plain = name.id.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let id = Some(&*name.id).filter(|_| is_plain).and_then(|id| MetadataValue::try_from(id).ok());
        let id = id.ok_or_else(|| {
            let value = "contains value with non-printable ASCII characters";
            Report::new(format!(
                "the content store {:?} of the client: the header {STORE:?} {value}",
                name.id
            ))
        })?;
        let client = ContentClient::new(session.channel()).max_decoding_message_size(16 << 20);
        Ok(Remote { client, id })
    }
}

/// A blob cannot be had from a client, or given to it.
#[derive(Debug, thiserror::Error)]
enum StoreFailure {
    /// The client says no.
    #[error("{}", .0.message())]
    Remote(#[from] Status),
    /// This machine cannot write or read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store of this machine cannot take a blob.
    #[error(transparent)]
    Store(#[from] lapstrake_store::StoreError),
    /// The client sends something else.
    #[error("blob {expected} is {found}")]
    Digest { expected: Digest, found: Digest },
    /// The client sends more than it said.
    #[error("blob {0} is longer than {1} bytes, as the client said")]
    Longer(Digest, u64),
    /// A document cannot be read.
    #[error("blob {0} cannot be read: {1}")]
    Document(Digest, String),
}

impl StoreFailure {
    fn of(self, name: &StoreName) -> Report {
        Report::new(format!("content store {:?} of the client: {self}", name.id))
    }

    fn is_missing(&self) -> bool {
        matches!(self, StoreFailure::Remote(status) if status.code() == Code::NotFound)
    }
}

/// The connection to one store.
struct Remote {
    client: ContentClient<Channel>,
    id: MetadataValue<tonic::metadata::Ascii>,
}

impl Remote {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(STORE, self.id.clone());
        request
    }

    /// The size of a blob; nothing of one that the client does not have.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreFailure> {
        let request = self.request(api::InfoRequest { digest: digest.to_string() });
        match self.client.clone().info(request).await {
            Ok(answer) => {
                Ok(answer.into_inner().info.map(|info| u64::try_from(info.size).unwrap_or_default()))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Reads a blob of `size` bytes into `sink`, checked at the end. A client that sends more is not listened to further.
    async fn read(
        &self,
        (digest, size): (&Digest, u64),
        sink: &mut impl std::io::Write,
    ) -> Result<(), StoreFailure> {
        let message = api::ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut pieces = self.client.clone().read(self.request(message)).await?.into_inner();
        let (mut hash, mut left) = (Sha256::new(), size);
        while let Some(piece) = pieces.message().await? {
            left = left
                .checked_sub(piece.data.len() as u64)
                .ok_or_else(|| StoreFailure::Longer(digest.clone(), size))?;
            hash.update(&piece.data);
            sink.write_all(&piece.data)?;
        }
        let found = hash.finish();
        if found != *digest {
            return Err(StoreFailure::Digest { expected: digest.clone(), found });
        }
        Ok(())
    }

    /// A document, as JSON that names blobs.
    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, StoreFailure> {
        let long = |size: u64| {
            StoreFailure::Document(digest.clone(), format!("{size} bytes are too long for a document"))
        };
        let size = match self.size(digest).await? {
            Some(size) if size <= LONGEST => size,
            Some(size) => return Err(long(size)),
            None => return Err(Status::not_found(format!("blob {digest} is not there")).into()),
        };
        let mut bytes = Vec::new();
        self.read((digest, size), &mut bytes).await?;
        Ok(bytes)
    }

    /// Brings a blob into the store, if that is not there.
    async fn bring(&self, store: &Store, digest: &Digest) -> Result<(), StoreFailure> {
        // A client gets nothing of the cache that it does not have itself.
        let Some(size) = self.size(digest).await? else {
            return Err(Status::not_found(format!("blob {digest} is not there")).into());
        };
        if store.has_blob(digest) {
            return Ok(());
        }
        let mut writer = store.blob_writer()?;
        self.read((digest, size), &mut writer).await?;
        writer.finish(Some(digest))?;
        Ok(())
    }

    /// Makes a layout in `dir` with everything that `root` stands on. Layers go to the store. What the client does not have
    /// is left out: other platforms, say.
    async fn mirror(&self, store: &Store, root: &Digest, dir: &Path) -> Result<(), StoreFailure> {
        let place = dir.join("blobs/sha256");
        std::fs::create_dir_all(&place)?;
        let (mut left, mut count, mut named) = (vec![root.clone()], 0, 0);
        let mut media_type = String::new();
        while let Some(digest) = left.pop() {
            let path = place.join(digest.hex());
            if path.exists() {
                continue;
            }
            count += 1;
            let bytes = match self.document(&digest).await {
                Ok(bytes) if count <= MOST_DOCUMENTS => bytes,
                Ok(_) => {
                    let text = format!("more than {MOST_DOCUMENTS} documents belong to it");
                    return Err(StoreFailure::Document(root.clone(), text));
                }
                Err(error) if error.is_missing() && digest != *root => continue,
                Err(error) => return Err(error),
            };
            std::fs::write(&path, &bytes)?;
            let bad = |error: serde_json::Error| StoreFailure::Document(digest.clone(), error.to_string());
            let naming: Naming = serde_json::from_slice(&bytes).map_err(bad)?;
            if digest == *root {
                media_type = media_type_of(&bytes, &naming);
            }
            named += naming.layers.len() + naming.manifests.len();
            if named > MOST_BLOBS {
                let text = format!("more than {MOST_BLOBS} blobs belong to it");
                return Err(StoreFailure::Document(root.clone(), text));
            }
            for named in naming.config.iter().chain(&naming.layers).chain(&naming.manifests) {
                if named.is_document() {
                    left.push(named.digest.clone());
                    continue;
                }
                match self.bring_named(store, named, &place).await {
                    Err(error) if !error.is_missing() => return Err(error),
                    _ => {}
                }
            }
        }
        let size = std::fs::metadata(place.join(root.hex()))?.len();
        let entry = json!({ "mediaType": media_type, "digest": root, "size": size });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(std::fs::write(dir.join("index.json"), index.to_string())?)
    }

    /// Brings a blob that a document names: JSON to `place`, everything else to the store.
    async fn bring_named(&self, store: &Store, named: &Named, place: &Path) -> Result<(), StoreFailure> {
        if named.media_type.ends_with("json") || named.media_type.contains("cacheconfig") {
            let bytes = self.document(&named.digest).await?;
            return Ok(std::fs::write(place.join(named.digest.hex()), bytes)?);
        }
        self.bring(store, &named.digest).await
    }

    /// Gives the client all blobs of a layout, and gives the last entry of its index.
    async fn upload(&self, dir: &Path) -> Result<serde_json::Value, StoreFailure> {
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(dir.join("blobs/sha256"))? {
            let entry = entry?;
            let name = format!("sha256:{}", entry.file_name().to_string_lossy());
            if let Ok(digest) = name.parse::<Digest>() {
                blobs.push((digest, entry.path()));
            }
        }
        blobs.sort();
        for (digest, path) in &blobs {
            if self.size(digest).await?.is_none() {
                self.write(digest, path).await?;
            }
        }
        let index = std::fs::read(dir.join("index.json"))?;
        let index: serde_json::Value = serde_json::from_slice(&index).map_err(std::io::Error::other)?;
        let last = index["manifests"].as_array().and_then(|all| all.last());
        last.cloned().ok_or_else(|| std::io::Error::other("the layout has no image").into())
    }

    /// Gives the client one blob.
    async fn write(&self, digest: &Digest, path: &Path) -> Result<(), StoreFailure> {
        let mut file = File::open(path)?;
        let total = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        let message = |action: api::WriteAction, offset: i64, data: Vec<u8>| api::WriteContentRequest {
            action: action.into(),
            r#ref: format!("lapstrake-{}", digest.hex()),
            total,
            expected: digest.to_string(),
            offset,
            data,
            labels: BTreeMap::new(),
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let gone = || Status::unavailable("the client takes no more of a blob");
        sender.send(message(api::WriteAction::Stat, 0, Vec::new())).await.map_err(|_| gone())?;
        let answer = self.client.clone().write(self.request(ReceiverStream::new(receiver))).await;
        let mut answers = match answer {
            Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
            answer => answer?.into_inner(),
        };
        let mut offset = 0;
        loop {
            match answers.message().await {
                Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(status.into()),
                Ok(None) => return Err(gone().into()),
                Ok(Some(answer)) if answer.action == i32::from(api::WriteAction::Commit) => return Ok(()),
                Ok(Some(_)) => {}
            }
            let mut data = vec![0; PIECE];
            let count = file.read(&mut data)?;
            data.truncate(count);
            let action = if count == 0 { api::WriteAction::Commit } else { api::WriteAction::Write };
            sender.send(message(action, offset, data)).await.map_err(|_| gone())?;
            offset += i64::try_from(count).unwrap_or_default();
        }
    }
}

/// The media type of a document that may not say it itself.
fn media_type_of(bytes: &[u8], naming: &Naming) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        media_type: String,
    }
    let told = serde_json::from_slice::<Typed>(bytes).map(|typed| typed.media_type).unwrap_or_default();
    match (told.is_empty(), naming.manifests.is_empty()) {
        (false, _) => told,
        (true, true) => lapstrake_oci::media::OCI_MANIFEST.to_owned(),
        (true, false) => lapstrake_oci::media::OCI_INDEX.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths() {
        for id in ["local:/tmp/a b/../c", "oci:x", "export", "local:rel//ative", "local:\u{1f600}"] {
            let name = StoreName { session: "s/1".to_owned(), id: id.to_owned() };
            assert_eq!(StoreName::of_path(&name.to_path()), Some(name.clone()));
            assert_eq!(name.to_path(), std::path::absolute(name.to_path()).unwrap());
        }
        assert_eq!(StoreName::of_path(Path::new("/etc")), None);
        assert_eq!(StoreName::of_path(Path::new("relative")), None);
    }
}
