//! What requests are about: a repository, where it is, and what leave is needed for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lapstrake_http::retry::is_absence;
use lapstrake_oci::Reference;
use reqwest::{Response, StatusCode, Url};

use crate::error::RegistryError;
use crate::hosts::Route;

/// What requests are about.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) reference: &'a Reference,
    /// Who is asked: the reference's registry or a mirror of it.
    pub(crate) host: String,
    pub(crate) route: Arc<Route>,
    /// The repository's name there.
    pub(crate) repository: String,
    /// What leave is needed for, as token servers write it.
    pub(crate) scopes: Vec<String>,
    /// Whether somebody else can be asked: then there is no waiting for this one.
    pub(crate) replaceable: bool,
}

impl<'a> Ask<'a> {
    /// Something about the registry itself.
    pub(crate) fn about(reference: &'a Reference, route: Arc<Route>) -> Ask<'a> {
        Ask {
            reference,
            host: reference.registry().to_owned(),
            route,
            repository: reference.repository().to_owned(),
            scopes: Vec::new(),
            replaceable: false,
        }
    }

    pub(crate) fn pull(reference: &'a Reference, route: Arc<Route>) -> Ask<'a> {
        let ask = Ask::about(reference, route);
        Ask { scopes: vec![format!("repository:{}:pull", ask.repository)], ..ask }
    }

    /// The same at a mirror: a host, and what stands before the repositories there.
    pub(crate) fn mirror(reference: &'a Reference, mirror: &str, route: Arc<Route>) -> Ask<'a> {
        let (host, prefix) = mirror_parts(mirror);
        let repository = match prefix {
            "" => reference.repository().to_owned(),
            prefix => format!("{prefix}/{}", reference.repository()),
        };
        let scopes = vec![format!("repository:{repository}:pull")];
        Ask { reference, host: host.to_owned(), route, repository, scopes, replaceable: true }
    }

    /// Pushing to the repository; `from` is one that blobs are taken over from.
    pub(crate) fn push(&self, from: Option<&str>) -> Ask<'a> {
        let own = format!("repository:{}:pull,push", self.repository);
        let other = from.map(|from| format!("repository:{from}:pull"));
        Ask { scopes: std::iter::once(own).chain(other).collect(), ..self.clone() }
    }

    /// The address of something in the repository.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.route.base, self.repository)
    }

    /// Whether `url` is the registry's own.
    pub(crate) fn is_own(&self, url: &str) -> bool {
        same_origin(url, &self.route.base)
    }

    pub(crate) fn unreachable(&self, source: reqwest::Error) -> RegistryError {
        // Who is not there may be another one, to whom the registry has sent us.
        let elsewhere = source.url().filter(|url| !self.is_own(url.as_str())).and_then(|url| {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            url.host_str().map(|host| format!("{host}{port}"))
        });
        let registry = elsewhere.unwrap_or_else(|| self.host.clone());
        // The rest of that address may be a signature, which is as good as a password.
        let answered = self.route.answered.load(Ordering::Relaxed);
        let absent = !answered && is_absence(&source);
        RegistryError::Unreachable { registry, absent, source: source.without_url() }
    }

    pub(crate) fn refused(&self, status: StatusCode) -> RegistryError {
        let (registry, name) = (self.host.clone(), self.reference.familiar());
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { name },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { registry, name },
            status => RegistryError::Status { registry, name, status: status.as_u16() },
        }
    }

    /// `response`, if it is a success.
    pub(crate) fn success(&self, response: Response) -> Result<Response, RegistryError> {
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response.status())) }
    }
}

/// The host of a mirror, and what stands before the repositories there.
pub(crate) fn mirror_parts(mirror: &str) -> (&str, &str) {
    let (host, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
    (host, prefix.trim_matches('/'))
}

pub(crate) fn same_origin(url: &str, base: &str) -> bool {
    let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin());
    origin(url).is_some_and(|found| Some(found) == origin(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_stays_with_its_origin() {
        let base = "https://example.com";
        assert!(same_origin("https://example.com/v2/x/blobs/uploads/1?_state=a", base));
        for other in ["https://example.com:444/", "http://example.com/", "https://cdn.example.com/", "x"] {
            assert!(!same_origin(other, base), "{other}");
        }
    }

    #[test]
    fn mirrors_may_have_a_path() {
        assert_eq!(mirror_parts("m.example:5000"), ("m.example:5000", ""));
        assert_eq!(mirror_parts("m.example/proxy/docker.io/"), ("m.example", "proxy/docker.io"));
    }
}
