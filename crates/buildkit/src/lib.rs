//! BuildKit's gRPC API over the builds of lapstrake.
//!
//! The server has no build logic. A call becomes a [`lapstrake_request::BuildRequest`], the client's session becomes the
//! [`lapstrake_build::Client`] of the build, and the events of the build become status messages.
//!
//! | module | what it has |
//! |---|---|
//! | `server` | listens, and puts the services together |
//! | `host` | what the services share |
//! | `control` | the service `Control`: solve, status, session, workers |
//! | `bridge` | the service `LLBBridge`, which clients and frontends drive a build through |
//! | `driver`, `driven` | those who drive a build: its client, and frontends |
//! | `frontends` | frontends that are programs in images |
//! | `gateway`, `held` | files, images and containers for those who drive a build |
//! | `records`, `history` | records of builds, with their logs, errors and traces |
//! | `filter` | filters of things by their fields, as containerd has them |
//! | `content` | the blobs of records |
//! | `usage`, `upkeep` | disk usage and garbage collection |
//! | `reports` | the sink of a build's events |
//! | `run` | a build from a call to its outputs and its record |
//! | `jobs` | the builds that run, by the ids that clients give them |
//! | `definitions` | definitions (LLB) as results of a build |
//! | `results` | results that a client puts together |
//! | `layouts` | OCI layouts of the client as places of images |
//! | `uploads` | uploads of the client as files of the web |
//! | `policy` | source policies |
//! | `requested` | platforms that a client asked for |
//! | `reference` | the solved trees of references that clients hold |
//! | `session` | the connection back to a client |
//! | `caller` | a session as the client of a build: directories, secrets, agents, logins, outputs |
//! | `files` | fsutil's protocol for trees of files, in both directions |
//! | `translate` | calls as build requests |
//! | `status`, `error` | events and reports in the words of the API |
//!
//! Everything that a client sends may be hostile: ids never become paths, paths of files are checked part by part, and
//! sub-messages may be missing.

mod bridge;
mod caller;
mod content;
mod control;
mod definitions;
mod driven;
mod driver;
mod error;
mod files;
mod filter;
mod frontends;
mod gateway;
mod held;
mod history;
mod host;
mod inputs;
mod jobs;
mod layouts;
mod policy;
mod records;
mod reference;
mod reports;
mod requested;
mod results;
mod run;
mod server;
mod session;
mod shared;
mod status;
mod subrequest;
mod thread;
mod translate;
mod upkeep;
mod uploads;
mod usage;
mod worker;

pub use host::{Devices, Host};
pub use server::{Address, ServeError, Server, Tls};
pub use upkeep::KeepPolicy;
pub use usage::filter as usage_filter;
