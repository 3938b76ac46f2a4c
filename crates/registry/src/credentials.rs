//! User names and passwords, as Docker keeps them: in `config.json`, or with a program called `docker-credential-NAME`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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
        }
    }
}

/// Docker's `config.json`.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
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
        DockerConfig { path: path.into() }
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
        serde_json::from_slice(&text).map_err(|error| self.bad(&error))
    }

    fn bad(&self, why: &dyn fmt::Display) -> RegistryError {
        RegistryError::Credentials { place: self.path.display().to_string(), why: why.to_string() }
    }

    fn login(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        let document: Document =
            serde_json::from_value(self.document()?).map_err(|error| self.bad(&error))?;
        let key = key(registry);
        if let Some(program) = program(&document, registry) {
            return kept(&program, "get", &key);
        }
        let entry = document.auths.get(&key).or_else(|| {
            document.auths.iter().find(|(name, _)| host(name) == host(&key)).map(|(_, entry)| entry)
        });
        let Some(entry) = entry else { return Ok(None) };
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(entry.identitytoken.clone())));
        }
        if entry.auth.is_empty() {
            return Ok(None);
        }
        let bad = || self.bad(&format!("the entry of `{key}` cannot be read"));
        let pair = BASE64.decode(&entry.auth).map_err(|_| bad())?;
        let pair = String::from_utf8(pair).map_err(|_| bad())?;
        let (user, password) = pair.split_once(':').ok_or_else(bad)?;
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Login::Password { user: user.to_owned(), password }))
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
        let read: Document = serde_json::from_value(document.clone()).map_err(|error| self.bad(&error))?;
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
        let auths = all.entry("auths").or_insert_with(|| Value::Object(Map::new()));
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
        let read: Document = serde_json::from_value(document.clone()).map_err(|error| self.bad(&error))?;
        let mut had = false;
        if let Some(program) = program(&read, registry) {
            had = kept(&program, "get", &key)?.is_some();
            if had {
                ask(&program, "erase", key.as_bytes())?;
            }
        }
        if let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) {
            let count = auths.len();
            // All that a login is looked for under, also in old files.
            auths.retain(|name, _| host(name) != host(&key));
            had |= auths.len() < count;
            self.write(&document)?;
        }
        Ok(had)
    }

    /// Replaces the file, readable by its owner alone. A link stays a link.
    fn write(&self, document: &Value) -> Result<(), RegistryError> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |error: io::Error| self.bad(&error);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}", std::process::id()));
        let mut text = serde_json::to_vec_pretty(document).map_err(|error| self.bad(&error))?;
        text.push(b'\n');
        let mut file = fs::OpenOptions::new();
        let mut file =
            file.write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&partial, &path).map_err(failed)
    }
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
        assert_eq!(fs::metadata(config.path()).unwrap().permissions().mode() & 0o777, 0o600);
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

    #[test]
    fn programs_have_names_not_paths() {
        let (_dir, config) = config(r#"{"credsStore": "../../bin/sh"}"#);
        assert!(config.login("docker.io").unwrap_err().to_string().contains("a path is no name"));
    }
}
