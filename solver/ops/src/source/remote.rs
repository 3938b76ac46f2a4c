//! Trees from elsewhere: files of the web, commits, archives of the store.
//!
//! What came once is asked for again only as far as the server can say whether it is still the same; the layer made of it
//! is remembered by what it was made of.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_engine::{Key, KeyHasher, Step};
use lapstrake_graph::{Git, Http, Source};
use lapstrake_oci::Digest;
use lapstrake_remote::{Answer, Download, GitAccess, NamedCommit, Web, moved};
use lapstrake_snapshot::Active;
use lapstrake_store::{LayerId, RecordOf, TempDir};
use lapstrake_tree::archive::{ExtractOptions, extract, is_archive, newest};
use lapstrake_tree::copy::{CopyOptions, Dest, copy};
use lapstrake_tree::inroot::{Root, open_host_dir};
use lapstrake_tree::scan::{ScanOptions, scan};
use lapstrake_tree::select::Selector;
use lapstrake_tree::unpack::UnpackOptions;
use serde::Serialize;

use super::fetched::Record;
use crate::error::OpsError;
use crate::file::context_reads::warn_skipped_devices;
use crate::job::Job;
use crate::job::context::BuildContext;
use crate::settings::{Ask, Secret};
use crate::stack::Stack;

/// The first bytes of zstd, which no context is recognised by.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Job {
    /// The tree of a source that is elsewhere, brought once for the whole build.
    ///
    /// # Errors
    /// [`OpsError::Remote`] and what can go wrong with layers. Sources that are not elsewhere are
    /// [`OpsError::Worker`].
    pub async fn fetch(&self, source: &Source, step: &Step) -> Result<Stack, OpsError> {
        let name = lapstrake_go::to_json(source);
        let cell = {
            let mut all = self.0.fetch_cache.trees.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(name.clone()).or_default().clone()
        };
        let stack = cell.get_or_try_init(|| async {
            // Two jobs that want the same fetch it one after the other: the second only asks whether it is still the same.
            let fetches = &self.0.worker.fetches;
            let _turn = fetches.wait(KeyHasher::new("lapstrake fetch").part("source", &name).finish()).await;
            match source {
                Source::Http(http) => self.fetch_http(http, step).await,
                Source::Git(git) => self.fetch_git(git, step).await,
                Source::Archive { blob } => self.archive(blob, step).await,
                Source::Solved { .. } => {
                    let source = source.clone();
                    let found = self.blocking(move |job| super::local_stack(job, &source)).await?;
                    found.ok_or(OpsError::Worker)
                }
                _ => Err(OpsError::Worker),
            }
        });
        stack.await.cloned()
    }

    async fn fetch_http(&self, http: &Http, step: &Step) -> Result<Stack, OpsError> {
        let record = self.fetch_file(http, step).await?;
        let modified = record.known().modified_seconds().unwrap_or(0);
        let http = &Http { name: record.file_name(http).to_owned(), ..http.clone() };
        let key = KeyHasher::new("lapstrake http layer 1")
            .part("digest", record.digest.to_string().as_bytes())
            .part("name", http.name.as_bytes())
            .part("modified", modified.to_string().as_bytes())
            // The second version of what archives become.
            .part("unpack", &[if http.unpack { 2 } else { 0 }]);
        // Files that nobody gives an owner or a mode keep the key that they always had.
        let key = match (http.options.mode, http.options.owner) {
            (None, None) => key,
            given => key.part("given", &lapstrake_go::to_json(&given)),
        };
        let key = key.finish();
        let (http, step) = (http.clone(), step.clone());
        self.cached_layer(key, move |job| {
            if http.unpack && is_context_archive(job, &record.digest)? {
                return archive_layer(job, &record.digest, &step);
            }
            file_layer(job, &record.digest, &http, modified)
        })
        .await
    }

    /// A file of the web as a blob of the store. One build asks for it once.
    pub(crate) async fn fetch_file(&self, http: &Http, step: &Step) -> Result<Record, OpsError> {
        let job = &self.0;
        let record_key = KeyHasher::new("lapstrake http 1").part("url", http.url.as_bytes());
        // What another client knows of the file with its own headers and secrets says nothing here.
        let record_key = match http.options.is_default() {
            true => record_key,
            false => record_key.part("options", &lapstrake_go::to_json(&http.options)),
        };
        let record_key = record_key.finish();
        let known: Option<Record> = load_record(job, &record_key)?;
        let known = known.filter(|record| job.store.has_blob(&record.digest));
        let pinned = known.as_ref().is_some_and(|known| http.checksum.as_ref() == Some(&known.digest));
        let record = match known {
            Some(known) if pinned => known,
            known => {
                let asked = (&http.url, &http.options.headers, &http.options.authorization_secret);
                let file = job.fetch_cache.file(lapstrake_go::to_json(&asked));
                let download = file.get_or_try_init(|| async {
                    let record = self.download(http, known, step).await?;
                    save_record(job, &record_key, &record, &[])?;
                    Ok::<_, OpsError>(record)
                });
                download.await?.clone()
            }
        };
        match http.checksum.as_ref().filter(|expected| **expected != record.digest) {
            Some(expected) => Err(OpsError::DigestMismatch {
                url: http.url.clone(),
                found: record.digest.to_string(),
                expected: expected.to_string(),
            }),
            None => Ok(record),
        }
    }

    /// When a source is from, in seconds since 1970: a commit's time, a file's `Last-Modified`, or else the newest file of
    /// an archive. Other sources have no time.
    ///
    /// # Errors
    /// As for [`Job::fetch`].
    pub async fn time_of(&self, source: &Source, step: &Step) -> Result<Option<i64>, OpsError> {
        let blob = match source {
            Source::Git(git) => return self.commit_time(git, step).await.map(Some),
            Source::Http(http) => {
                let record = self.fetch_file(http, step).await?;
                if let Some(modified) = record.known().modified_seconds() {
                    return Ok(Some(modified));
                }
                record.digest
            }
            Source::Archive { blob } => blob.clone(),
            _ => return Ok(None),
        };
        self.blocking(move |job| Ok(newest(job.store.open_blob(&blob)?)?)).await
    }

    async fn commit_time(&self, git: &Git, step: &Step) -> Result<i64, OpsError> {
        let wanted = git_source(git);
        let access = git_access(&self.0, &git.remote).await?;
        let commit = self.find_commit(git, &access).await?.commit;
        step.status(&commit, 0, 0, false);
        let key = KeyHasher::new("lapstrake git time 1").part("commit", commit.as_bytes()).finish();
        if let Some(time) = load_record(&self.0, &key)? {
            return Ok(time);
        }
        let time = self.blocking(move |_| Ok(wanted.time(&commit, &access.git)?)).await?;
        save_record(&self.0, &key, &time, &[])?;
        Ok(time)
    }

    /// Downloads a file, or learns that it is what is known.
    async fn download(&self, http: &Http, known: Option<Record>, step: &Step) -> Result<Record, OpsError> {
        let job = &self.0;
        let web = job.fetch_cache.web.get_or_try_init(|| async { Web::new(job.images.proxies()) }).await?;
        let authorization = http_authorization(job, http).await?;
        let validators = known.as_ref().map(Record::known);
        let download = Download {
            url: &http.url,
            known: validators.as_ref(),
            authorization: authorization.as_deref(),
            headers: &http.options.headers,
        };
        let mut writer = job.store.blob_writer()?;
        let shown = http.name.clone();
        let answer =
            web.get(&download, &mut writer, |done, total| step.status(&shown, done, total, false)).await?;
        match (answer, known) {
            (Answer::File { known, digest, size }, _) => {
                writer.finish(Some(&digest))?;
                step.status(&shown, size, size, true);
                Ok(Record { etag: known.etag, modified: known.modified, digest, name: known.name })
            }
            (Answer::Unchanged, Some(known)) => Ok(known),
            (Answer::Unchanged, None) => Err(OpsError::Worker),
        }
    }

    /// The commit that is meant. One build asks for it once.
    pub(crate) async fn find_commit(&self, git: &Git, access: &Access) -> Result<NamedCommit, OpsError> {
        let wanted = git_source(git);
        let asked = (&git.remote, &git.reference, &git.checksum, git.fetch_by_commit);
        let cell = self.0.fetch_cache.commit(lapstrake_go::to_json(&asked));
        let found = cell.get_or_try_init(|| async {
            let access = access.clone();
            self.blocking(move |_| Ok(wanted.lookup(&access.git)?)).await
        });
        found.await.cloned()
    }

    async fn fetch_git(&self, git: &Git, step: &Step) -> Result<Stack, OpsError> {
        let wanted = git_source(git);
        let access = git_access(&self.0, &git.remote).await?;
        let commit = self.find_commit(git, &access).await?.commit;
        step.status(&commit, 0, 0, false);
        let kept = if git.keep_git_dir { format!("{} {}", git.remote, git.reference) } else { String::new() };
        let key = KeyHasher::new("lapstrake git layer 2")
            .part("commit", commit.as_bytes())
            .part("subdir", git.subdir.as_bytes())
            .part("kept", kept.as_bytes())
            .part(
                "flags",
                &[u8::from(git.keep_git_dir), u8::from(git.submodules), u8::from(git.commit_times)],
            )
            .part("remote", if git.submodules { git.remote.as_bytes() } else { b"" })
            .finish();
        let (subdir, commit_times, told) = (git.subdir.clone(), git.commit_times, commit.clone());
        let stack = self
            .cached_layer(key, move |job| {
                let dir = job.store.temp_dir()?;
                let checkout = wanted.checkout(&commit, dir.path(), &access.git)?;
                if commit_times {
                    set_times(dir.path(), checkout.time)?;
                }
                let root = open_host_dir(dir.path())?;
                let part = Root::new(&root).open_dir(subdir.as_bytes());
                let part = part.map_err(|source| OpsError::Subdir { subdir, source: Box::new(source) })?;
                layer_of(job, part.as_fd(), (0, 0))
            })
            .await?;
        step.status(&told, 0, 0, true);
        Ok(stack)
    }

    async fn archive(&self, blob: &Digest, step: &Step) -> Result<Stack, OpsError> {
        let key = KeyHasher::new("lapstrake archive 2").part("digest", blob.to_string().as_bytes()).finish();
        let (blob, step) = (blob.clone(), step.clone());
        self.cached_layer(key, move |job| archive_layer(job, &blob, &step)).await
    }

    /// The layer remembered by `key`, or else the one that `make` makes.
    async fn cached_layer(
        &self,
        key: Key,
        make: impl FnOnce(&BuildContext) -> Result<LayerId, OpsError> + Send + 'static,
    ) -> Result<Stack, OpsError> {
        let known: Option<Stack> = load_record(&self.0, &key)?;
        if let Some(stack) = known.filter(|stack| stack.is_whole(&self.0.store)) {
            return Ok(stack);
        }
        let id = self.blocking(make).await?;
        let stack = Stack::default().with(id);
        save_record(&self.0, &key, &stack, &stack.layer_ids())?;
        Ok(stack)
    }
}

