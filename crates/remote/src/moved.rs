//! Where a server sends git, found out without giving a login to anybody else.
//!
//! Git sends its extra headers to whoever the server redirects to. So git follows no redirect of a server that gets a login: we
//! look where the server sends us, and tell git the address, and whether the login is for that server too.

use std::time::Duration;

use lapstrake_http::{Proxies, builder};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, LOCATION};

/// What git asks first.
const FIRST: &str = "/info/refs?service=git-upload-pack";
/// As many as git follows.
const REDIRECTS: u32 = 20;

/// A repository at another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The address.
    pub remote: String,
    /// Whether the login for the first address is for this one, too: the same server, or its encrypted address.
    pub authorized: bool,
}

/// Where the server at `remote`, an HTTP address, says that the repository is; `None` if it is there. A server that
/// cannot be asked is left to git, which tells what is wrong.
pub async fn moved(remote: &str, authorization: &str, proxies: &Proxies) -> Option<Moved> {
    let http = builder(proxies)
        // Servers answer git otherwise than browsers.
        .user_agent(concat!("git/2 lapstrake/", env!("CARGO_PKG_VERSION")))
        .timeout(Duration::from_secs(30))
        .build()
        .ok()?;
    let base = Url::parse(remote).ok()?;
    let first = Url::parse(&format!("{}{FIRST}", remote.trim_end_matches('/'))).ok()?;
    let mut url = first.clone();
    for _ in 0..REDIRECTS {
        let mut request = http.get(url.clone());
        if is_for(&base, &url) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.ok()?;
        if !response.status().is_redirection() {
            break;
        }
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        url = url.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    }
    if url == first {
        return None;
    }
    let remote = url.as_str().strip_suffix(FIRST)?.to_owned();
    Some(Moved { remote, authorized: is_for(&base, &url) })
}

/// Whether a login for `base` may go to `url`.
fn is_for(base: &Url, url: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let same = base.scheme() == url.scheme() && port(base) == port(url);
    let upgraded = (base.scheme(), base.port(), url.scheme(), url.port()) == ("http", None, "https", None);
    base.host() == url.host() && (same || upgraded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_stay_with_their_server() {
        let is_for = |base: &str, url: &str| is_for(&Url::parse(base).unwrap(), &Url::parse(url).unwrap());
        assert!(is_for("https://host/x", "https://host:443/y"));
        assert!(is_for("http://host/x", "https://host/x"));
        for other in ["http://host/x", "https://host:8443/x", "https://other/x", "https://host.other/x"] {
            assert!(!is_for("https://host/x", other), "{other}");
        }
        assert!(!is_for("http://host:81/x", "https://host/x"));
    }
}
