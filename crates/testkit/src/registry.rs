//! A real registry to talk to, for tests and measurements.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's `docker-registry` on a port of loopback, with its storage in the directory `registry` of a place. Ends with
/// this value.
pub struct Registry {
    server: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Registry {
    /// Starts one. `more` is added to its configuration, which is called `name`. All of one place have the same storage.
    ///
    /// # Errors
    /// Why it cannot be started, or does not listen in time.
    pub fn start(place: &Path, name: &str, more: &str) -> Result<Registry, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let storage = place.join("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
            storage.display()
        );
        let file = place.join(format!("{name}.yml"));
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        // It must not outlive who started it, however they end.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker-registry (package docker-registry): {error}"))?;
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
        // It may have ended by itself.
        self.server.kill().and_then(|()| self.server.wait().map(drop)).unwrap_or_default();
    }
}
