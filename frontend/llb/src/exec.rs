//! Processes.

use lapstrake_graph::{
    Bind, CacheMount, Device, Edge, Exec, Mount, MountKind, NetworkMode, Op, SecretEnv, SecretMount,
    SecurityMode, Sharing, SshMount, Ulimit,
};
use lapstrake_proto::pb;

use crate::error::LlbError;
use crate::lower::{Lowering, This};

/// The search path of a process whose environment has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The mode of a fresh cache directory.
pub const CACHE_MODE: u32 = 0o755;

/// The mounts of a process, translated.
#[derive(Default)]
struct Mounts {
    mounts: Vec<Mount>,
    /// The inputs of the vertex. The first one is the root.
    inputs: Vec<Edge>,
    /// The outputs of mounts that are written to, in the order of the mounts.
    kept: Vec<i64>,
    /// The outputs of mounts that nobody can write to.
    unchanged: Vec<(i64, Edge)>,
}

impl Mounts {
    /// The index of `edge` among the inputs.
    fn index(&mut self, edge: Edge) -> usize {
        self.inputs.push(edge);
        self.inputs.len() - 1
    }
}

/// The mount with an absolute place: one without is in the working directory.
fn in_root(this: &This<'_>, mount: &pb::Mount) -> Result<pb::Mount, LlbError> {
    if mount.dest.starts_with('/') {
        return Ok(mount.clone());
    }
    let cwd = match &this.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.meta.as_ref().map_or("", |meta| meta.cwd.as_str()),
        _ => "",
    };
    if mount.dest.is_empty() || !cwd.starts_with('/') {
        return Err(this.invalid(format!("the mount `{}` has no absolute place", mount.dest)));
    }
    Ok(pb::Mount { dest: format!("{}/{}", cwd.trim_end_matches('/'), mount.dest), ..mount.clone() })
}

impl Lowering<'_> {
    /// A process with its outputs.
    pub(crate) fn exec(&mut self, this: &This<'_>, exec: &pb::ExecOp) -> Result<Vec<(i64, Edge)>, LlbError> {
        let meta = exec.meta.as_ref().filter(|meta| !meta.args.is_empty());
        let meta = meta.ok_or_else(|| this.invalid("a process needs arguments"))?;
        let root = exec.mounts.iter().find(|mount| mount.dest == "/");
        let root = root.ok_or_else(|| this.invalid("a process needs a mount at /"))?;
        if root.mount_type != i32::from(pb::MountType::Bind) {
            return Err(this.unsupported("a root that is no bind mount"));
        }
        if !matches!(root.selector.as_str(), "" | "/" | ".") {
            return Err(this.unsupported("a root that is a part of its input"));
        }
        let base = self.input_or_scratch(this, root.input)?;
        let mut mounts = Mounts { inputs: vec![base], ..Mounts::default() };
        for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
            self.mount(this, mount, &mut mounts)?;
        }
        let Mounts { mounts, inputs, kept, unchanged } = mounts;
        let op = Op::Exec(Exec { mounts, readonly_root: root.readonly, ..process(this, exec, meta)? });
        let vertex = self.graph.add(op, inputs, this.meta.clone())?;
        let mut outputs = unchanged;
        let further = kept.into_iter().zip(1..);
        outputs.extend(further.map(|(index, output)| (index, Edge { vertex, output })));
        // The root has its changes, and the process runs even where only the root of it is asked for.
        if root.output >= 0 {
            outputs.push((root.output, Edge { vertex, output: 0 }));
        }
        Ok(outputs)
    }

    fn mount(&mut self, this: &This<'_>, mount: &pb::Mount, all: &mut Mounts) -> Result<(), LlbError> {
        let mount = &in_root(this, mount)?;
        let kind = pb::MountType::try_from(mount.mount_type)
            .map_err(|_| this.invalid(format!("unknown mount type {}", mount.mount_type)))?;
        // Secrets and agents have no output, whatever the field says.
        let has_output = mount.output >= 0 && matches!(kind, pb::MountType::Cache | pb::MountType::Tmpfs);
        if has_output && mount.output > 0 {
            return Err(this.unsupported("an output of a mount that is no bind mount"));
        }
        let kind = match kind {
            pb::MountType::Bind => self.bind(this, mount, all)?,
            pb::MountType::Cache => MountKind::Cache(cache(this, mount, all)?),
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.as_ref().map_or(0, |options| options.size);
                let size = u64::try_from(size).map_err(|_| this.invalid("a tmpfs of negative size"))?;
                MountKind::Tmpfs { size }
            }
            pb::MountType::Secret => MountKind::Secret(secret(mount)),
            pb::MountType::Ssh => MountKind::Ssh(agent(mount)),
        };
        all.mounts.push(Mount { target: mount.dest.clone(), kind });
        Ok(())
    }

    fn bind(&mut self, this: &This<'_>, mount: &pb::Mount, all: &mut Mounts) -> Result<MountKind, LlbError> {
        let edge = self.input_or_scratch(this, mount.input)?;
        let keep = mount.output >= 0 && !mount.readonly;
        if keep {
            all.kept.push(mount.output);
        } else if mount.output >= 0 {
            all.unchanged.push((mount.output, edge));
        }
        let (source, readonly) = (selected(mount), mount.readonly);
        Ok(MountKind::Bind(Bind { input: all.index(edge), source, readonly, keep }))
    }
}

