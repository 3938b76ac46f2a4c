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
    /// Most bytes a second that each container may read from a disk, as `/dev/sda:1mb`
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub(crate) device_read_bps: Vec<String>,
    /// Most bytes a second that each container may write to a disk
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub(crate) device_write_bps: Vec<String>,
    /// Most reads a second of each container from a disk, as `/dev/sda:100`
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub(crate) device_read_iops: Vec<String>,
    /// Most writes a second of each container to a disk
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub(crate) device_write_iops: Vec<String>,
    /// `no-new-privileges`: set-user-id programs such as `sudo` gain nothing
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
}
