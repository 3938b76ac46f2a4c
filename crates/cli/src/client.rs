//! This process as the caller of its own builds: the arguments and the environment as a request and a client.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapstrake_build::{Addressee, Client, Engine, Writing, WritingFiles, attrs};
use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_go::parse_bool;
use lapstrake_ops::{Debug, Secret};
use lapstrake_outputs::Containerd;
use lapstrake_registry::Registries;
use lapstrake_request::{BuildRequest, CacheRequest, PinRequest, StepRequest};

use crate::args::{Build, Checksum};
use crate::commands::file::to_file;
use crate::commands::options::SecretSource;
use crate::commands::{options, run};
use crate::{env, session};

/// The caller of a build is this process.
#[derive(Default)]
pub(crate) struct LocalClient {
    secrets: BTreeMap<String, SecretSource>,
    agents: BTreeMap<String, PathBuf>,
    /// The steps before which a shell opens, and whether there is one at all.
    debug: Option<String>,
    /// A text in place of standard input.
    stdin: Option<String>,
}

impl LocalClient {
    /// Reads what `args` give to steps.
    ///
    /// # Errors
    /// A secret or an agent that is not there, or a shell without a terminal.
    pub(crate) fn of(args: &Build) -> Result<Arc<dyn Client>, Usage> {
        args.debug.as_deref().map_or(Ok(()), |_| run::can_debug())?;
        Ok(Arc::new(LocalClient {
            secrets: args.secret.iter().map(options::secret).collect::<Result<_, _>>()?,
            agents: args.ssh.iter().map(options::ssh).collect::<Result<_, _>>()?,
            debug: args.debug.clone(),
            stdin: None,
        }))
    }

    /// A caller with secrets and agents in the syntax of `--secret` and `--ssh`, and a text in place of standard input.
    ///
    /// # Errors
    /// A secret or an agent that is not there.
    pub(crate) fn with(
        secrets: &[String],
        agents: &[String],
        stdin: Option<String>,
    ) -> Result<Arc<dyn Client>, Usage> {
        Ok(Arc::new(LocalClient {
            secrets: secrets.iter().map(options::secret).collect::<Result<_, _>>()?,
            agents: agents.iter().map(options::ssh).collect::<Result<_, _>>()?,
            debug: None,
            stdin,
        }))
    }
}

/// The absolute path of a directory that has to be there.
///
/// # Errors
/// The directory does not exist.
fn local_directory(named: &Path) -> Outcome<PathBuf> {
    let path = attrs::absolute(named)?;
    if !path.is_dir() {
        let shown = named.display().to_string();
        return Err(Usage(format!("unable to prepare context: path {shown:?} not found")).into());
    }
    Ok(path)
}

impl Client for LocalClient {
    fn directory(&self, named: &Path) -> Outcome<PathBuf> {
        local_directory(named)
    }

    fn file(&self, named: &Path) -> io::Result<Vec<u8>> {
        // A file behind a directory that cannot be searched is out of reach, too.
        std::fs::read(named).map_err(|error| match named.exists() {
            true => error,
            false => io::Error::new(io::ErrorKind::NotFound, error),
        })
    }

    fn secret(&self, id: &str) -> Outcome<Option<Secret>> {
        self.secrets.get(id).map(SecretSource::read).transpose()
    }

    fn ssh_agent(&self, id: &str) -> Outcome<Option<PathBuf>> {
        Ok(self.agents.get(id).cloned())
    }

    fn registries(&self) -> Registries {
        session::registries()
    }

    fn git_environment(&self) -> Vec<(OsString, OsString)> {
        env::of_git()
    }

    fn stdin(&self) -> Box<dyn Read + Send> {
        match &self.stdin {
            Some(text) => Box::new(io::Cursor::new(text.clone().into_bytes())),
            None => Box::new(io::stdin()),
        }
    }

