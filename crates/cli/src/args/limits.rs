//! How containers are held, for builds and runs alike.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use lapstrake_request::LimitRequest;

/// Limits, and what a container may not gain.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Hold {
    /// Most memory that each container may use, as `512m`
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together, `-1` for any amount of swap (default: no swap beyond --memory)
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<String>,
    /// Most processors that each container may use, as `1.5`
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// The part of the processors' time that each container gets where others want it too (usually 1024)
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,
    /// Microseconds in which a container may use --cpu-quota (default: 100000)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_period: Option<String>,
    /// Microseconds that each container may use of processors in a period
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_quota: Option<String>,
    /// The processors that containers may run on, as `0-3,5`
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The nodes whose memory containers may use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Most processes and threads that each container may have
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<u64>,
    /// The control group that containers' groups are made in (default: the one that lapstrake is in)
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<PathBuf>,
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

impl Hold {
    /// The same limits as a request has them.
    pub(crate) fn request(&self) -> LimitRequest {
        let Hold {
            memory,
            memory_swap,
            cpus,
            cpu_shares,
            cpu_period,
            cpu_quota,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            cgroup_parent,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            security_opt,
        } = self.clone();
        LimitRequest {
            memory,
            memory_swap,
            cpus,
            cpu_shares,
            cpu_period,
            cpu_quota,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            cgroup_parent,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            security_opt,
        }
    }
}
