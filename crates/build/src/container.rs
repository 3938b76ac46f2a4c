//! One container of `run`, from its request to the sandbox's settings.

mod mounts;
mod spec;

use lapstrake_diag::Outcome;
use lapstrake_graph::NetworkMode;
use lapstrake_runtime::{
    ChosenNetwork, DnsSettings, Network, NetworkPreference, RuntimeError, Sandbox, WindowSize,
};

use crate::attrs;

pub use mounts::{RequestedMount, mounts};
pub use spec::{Overrides, spec};

/// A container that a caller asks for. Texts are in Docker's syntax and not yet read.
#[derive(Clone, Debug, Default)]
pub struct ContainerRequest {
    /// The image's name, or the beginning of its id.
    pub image: String,
    /// The command and its arguments; nothing means the image's.
    pub command: Vec<String>,
    /// The container's name.
    pub name: Option<String>,
    /// The program in place of the image's entry point; an empty text for none.
    pub entrypoint: Option<String>,
    /// The working directory in place of the image's.
    pub workdir: Option<String>,
    /// The user in place of the image's.
    pub user: Option<String>,
    /// The size of the container's own terminal; `None` for no terminal.
    pub terminal: Option<WindowSize>,
    /// `--volume`
    pub volumes: Vec<String>,
    /// `--mount`
    pub mounts: Vec<String>,
    /// `--tmpfs`
    pub tmpfs: Vec<String>,
    /// `--cap-add`
    pub added_capabilities: Vec<String>,
    /// `--cap-drop`
    pub dropped_capabilities: Vec<String>,
    /// `--ulimit`
    pub ulimits: Vec<String>,
    /// `--add-host`
    pub hosts: Vec<String>,
    /// `--shm-size`
    pub shm_size: Option<String>,
    /// `--hostname`
    pub hostname: Option<String>,
    /// Whether the root is read-only.
    pub readonly_root: bool,
    /// Whether an init process is the first one.
    pub init: bool,
}

/// The sandbox that makes a container, and the network of the container: the one that `network` names in Docker's words;
/// `preferred` is the caller's default.
///
/// # Errors
/// No such network is known, or the sandbox cannot be started.
pub fn sandbox(network: &str, preferred: Option<&str>) -> Outcome<(Sandbox, ChosenNetwork)> {
    let (mode, preference) = attrs::network(network, preferred)?;
    let without = |network| ChosenNetwork { network, notice: None, hint: None };
    let (own, plain) = match mode {
        NetworkMode::Default => (preference != NetworkPreference::Host, None),
        NetworkMode::Host => (false, Some(without(Network::Host))),
        NetworkMode::None => (false, Some(without(Network::None))),
    };
    let sandbox = if own { Sandbox::start_with_network(DnsSettings::default())? } else { Sandbox::start()? };
    let chosen = match plain {
        Some(plain) => plain,
        None => sandbox.choose_network(preference).map_err(RuntimeError::from)?,
    };
    Ok((sandbox, chosen))
}