    fn output(&self, dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()> {
        to_file(dest, write)
    }

    fn output_directory(&self, dest: &Path, write: &mut WritingFiles<'_>) -> Outcome<()> {
        std::fs::create_dir_all(dest).with_context(|| format!("cannot create `{}`", dest.display()))?;
        write(dest)
    }

    fn engine(&self) -> Outcome<Addressee> {
        Ok(engine()?)
    }

    fn debugger(&self) -> Option<Debug> {
        self.debug.as_deref().map(run::debug)
    }
}

/// The engine that `--load` means: the one that `DOCKER_HOST` or `CONTAINERD_ADDRESS` names, else the Docker at the user's
/// own socket or the machine's, else the machine's containerd.
fn engine() -> Result<Addressee, Usage> {
    let (sockets, docker_named) = env::docker_sockets().map_err(|host| {
        Usage(format!("DOCKER_HOST is `{host}`: only `unix://` sockets can be loaded into"))
    })?;
    let (socket, containerd_named) = env::containerd_socket();
    let there = sockets.iter().find(|socket| socket.exists());
    if !docker_named && (containerd_named || there.is_none() && socket.exists()) {
        let engine = Engine::Containerd(Containerd { socket, namespace: env::containerd_namespace() });
        return Ok(Addressee { engine, named: containerd_named });
    }
    let docker = there.or(sockets.last()).cloned().map(Engine::Docker);
    let engine = docker.ok_or_else(|| Usage("no socket of Docker is known".to_owned()))?;
    Ok(Addressee { engine, named: docker_named })
}

/// The platform that a build is for, if somebody says.
pub(crate) fn platforms(args: &Build) -> Option<String> {
    if args.platform.is_empty() { env::default_platform() } else { Some(args.platform.join(",")) }
}

/// The request that the arguments and the environment make.
///
/// # Errors
/// A file of arguments that cannot be read, or a value that cannot be.
pub(crate) fn request(args: &Build) -> Result<BuildRequest, Usage> {
    let mut build_args = BTreeMap::new();
    if let Some(epoch) = env::source_date_epoch() {
        build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
    }
    build_args.extend(options::build_args(&args.build_arg, &args.build_arg_file)?);
    let attestations = args.attest.iter().chain(&args.provenance).chain(&args.sbom);
    Ok(BuildRequest {
        context_subdir: None,
        local_dockerfile: false,
        context: args.context.clone(),
        dockerfile: args.file.clone(),
        syntax: args.syntax.clone(),
        target: args.target.clone(),
        build_args,
        labels: options::pairs(&args.label),
        platforms: platforms(args),
        contexts: args.build_context.clone(),
        tags: args.tag.clone(),
        outputs: args.output.clone(),
        push: args.push,
        load: args.load,
        needs_id: args.iidfile.is_some(),
        annotations: args.annotation.clone(),
        attestations: attestations.cloned().collect(),
        cache: CacheRequest {
            disabled: args.no_cache,
            disabled_stages: args.no_cache_filter.clone(),
            read_all_files: args.checksum == Checksum::Always,
            from: args.cache_from.clone(),
            to: args.cache_to.clone(),
        },
        pull: args.pull,
        steps: steps(args),
        pins: PinRequest { hermetic: args.hermetic, locked: args.locked },
        ignore_unsupported: args.ignore_unsupported || ignores_unsupported()?,
        builder: args.builder.clone(),
    })
}

fn steps(args: &Build) -> StepRequest {
    StepRequest {
        network: args.network.clone(),
        default_network: env::network(),
        allowed: args.allow.clone(),
        cdi_dirs: args.cdi_spec_dir.clone(),
        hosts: args.add_host.clone(),
        hostname: None,
        shm_size: args.shm_size.clone(),
        ulimits: args.ulimit.clone(),
        limits: args.hold.request(),
        resources: args.resource.clone(),
        output_limit: env::log_limit(),
    }
}

pub(crate) fn ignores_unsupported() -> Result<bool, Usage> {
    let Some(text) = env::value(env::IGNORE_UNSUPPORTED).filter(|text| !text.is_empty()) else {
        return Ok(false);
    };
    parse_bool(&text)
        .ok_or_else(|| Usage(format!("{}={text}: neither `true` nor `false`", env::IGNORE_UNSUPPORTED)))
}
