//! Processes of a graph as ops of a definition.

use lapstrake_graph::{
    CacheMount, Exec, Mount, MountKind, NetworkMode, SecretMount, SecurityMode, Sharing, SshMount,
};
use lapstrake_proto::pb;

use crate::encoded::{Inputs, NotDefinable};

/// The process `exec` on `inputs`.
pub(crate) fn exec(
    exec: &Exec,
    inputs: &[Option<pb::Input>],
    all: &mut Inputs,
) -> Result<pb::op::Op, NotDefinable> {
    if exec.retry > 0 || exec.timeout > 0 {
        return Err(NotDefinable("a step with a time limit or with retries".to_owned()));
    }
    let input = |all: &mut Inputs, number: usize| all.add(inputs.get(number).cloned().flatten());
    let root = pb::Mount {
        input: input(all, 0),
        dest: "/".to_owned(),
        output: 0,
        readonly: exec.readonly_root,
        ..pb::Mount::default()
    };
    let mut mounts = vec![root];
    let mut kept = 0;
    for Mount { target, kind } in &exec.mounts {
        let plain = pb::Mount { input: -1, output: -1, dest: target.clone(), ..pb::Mount::default() };
        mounts.push(match kind {
            MountKind::Bind(bind) => {
                kept += i64::from(bind.keep);
                pb::Mount {
                    input: input(all, bind.input),
                    selector: selector(&bind.source),
                    readonly: bind.readonly,
                    output: if bind.keep { kept } else { -1 },
                    ..plain
                }
            }
            MountKind::Cache(cache) => {
                let from = cache.from.map_or(-1, |number| input(all, number));
                of_cache(cache, from, plain)?
            }
            MountKind::Tmpfs { size } => tmpfs(*size, plain),
            MountKind::Secret(secret) => of_secret(secret, plain),
            MountKind::Ssh(ssh) => of_agent(ssh, plain),
        });
    }
    if exec.shm_size > 0 {
        let plain = pb::Mount { input: -1, output: -1, dest: "/dev/shm".to_owned(), ..pb::Mount::default() };
        mounts.push(tmpfs(exec.shm_size, plain));
    }
    Ok(pb::op::Op::Exec(pb::ExecOp { mounts, ..process(exec) }))
}

fn tmpfs(size: u64, plain: pb::Mount) -> pb::Mount {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    pb::Mount {
        mount_type: pb::MountType::Tmpfs.into(),
        tmpfs_opt: (size > 0).then_some(pb::TmpfsOpt { size }),
        ..plain
    }
}

fn of_secret(secret: &SecretMount, plain: pb::Mount) -> pb::Mount {
    pb::Mount {
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt {
            id: secret.id.clone(),
            uid: secret.uid,
            gid: secret.gid,
            mode: secret.mode,
            optional: !secret.required,
        }),
        ..plain
    }
}

fn of_agent(ssh: &SshMount, plain: pb::Mount) -> pb::Mount {
    pb::Mount {
        mount_type: pb::MountType::Ssh.into(),
        ssh_opt: Some(pb::SshOpt {
            id: ssh.id.clone(),
            uid: ssh.uid,
            gid: ssh.gid,
            mode: ssh.mode,
            optional: !ssh.required,
        }),
        ..plain
    }
}

fn of_cache(cache: &CacheMount, from: i64, plain: pb::Mount) -> Result<pb::Mount, NotDefinable> {
    if cache.mode != 0o755 || cache.uid != 0 || cache.gid != 0 {
        return Err(NotDefinable("a cache directory with an owner or a mode".to_owned()));
    }
    let sharing = match cache.sharing {
        Sharing::Shared => pb::CacheSharingOpt::Shared,
        Sharing::Private => pb::CacheSharingOpt::Private,
        Sharing::Locked => pb::CacheSharingOpt::Locked,
    };
    Ok(pb::Mount {
        input: from,
        selector: selector(&cache.source),
        readonly: cache.readonly,
        mount_type: pb::MountType::Cache.into(),
        cache_opt: Some(pb::CacheOpt { id: cache.id.clone(), sharing: sharing.into() }),
        ..plain
    })
}

/// The path of an input that is mounted; nothing for all of it.
fn selector(source: &str) -> String {
    if matches!(source, "/" | "" | ".") { String::new() } else { source.to_owned() }
}

fn process(exec: &Exec) -> pb::ExecOp {
    let secret = |secret: &lapstrake_graph::SecretEnv| pb::SecretEnv {
        id: secret.id.clone(),
        name: secret.name.clone(),
        optional: !secret.required,
    };
    let limit = |limit: &lapstrake_graph::Ulimit| pb::Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    };
    let meta = pb::Meta {
        args: exec.args.clone(),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        proxy_env: proxies(&exec.proxy_env),
        extra_hosts: exec
            .extra_hosts
            .iter()
            .map(|(host, ip)| pb::HostIp { host: host.clone(), ip: ip.clone() })
            .collect(),
        hostname: exec.hostname.clone(),
        ulimit: exec.ulimits.iter().map(limit).collect(),
        valid_exit_codes: exec.valid_exit_codes.clone(),
        ..pb::Meta::default()
    };
    let network = match exec.network {
        NetworkMode::Default => pb::NetMode::Unset,
        NetworkMode::Host => pb::NetMode::Host,
        NetworkMode::None => pb::NetMode::None,
    };
    let security = match exec.security {
        SecurityMode::Sandbox => pb::SecurityMode::Sandbox,
        SecurityMode::Insecure => pb::SecurityMode::Insecure,
    };
    let device = |device: &lapstrake_graph::Device| pb::CdiDevice {
        name: device.name.clone(),
        optional: !device.required,
    };
    pb::ExecOp {
        meta: Some(meta),
        mounts: Vec::new(),
        network: network.into(),
        security: security.into(),
        secretenv: exec.secret_env.iter().map(secret).collect(),
        cdi_devices: exec.devices.iter().map(device).collect(),
    }
}

fn proxies(pairs: &[String]) -> Option<pb::ProxyEnv> {
    if pairs.is_empty() {
        return None;
    }
    let value = |name: &str| {
        let own = pairs.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        own.unwrap_or_default().to_owned()
    };
    Some(pb::ProxyEnv {
        http_proxy: value("HTTP_PROXY"),
        https_proxy: value("HTTPS_PROXY"),
        ftp_proxy: value("FTP_PROXY"),
        no_proxy: value("NO_PROXY"),
        all_proxy: value("ALL_PROXY"),
    })
}
