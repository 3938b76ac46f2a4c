//! The client's directories, brought here when the build first asks for them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lapstrake_build::load_bytes;
use lapstrake_engine::Step;
use lapstrake_llb::LocalSource;
use lapstrake_oci::Digest;
use lapstrake_ops::ContextPart;
use lapstrake_store::{CacheDir, Sharing, Store, TempDir};
use lapstrake_tree::ignore::Patterns;
use lapstrake_tree::inroot::open_host_dir;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::sync::Mutex;
use tonic::Code;

use crate::files::{TransferError, Wanted, receive};
use crate::reports::Reports;
use crate::session::{Session, Sessions};

/// The ignore file of a context.
const IGNORE: &str = ".dockerignore";

/// The names of a build's directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The directory that has the Dockerfile.
    pub(crate) dockerfile: String,
    /// The path of the Dockerfile in its directory.
    pub(crate) file: String,
    /// The ids of the sessions that have a directory, by its name, where that is not the build's own session.
    pub(crate) sessions: BTreeMap<String, String>,
}

/// A directory that is here.
struct Here {
    tree: PathBuf,
    /// Nobody else changes the copy while this is held.
    _held: Held,
}

/// A context that comes when a step needs it.
#[derive(Clone)]
struct Later {
    /// The name of the client's directory.
    directory: String,
    /// The patterns of its ignore file.
    ignore: Patterns,
}

/// The right to a directory.
enum Held {
    /// A copy that stays for the next transfer.
    Copy { _dir: CacheDir },
    /// A directory that goes with the build.
    Empty { _dir: TempDir },
}

/// The directories of one build.
pub(super) struct Contexts {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
    store: Arc<Store>,
    names: Names,
    /// Where transfers are reported.
    reports: Reports,
    here: Mutex<BTreeMap<String, Here>>,
    /// Contexts that come when a step needs them, by their names in the graph.
    later: Mutex<BTreeMap<String, Later>>,
    /// The parts of the contexts that the steps read, once the graph is known.
    parts: Mutex<BTreeMap<String, ContextPart>>,
    /// Directories that definitions name, by their names in the graph.
    locals: Mutex<BTreeMap<String, Here>>,
}

/// A directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContextError {
    /// The transfer failed.
    #[error("failed to load `{name}` from the client: {source}")]
    Transfer {
        /// The directory's name.
        name: String,
        /// The reason.
        source: TransferError,
    },
    /// The ignore file cannot be read.
    #[error("`{file}`: {why}")]
    Ignore {
        /// The file.
        file: String,
        /// The reason.
        why: String,
    },
    /// The name leads nowhere.
    #[error("no directory `{0}`")]
    Missing(String),
}

impl ContextError {
    /// Whether the client says that it has no such directory.
    fn is_missing(&self) -> bool {
        let ContextError::Transfer { source: TransferError::Remote(status), .. } = self else { return false };
        // A client may also give no directories at all.
        matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
            || status.message().contains("no access allowed to dir")
    }
}

impl Contexts {
    pub(super) fn new(
        (session, sessions): (Arc<Session>, Arc<Sessions>),
        store: Arc<Store>,
        (names, reports): (Names, Reports),
    ) -> Contexts {
        let (here, locals, later) = (Mutex::default(), Mutex::default(), Mutex::default());
        Contexts { session, sessions, store, names, reports, here, later, parts: Mutex::default(), locals }
    }

    /// The patterns of the ignore file of a context that comes later; nothing for a context that is here, or is a part of a directory.
    pub(super) async fn ignored(&self, name: &str, named: &Path) -> Result<Option<Patterns>, ContextError> {
        let (directory, below) =
            parts(named).ok_or_else(|| ContextError::Missing(named.display().to_string()))?;
        let mut here = self.here.lock().await;
        if !below.as_os_str().is_empty()
            || here.contains_key(&directory)
            || directory == self.names.dockerfile
        {
            return Ok(None);
        }
        let ignore = self.ignore_file(&mut here, &directory).await?;
        let later = Later { directory, ignore: ignore.clone() };
        self.later.lock().await.insert(name.to_owned(), later);
        Ok(Some(ignore))
    }

