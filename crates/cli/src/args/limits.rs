//! How containers are held, for builds and runs alike.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use lapstrake_request::LimitRequest;

/// Limits, and what a container may not gain.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Hold {
    /// Limit the memory of each container, as `512m`
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Limit memory and swap together, `-1` for any amount of swap (default: no swap beyond --memory)
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<String>,
    /// Limit the processors of each container, as `1.5`
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// The weight of each container when others want the processors too (usually 1024)
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,
    /// The period of --cpu-quota, in microseconds (default: 100000)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_period: Option<String>,
    /// The processor time of each container in a period, in microseconds
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_quota: Option<String>,
    /// The processors that containers may run on, as `0-3,5`
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes that containers may use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit the processes and threads of each container
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<u64>,
    /// The parent of the containers' control groups (default: lapstrake's own group)
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<PathBuf>,
    /// Limit each container's reads from a disk in bytes a second, as `/dev/sda:1mb`
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub(crate) device_read_bps: Vec<String>,
    /// Limit each container's writes to a disk in bytes a second
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub(crate) device_write_bps: Vec<String>,
    /// Limit each container's reads a second from a disk, as `/dev/sda:100`
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub(crate) device_read_iops: Vec<String>,
    /// Limit each container's writes a second to a disk
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
