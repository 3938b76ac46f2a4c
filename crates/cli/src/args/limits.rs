//! How containers are held, for builds and runs alike.

use clap::Args as ClapArgs;

/// Limits, and what a container may not gain.
#[derive(Debug, ClapArgs)]
pub(crate) struct Hold {
    /// Most memory that each container may use, as `512m`
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Most processors that each container may use, as `1.5`
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Most processes and threads that each container may have
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<u64>,
    /// `no-new-privileges`: set-user-id programs such as `sudo` gain nothing
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
}
