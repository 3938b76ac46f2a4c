//! Tokens: what a registry's challenge asks for, and where it may be had.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use crate::ask::{Ask, is_loopback};
use crate::body::read_small;
use crate::challenge::{Bearer, Challenge, challenge};
use crate::credentials::{Credentials, Login};
use crate::error::RegistryError;

/// Values of `Authorization` headers by registry and scope.
#[derive(Default)]
pub(crate) struct Grants(Mutex<HashMap<(String, String), String>>);

impl Grants {
    pub(crate) fn of(&self, ask: &Ask<'_>) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&place(ask)).cloned()
    }

    /// Gets leave where the registry's refusal says.
    pub(crate) async fn get(
        &self,
        http: &reqwest::Client,
        credentials: &Credentials,
        ask: &Ask<'_>,
        refusal: &Response,
    ) -> Result<(), RegistryError> {
        let values = refusal.headers().get_all(WWW_AUTHENTICATE);
        let found = values.iter().find_map(|value| challenge(value.to_str().ok()?));
        let login = credentials.of(ask.reference.registry())?;
        let grant = match found.ok_or_else(|| ask.refused(StatusCode::UNAUTHORIZED))? {
            Challenge::Basic => {
                let basic = login.as_ref().and_then(Login::basic);
                basic.ok_or_else(|| ask.refused(StatusCode::UNAUTHORIZED))?
            }
            Challenge::Bearer(bearer) => {
                format!("Bearer {}", token(http, login.as_ref(), ask, &bearer).await?)
            }
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place(ask), grant);
        Ok(())
    }
}

fn place(ask: &Ask<'_>) -> (String, String) {
    (ask.reference.registry().to_owned(), ask.scopes.join(" "))
}

#[derive(serde::Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

async fn token(
    http: &reqwest::Client,
    login: Option<&Login>,
    ask: &Ask<'_>,
    challenge: &Bearer,
) -> Result<String, RegistryError> {
    let realm = realm(ask, challenge)?;
    let request = match login {
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
    };
    let response = request.send().await.map_err(|source| ask.unreachable(source))?;
    if !response.status().is_success() {
        return Err(ask.refused(response.status()));
    }
    let bytes = read_small(ask.reference, "a token", response).await?.1;
    let answer: Token = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Malformed {
        what: "a token",
        name: ask.reference.familiar(),
        source,
    })?;
    Ok(answer.token.or(answer.access_token).unwrap_or_default())
}

/// A token may come from any https address, or from loopback if the registry is there itself.
fn realm(ask: &Ask<'_>, challenge: &Bearer) -> Result<Url, RegistryError> {
    let registry = ask.reference.registry();
    let bad = || RegistryError::UnsafeRealm { registry: registry.to_owned(), realm: challenge.realm.clone() };
    let url = Url::parse(&challenge.realm).map_err(|_| bad())?;
    let local = is_loopback(registry) && url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !local {
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
    use lapstrake_oci::Reference;

    use super::*;

    #[test]
    fn tokens_come_from_safe_places() {
        let challenge = |realm: &str| Bearer { realm: realm.into(), service: Some("s".into()) };
        let (remote, local): (Reference, Reference) =
            ("example.com/a/b".parse().unwrap(), "localhost:5000/a/b".parse().unwrap());
        let (remote, local) = (Ask::pull(&remote), Ask::pull(&local));
        assert!(realm(&remote, &challenge("http://169.254.169.254/latest")).is_err());
        assert!(realm(&remote, &challenge("http://localhost/token")).is_err());
        assert!(realm(&remote, &challenge("file:///etc/passwd")).is_err());
        assert!(realm(&local, &challenge("http://localhost:5001/token")).is_ok());
        let safe = challenge("https://auth.example/token?x=1");
        let url = with_scopes(realm(&remote, &safe).unwrap(), &remote, &safe);
        assert_eq!(url.as_str(), "https://auth.example/token?x=1&service=s&scope=repository%3Aa%2Fb%3Apull");
    }
}
