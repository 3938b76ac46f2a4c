//! User names and passwords, as Docker keeps them: in `config.json`, or with a program called `docker-credential-NAME`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_diag::Usage;
use lapstrake_oci::Reference;
use lapstrake_sys::outfile::{NewMode, write_output};
use lapstrake_sys::userns::as_caller;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::RegistryError;

/// What Docker Hub's credentials are kept under.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// Who somebody is to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user with a password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that access tokens can be had for (OAuth 2 refresh token).
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Login {
    /// The value of an `Authorization` header for basic authentication.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Login::Password { user, password } => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
            }
            Login::Identity(_) => None,
        }
    }
}

/// Where logins are looked up.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nowhere: everything is asked for anonymously.
    #[default]
    None,
    /// In Docker's configuration.
    Docker(DockerConfig),
    /// This one, whoever asks.
    Given(Login),
    /// The caller of the build is asked.
    Asked(Asked),
}

/// A question to the caller of a build: the login for a registry. The answer may take the time of a message to another
/// process, so the question is asked once for each token and never from a current-thread runtime.
#[derive(Clone)]
pub struct Asked(Arc<Answer>);

/// The login for a registry; an error is a sentence.
type Answer = dyn Fn(&str) -> Result<Option<Login>, String> + Send + Sync;

impl Asked {
    /// Asks `ask` with the registry's host and port. An error is a sentence about why there is no answer.
    pub fn new(ask: impl Fn(&str) -> Result<Option<Login>, String> + Send + Sync + 'static) -> Asked {
        Asked(Arc::new(ask))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

impl Credentials {
    /// The login for `registry`, if there is one.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if the file or the program that keeps it fails.
    pub fn of(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        match self {
            Credentials::None => Ok(None),
            Credentials::Docker(config) => config.login(registry),
            Credentials::Given(login) => Ok(Some(login.clone())),
            Credentials::Asked(Asked(ask)) => ask(registry)
                .map_err(|why| RegistryError::Credentials { place: "the client's session".to_owned(), why }),
        }
    }
}

/// Docker's `config.json`, and what the environment says in its place.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
    /// The logins of `DOCKER_AUTH_CONFIG`, which go before those of the file.
    given: Option<String>,
}

/// What is read of it. Go takes keys in any case and `null` for what is not there; people write such files.
#[derive(Default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

/// A login as it stands there.
#[derive(Default)]
struct Entry {
    auth: String,
    identity_token: String,
    username: String,
    password: String,
}

/// A member of an object, its name in any case; the last one counts, as Go has it.
fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let all = value.as_object()?;
    all.iter().rfind(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null()).map(|(_, v)| v)
}