pub(crate) fn git_source(git: &Git) -> lapstrake_remote::Git {
    lapstrake_remote::Git {
        remote: git.remote.clone(),
        reference: git.reference.clone(),
        checksum: git.checksum.clone(),
        fetch_by_commit: git.fetch_by_commit,
        submodules: git.submodules,
        keep_git_dir: git.keep_git_dir,
    }
}

fn load_record<T: serde::de::DeserializeOwned>(job: &BuildContext, key: &Key) -> Result<Option<T>, OpsError> {
    let bytes = job.store.record(key.as_bytes())?;
    // What cannot be read was written by another version: then it is no record.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Remembers a value for as long as these layers are there.
fn save_record(
    job: &BuildContext,
    key: &Key,
    value: &impl Serialize,
    layers: &[LayerId],
) -> Result<(), OpsError> {
    let record = (*key.as_bytes(), lapstrake_go::to_json(value));
    Ok(job.store.put_records(&[record], RecordOf { layers, step: None })?)
}

/// Asks for a value on a thread for blocking work.
async fn asked<T: Send + 'static>(values: &Ask<T>, id: String) -> Result<Option<T>, OpsError> {
    let values = values.clone();
    tokio::task::spawn_blocking(move || values.value(&id)).await.map_err(|_| OpsError::Worker)?
}