/// The path in the input that is mounted.
fn selected(mount: &pb::Mount) -> String {
    if mount.selector.is_empty() { "/".to_owned() } else { mount.selector.clone() }
}

fn cache(this: &This<'_>, mount: &pb::Mount, all: &mut Mounts) -> Result<CacheMount, LlbError> {
    let options = mount.cache_opt.clone().unwrap_or_default();
    let from = (mount.input >= 0).then(|| this.input(mount.input)).transpose()?;
    // An id of its own, so that nobody meets the directories of another op by chance.
    let own = || format!("{}:{}", this.digest, mount.dest);
    Ok(CacheMount {
        id: if options.id.is_empty() { own() } else { options.id.clone() },
        sharing: sharing(this, options.sharing)?,
        from: from.map(|edge| all.index(edge)),
        source: selected(mount),
        readonly: mount.readonly,
        mode: CACHE_MODE,
        uid: 0,
        gid: 0,
    })
}

fn secret(mount: &pb::Mount) -> SecretMount {
    let options = mount.secret_opt.clone().unwrap_or_default();
    SecretMount {
        id: options.id,
        required: !options.optional,
        mode: options.mode & 0o777,
        uid: options.uid,
        gid: options.gid,
    }
}

fn agent(mount: &pb::Mount) -> SshMount {
    let options = mount.ssh_opt.clone().unwrap_or_default();
    SshMount {
        id: if options.id.is_empty() { "default".to_owned() } else { options.id },
        required: !options.optional,
        mode: options.mode & 0o777,
        uid: options.uid,
        gid: options.gid,
    }
}

/// The process itself, without mounts.
fn process(this: &This<'_>, exec: &pb::ExecOp, meta: &pb::Meta) -> Result<Exec, LlbError> {
    if !meta.cgroup_parent.is_empty() {
        return Err(this.unsupported("a cgroup parent of one process"));
    }
    let mut env = meta.env.clone();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(PATH.to_owned());
    }
    let network = match pb::NetMode::try_from(exec.network) {
        Ok(pb::NetMode::Unset) => NetworkMode::Default,
        Ok(pb::NetMode::Host) => NetworkMode::Host,
        Ok(pb::NetMode::None) => NetworkMode::None,
        Err(_) => return Err(this.invalid(format!("invalid network mode: {}", exec.network))),
    };
    let security = match pb::SecurityMode::try_from(exec.security) {
        Ok(pb::SecurityMode::Sandbox) => SecurityMode::Sandbox,
        Ok(pb::SecurityMode::Insecure) => SecurityMode::Insecure,
        Err(_) => return Err(this.invalid(format!("invalid security mode: {}", exec.security))),
    };
    let secret_env = exec.secretenv.iter().map(|secret| SecretEnv {
        id: secret.id.clone(),
        name: secret.name.clone(),
        required: !secret.optional,
    });
    let limit = |limit: &pb::Ulimit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
    let device = |device: &pb::CdiDevice| Device { name: device.name.clone(), required: !device.optional };
    Ok(Exec {
        args: meta.args.clone(),
        env,
        cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
        user: meta.user.clone(),
        hostname: if meta.hostname.is_empty() { "buildkitsandbox".to_owned() } else { meta.hostname.clone() },
        mounts: Vec::new(),
        secret_env: secret_env.collect(),
        network,
        security,
        extra_hosts: meta.extra_hosts.iter().map(|host| (host.host.clone(), host.ip.clone())).collect(),
        shm_size: 0,
        ulimits: meta.ulimit.iter().map(limit).collect(),
        devices: exec.cdi_devices.iter().map(device).collect(),
        retry: 0,
        timeout: 0,
        valid_exit_codes: meta.valid_exit_codes.clone(),
        readonly_root: false,
        proxy_env: meta.proxy_env.as_ref().map(proxies).unwrap_or_default(),
    })
}

/// The proxy variables, in capital and in small letters.
fn proxies(proxies: &pb::ProxyEnv) -> Vec<String> {
    let all = [
        ("HTTP_PROXY", &proxies.http_proxy),
        ("HTTPS_PROXY", &proxies.https_proxy),
        ("FTP_PROXY", &proxies.ftp_proxy),
        ("NO_PROXY", &proxies.no_proxy),
        ("ALL_PROXY", &proxies.all_proxy),
    ];
    let set = all.iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
        .collect()
}

fn sharing(this: &This<'_>, sharing: i32) -> Result<Sharing, LlbError> {
    match pb::CacheSharingOpt::try_from(sharing) {
        Ok(pb::CacheSharingOpt::Shared) => Ok(Sharing::Shared),
        Ok(pb::CacheSharingOpt::Private) => Ok(Sharing::Private),
        Ok(pb::CacheSharingOpt::Locked) => Ok(Sharing::Locked),
        Err(_) => Err(this.invalid(format!("unknown sharing mode {sharing}"))),
    }
}
