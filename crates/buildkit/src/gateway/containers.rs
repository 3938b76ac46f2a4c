//! Containers that clients make to run processes in, and the files of their mounts.

use std::net::IpAddr;
use std::sync::Arc;

use lapstrake_graph::{
    Bind, CacheMount, Exec, Mount, MountKind, NetworkMode, SecretMount, Sharing, SshMount,
};
use lapstrake_llb::CACHE_MODE;
use lapstrake_ops::{Container, Job as Steps, SharedStack};
use lapstrake_proto::moby::buildkit::v1::frontend as api;
use lapstrake_proto::pb;
use tonic::Status;

use super::files::Files;
use crate::driven::Driven;
use crate::driver::Driver;
use crate::held::{Held, MountPlace};
use crate::jobs::{Definitions, Job};
use crate::reference::solved;
use crate::shared::Shared;
use crate::thread::on_thread;

/// The most mounts that a container has.
const MOST_MOUNTS: usize = 128;

/// Makes a container.
///
/// # Errors
/// A mount cannot be, its reference cannot be solved, or the id is taken.
pub(crate) async fn new(
    shared: &Arc<Shared>,
    Driven { job, driver }: &Driven,
    request: api::NewContainerRequest,
) -> Result<(), Status> {
    if request.container_id.is_empty() {
        return Err(Status::invalid_argument("the container has no id"));
    }
    if driver.containers.get(&request.container_id).is_some() {
        return Err(Status::already_exists(format!("Container {} already exists", request.container_id)));
    }
    check(&request)?;
    let steps = steps(shared, job).await?;
    let mut parts = Parts::default();
    for mount in &request.mounts {
        let stack = match mount.result_id.as_str() {
            "" => None,
            id => Some(solved(shared, job, id).await?),
        };
        parts.add(mount, stack)?;
    }
    let Parts { mounts, places, inputs, readonly_root } = parts;
    if !places.contains(&MountPlace::Root) {
        return Err(Status::invalid_argument("the container has no mount on /"));
    }
    let exec = Exec {
        mounts,
        readonly_root,
        hostname: request.hostname,
        network: match pb::NetMode::try_from(request.network) {
            Ok(pb::NetMode::Host) => NetworkMode::Host,
            Ok(pb::NetMode::None) => NetworkMode::None,
            _ => NetworkMode::Default,
        },
        extra_hosts: request.extra_hosts.into_iter().map(|pair| (pair.host, pair.ip)).collect(),
        ..Exec::default()
    };
    let asker = job.clone();
    let made = on_thread(move || async move {
        Container::new(&steps, exec, &inputs).map_err(|error| asker.status(&error.into()))
    });
    let held = Arc::new(Held::new(made.await?, places));
    match driver.containers.add(&request.container_id, held) {
        Ok(()) => Ok(()),
        Err((why, held)) => {
            held.release().await;
            Err(why)
        }
    }
}

/// Ends a container with its processes.
///
/// # Errors
/// There is no such container.
pub(crate) async fn release(driver: &Driver, id: &str) -> Result<(), Status> {
    let held = driver.containers.take(id);
    held.ok_or_else(|| Status::not_found(format!("container details for {id} not found")))?.release().await;
    Ok(())
}

/// Does `look` with the files of the mount `index` of the container `id`, on a thread that may block.
///
/// # Errors
/// There is no such mount, and the errors of `look`.
pub(crate) async fn look<T: Send + 'static>(
    driver: &Driver,
    (id, index): (&str, i32),
    look: impl FnOnce(Files<'_>) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let held = driver.containers.get(id);
    let held =
        held.ok_or_else(|| Status::not_found(format!("container details for {id}@{index} not found")))?;
    on_thread(move || async move {
        let out = || {
            let all = held.mounts.len();
            Status::invalid_argument(format!("mount index {index} is out of bounds ({all} available)"))
        };
        let place = usize::try_from(index).ok().and_then(|index| held.mounts.get(index)).ok_or_else(out)?;
        let files = match place {
            MountPlace::Root => Some(held.container.root()),
            MountPlace::Mount(number) => held.container.files(*number),
        };
        let none = || Status::invalid_argument(format!("mount {index} has no files outside of a process"));
        look(Files::of_mount(files.ok_or_else(none)?))
    })
    .await
}

/// The steps of a container: with the secrets, agents and logins of the client, and with the entitlements that the build was
/// granted.
pub(crate) async fn steps(shared: &Arc<Shared>, job: &Arc<Job>) -> Result<Steps, Status> {
    let definitions = Definitions::of(shared, job, &[]).await.map_err(|report| job.status(&report))?;
    Ok(definitions.tools.job.clone())
}

/// Refuses a request for a container that cannot be made.
fn check(request: &api::NewContainerRequest) -> Result<(), Status> {
    if request.mounts.len() > MOST_MOUNTS {
        return Err(Status::invalid_argument(format!("a container has at most {MOST_MOUNTS} mounts")));
    }
    if let Some(pair) = request.extra_hosts.iter().find(|pair| pair.ip.parse::<IpAddr>().is_err()) {
        return Err(Status::invalid_argument(format!("failed to parse IP {}", pair.ip)));
    }
    let filters = request.constraints.as_ref().map_or(&[][..], |constraints| &constraints.filter);
    match filters.first() {
        Some(filter) => {
            Err(Status::unimplemented(format!("the worker constraint `{filter}` is not supported yet")))
        }
        None => Ok(()),
    }
}