    /// The steps of the build read these parts of contexts.
    pub(super) async fn read(&self, parts: BTreeMap<String, ContextPart>) {
        self.parts.lock().await.extend(parts);
    }

    /// The step that loads the context `name`.
    async fn step(&self, name: &str) -> Option<Step> {
        let part = self.parts.lock().await.get(name).cloned()?;
        Some(self.reports.progress().step(part.step))
    }

    /// The contexts that come later, by their names in the graph, as definitions name them.
    pub(super) async fn later(&self) -> BTreeMap<String, LocalSource> {
        let parts = self.parts.lock().await;
        let source = |(name, later): (&String, &Later)| {
            let session = self.names.sessions.get(&later.directory).cloned();
            let local = LocalSource {
                name: later.directory.clone(),
                session: session.unwrap_or_else(|| self.session.id().to_owned()),
                exclude: later.ignore.cleaned(),
                follow: parts.get(name).and_then(|part| part.paths.clone()).unwrap_or_default(),
                shared_key: name.clone(),
                ..LocalSource::default()
            };
            (name.clone(), local)
        };
        self.later.lock().await.iter().map(source).collect()
    }

    /// The place of a context that comes later, and the patterns of its ignore file; nothing for a name that no context has.
    pub(super) async fn context(&self, name: &str) -> Result<Option<(PathBuf, Patterns)>, ContextError> {
        let Some(later) = self.later.lock().await.get(name).cloned() else { return Ok(None) };
        let Later { directory, ignore } = later;
        let follow =
            self.parts.lock().await.get(name).and_then(|part| part.paths.clone()).unwrap_or_default();
        let exclude = ignore.cleaned();
        let wanted = Wanted { name: directory.clone(), follow, exclude, ..Wanted::default() };
        // Builds of one directory that read other parts of it do not replace each other's copies.
        let copy = match wanted.follow.is_empty() {
            true => String::new(),
            false => format!("part {}", Digest::sha256(&lapstrake_go::to_json(&wanted.follow)).hex()),
        };
        let step = self.step(name).await;
        let mut here = self.here.lock().await;
        let key = format!("{directory} {copy}");
        if let Some(found) = here.get(&key) {
            return Ok(Some((found.tree.clone(), ignore)));
        }
        let found = match self.fetch(&wanted, &copy, step).await {
            // A build may need no context at all. A step that copies from this one does not find its files.
            Err(error) if name == "context" && error.is_missing() => self.empty()?,
            found => found?,
        };
        let tree = found.tree.clone();
        here.insert(key, found);
        Ok(Some((tree, ignore)))
    }

