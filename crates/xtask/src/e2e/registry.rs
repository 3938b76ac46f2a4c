//! A real registry to talk to.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::place::{Mode, stop};

/// Debian's `docker-registry` on a port of loopback, with its storage in the place. Ends with this value.
pub(super) struct Registry {
    server: Child,
    /// `127.0.0.1:PORT`
    pub(super) address: String,
}

impl Registry {
    /// `more` is added to its configuration.
    pub(super) fn start(mode: &Mode, more: &str) -> Result<Registry, String> {
        Registry::named(mode, "registry", more)
    }

    /// One beside others; all have the same storage.
    pub(super) fn named(mode: &Mode, name: &str, more: &str) -> Result<Registry, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let storage = mode.place.join("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
            storage.display()
        );
        let file = mode.place.join(format!("{name}.yml"));
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        // It must not outlive these tests, however they end.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker-registry: {error}"))?;
        let registry = Registry { server, address: address.to_string() };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("docker-registry does not listen on {address}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        stop(&mut self.server);
    }
}
