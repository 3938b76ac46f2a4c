//! One set-up of HTTP for registries, files of the web, and programs that listen on a Unix socket: the TLS provider, the
//! proxies, the waiting times, and when a request is made again.
//!
//! Nothing here knows what is asked for, or who asks.

pub mod proxies;
pub mod retry;
pub mod socket;

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

pub use crate::proxies::Proxies;

/// The value of `User-Agent`.
const USER_AGENT: &str = concat!("lapstrake/", env!("CARGO_PKG_VERSION"));
/// How long a host may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// How long an answer may pause.
const READ: Duration = Duration::from_secs(60);

/// The beginning of every client. Redirects are the caller's to decide about; no address is told to the next one, as an
/// address may have a secret in it. Building a client for TLS reads the system's certificates, which takes some ms.
pub fn builder(proxies: &Proxies) -> ClientBuilder {
    // Fails only if a provider was installed before: it is this one.
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .read_timeout(READ);
    proxies.set(builder)
}
