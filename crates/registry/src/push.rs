//! Pushing blobs and manifests.

use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use lapstrake_oci::{Digest, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Client as Http, Response, StatusCode, Url};

use crate::ask::Ask;
use crate::body::same;
use crate::client::Client;
use crate::error::RegistryError;
use lapstrake_http::retry::{ATTEMPTS, pause};

/// Smaller blobs are sent in one request, as there is not much to continue.
const SMALL: u64 = 1 << 20;
/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

/// A blob in a file.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// How long it is, in bytes.
    pub size: u64,
    /// The file.
    pub path: PathBuf,
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry took it over from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// What a registry says to the wish to upload.
enum Begun {
    /// Nothing has to be sent.
    Mounted,
    /// Here. `plain` if the wish to mount was refused: then the leave is that for this repository alone.
    At { place: Url, plain: bool },
}

impl Client {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// [`RegistryError`]: the registry cannot be reached or refuses to tell.
    pub async fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let ask = self.channel.own(reference).await?.push(None);
        let url = ask.url(&format!("blobs/{digest}"));
        let response = self.channel.send(&ask, &url, |http, url| http.head(url)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => ask.success(response).map(|_| true),
        }
    }

    /// Has the registry take a blob over from another of its repositories; false if it would rather be sent it.
    ///
    /// # Errors
    /// [`RegistryError`]: the registry cannot be reached or does not take anything.
    pub async fn mount_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: &str,
    ) -> Result<bool, RegistryError> {
        let ask = self.channel.own(reference).await?.push(Some(from));
        match self.begin(&ask, digest, Some(from)).await? {
            Begun::Mounted => Ok(true),
            Begun::At { place, plain } => {
                let ask = if plain { ask.push(None) } else { ask };
                // Nothing is going to be sent there. A registry that cannot forget it forgets it some day.
                let forget = |http: &Http, url: &str| http.delete(url);
                self.channel.send_once(&ask, place.as_str(), forget).await.map_or(Ok(false), |_| Ok(false))
            }
        }
    }

    /// Brings a blob into the repository. `from` is another repository of the same registry that may have it; `sent`
    /// is told how many bytes are on their way.
    ///
    /// # Errors
    /// [`RegistryError`]: the registry cannot be reached or refuses it, or the file cannot be read.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        blob: &Blob,
        from: Option<&str>,
        sent: impl Fn(u64) + Send + Sync + Clone + 'static,
    ) -> Result<Pushed, RegistryError> {
        if self.has_blob(reference, &blob.digest).await? {
            return Ok(Pushed::Exists);
        }
        let ask = self.channel.own(reference).await?.push(from);
        let mut attempt = 1;
        loop {
            let (place, ask) = match self.begin(&ask, &blob.digest, from).await? {
                Begun::Mounted => return Ok(Pushed::Mounted),
                Begun::At { place, plain: true } => (place, ask.push(None)),
                Begun::At { place, plain: false } => (place, ask.clone()),
            };
            let done = if blob.size <= SMALL {
                self.send_whole(&ask, place, blob).await
            } else {
                self.send_in_parts(&ask, place, blob, &sent).await
            };
            match done {
                Err(error) if error.is_interruption() && attempt < ATTEMPTS => pause(attempt, None).await,
                Err(error) => return Err(error),
                Ok(()) => {
                    sent(blob.size);
                    return Ok(Pushed::Sent);
                }
            }
            attempt += 1;
        }
    }

    async fn begin(
        &self,
        ask: &Ask<'_>,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<Begun, RegistryError> {
        let mut url = parsed(ask, &ask.url("blobs/uploads/"))?;
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        }
        let post = |http: &Http, url: &str| http.post(url).header(CONTENT_LENGTH, 0);
        let mut answer = self.channel.send(ask, url.as_str(), post).await;
        let refused = match &answer {
            Ok(response) => response.status().is_client_error(),
            Err(error) => error.is_refusal(),
        };
        let plain = from.is_some() && refused;
        if plain {
            // It does not mount, or there is no leave to read the other repository: then the blob is sent.
            let own = ask.push(None);
            answer = self.channel.send(&own, &own.url("blobs/uploads/"), post).await;
        }
        let response = answer?;
        let response = ask.success(response)?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        next(ask, &url, &response).map(|place| Begun::At { place, plain })
    }

    async fn send_whole(&self, ask: &Ask<'_>, place: Url, blob: &Blob) -> Result<(), RegistryError> {
        let bytes = read(ask, &blob.path)?;
        let url = finished(place, &blob.digest);
        let put = |http: &Http, url: &str| {
            let put = http.put(url).header(CONTENT_TYPE, "application/octet-stream");
            put.header(CONTENT_LENGTH, bytes.len()).body(bytes.clone())
        };
        let response = self.channel.send(ask, url.as_str(), put).await?;
        ask.success(response).map(drop)
    }

    /// Sends a blob; what breaks off is continued from where the registry says it has it.
    async fn send_in_parts(
        &self,
        ask: &Ask<'_>,
        mut place: Url,
        blob: &Blob,
        sent: &(impl Fn(u64) + Send + Sync + Clone + 'static),
    ) -> Result<(), RegistryError> {
        let mut offset = 0;
        for attempt in 1.. {
            match self.send_rest(ask, &place, blob, offset, sent).await {
                Ok(next) => {
                    place = next;
                    break;
                }
                Err(error) if error.is_interruption() && attempt < ATTEMPTS => {
                    pause(attempt, None).await;
                    let response = self.channel.send(ask, place.as_str(), |http, url| http.get(url)).await?;
                    // A registry that has forgotten the upload is asked for a new one.
                    let Some(has) = received(&response) else { return Err(error) };
                    place = next(ask, &place, &response).unwrap_or(place);
                    offset = has.min(blob.size);
                }
                Err(error) => return Err(error),
            }
        }
        let url = finished(place, &blob.digest);
        let put = |http: &Http, url: &str| http.put(url).header(CONTENT_LENGTH, 0);
        let response = self.channel.send(ask, url.as_str(), put).await?;
        ask.success(response).map(drop)
    }

    async fn send_rest(
        &self,
        ask: &Ask<'_>,
        place: &Url,
        blob: &Blob,
        offset: u64,
        sent: &(impl Fn(u64) + Send + Sync + Clone + 'static),
    ) -> Result<Url, RegistryError> {
        let length = blob.size - offset;
        // Read for each attempt anew: the registry may first ask who we are.
        let patch = |http: &Http, url: &str| {
            let patch = http
                .patch(url)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, length);
            let patch = match offset {
                0 => patch,
                from => patch.header(CONTENT_RANGE, format!("{from}-{}", blob.size - 1)),
            };
            patch.body(stream(blob.path.clone(), offset, sent.clone()))
        };
        let response = ask.success(self.channel.send_once(ask, place.as_str(), patch).await?)?;
        next(ask, place, &response)
    }

    /// Puts a manifest or index where `reference` says: under its digest, if it has one, else under its tag.
    ///
    /// # Errors
    /// [`RegistryError`]: the registry cannot be reached or refuses it.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::sha256(bytes);
        let ask = self.channel.own(reference).await?.push(None);
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let url = ask.url(&format!("manifests/{name}"));
        let put =
            |http: &Http, url: &str| http.put(url).header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        let response = ask.success(self.channel.send(&ask, &url, put).await?)?;
        let told = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        if let Some(told) = told.and_then(|told| told.parse::<Digest>().ok()) {
            same("the manifest", reference, &digest, &told)?;
        }
        Ok(digest)
    }
}