    /// The place of a directory: `NAME`, or `NAME/PATH` for one below.
    pub(super) async fn directory(&self, named: &Path) -> Result<PathBuf, ContextError> {
        let (name, below) = parts(named).ok_or_else(|| ContextError::Missing(named.display().to_string()))?;
        let tree = self.tree(&name).await?;
        if below.as_os_str().is_empty() {
            return Ok(tree);
        }
        // The path is used as text later, so no part of it may be a link of the client.
        let missing = || ContextError::Missing(named.display().to_string());
        let root = open_host_dir(&tree).map_err(|_| missing())?;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&root, &below, flags, Mode::empty(), how).map_err(|_| missing())?;
        Ok(tree.join(below))
    }

    /// The bytes of the file `NAME/PATH`. Links are followed within the directory.
    pub(super) async fn file(&self, named: &Path) -> io::Result<Vec<u8>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let (name, below) = parts(named).ok_or_else(missing)?;
        let tree = self.tree(&name).await.map_err(io::Error::other)?;
        let root = open_host_dir(&tree).map_err(io::Error::other)?;
        if !lapstrake_tree::inroot::Root::new(&root).exists(below.as_os_str().as_encoded_bytes()) {
            return Err(missing());
        }
        load_bytes(&root, &below).map_err(io::Error::other)
    }

    async fn tree(&self, name: &str) -> Result<PathBuf, ContextError> {
        let mut here = self.here.lock().await;
        if let Some(found) = here.get(name) {
            return Ok(found.tree.clone());
        }
        let wanted = if name == self.names.dockerfile {
            self.dockerfiles()
        } else {
            let exclude = self.excluded(&mut here, name).await?;
            Wanted { name: name.to_owned(), exclude, ..Wanted::default() }
        };
        let found = match self.fetch(&wanted, "", None).await {
            // A build may need no context at all. A step that copies from this one does not find its files.
            Err(error) if name == "context" && error.is_missing() => self.empty()?,
            found => found?,
        };
        let tree = found.tree.clone();
        here.insert(name.to_owned(), found);
        Ok(tree)
    }

    /// The place of a directory that a definition names: the part of it that the definition wants.
    pub(super) async fn local(
        &self,
        session: &Arc<Session>,
        key: &str,
        local: &LocalSource,
    ) -> Result<PathBuf, ContextError> {
        let mut here = self.locals.lock().await;
        if let Some(found) = here.get(key) {
            return Ok(found.tree.clone());
        }
        let step = self.step(key).await;
        let LocalSource { name, include, exclude, follow, shared_key, all_again, .. } = local.clone();
        let wanted = Wanted { name: name.clone(), follow, include, exclude };
        let found = if all_again {
            let empty = self.empty()?;
            let place = empty.tree.parent().unwrap_or(&empty.tree).to_owned();
            let failed = |source| ContextError::Transfer { name: name.clone(), source };
            receive(session, &wanted, (place, step)).await.map_err(failed)?;
            empty
        } else {
            let identity = format!("client {:?} definition {key:?} {shared_key:?}", session.shared_key());
            self.fetch_as(session, &wanted, (identity, step)).await?
        };
        let tree = found.tree.clone();
        here.insert(key.to_owned(), found);
        Ok(tree)
    }

    /// The files that may be the Dockerfile and its ignore file.
    fn dockerfiles(&self) -> Wanted {
        let Names { dockerfile, file, .. } = &self.names;
        let mut follow = vec![file.clone(), format!("{file}{IGNORE}")];
        let lower = Path::new(file).with_file_name("dockerfile").to_string_lossy().into_owned();
        if Path::new(file).file_name().is_some_and(|name| name == "Dockerfile") {
            follow.extend([format!("{lower}{IGNORE}"), lower]);
        }
        Wanted { name: dockerfile.clone(), follow, ..Wanted::default() }
    }

    /// The patterns that hide parts of the directory `name` in a transfer of all of it.
    async fn excluded(
        &self,
        here: &mut BTreeMap<String, Here>,
        name: &str,
    ) -> Result<Vec<String>, ContextError> {
        let mut excluded = self.ignore_file(here, name).await?.cleaned();
        if !excluded.is_empty() {
            // The build reads the file again, for its own selection and for the checks.
            excluded.push(format!("!{IGNORE}"));
        }
        Ok(excluded)
    }

    /// The patterns of the ignore file for the directory `name`: the Dockerfile's own for the main context, else the one in
    /// the directory.
    async fn ignore_file(
        &self,
        here: &mut BTreeMap<String, Here>,
        name: &str,
    ) -> Result<Patterns, ContextError> {
        if name == "context" {
            let dockerfile = &self.names.dockerfile;
            if !here.contains_key(dockerfile) {
                let found = self.fetch(&self.dockerfiles(), "", None).await?;
                here.insert(dockerfile.clone(), found);
            }
            let own = format!("{}{IGNORE}", self.names.file);
            if let Some(dockerfile) = here.get(dockerfile)
                && let Some(patterns) = patterns(&dockerfile.tree, &own)?
            {
                return Ok(patterns);
            }
        }
        let wanted = Wanted { name: name.to_owned(), follow: vec![IGNORE.to_owned()], ..Wanted::default() };
        match self.fetch(&wanted, "ignore file", None).await {
            Err(error) if name == "context" && error.is_missing() => Ok(Patterns::default()),
            found => Ok(patterns(&found?.tree, IGNORE)?.unwrap_or_default()),
        }
    }

    /// The directory `name` has these files and nothing else, whatever the client has under that name.
    pub(super) async fn put(
        &self,
        name: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), ContextError> {
        let made = self.empty()?;
        let failed = |source| ContextError::Transfer { name: name.to_owned(), source };
        for (path, bytes) in files {
            let (_, below) =
                parts(&Path::new(name).join(path)).ok_or_else(|| ContextError::Missing(path.clone()))?;
            let place = made.tree.join(below);
            let written = place.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written = written.and_then(|()| std::fs::write(&place, bytes));
            written.map_err(|error| failed(TransferError::io(path, error)))?;
        }
        self.here.lock().await.insert(name.to_owned(), made);
        Ok(())
    }

    /// A directory without files.
    fn empty(&self) -> Result<Here, ContextError> {
        let failed = |source: TransferError| ContextError::Transfer { name: "context".to_owned(), source };
        let dir = self.store.temp_dir().map_err(|error| failed(error.into()))?;
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).map_err(|error| failed(TransferError::io("", error)))?;
        Ok(Here { tree, _held: Held::Empty { _dir: dir } })
    }

    /// Brings a directory here. `part` tells copies of parts of one directory from each other. The transfer is a part of `step`.
    async fn fetch(&self, wanted: &Wanted, part: &str, step: Option<Step>) -> Result<Here, ContextError> {
        let failed = |source| ContextError::Transfer { name: wanted.name.clone(), source };
        let session = match self.names.sessions.get(&wanted.name) {
            Some(id) => {
                self.sessions.get(id).await.map_err(|status| failed(TransferError::Remote(status)))?
            }
            None => self.session.clone(),
        };
        let key = session.shared_key();
        let part = if wanted.name == self.names.dockerfile { "dockerfile" } else { part };
        let identity = format!("client {key:?} directory {:?} {part}", wanted.name);
        self.fetch_as(&session, wanted, (identity, step)).await
    }

    /// Brings a directory into the copy that is called `identity`.
    async fn fetch_as(
        &self,
        session: &Session,
        wanted: &Wanted,
        (identity, step): (String, Option<Step>),
    ) -> Result<Here, ContextError> {
        let failed = |source| ContextError::Transfer { name: wanted.name.clone(), source };
        let store = self.store.clone();
        let held = tokio::task::spawn_blocking(move || {
            let mut held = store.cache_dir(&identity, Sharing::Private)?;
            if held.is_fresh() {
                held.settle()?;
            }
            Ok::<_, lapstrake_store::StoreError>(held)
        });
        let held = held.await.map_err(|_| failed(TransferError::Protocol("nothing".to_owned())))?;
        let held = held.map_err(|error| failed(error.into()))?;
        receive(session, wanted, (held.path().to_owned(), step)).await.map_err(failed)?;
        Ok(Here { tree: held.path().join("tree"), _held: Held::Copy { _dir: held } })
    }
}

