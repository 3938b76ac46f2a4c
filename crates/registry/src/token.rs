//! Tokens: what a registry's challenge asks for, and where it may be had.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};

use crate::ask::{Ask, same_origin};
use crate::body::read_small;
use crate::challenge::{Bearer, Challenge, challenge};
use crate::credentials::{Credentials, Login};
use crate::error::RegistryError;
use crate::hosts::{Hosts, is_loopback};
use lapstrake_http::retry::{ATTEMPTS, pause};

/// How long a token is good if nobody says: the distribution spec's value.
const USUAL_LIFE: u64 = 60;

/// The value of an `Authorization` header.
#[derive(Clone)]
struct Grant {
    value: String,
    /// When it is of no use any more.
    until: Option<Instant>,
}

/// Leave by registry and scope.
#[derive(Default)]
pub(crate) struct Grants {
    known: Mutex<HashMap<(String, String), Grant>>,
    /// One token is asked for at a time: those who wait for the same one find it.
    asking: tokio::sync::Mutex<()>,
}

impl Grants {
    pub(crate) fn of(&self, ask: &Ask<'_>) -> Option<String> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = all.get(&place(ask))?;
        let good = grant.until.is_none_or(|until| Instant::now() < until);
        good.then(|| grant.value.clone())
    }

    /// Gets leave where the registry's refusal says; `refused` is what was shown with the request, and the answer.
    pub(crate) async fn get(
        &self,
        hosts: &Hosts,
        credentials: &Credentials,
        ask: &Ask<'_>,
        (shown, refusal): (Option<String>, &Response),
    ) -> Result<(), RegistryError> {
        let values = refusal.headers().get_all(WWW_AUTHENTICATE);
        let found = challenge(values.iter().filter_map(|value| value.to_str().ok()));
        let found = found.ok_or_else(|| ask.refused(StatusCode::UNAUTHORIZED))?;
        let turn = self.asking.lock().await;
        if self.of(ask).is_some_and(|newer| Some(newer) != shown) {
            return Ok(());
        }
        let login = credentials.of(&ask.host)?;
        let grant = match found {
            Challenge::Basic => {
                let basic = login.as_ref().and_then(Login::basic);
                let value = basic.ok_or_else(|| ask.refused(StatusCode::UNAUTHORIZED))?;
                Grant { value, until: None }
            }
            Challenge::Bearer(bearer) => token(hosts, login.as_ref(), ask, &bearer).await?,
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(place(ask), grant);
        drop(turn);
        Ok(())
    }
}

fn place(ask: &Ask<'_>) -> (String, String) {
    (ask.host.clone(), ask.scopes.join(" "))
}

#[derive(serde::Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds. Some servers write nonsense: then it counts as not said.
    expires_in: Option<serde_json::Value>,
}

impl Token {
    /// What is to be shown, and for how many seconds.
    fn grant(self) -> Option<(String, u64)> {
        // Some servers send both, and one of them empty.
        let mut tokens = self.token.into_iter().chain(self.access_token);
        let token = tokens.find(|token| !token.is_empty())?;
        let said = self.expires_in.and_then(|value| value.as_u64()).filter(|seconds| *seconds > 0);
        Some((token, said.unwrap_or(USUAL_LIFE)))
    }
}

async fn token(
    hosts: &Hosts,
    login: Option<&Login>,
    ask: &Ask<'_>,
    challenge: &Bearer,
) -> Result<Grant, RegistryError> {
    let realm = realm(ask, challenge)?;
    // The realm's own client: certificates that are set for the registry are not for everybody. It follows no
    // redirect, so a login goes to the realm and no further.
    let http = hosts.elsewhere(&realm)?;
    let mut attempt = 0;
    let response = loop {
        attempt += 1;
        let sent = request(&http, login, ask, challenge, realm.clone())?.send().await;
        match sent.map_err(|source| ask.unreachable(source)) {
            Ok(response) if attempt < ATTEMPTS && is_busy(response.status()) => pause(attempt, None).await,
            Ok(response) => break response,
            Err(error) if attempt < error.attempts() && !ask.replaceable => pause(attempt, None).await,
            Err(error) => return Err(error),
        }
    };
    if !response.status().is_success() {
        return Err(ask.refused(response.status()));
    }
    let bytes = read_small(ask.reference, "a token", response).await?.1;
    let answer: Token = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Malformed {
        what: "a token",
        name: ask.reference.familiar(),
        source,
    })?;
    let (token, seconds) = answer.grant().ok_or_else(|| ask.refused(StatusCode::UNAUTHORIZED))?;
    // A tenth is for the way, and for clocks that differ.
    let life = Duration::from_secs(seconds).saturating_mul(9) / 10;
    Ok(Grant { value: format!("Bearer {token}"), until: Instant::now().checked_add(life) })
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) || status.is_server_error()
}