/// The text of a secret, if there is one of this name.
async fn secret(secrets: &Ask<Secret>, id: String) -> Result<Option<String>, OpsError> {
    let Some(secret) = asked(secrets, id).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&secret.into_bytes()).trim_end_matches(['\r', '\n']).to_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// The host of an address, with its port.
#[must_use]
pub fn host(address: &str) -> &str {
    let (rest, ends): (&str, &[char]) = match address.split_once("://") {
        Some((_, rest)) => (rest, &['/', '?', '#']),
        // `user@host:path`
        None => (address, &[':']),
    };
    let host = rest.split(ends).next().unwrap_or(rest);
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// `HTTP_AUTH_HEADER_<host>` whole, or `HTTP_AUTH_TOKEN_<host>` as a bearer token.
async fn http_authorization(job: &BuildContext, http: &Http) -> Result<Option<String>, OpsError> {
    let with_port = host(&http.url);
    let secrets = &job.settings.secrets;
    if !http.options.authorization_secret.is_empty() {
        let id = http.options.authorization_secret.clone();
        return match secret(secrets, id.clone()).await? {
            None => Err(OpsError::NoSecret { id }),
            found => Ok(found),
        };
    }
    // A secret for one port is stronger than one for the host.
    let without_port =
        with_port.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    for host in std::iter::once(with_port).chain(without_port.map(|(host, _)| host)) {
        if let Some(header) = secret(secrets, format!("HTTP_AUTH_HEADER_{host}")).await? {
            return Ok(Some(header));
        }
        if let Some(token) = secret(secrets, format!("HTTP_AUTH_TOKEN_{host}")).await? {
            return Ok(Some(format!("Bearer {token}")));
        }
    }
    Ok(None)
}

/// The way to a repository, with a directory for temporary files of git.
pub(crate) async fn git_access(job: &BuildContext, remote: &str) -> Result<Access, OpsError> {
    // The system's directory for temporary files may be the one of the state, where processes remove whatever is not locked.
    let scratch = Arc::new(job.store.temp_dir()?);
    let git = GitAccess { scratch: Some(scratch.path().to_owned()), ..git_logins(job, remote).await? };
    Ok(Access { git, _scratch: scratch })
}

/// The way to a repository, with a directory that is there for as long as it is used.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) git: GitAccess,
    _scratch: Arc<TempDir>,
}

