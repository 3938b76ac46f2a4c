//! The client of a session as the caller of a build.

mod agent;
mod contexts;
mod output;
pub(crate) mod stores;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_build::{Addressee, Client, Writing, WritingFiles};
use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_llb::LocalSource;
use lapstrake_oci::Digest;
use lapstrake_ops::{ContextPart, Debug, ImageRules, LocalContext, Secret};
use lapstrake_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use lapstrake_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use lapstrake_proto::moby::filesync::v1::CredentialsRequest;
use lapstrake_proto::moby::filesync::v1::auth_client::AuthClient;
use lapstrake_registry::{Asked, Credentials, Login, Registries};
use lapstrake_store::Store;
use lapstrake_tree::ignore::Patterns;
use tokio::runtime::Handle;
use tonic::Code;

use crate::host::Host;
use crate::reports::Reports;
use crate::session::{Session, Sessions};
use agent::Agent;
use contexts::Contexts;
pub(crate) use contexts::Names;
use stores::Stores;

/// The name that Docker Hub's credentials are asked for under.
const HUB: &str = "registry-1.docker.io";

/// The caller of one build: its session, and what the session has given so far.
pub(crate) struct SessionCaller {
    session: Arc<Session>,
    host: Arc<Host>,
    store: Arc<Store>,
    contexts: Contexts,
    agents: Mutex<BTreeMap<String, Agent>>,
    /// Directories that definitions name, by their names in the graph.
    locals: Mutex<BTreeMap<String, LocalSource>>,
    /// The open sessions, for directories of other ones.
    sessions: Arc<Sessions>,
    /// Content stores of the client.
    stores: Stores,
    /// The upload that stands for standard input, as host and path of its address.
    upload: Option<(String, String)>,
    rules: Option<ImageRules>,
}

/// Waits for `future` on a thread that may block.
fn wait<F: Future>(future: F) -> F::Output {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

impl SessionCaller {
    /// The caller of a build whose directories have the names `names`. Transfers are reported to `reports`. `upload` is the address of an upload that is read as
    /// standard input.
    pub(crate) fn new(
        session: Arc<Session>,
        (host, store, sessions): (Arc<Host>, Arc<Store>, Arc<Sessions>),
        (names, reports): (Names, Reports),
        upload: Option<(String, String)>,
    ) -> SessionCaller {
        let contexts = Contexts::new((session.clone(), sessions.clone()), store.clone(), (names, reports));
        let stores = Stores::new(session.clone(), sessions.clone(), store.clone());
        SessionCaller {
            stores,
            session,
            host,
            store,
            contexts,
            agents: Mutex::default(),
            locals: Mutex::default(),
            sessions,
            upload,
            rules: None,
        }
    }

    /// Images are looked up by `rules`.
    #[must_use]
    pub(crate) fn with_rules(self, rules: Option<ImageRules>) -> SessionCaller {
        SessionCaller { rules, ..self }
    }

    /// What the client is told at the end of the build of what went to its content stores.
    pub(crate) fn take_answers(&self) -> BTreeMap<String, String> {
        self.stores.take_answers()
    }

    /// As [`Client::layout`].
    pub(crate) async fn layout_of(&self, named: &Path, digest: Option<&Digest>) -> Outcome<PathBuf> {
        self.stores.layout(named, digest).await
    }

    /// The bytes of the upload with this host and this path in its address. A client gives each upload once.
    pub(crate) fn upload(&self, host: &str, path: &str) -> impl Read + Send + use<> {
        output::upload(&self.session, host, path)
    }

    /// Remembers directories that a definition names, until a step needs them.
    pub(crate) fn add_locals(&self, locals: BTreeMap<String, LocalSource>) {
        self.locals.lock().unwrap_or_else(PoisonError::into_inner).extend(locals);
    }

    /// The steps of the build read these parts of contexts.
    pub(crate) async fn read(&self, parts: BTreeMap<String, ContextPart>) {
        self.contexts.read(parts).await;
    }

    /// The contexts that come when a step needs them, by their names in the graph, as definitions name them.
    pub(crate) async fn later(&self) -> BTreeMap<String, LocalSource> {
        self.contexts.later().await
    }

    /// The directory `name` has these files and nothing else, whatever the client has under that name.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(crate) async fn put(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> Outcome<()> {
        self.contexts.put(name, files).await.map_err(|error| Report::new(error.to_string()))
    }

    /// The place of a directory that a definition names.
    async fn local(&self, key: &str, local: &LocalSource) -> Outcome<PathBuf> {
        let other = match local.session.as_str() {
            "" => None,
            id => {
                Some(self.sessions.get(id).await.map_err(|status| Report::new(status.message().to_owned()))?)
            }
        };
        let session = other.as_ref().unwrap_or(&self.session);
        self.contexts.local(session, key, local).await.map_err(|error| Report::new(error.to_string()))
    }
}