/// The first part of a path, and the rest; nothing for a path that is not plain.
fn parts(named: &Path) -> Option<(String, PathBuf)> {
    let mut parts = named.components().filter(|part| *part != Component::CurDir);
    let Some(Component::Normal(name)) = parts.next() else { return None };
    let below: PathBuf = parts.collect();
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| (name.to_string_lossy().into_owned(), below))
}

/// The patterns of an ignore file in `tree`; nothing if there is no such file.
fn patterns(tree: &Path, file: &str) -> Result<Option<Patterns>, ContextError> {
    let bad = |why: String| ContextError::Ignore { file: file.to_owned(), why };
    let root = open_host_dir(tree).map_err(|error| bad(error.to_string()))?;
    if !lapstrake_tree::inroot::Root::new(&root).exists(file.as_bytes()) {
        return Ok(None);
    }
    let bytes = load_bytes(&root, Path::new(file)).map_err(bad)?;
    let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    let patterns = Patterns::of_file(file, &text).map_err(|error| bad(error.to_string()))?;
    Ok(Some(patterns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let parts =
            |path: &str| parts(Path::new(path)).map(|(name, below)| (name, below.display().to_string()));
        assert_eq!(parts("context"), Some(("context".to_owned(), String::new())));
        assert_eq!(
            parts("./dockerfile/a/Dockerfile"),
            Some(("dockerfile".to_owned(), "a/Dockerfile".to_owned()))
        );
        assert_eq!(parts("context/../x"), None);
        assert_eq!(parts("../x"), None);
        assert_eq!(parts("/etc"), None);
        assert_eq!(parts(""), None);
    }
}