/// `GIT_AUTH_HEADER` whole, or `GIT_AUTH_TOKEN` as a password, both perhaps with `.<host>` behind; the agent `default`.
async fn git_logins(job: &BuildContext, remote: &str) -> Result<GitAccess, OpsError> {
    let host = host(remote);
    let mut access = GitAccess {
        ssh_agent: asked(&job.settings.ssh, "default".to_owned()).await?,
        environment: job.settings.git_environment.clone(),
        ..GitAccess::default()
    };
    if !remote.starts_with("http://") && !remote.starts_with("https://") {
        return Ok(access);
    }
    let secrets = &job.settings.secrets;
    access.authorization = git_login(secrets, &format!(".{host}")).await?;
    if access.authorization.is_none()
        && let Some(login) = git_login(secrets, "").await?
    {
        match withheld_reason(job, remote, host) {
            None => access.authorization = Some(login),
            Some(why) => {
                let name = format!("GIT_AUTH_TOKEN.{host} (or GIT_AUTH_HEADER.{host})");
                access.withheld =
                    Some(format!("the git secret was not sent, {why}; name it {name} to send it"));
            }
        }
    }
    if let Some(authorization) = &access.authorization {
        access.moved = moved(remote, authorization, job.images.proxies()).await;
    }
    Ok(access)
}

/// The login of the git secret with `suffix` in its name.
async fn git_login(secrets: &Ask<Secret>, suffix: &str) -> Result<Option<String>, OpsError> {
    if let Some(header) = secret(secrets, format!("GIT_AUTH_HEADER{suffix}")).await? {
        return Ok(Some(header));
    }
    let token = secret(secrets, format!("GIT_AUTH_TOKEN{suffix}")).await?;
    Ok(token.map(|token| format!("Basic {}", BASE64.encode(format!("x-access-token:{token}")))))
}