impl Client for SessionCaller {
    fn directory(&self, named: &Path) -> Outcome<PathBuf> {
        wait(self.contexts.directory(named)).map_err(|error| Report::new(error.to_string()))
    }

    fn context(&self, name: &str) -> Outcome<Option<LocalContext>> {
        let local = self.locals.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(local) = local {
            let path = wait(self.local(name, &local))?;
            return Ok(Some(LocalContext { path, ignore: Patterns::default() }));
        }
        let found = wait(self.contexts.context(name)).map_err(|error| Report::new(error.to_string()))?;
        Ok(found.map(|(path, ignore)| LocalContext { path, ignore }))
    }

    fn ignored(&self, name: &str, named: &Path) -> Outcome<Option<Patterns>> {
        wait(self.contexts.ignored(name, named)).map_err(|error| Report::new(error.to_string()))
    }

    fn file(&self, named: &Path) -> io::Result<Vec<u8>> {
        wait(self.contexts.file(named))
    }

    fn secret(&self, id: &str) -> Outcome<Option<Secret>> {
        if !self.session.offers("/moby.buildkit.secrets.v1.Secrets/GetSecret") {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.session.channel()).max_decoding_message_size(16 << 20);
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match wait(client.get_secret(request)) {
            Ok(answer) => Ok(Some(Secret::from(answer.into_inner().data))),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(Report::new(format!("secret {id}: {}", status.message()))),
        }
    }

    fn ssh_agent(&self, id: &str) -> Outcome<Option<PathBuf>> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(id) {
            return Ok(Some(agent.socket()));
        }
        let agent = wait(Agent::open(&self.session, &self.store, id))?;
        let socket = agent.as_ref().map(Agent::socket);
        agent.map(|agent| agents.insert(id.to_owned(), agent));
        Ok(socket)
    }

    fn registries(&self) -> Registries {
        let session = self.session.clone();
        let ask = move |registry: &str| wait(login(&session, registry));
        Registries { credentials: Credentials::Asked(Asked::new(ask)), ..self.host.registries.clone() }
    }

    fn image_rules(&self) -> Option<ImageRules> {
        self.rules.clone()
    }

    fn git_environment(&self) -> Vec<(OsString, OsString)> {
        self.host.git_environment.clone()
    }

    fn stdin(&self) -> Box<dyn Read + Send> {
        match &self.upload {
            Some((host, path)) => Box::new(output::upload(&self.session, host, path)),
            None => Box::new(io::empty()),
        }
    }

    fn output(&self, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()> {
        output::file(&self.session, dest, write)
    }

    fn output_directory(&self, dest: &Path, write: &mut WritingFiles<'_>) -> Outcome<()> {
        output::directory(&self.session, &self.store, dest, write)
    }

    fn layout(&self, named: &Path, digest: Option<&Digest>) -> Outcome<PathBuf> {
        wait(self.stores.layout(named, digest))
    }

    fn layout_written(&self, named: &Path) -> Outcome<()> {
        wait(self.stores.written(named))
    }

    fn engine(&self) -> Outcome<Addressee> {
        Err(Usage("a client of the server loads images itself: ask for `type=docker`".to_owned()).into())
    }

    fn debugger(&self) -> Option<Debug> {
        None
    }
}

/// The client's login for `registry`.
async fn login(session: &Session, registry: &str) -> Result<Option<Login>, String> {
    let host = if registry == "docker.io" { HUB } else { registry };
    if !session.offers("/moby.filesync.v1.Auth/Credentials") {
        return Ok(None);
    }
    let mut client = AuthClient::new(session.channel());
    match client.credentials(CredentialsRequest { host: host.to_owned() }).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            Ok(match (answer.username.is_empty(), answer.secret.is_empty()) {
                (true, true) => None,
                (true, false) => Some(Login::Identity(answer.secret)),
                (false, _) => Some(Login::Password { user: answer.username, password: answer.secret }),
            })
        }
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.message().to_owned()),
    }
}