/// A request for a token.
fn request(
    http: &Client,
    login: Option<&Login>,
    ask: &Ask<'_>,
    challenge: &Bearer,
    realm: Url,
) -> Result<reqwest::RequestBuilder, RegistryError> {
    Ok(match login {
        Some(Login::Identity(refresh)) => {
            let scope = ask.scopes.join(" ");
            let mut form = Url::parse("form://x").map_err(|_| ask.refused(StatusCode::UNAUTHORIZED))?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", challenge.service.as_deref().unwrap_or_default())
                .append_pair("client_id", "lapstrake")
                .append_pair("scope", &scope)
                .append_pair("refresh_token", refresh);
            http.post(realm)
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().to_owned())
        }
        login => {
            let request = http.get(with_scopes(realm, ask, challenge));
            match login.and_then(Login::basic) {
                Some(basic) => request.header(AUTHORIZATION, basic),
                None => request,
            }
        }
    })
}

/// A token may come from any https address, or from loopback if the registry is there itself.
fn realm(ask: &Ask<'_>, challenge: &Bearer) -> Result<Url, RegistryError> {
    let registry = ask.host.as_str();
    let bad = || RegistryError::UnsafeRealm { registry: registry.to_owned(), realm: challenge.realm.clone() };
    let url = Url::parse(&challenge.realm).map_err(|_| bad())?;
    let local = is_loopback(registry) && url.host_str().is_some_and(is_loopback);
    // Who has settings that say so has no TLS at all.
    let plain = !ask.route.base.starts_with("https:") && same_origin(url.as_str(), &ask.route.base);
    if url.scheme() != "https" && !(url.scheme() == "http" && (local || plain)) {
        return Err(bad());
    }
    Ok(url)
}

fn with_scopes(mut url: Url, ask: &Ask<'_>, challenge: &Bearer) -> Url {
    let mut query = url.query_pairs_mut();
    if let Some(service) = &challenge.service {
        query.append_pair("service", service);
    }
    for scope in &ask.scopes {
        query.append_pair("scope", scope);
    }
    drop(query);
    url
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapstrake_oci::Reference;

    use super::*;
    use crate::hosts::Route;

    fn ask<'a>(reference: &'a Reference, scheme: &str) -> Ask<'a> {
        let http = lapstrake_http::builder(&lapstrake_http::Proxies::default()).tls_certs_only([]);
        let base = format!("{scheme}://{}", reference.registry());
        Ask::pull(reference, Arc::new(Route { http: http.build().unwrap(), base, answered: false.into() }))
    }

    #[test]
    fn tokens_as_servers_send_them() {
        for (text, expected) in [
            (r#"{"token":"t"}"#, Some(("t", 60))),
            (r#"{"token":"","access_token":"x","expires_in":300}"#, Some(("x", 300))),
            (r#"{"token":null,"access_token":"x","expires_in":null}"#, Some(("x", 60))),
            (r#"{"token":"t","access_token":"","expires_in":0}"#, Some(("t", 60))),
            (r#"{"token":"t","expires_in":-1}"#, Some(("t", 60))),
            (r#"{"token":"t","expires_in":"soon"}"#, Some(("t", 60))),
            (r#"{"token":"","access_token":""}"#, None),
            ("{}", None),
        ] {
            let token: Token = serde_json::from_str(text).unwrap();
            assert_eq!(token.grant(), expected.map(|(token, life)| (token.to_owned(), life)), "{text}");
        }
    }

    #[test]
    fn tokens_come_from_safe_places() {
        let challenge = |realm: &str| Bearer { realm: realm.into(), service: Some("s".into()) };
        let (remote, local): (Reference, Reference) =
            ("example.com/a/b".parse().unwrap(), "localhost:5000/a/b".parse().unwrap());
        let plain = ask(&remote, "http");
        let (remote, local) = (ask(&remote, "https"), ask(&local, "http"));
        assert!(realm(&remote, &challenge("http://169.254.169.254/latest")).is_err());
        assert!(realm(&remote, &challenge("http://localhost/token")).is_err());
        assert!(realm(&remote, &challenge("file:///etc/passwd")).is_err());
        assert!(realm(&local, &challenge("file:///etc/passwd")).is_err());
        assert!(realm(&local, &challenge("http://localhost:5001/token")).is_ok());
        assert!(realm(&plain, &challenge("http://example.com/token")).is_ok());
        assert!(realm(&plain, &challenge("http://other.example/token")).is_err());
        let safe = challenge("https://auth.example/token?x=1");
        let url = with_scopes(realm(&remote, &safe).unwrap(), &remote, &safe);
        assert_eq!(url.as_str(), "https://auth.example/token?x=1&service=s&scope=repository%3Aa%2Fb%3Apull");
    }
}