/// Why a git secret that names no host does not go to this one. It is for the repositories that the command line names; else for
/// the only host that the build gets repositories from. It never goes over an unencrypted connection.
fn withheld_reason(job: &BuildContext, remote: &str, host_of_it: &str) -> Option<&'static str> {
    let named = &job.settings.git_hosts;
    let mut others = job.git_remotes().map(|remote| host(remote)).filter(|other| *other != host_of_it);
    if !remote.starts_with("https://") {
        Some("as the connection would not be encrypted")
    } else if !named.is_empty() && !named.contains(host_of_it) {
        Some("as it names no host and the command line names another one")
    } else if named.is_empty() && others.next().is_some() {
        Some("as it names no host and the build gets repositories from several")
    } else {
        None
    }
}

/// Whether a downloaded context is an archive. BuildKit knows no zstd here.
fn is_context_archive(job: &BuildContext, blob: &Digest) -> Result<bool, OpsError> {
    let mut file = job.store.open_blob(blob)?;
    let mut start = [0; 4];
    let length =
        io::Read::read(&mut file, &mut start).map_err(OpsError::io("read", Path::new("the context")))?;
    io::Seek::rewind(&mut file).map_err(OpsError::io("read", Path::new("the context")))?;
    Ok(start[..length] != ZSTD && is_archive(&mut file)?)
}

fn archive_layer(job: &BuildContext, blob: &Digest, step: &Step) -> Result<LayerId, OpsError> {
    let single_id = job.worker.single_id();
    let options = ExtractOptions {
        chown: None,
        mtime: None,
        limits: UnpackOptions { single_id, ..UnpackOptions::default() },
    };
    let active = Active::new(&job.store, &[])?;
    let copied = extract(job.store.open_blob(blob)?, active.root(), b"/", &options)?;
    warn_skipped_devices(step, &copied.skipped_devices);
    Ok(active.commit(&job.store, copied, single_id)?)
}

fn file_layer(job: &BuildContext, blob: &Digest, http: &Http, modified: i64) -> Result<LayerId, OpsError> {
    let dir = job.store.temp_dir()?;
    fs::create_dir_all(dir.path()).map_err(OpsError::io("create", dir.path()))?;
    let path = dir.path().join(&http.name);
    let failed = |e| OpsError::io("write", &path)(e);
    let mut file = File::create_new(&path).map_err(failed)?;
    io::copy(&mut job.store.open_blob(blob)?, &mut file).map_err(failed)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(http.options.mode.unwrap_or(0o600));
    file.set_permissions(private).map_err(failed)?;
    file.set_modified(time(modified)).map_err(failed)?;
    let root = open_host_dir(dir.path())?;
    layer_of(job, root.as_fd(), http.options.owner.unwrap_or((0, 0)))
}

fn time(seconds: i64) -> std::time::SystemTime {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    std::time::SystemTime::UNIX_EPOCH + since
}

/// All files, directories and links below `dir` get this time. Links are not followed.
fn set_times(dir: &Path, seconds: i64) -> Result<(), OpsError> {
    let at = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
    for entry in fs::read_dir(dir).map_err(OpsError::io("read", dir))? {
        let entry = entry.map_err(OpsError::io("read", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(OpsError::io("look at", &path))?.is_dir() {
            set_times(&path, seconds)?;
        }
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags)
            .map_err(|e| OpsError::io("set the time of", &path)(e.into()))?;
    }
    Ok(())
}

/// A layer with everything in a directory, owned by root.
fn layer_of(job: &BuildContext, dir: BorrowedFd<'_>, owner: (u32, u32)) -> Result<LayerId, OpsError> {
    let tree = scan(dir, &ScanOptions::default())?;
    let selection = tree.select(&Selector::new("/"))?;
    let single_id = job.worker.single_id();
    let options = CopyOptions { chown: Some(owner), single_id, ..CopyOptions::default() };
    let active = Active::new(&job.store, &[])?;
    let copied = copy(dir, &selection, Dest::plain(active.root()), b"/", &options)?;
    Ok(active.commit(&job.store, copied, single_id)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (address, expected) in
            [("https://me:pw@host:8443/x?y", "host:8443"), ("git@host:x/y", "host"), ("http://host", "host")]
        {
            assert_eq!(host(address), expected);
        }
    }
}