fn text_of(value: &Value, name: &str) -> Result<String, String> {
    match member(value, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{name}` is no text")),
    }
}

fn members_of<'v>(value: &'v Value, name: &str) -> Result<Vec<(&'v String, &'v Value)>, String> {
    match member(value, name) {
        None => Ok(Vec::new()),
        Some(Value::Object(all)) => Ok(all.iter().collect()),
        Some(_) => Err(format!("`{name}` is no JSON object")),
    }
}

impl Document {
    fn read(value: &Value) -> Result<Document, String> {
        let mut document = Document { creds_store: text_of(value, "credsStore")?, ..Document::default() };
        for (registry, entry) in members_of(value, "auths")? {
            let entry = Entry {
                auth: text_of(entry, "auth")?,
                identity_token: text_of(entry, "identitytoken")?,
                username: text_of(entry, "username")?,
                password: text_of(entry, "password")?,
            };
            document.auths.insert(registry.clone(), entry);
        }
        for (registry, program) in members_of(value, "credHelpers")? {
            if let Some(program) = program.as_str() {
                document.cred_helpers.insert(registry.clone(), program.to_owned());
            }
        }
        Ok(document)
    }

    /// The entry of a key: under that name, or under an address with its host.
    fn entry(&self, key: &str) -> Option<&Entry> {
        let same = |name: &str| host(name).eq_ignore_ascii_case(host(key));
        self.auths.get(key).or_else(|| self.auths.iter().find(|(name, _)| same(name)).map(|(_, entry)| entry))
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>, ()> {
        if !self.identity_token.is_empty() {
            return Ok(Some(Login::Identity(self.identity_token.clone())));
        }
        if self.auth.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok((!user.is_empty()).then_some(Login::Password { user, password }));
        }
        let pair = BASE64.decode(self.auth.trim()).map_err(|_| ())?;
        let pair = String::from_utf8(pair).map_err(|_| ())?;
        let (user, password) = pair.split_once(':').ok_or(())?;
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Login::Password { user: user.to_owned(), password }))
    }
}

/// What credential programs print and read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

impl DockerConfig {
    /// The file at `path`, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> DockerConfig {
        DockerConfig { path: path.into(), given: None }
    }

    /// With the text of `DOCKER_AUTH_CONFIG`: a document whose `auths` go before those of the file.
    #[must_use]
    pub fn with_given(self, given: Option<String>) -> DockerConfig {
        DockerConfig { given: given.filter(|text| !text.trim().is_empty()), ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn document(&self) -> Result<Value, RegistryError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({})),
            Err(error) => return Err(self.bad(&error)),
        };
        if text.trim_ascii().is_empty() {
            return Ok(json!({}));
        }
        let document: Value = serde_json::from_slice(&text).map_err(|error| self.bad(&error))?;
        Ok(if document.is_null() { json!({}) } else { document })
    }

    /// The login that the environment gives.
    fn given(&self, key: &str) -> Result<Option<Login>, RegistryError> {
        let Some(text) = &self.given else { return Ok(None) };
        let bad = |why: String| RegistryError::Credentials { place: "DOCKER_AUTH_CONFIG".to_owned(), why };
        let value: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let document = Document::read(&value).map_err(bad)?;
        let Some(entry) = document.entry(key) else { return Ok(None) };
        entry.login().map_err(|()| bad(format!("the entry of `{key}` cannot be read")))
    }

    fn bad(&self, why: &dyn fmt::Display) -> RegistryError {
        RegistryError::Credentials { place: self.path.display().to_string(), why: why.to_string() }
    }

    fn login(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        let key = key(registry);
        if let Some(login) = self.given(&key)? {
            return Ok(Some(login));
        }
        let document = Document::read(&self.document()?).map_err(|why| self.bad(&why))?;
        if let Some(program) = program(&document, registry) {
            return kept(&program, "get", &key);
        }
        let Some(entry) = document.entry(&key) else { return Ok(None) };
        entry.login().map_err(|()| self.bad(&format!("the entry of `{key}` cannot be read")))
    }

    /// Keeps a login; says where.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if the file or the program that keeps it fails.
    pub fn store(&self, registry: &str, login: &Login) -> Result<String, RegistryError> {
        let mut document = self.document()?;
        let key = key(registry);
        let (user, secret) = match login {
            Login::Password { user, password } => (user.as_str(), password.as_str()),
            Login::Identity(token) => (TOKEN_USER, token.as_str()),
        };
        let read = Document::read(&document).map_err(|why| self.bad(&why))?;
        let entry = match program(&read, registry) {
            Some(program) => {
                let kept = Kept { server: key.clone(), username: user.to_owned(), secret: secret.to_owned() };
                let text = serde_json::to_vec(&kept).map_err(|error| self.bad(&error))?;
                ask(&program, "store", &text)?;
                self.put(&mut document, &key, json!({}))?;
                return Ok(program);
            }
            None => match login {
                Login::Password { .. } => json!({ "auth": BASE64.encode(format!("{user}:{secret}")) }),
                Login::Identity(token) => json!({ "auth": "", "identitytoken": token }),
            },
        };
        self.put(&mut document, &key, entry)?;
        Ok(self.path.display().to_string())
    }

    fn put(&self, document: &mut Value, key: &str, entry: Value) -> Result<(), RegistryError> {
        let not_an_object = || self.bad(&"it is no JSON object");
        let all = document.as_object_mut().ok_or_else(not_an_object)?;
        let auths = auths_of(all);
        if auths.is_null() {
            *auths = Value::Object(Map::new());
        }
        auths.as_object_mut().ok_or_else(not_an_object)?.insert(key.to_owned(), entry);
        self.write(document)
    }

    /// Forgets a login; says whether there was one.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if the file or the program that keeps it fails.
    pub fn erase(&self, registry: &str) -> Result<bool, RegistryError> {
        let mut document = self.document()?;
        let key = key(registry);
        let read = Document::read(&document).map_err(|why| self.bad(&why))?;
        let mut had = false;
        if let Some(program) = program(&read, registry) {
            had = kept(&program, "get", &key)?.is_some();
            if had {
                ask(&program, "erase", key.as_bytes())?;
            }
        }
        if let Some(auths) = document.as_object_mut().and_then(|all| auths_of(all).as_object_mut()) {
            let count = auths.len();
            // All that a login is looked for under, also in old files.
            auths.retain(|name, _| !host(name).eq_ignore_ascii_case(host(&key)));
            had |= auths.len() < count;
            self.write(&document)?;
        }
        Ok(had)
    }

    /// Replaces the file. A new one is readable by its owner alone; one that is there keeps its owner and its mode. A link
    /// stays a link, also if what it names is not there yet.
    fn write(&self, document: &Value) -> Result<(), RegistryError> {
        let path = behind_links(&self.path);
        let failed = |error: io::Error| self.bad(&error);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut text = serde_json::to_vec_pretty(document).map_err(|error| self.bad(&error))?;
        text.push(b'\n');
        write_output(&self.path, NewMode::Private, |out| out.write_all(&text)).map_err(failed)
    }
}

/// The member `auths`, its name in any case; it is made if it is not there.
fn auths_of(all: &mut Map<String, Value>) -> &mut Value {
    let name = all.keys().find(|name| name.eq_ignore_ascii_case("auths")).cloned();
    all.entry(name.unwrap_or_else(|| "auths".to_owned())).or_insert(Value::Null)
}

/// What a path stands for when its last links are followed, whether it is there or not.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// What a registry's login is kept under.
fn key(registry: &str) -> String {
    if registry == "docker.io" { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// The host of a key: old files have whole addresses for keys.
fn host(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

/// The program that keeps a registry's login.
fn program(document: &Document, registry: &str) -> Option<String> {
    let own = document.cred_helpers.get(registry).or_else(|| document.cred_helpers.get(&key(registry)));
    let name = own.unwrap_or(&document.creds_store);
    (!name.is_empty()).then(|| format!("docker-credential-{name}"))
}

fn kept(program: &str, action: &str, key: &str) -> Result<Option<Login>, RegistryError> {
    let Some(answer) = ask(program, action, key.as_bytes())? else { return Ok(None) };
    let bad = || RegistryError::Credentials {
        place: program.to_owned(),
        why: "its answer cannot be read".to_owned(),
    };
    let kept: Kept = serde_json::from_slice(&answer).map_err(|_| bad())?;
    if kept.username.is_empty() && kept.secret.is_empty() {
        // Some say so that they have nothing.
        return Ok(None);
    }
    Ok(Some(if kept.username == TOKEN_USER {
        Login::Identity(kept.secret)
    } else {
        Login::Password { user: kept.username, password: kept.secret }
    }))
}

/// Runs a credential program; `None` if it has nothing for the key.
fn ask(program: &str, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>, RegistryError> {
    let failed = |why: String| RegistryError::Credentials { place: program.to_owned(), why };
    if program.contains('/') {
        return Err(failed("a path is no name of a credential program".to_owned()));
    }
    let mut command = Command::new(program);
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    as_caller(&mut command);
    let mut child = command
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(
                "there is no such program in $PATH, and `credsStore` or `credHelpers` of Docker's config.json name it"
                    .to_owned(),
            ),
            _ => failed(error.to_string()),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may answer without reading.
        stdin.write_all(input).unwrap_or_default();
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // The protocol has errors on standard output; not all who speak it know that.
    let said = if output.stdout.trim_ascii().is_empty() { &output.stderr } else { &output.stdout };
    let said = String::from_utf8_lossy(said);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    Err(failed(format!("`{action}` failed: {}", said.trim())))
}

/// The registry that a person means: Docker Hub, a host, or an address with a scheme.
///
/// # Errors
/// `server` names no registry.
pub fn registry_of(server: Option<&str>) -> Result<String, Usage> {
    let Some(server) = server else { return Ok("docker.io".to_owned()) };
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    let probe: Reference =
        format!("{host}/x/y").parse().map_err(|_| Usage(format!("`{server}` is not a registry")))?;
    if probe.registry() == "docker.io" || probe.registry() == host {
        Ok(probe.registry().to_owned())
    } else {
        Err(Usage(format!("`{server}` is not a registry")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        (dir, DockerConfig::new(path))
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn logins_of_a_file() {
        let auth = BASE64.encode("me:p:w");
        let (_dir, config) = config(&format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "https://old.example/v1/": {{"auth": "{auth}"}},
                "token.example": {{"identitytoken": "t"}}, "empty.example": {{}}, "bad.example": {{"auth": "?"}}}}}}"#
        ));
        assert_eq!(config.login("docker.io").unwrap(), Some(password("me", "p:w")));
        assert_eq!(config.login("old.example").unwrap(), Some(password("me", "p:w")));
        assert_eq!(config.login("token.example").unwrap(), Some(Login::Identity("t".to_owned())));
        assert_eq!(config.login("empty.example").unwrap(), None);
        assert_eq!(config.login("none.example").unwrap(), None);
        assert!(config.login("bad.example").unwrap_err().to_string().contains("bad.example"));
        let none = DockerConfig::new("/nonexistent/config.json");
        assert_eq!(none.login("docker.io").unwrap(), None);
    }

    #[test]
    fn storing_keeps_what_else_is_there() {
        let (_dir, config) = config(r#"{"psFormat": "x", "auths": {"a": {"auth": "eDp5"}}}"#);
        config.store("docker.io", &password("me", "secret")).unwrap();
        assert_eq!(config.login("docker.io").unwrap(), Some(password("me", "secret")));
        assert_eq!(config.login("a").unwrap(), Some(password("x", "y")));
        assert!(fs::read_to_string(config.path()).unwrap().contains("psFormat"));
        assert!(config.erase("docker.io").unwrap());
        assert!(!config.erase("docker.io").unwrap());
        let (_dir, old) = config_with_old_keys();
        assert!(old.erase("old.example").unwrap());
        assert_eq!(old.login("old.example").unwrap(), None);
        assert_eq!(old.login("b").unwrap(), Some(password("x", "y")));
        assert_eq!(config.login("docker.io").unwrap(), None);
        assert_eq!(format!("{:?}", password("me", "secret")), "****");
    }

    fn config_with_old_keys() -> (tempfile::TempDir, DockerConfig) {
        config(
            r#"{"auths": {"https://old.example/v1/": {"auth": "eDp5"}, "old.example": {"auth": "eDp5"}, "b": {"auth": "eDp5"}}}"#,
        )
    }

    /// Files as they are found.
    #[test]
    fn files_as_people_have_them() {
        for text in [
            "",
            " \n",
            "null",
            "{}",
            r#"{"auths": null, "credsStore": null, "credHelpers": null}"#,
            r#"{"auths": {"x": null}, "credHelpers": {"x": null}}"#,
            r#"{"auths": {"x": {"auth": null, "identitytoken": null, "username": null}}}"#,
        ] {
            let (_dir, config) = config(text);
            assert_eq!(config.login("x").unwrap(), None, "{text}");
            config.store("x", &password("me", "secret")).unwrap();
            assert_eq!(config.login("x").unwrap(), Some(password("me", "secret")), "{text}");
            assert!(config.erase("x").unwrap());
            assert_eq!(config.login("x").unwrap(), None, "{text}");
        }
        for text in [
            r#"{"auths": {"x": {"username": "me", "password": "p"}}}"#,
            r#"{"AUTHS": {"X": {"Auth": "bWU6cA=="}}}"#,
            r#"{"Auths": {"https://x/v2/": {"AUTH": " bWU6cA== ", "email": null}}}"#,
            r#"{"auths": {"x": {"auth": "", "Username": "me", "Password": "p"}}, "HttpHeaders": {}}"#,
        ] {
            let (_dir, config) = config(text);
            assert_eq!(config.login("x").unwrap(), Some(password("me", "p")), "{text}");
            assert!(config.erase("x").unwrap(), "{text}");
        }
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let (_dir, config) = config(r#"{"auths": {"x": {"auth": "eDp5"}, "y": {"auth": "eDp5"}}}"#);
        let config =
            config.with_given(Some(r#"{"auths": {"x": {"username": "me", "password": "p"}}}"#.to_owned()));
        assert_eq!(config.login("x").unwrap(), Some(password("me", "p")));
        assert_eq!(config.login("y").unwrap(), Some(password("x", "y")));
        let bad = config.with_given(Some("{".to_owned()));
        assert!(bad.login("x").unwrap_err().to_string().contains("DOCKER_AUTH_CONFIG"));
    }

    #[test]
    fn links_and_modes_stay() {
        let (dir, config) = config("{}");
        let login = password("me", "secret");
        for mode in [0o400, 0o640, 0o600] {
            fs::set_permissions(config.path(), fs::Permissions::from_mode(mode)).unwrap();
            config.store("x", &login).unwrap();
            assert_eq!(fs::metadata(config.path()).unwrap().permissions().mode() & 0o777, mode);
        }
        let new = DockerConfig::new(dir.path().join("fresh/config.json"));
        new.store("x", &login).unwrap();
        assert_eq!(fs::metadata(new.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let target = dir.path().join("new/target.json");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("new/target.json", &link).unwrap();
        let linked = DockerConfig::new(&link);
        linked.store("x", &login).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(linked.login("x").unwrap(), Some(login));
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn programs_have_names_not_paths() {
        let (_dir, config) = config(r#"{"credsStore": "../../bin/sh"}"#);
        assert!(config.login("docker.io").unwrap_err().to_string().contains("a path is no name"));
    }
}
