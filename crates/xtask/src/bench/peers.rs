//! The builders that ours are measured beside, where they are on PATH.

use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::time::Duration;

use super::measure::{Command, on_path};

/// Another builder.
pub(super) enum Peer {
    Buildah,
    /// With a daemon of its own, which ends with it.
    Buildkit(Daemon),
}

/// A buildkitd that answers.
pub(super) struct Daemon {
    child: Child,
    address: String,
}

impl Peer {
    /// All that work here, with their state below `place`.
    pub(super) fn find(place: &Path) -> Vec<Peer> {
        let mut peers = Vec::new();
        if on_path("buildah") {
            peers.push(Peer::Buildah);
        }
        if ["buildkitd", "buildctl"].into_iter().all(on_path) {
            match Daemon::start(place) {
                Ok(daemon) => peers.push(Peer::Buildkit(daemon)),
                Err(why) => println!("BuildKit cannot run here, and is not measured: {why}"),
            }
        }
        peers
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Peer::Buildah => "buildah",
            Peer::Buildkit(_) => "BuildKit",
        }
    }

    /// A build of `context` with an output of BuildKit's; `None` for others.
    pub(super) fn output(&self, context: &Path, output: &str) -> Option<Command> {
        self.output_of(context, "Dockerfile", output)
    }

    /// The same of the Dockerfile `file` there. Without an `output` the result stays in BuildKit's cache.
    pub(super) fn output_of(&self, context: &Path, file: &str, output: &str) -> Option<Command> {
        let Peer::Buildkit(Daemon { address, .. }) = self else { return None };
        let (context, dockerfile) =
            (format!("context={}", context.display()), format!("dockerfile={}", context.display()));
        let args = ["--addr", address, "build", "--frontend", "dockerfile.v0", "--local", &context];
        let command = Command::new("buildctl").args(&args).args(&["--local", &dockerfile]);
        let command = command.args(&["--opt", &format!("filename={file}")]);
        Some(if output.is_empty() { command } else { command.args(&["--output", output]) })
    }

    /// A shell command after which BuildKit has nothing in its store; `None` for others.
    pub(super) fn emptied(&self) -> Option<String> {
        let Peer::Buildkit(Daemon { address, .. }) = self else { return None };
        Some(format!("buildctl --addr '{address}' prune --all > /dev/null"))
    }

    /// A build of `context` into the peer's own store.
    pub(super) fn build(&self, place: &Path, context: &Path, more: &[&str]) -> Command {
        let context = context.display().to_string();
        // Some need minutes for what is measured here: two rounds say enough.
        match self {
            Peer::Buildah => {
                let dir = |name: &str| place.join(format!("buildah-{name}")).display().to_string();
                let mut command = Command::new("buildah").rounds(2);
                command.env("STORAGE_DRIVER", Path::new("overlay"));
                // `chroot` is the fastest that it has.
                command
                    .args(&["--root", &dir("root"), "--runroot", &dir("run"), "build", "--layers", "-q"])
                    .args(&["--isolation", "chroot"])
                    .args(more)
                    .args(&[&context])
            }
            Peer::Buildkit(Daemon { address, .. }) => Command::new("buildctl")
                .rounds(2)
                .args(&["--addr", address, "build", "--frontend", "dockerfile.v0"])
                .args(&[
                    "--local",
                    &format!("context={context}"),
                    "--local",
                    &format!("dockerfile={context}"),
                ])
                .args(&["--output", "type=image,name=bench"])
                .args(more),
        }
    }
}

impl Daemon {
    fn start(place: &Path) -> Result<Daemon, String> {
        let path = |name: &str| -> PathBuf { place.join(name) };
        let address = format!("unix://{}", path("buildkit.sock").display());
        let child = process::Command::new("buildkitd")
            .arg("--root")
            .arg(path("buildkit"))
            .args(["--addr", &address, "--containerd-worker=false", "--oci-worker=true"])
            // The network of the machine, as a step of ours that is measured here has it.
            .arg("--oci-worker-net=host")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let daemon = Daemon { child, address };
        for _ in 0..100 {
            let asked = process::Command::new("buildctl")
                .args(["--addr", &daemon.address, "debug", "workers"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if asked.is_ok_and(|status| status.success()) {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("its daemon does not answer".to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It unmounts what it has mounted when it is asked to end.
        let asked = process::Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            self.child.kill().unwrap_or_default();
        }
        self.child.wait().map(drop).unwrap_or_default();
    }
}
