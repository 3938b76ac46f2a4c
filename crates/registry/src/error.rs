//! What can go wrong between us and a registry.

use lapstrake_diag::{Code, Fault, Reported};
use lapstrake_oci::Platform;

use lapstrake_http::retry::{ABSENT, ATTEMPTS};

/// Why something could not be had from a registry.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RegistryError {
    /// No answer.
    #[error("cannot reach registry `{registry}`")]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// Whether the host does not exist or does not listen: retries are of little use.
        absent: bool,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up HTTPS")]
    Setup {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The settings for registries make no sense.
    #[error("cannot use the settings in `{}`: {why}", path.display())]
    Settings {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        why: String,
    },
    /// It is not there, or not for us.
    #[error("`{name}` not found: it does not exist or needs a login")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The registry wants to know who we are.
    #[error("registry `{registry}` denied access to `{name}`")]
    Denied {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        name: String,
    },
    /// The registry does not know the user, or the password is another one.
    #[error("registry `{registry}` denied access with this user name and password")]
    LoginRefused {
        /// The registry's host.
        registry: String,
    },
    /// Any other refusal.
    #[error("registry `{registry}` answered {status} for `{name}`")]
    Status {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        name: String,
        /// The HTTP status.
        status: u16,
    },
    /// A registry without a search.
    #[error("registry `{registry}` has no search")]
    NoSearch {
        /// The registry's host.
        registry: String,
    },
    /// A login server that we must not talk to.
    #[error("registry `{registry}` sends us to `{realm}` for a token, which is not a safe address")]
    UnsafeRealm {
        /// The registry's host.
        registry: String,
        /// Where it sends us.
        realm: String,
    },
    /// Bytes that are not what they should be.
    #[error("{what} of `{name}` is damaged: expected {expected}, got {found}")]
    Corrupt {
        /// The kind of thing.
        what: &'static str,
        /// The image.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A document that makes no sense.
    #[error("{what} of `{name}` cannot be read")]
    Malformed {
        /// The kind of document.
        what: &'static str,
        /// The image.
        name: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A document of a type that no image has.
    #[error("`{name}` is a `{media_type}`, not an image")]
    NotAnImage {
        /// What was asked for.
        name: String,
        /// What it is.
        media_type: String,
    },
    /// A registry that says two things of one document.
    #[error("the registry says that `{name}` is a `{told}`, and it is {found}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The type that came with it.
        told: String,
        /// What is in it.
        found: String,
    },
    /// No image for this platform.
    #[error("`{name}` has no image for {platform}: it is for {}", list(offered))]
    NoPlatform {
        /// What was asked for.
        name: String,
        /// For which platform.
        platform: Box<Platform>,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// A login that cannot be looked up or kept.
    #[error("cannot look up logins in `{place}`: {why}")]
    Credentials {
        /// The file or the program.
        place: String,
        /// Why not.
        why: String,
    },
    /// Something to be pushed cannot be read.
    #[error("cannot read {what} to push it to `{name}`")]
    Source {
        /// The kind of thing.
        what: &'static str,
        /// The image.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The receiver of the bytes failed.
    #[error("cannot store {what} of `{name}`")]
    Sink {
        /// The kind of thing.
        what: &'static str,
        /// The image.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether the registry, or who gives leave for it, answered and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        let status = match self {
            RegistryError::Status { status, .. } => *status,
            RegistryError::NotFound { .. } | RegistryError::Denied { .. } => return true,
            _ => return false,
        };
        (400..500).contains(&status) && !self.is_interruption()
    }

    /// Whether bytes came that are not those that they should be.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, RegistryError::Corrupt { .. } | RegistryError::Sink { .. })
    }

    /// How often a request is made that ends like this.
    pub(crate) fn attempts(&self) -> u32 {
        match self {
            RegistryError::Unreachable { absent: true, .. } => ABSENT,
            error if error.is_interruption() => ATTEMPTS,
            _ => 1,
        }
    }

    /// Whether a connection ended early: what was begun may be continued.
    pub(crate) fn is_interruption(&self) -> bool {
        match self {
            RegistryError::Unreachable { absent, .. } => !absent,
            RegistryError::Status { status, .. } => matches!(*status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl RegistryError {
    /// The code of [`RegistryError::NoPlatform`].
    pub const NO_PLATFORM: Code = Code::new("registry", "no-platform");
}

impl Reported for RegistryError {
    fn code(&self) -> Code {
        Code::new("registry", self.into())
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Setup { .. } | Self::Settings { .. } => Fault::Environment,
            _ => Fault::Build,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RegistryError::Denied { registry, .. } => Some(match registry.as_str() {
                "docker.io" => "log in with `lapstrake login`".to_owned(),
                registry => format!("log in with `lapstrake login {registry}`"),
            }),
            _ => None,
        }
    }
}