/// The mounts of a container, as steps have them.
struct Parts {
    mounts: Vec<Mount>,
    /// Where each mount of the request is.
    places: Vec<MountPlace>,
    /// The trees; the first one is the root.
    inputs: Vec<SharedStack>,
    readonly_root: bool,
}

impl Default for Parts {
    fn default() -> Parts {
        let inputs = vec![SharedStack::default()];
        Parts { mounts: Vec::new(), places: Vec::new(), inputs, readonly_root: false }
    }
}

impl Parts {
    /// Adds a mount with the tree of its reference.
    fn add(&mut self, mount: &pb::Mount, stack: Option<SharedStack>) -> Result<(), Status> {
        let target = format!("/{}", mount.dest.trim_matches('/'));
        let kind = pb::MountType::try_from(mount.mount_type).map_err(|_| {
            Status::invalid_argument(format!("mount type {} not implemented", mount.mount_type))
        })?;
        if target == "/" {
            return self.add_root(mount, kind, stack);
        }
        let kind = match kind {
            pb::MountType::Bind => MountKind::Bind(Bind {
                input: self.input(stack.unwrap_or_default()),
                source: mount.selector.clone(),
                readonly: mount.readonly,
                keep: false,
            }),
            pb::MountType::Cache => self.cache(mount, stack)?,
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.as_ref().map_or(0, |opt| opt.size);
                MountKind::Tmpfs { size: u64::try_from(size).unwrap_or(0) }
            }
            pb::MountType::Secret => secret(mount)?,
            pb::MountType::Ssh => ssh(mount)?,
        };
        self.places.push(MountPlace::Mount(self.mounts.len()));
        self.mounts.push(Mount { target, kind });
        Ok(())
    }

    fn add_root(
        &mut self,
        mount: &pb::Mount,
        kind: pb::MountType,
        stack: Option<SharedStack>,
    ) -> Result<(), Status> {
        if kind != pb::MountType::Bind {
            let name = kind.as_str_name();
            return Err(Status::invalid_argument(format!("invalid mount type {name} for {}", mount.dest)));
        }
        if !matches!(mount.selector.as_str(), "" | "/" | ".") {
            return Err(Status::unimplemented("a root that is a part of a tree is not supported yet"));
        }
        if self.places.contains(&MountPlace::Root) {
            return Err(Status::invalid_argument("the container has two mounts on /"));
        }
        self.inputs[0] = stack.unwrap_or_default();
        self.readonly_root = mount.readonly;
        self.places.push(MountPlace::Root);
        Ok(())
    }

    fn input(&mut self, stack: SharedStack) -> usize {
        self.inputs.push(stack);
        self.inputs.len() - 1
    }

    fn cache(&mut self, mount: &pb::Mount, stack: Option<SharedStack>) -> Result<MountKind, Status> {
        let opt = mount.cache_opt.clone().filter(|opt| !opt.id.is_empty());
        let opt = opt.ok_or_else(|| missing(mount, "cache ID"))?;
        let sharing = match pb::CacheSharingOpt::try_from(opt.sharing) {
            Ok(pb::CacheSharingOpt::Shared) => Sharing::Shared,
            Ok(pb::CacheSharingOpt::Private) => Sharing::Private,
            Ok(pb::CacheSharingOpt::Locked) => Sharing::Locked,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "invalid cache sharing option: {}",
                    opt.sharing
                )));
            }
        };
        Ok(MountKind::Cache(CacheMount {
            id: opt.id,
            sharing,
            from: stack.map(|stack| self.input(stack)),
            source: mount.selector.clone(),
            readonly: mount.readonly,
            mode: CACHE_MODE,
            uid: 0,
            gid: 0,
        }))
    }
}

fn secret(mount: &pb::Mount) -> Result<MountKind, Status> {
    let opt = mount.secret_opt.clone().ok_or_else(|| missing(mount, "secret options"))?;
    if opt.id.is_empty() {
        return Err(missing(mount, "secret ID"));
    }
    Ok(MountKind::Secret(SecretMount {
        id: opt.id,
        required: !opt.optional,
        mode: opt.mode & 0o777,
        uid: opt.uid,
        gid: opt.gid,
    }))
}

fn ssh(mount: &pb::Mount) -> Result<MountKind, Status> {
    let opt = mount.ssh_opt.clone().ok_or_else(|| missing(mount, "SSH options"))?;
    let id = if opt.id.is_empty() { "default".to_owned() } else { opt.id };
    Ok(MountKind::Ssh(SshMount { id, required: !opt.optional, mode: opt.mode, uid: opt.uid, gid: opt.gid }))
}

fn missing(mount: &pb::Mount, what: &str) -> Status {
    Status::invalid_argument(format!("the mount on {} has no {what}", mount.dest))
}
