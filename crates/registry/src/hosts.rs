//! Hosts: how each is reached, and the HTTP client for it.
//!
//! A client's certificate, and the leave to take any certificate, are for the host that they are set for. So every host
//! that has such settings has a client of its own, and redirects are followed by us.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_http::{Proxies, builder};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use crate::error::RegistryError;
use crate::settings::{Host, Registries, Settings};

/// How one host is reached.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) http: Client,
    /// `https://host`, without a slash at its end.
    pub(crate) base: String,
    /// Whether anybody has ever answered there.
    pub(crate) answered: AtomicBool,
}

/// All hosts.
pub(crate) struct Hosts {
    settings: Settings,
    insecure: bool,
    proxies: Proxies,
    routes: Mutex<HashMap<String, Arc<Route>>>,
    /// For everybody without settings; made when first needed, because it reads the system's certificates.
    plain: Mutex<Option<Client>>,
}

impl Hosts {
    pub(crate) fn new(registries: &Registries) -> Result<Hosts, RegistryError> {
        let settings = Settings::read(registries)?;
        Ok(Hosts {
            settings,
            insecure: registries.insecure,
            proxies: registries.proxies.clone(),
            routes: Mutex::default(),
            plain: Mutex::default(),
        })
    }

    /// The mirrors of a registry.
    pub(crate) fn mirrors(&self, registry: &str) -> Vec<String> {
        self.settings.of(registry).mirrors
    }

    fn host(&self, name: &str) -> Host {
        let mut host = self.settings.of(name);
        host.insecure |= self.insecure;
        host
    }

    /// How `name` is reached.
    pub(crate) async fn route(&self, name: &str) -> Result<Arc<Route>, RegistryError> {
        if let Some(route) = lock(&self.routes).get(name) {
            return Ok(route.clone());
        }
        let host = self.host(name);
        let scheme = match (host.http, needs_tls(&host)) {
            (Some(true), _) => "http",
            (None, false) if is_loopback(name) && !host.insecure => "http",
            (Some(false), _) | (None, true) => "https",
            (None, false) if host.insecure && !speaks_tls(&self.client(&host, true)?, name).await => "http",
            (None, false) => "https",
        };
        let base = format!("{scheme}://{}", address(name));
        let http = self.client(&host, scheme == "https")?;
        let route = Arc::new(Route { http, base, answered: AtomicBool::new(false) });
        Ok(lock(&self.routes).entry(name.to_owned()).or_insert(route).clone())
    }

    /// The client for an address that a registry sent us to.
    pub(crate) fn elsewhere(&self, url: &Url) -> Result<Client, RegistryError> {
        let mut name = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            name = format!("{name}:{port}");
        }
        self.client(&self.host(&name), url.scheme() == "https")
    }

    fn client(&self, host: &Host, tls: bool) -> Result<Client, RegistryError> {
        if !tls {
            // No certificate is looked at: the system's need not be read.
            return built(builder(&self.proxies).tls_certs_only([]));
        }
        if needs_tls(host) || host.insecure {
            return built(with_settings(host, &self.proxies)?);
        }
        let mut plain = lock(&self.plain);
        match plain.as_ref() {
            Some(client) => Ok(client.clone()),
            None => Ok(plain.insert(built(builder(&self.proxies))?).clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn needs_tls(host: &Host) -> bool {
    !host.ca.is_empty() || !host.keypair.is_empty()
}

fn built(builder: ClientBuilder) -> Result<Client, RegistryError> {
    builder.build().map_err(|source| RegistryError::Setup { source })
}

fn with_settings(host: &Host, proxies: &Proxies) -> Result<ClientBuilder, RegistryError> {
    let mut builder = builder(proxies);
    if host.insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    for path in &host.ca {
        let pem = read(path)?;
        let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
        builder = builder.tls_certs_merge(certificates.ok_or_else(|| bad(path, "it has no certificate"))?);
    }
    if let Some(pair) = host.keypair.first() {
        let mut pem = read(&pair.key)?;
        pem.push(b'\n');
        pem.extend(read(&pair.cert)?);
        let identity = Identity::from_pem(&pem);
        builder = builder
            .identity(identity.map_err(|_| bad(&pair.key, "it is no key, or not with that certificate"))?);
    }
    Ok(builder)
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    fs::read(path).map_err(|error| bad(path, &error.to_string()))
}

fn bad(path: &Path, why: &str) -> RegistryError {
    RegistryError::Settings { path: path.to_owned(), why: why.to_owned() }
}

/// Whether an insecure registry has TLS at all.
async fn speaks_tls(client: &Client, name: &str) -> bool {
    client.get(format!("https://{}/v2/", address(name))).send().await.is_ok()
}

/// Where a registry is.
fn address(name: &str) -> &str {
    if name == "docker.io" { "registry-1.docker.io" } else { name }
}

/// Whether a registry is on the loopback interface.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
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

    fn base(settings: &str, insecure: bool, name: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), settings).unwrap();
        let registries =
            Registries { files: vec![file.path().to_owned()], insecure, ..Registries::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hosts = Hosts::new(&registries).unwrap();
        runtime.block_on(hosts.route(name)).unwrap().base.clone()
    }

    #[test]
    fn http_is_for_loopback_and_where_it_is_set() {
        for (host, url) in [
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("example.com", "https://example.com"),
            ("localhost.example.com", "https://localhost.example.com"),
            ("docker.io", "https://registry-1.docker.io"),
        ] {
            assert_eq!(base("", false, host), url);
        }
        assert_eq!(base("registry.\"a.example\".http = true", false, "a.example"), "http://a.example");
        assert_eq!(base("registry.localhost.http = false", false, "localhost"), "https://localhost");
        // Nobody listens there: no TLS, so none is needed.
        assert_eq!(
            base("registry.\"127.0.0.1:1\".insecure = true", false, "127.0.0.1:1"),
            "http://127.0.0.1:1"
        );
        assert_eq!(base("", true, "127.0.0.1:1"), "http://127.0.0.1:1");
    }

    #[test]
    fn who_hangs_up_on_tls_has_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        // Without a byte of an answer, as a proxy does that takes TLS for garbage.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        assert_eq!(base("", true, &name), format!("http://{name}"));
    }

    #[test]
    fn files_of_settings_are_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let host = Host { ca: vec![file.path().to_owned()], ..Host::default() };
        assert!(
            with_settings(&host, &Proxies::default())
                .unwrap_err()
                .to_string()
                .contains("it has no certificate")
        );
        let host = Host { ca: vec!["/nonexistent/ca.pem".into()], ..Host::default() };
        assert!(
            with_settings(&host, &Proxies::default())
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/ca.pem")
        );
    }
}