fn parsed(ask: &Ask<'_>, url: &str) -> Result<Url, RegistryError> {
    Url::parse(url).map_err(|_| ask.refused(StatusCode::BAD_REQUEST))
}

/// Where the upload goes on.
fn next(ask: &Ask<'_>, at: &Url, response: &Response) -> Result<Url, RegistryError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| at.join(location).ok());
    next.ok_or_else(|| ask.refused(response.status()))
}

/// How many bytes the registry says that it has.
fn received(response: &Response) -> Option<u64> {
    if !response.status().is_success() {
        return None;
    }
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let last: u64 = range.rsplit('-').next()?.parse().ok()?;
    // `0-0` is what registries say of nothing.
    Some(if last == 0 { 0 } else { last + 1 })
}

fn finished(mut place: Url, digest: &Digest) -> Url {
    place.query_pairs_mut().append_pair("digest", &digest.to_string());
    place
}

fn read(ask: &Ask<'_>, path: &Path) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|source| RegistryError::Source {
        what: "a blob",
        name: ask.reference.familiar(),
        source,
    })
}

/// The file from `offset` on, in pieces.
fn stream(path: PathBuf, offset: u64, sent: impl Fn(u64) + Send + Sync + 'static) -> Body {
    struct Source {
        file: Option<std::fs::File>,
        path: PathBuf,
        at: u64,
    }
    let begin = Source { file: None, path, at: offset };
    let pieces = futures_util::stream::try_unfold((begin, sent), |(mut source, sent)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let file = match &mut source.file {
                Some(file) => file,
                none => {
                    let mut file = std::fs::File::open(&source.path)?;
                    file.seek(io::SeekFrom::Start(source.at))?;
                    none.insert(file)
                }
            };
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            source.at += length as u64;
            Ok::<_, io::Error>((source, piece))
        });
        let (source, piece) = read.await.map_err(io::Error::other)??;
        sent(source.at);
        Ok::<_, io::Error>((!piece.is_empty()).then_some((piece, (source, sent))))
    });
    Body::wrap_stream(pieces)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::settings::Registries;

    /// A registry that answers the wish to mount with `answer`, and takes uploads. Notes what it is asked.
    fn registry(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, own) = (asked.clone(), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 8192];
                let length = stream.read(&mut request).unwrap();
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let line = text.lines().next().unwrap_or_default().to_owned();
                let realm = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
                let has_token = text.to_lowercase().contains("authorization: bearer t");
                let answer = match line.split(' ').take(2).collect::<Vec<_>>()[..] {
                    ["GET", path] if path.starts_with("/token") => match path.contains("other") {
                        true => "403 No\r\n".to_owned(),
                        false => "200 OK\r\n".to_owned(),
                    },
                    [_, _] if answer == "token" && !has_token => format!("401 Who\r\n{realm}"),
                    ["POST", path] if path.contains("mount=") => format!("{answer}\r\n"),
                    ["POST", _] => "202 Accepted\r\nLocation: /v2/up/1\r\n".to_owned(),
                    ["PUT", _] => "201 Created\r\n".to_owned(),
                    _ => "404 None\r\n".to_owned(),
                };
                noted.lock().unwrap().push(line);
                let body = if answer.starts_with("200") { r#"{"token":"t"}"# } else { "" };
                let head =
                    format!("HTTP/1.1 {answer}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        (address, asked)
    }

    /// A registry that does not mount, whatever it says, or whose token server gives no leave for the other repository, is
    /// sent the blob.
    #[test]
    fn what_is_not_mounted_is_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "blob").unwrap();
        let blob = Blob { digest: Digest::sha256(b"blob"), size: 4, path: file.path().to_owned() };
        for answer in [
            "404 None",
            "400 Bad",
            "405 No",
            "403 No",
            "401 Who",
            "422 Odd",
            "202 Accepted\r\nLocation: /v2/up/2",
            "token",
        ] {
            let (address, asked) = registry(answer);
            let settings = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(settings.path(), format!("registry.\"{address}\".http = true")).unwrap();
            let client =
                Client::new(Registries { files: vec![settings.path().to_owned()], ..Registries::default() })
                    .unwrap();
            let reference: Reference = format!("{address}/x:1").parse().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let pushed = runtime.block_on(client.push_blob(&reference, &blob, Some("other"), |_| {}));
            let asked = asked.lock().unwrap();
            assert_eq!(pushed.ok(), Some(Pushed::Sent), "{answer}: {asked:?}");
            assert!(asked.iter().any(|line| line.starts_with("PUT ")), "{answer}: {asked:?}");
        }
    }
}
