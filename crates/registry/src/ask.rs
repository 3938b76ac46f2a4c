//! What requests are about: a repository, and what leave is needed for it.

use lapstrake_oci::Reference;
use reqwest::{Response, StatusCode, Url};

use crate::error::RegistryError;

/// What requests are about.
pub(crate) struct Ask<'a> {
    pub(crate) reference: &'a Reference,
    /// What leave is needed for, as token servers write it.
    pub(crate) scopes: Vec<String>,
}

impl<'a> Ask<'a> {
    pub(crate) fn pull(reference: &'a Reference) -> Ask<'a> {
        Ask { reference, scopes: vec![format!("repository:{}:pull", reference.repository())] }
    }

    /// Pushing to the repository; `from` is one that blobs are taken over from.
    pub(crate) fn push(reference: &'a Reference, from: Option<&str>) -> Ask<'a> {
        let own = format!("repository:{}:pull,push", reference.repository());
        let other = from.map(|from| format!("repository:{from}:pull"));
        Ask { reference, scopes: std::iter::once(own).chain(other).collect() }
    }

    /// The address of something in the repository.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", base_url(self.reference.registry()), self.reference.repository())
    }

    /// Whether `url` is the registry's own.
    pub(crate) fn is_own(&self, url: &str) -> bool {
        same_origin(url, &base_url(self.reference.registry()))
    }

    pub(crate) fn unreachable(&self, source: reqwest::Error) -> RegistryError {
        RegistryError::Unreachable { registry: self.reference.registry().to_owned(), source }
    }

    pub(crate) fn refused(&self, status: StatusCode) -> RegistryError {
        let (registry, name) = (self.reference.registry().to_owned(), self.reference.familiar());
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

fn same_origin(url: &str, base: &str) -> bool {
    let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin());
    origin(url).is_some_and(|found| Some(found) == origin(base))
}

/// Plain HTTP is for loopback only.
pub(crate) fn base_url(registry: &str) -> String {
    match registry {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host if is_loopback(host) => format!("http://{host}"),
        host => format!("https://{host}"),
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_loopback() {
        for (host, url) in [
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("example.com", "https://example.com"),
            ("localhost.example.com", "https://localhost.example.com"),
            ("docker.io", "https://registry-1.docker.io"),
        ] {
            assert_eq!(base_url(host), url);
        }
    }

    #[test]
    fn leave_stays_with_its_origin() {
        let base = base_url("example.com");
        assert!(same_origin("https://example.com/v2/x/blobs/uploads/1?_state=a", &base));
        for other in ["https://example.com:444/", "http://example.com/", "https://cdn.example.com/", "x"] {
            assert!(!same_origin(other, &base), "{other}");
        }
    }
}
