//! One request with its retries, its redirects and its leave.

use std::sync::atomic::Ordering;

use reqwest::header::{AUTHORIZATION, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use crate::ask::{Ask, mirror_parts};
use crate::credentials::Credentials;
use crate::error::RegistryError;
use crate::hosts::Hosts;
use crate::settings::Registries;
use crate::token::Grants;
use lapstrake_http::retry::{attempts_after, pause, retry_after};

/// How often a registry may send us elsewhere.
const REDIRECTS: u32 = 10;

/// The way to registries.
pub(crate) struct Channel {
    pub(crate) hosts: Hosts,
    credentials: Credentials,
    grants: Grants,
}

impl Channel {
    pub(crate) fn new(registries: Registries) -> Result<Channel, RegistryError> {
        let hosts = Hosts::new(&registries)?;
        Ok(Channel { hosts, credentials: registries.credentials, grants: Grants::default() })
    }

    /// Pulling what `reference` names: at the registry's mirrors, then at the registry itself.
    pub(crate) async fn places<'a>(
        &self,
        reference: &'a lapstrake_oci::Reference,
    ) -> Result<Vec<Ask<'a>>, RegistryError> {
        let mut places = Vec::new();
        for mirror in self.hosts.mirrors(reference.registry()) {
            let route = self.hosts.route(mirror_parts(&mirror).0).await?;
            places.push(Ask::mirror(reference, &mirror, route));
        }
        places.push(Ask::pull(reference, self.hosts.route(reference.registry()).await?));
        Ok(places)
    }

    /// Something at the registry of `reference` itself.
    pub(crate) async fn own<'a>(
        &self,
        reference: &'a lapstrake_oci::Reference,
    ) -> Result<Ask<'a>, RegistryError> {
        Ok(Ask::about(reference, self.hosts.route(reference.registry()).await?))
    }

    /// The leave to show at `url`: none at all to anybody but the registry itself.
    fn grant(&self, ask: &Ask<'_>, url: &str) -> Option<String> {
        self.grants.of(ask).filter(|_| ask.is_own(url))
    }

    /// Sends what `request` makes for `url`, again while the registry is busy or breaks off, once more where nobody is
    /// there, and once more when it asks who we are. Any answer that is neither is given to the caller. Leave goes to the
    /// registry's own address only.
    pub(crate) async fn send(
        &self,
        ask: &Ask<'_>,
        url: &str,
        request: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.send_once(ask, url, &request).await {
                Ok(response) => {
                    let most = if ask.replaceable { 1 } else { attempts_after(response.status()) };
                    if attempt >= most {
                        return Ok(response);
                    }
                    pause(attempt, retry_after(&response)).await;
                }
                Err(error) if attempt < error.attempts() && !ask.replaceable => {
                    pause(attempt, None).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request that is not repeated when the connection breaks. It is when the registry asks who we are, and
    /// where it sends us elsewhere.
    pub(crate) async fn send_once(
        &self,
        ask: &Ask<'_>,
        url: &str,
        request: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let (mut url, mut asked, mut redirects) = (url.to_owned(), false, 0);
        loop {
            let http = match ask.is_own(&url) {
                true => ask.route.http.clone(),
                false => {
                    let parsed = Url::parse(&url).map_err(|_| ask.refused(StatusCode::BAD_REQUEST))?;
                    self.hosts.elsewhere(&parsed)?
                }
            };
            let grant = self.grant(ask, &url);
            let mut builder = request(&http, &url);
            if let Some(grant) = &grant {
                builder = builder.header(AUTHORIZATION, grant);
            }
            let sent = builder.build().map_err(|source| ask.unreachable(source))?;
            let method = sent.method().clone();
            let response = http.execute(sent).await.map_err(|source| ask.unreachable(source))?;
            if ask.is_own(&url) {
                ask.route.answered.store(true, Ordering::Relaxed);
            }
            if response.status() == StatusCode::UNAUTHORIZED && ask.is_own(&url) && !asked {
                asked = true;
                self.grants.get(&self.hosts, &self.credentials, ask, (grant, &response)).await?;
                continue;
            }
            match redirect(&url, &method, &response) {
                Some(next) if redirects < REDIRECTS => (url, redirects) = (next, redirects + 1),
                _ => return Ok(response),
            }
        }
    }
}

/// Where a response sends the same request. Never from TLS to a place without it.
fn redirect(from: &str, method: &Method, response: &Response) -> Option<String> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let again = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => reads,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => false,
    };
    let from = Url::parse(from).ok()?;
    let next = from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    let safe = next.scheme() == "https" || (next.scheme() == "http" && from.scheme() == "http");
    (again && safe).then(|| next.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use lapstrake_oci::Reference;

    use super::*;

    /// Asks `registry` for a manifest: what comes of it, and how often it was asked.
    fn asked(registry: &str) -> (Result<StatusCode, RegistryError>, u32) {
        let settings = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(settings.path(), format!("registry.\"{registry}\".http = true")).unwrap();
        let registries = Registries { files: vec![settings.path().to_owned()], ..Registries::default() };
        let channel = Channel::new(registries).unwrap();
        let reference: Reference = format!("{registry}/x:1").parse().unwrap();
        let times = AtomicU32::new(0);
        let answer =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let ask = channel.own(&reference).await.unwrap();
                let get = |http: &Client, url: &str| {
                    times.fetch_add(1, Ordering::SeqCst);
                    http.get(url)
                };
                channel.send(&ask, &ask.url("manifests/1"), get).await
            });
        (answer.map(|response| response.status()), times.into_inner())
    }

    /// Answers each connection with the next of `answers`, the last one for ever; counts them.
    fn server(answers: &'static [&'static str]) -> (String, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::SeqCst) as usize;
                let answer = answers.get(number).or(answers.last()).unwrap();
                let mut stream: TcpStream = stream.unwrap();
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, count)
    }

    #[test]
    fn nobody_is_not_waited_for() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        for nobody in [free.as_str(), "registry.invalid:5000"] {
            let (answer, times) = asked(nobody);
            assert!(
                matches!(answer, Err(RegistryError::Unreachable { absent: true, .. })),
                "{nobody}: {answer:?}"
            );
            // The pauses before a third time and later ones are what is long.
            assert_eq!(times, 2, "{nobody}");
        }
    }

    #[test]
    fn who_is_busy_or_breaks_off_is_asked_again() {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        const BUSY: &str =
            "HTTP/1.1 429 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        const BROKEN: &str =
            "HTTP/1.1 503 Broken\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        const SLOW: &str =
            "HTTP/1.1 408 Slow\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        for (answers, connections) in [
            (&["", "", OK] as &'static [&'static str], 3),
            (&[BUSY, BUSY, BROKEN, OK], 4),
            (&[SLOW, SLOW, OK], 3),
        ] {
            let (address, count) = server(answers);
            let (answer, times) = asked(&address);
            assert_eq!((answer.unwrap(), times), (StatusCode::OK, connections));
            assert_eq!(count.load(Ordering::SeqCst), connections);
        }
    }
}
