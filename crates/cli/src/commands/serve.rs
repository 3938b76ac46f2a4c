//! `lapstrake serve`: builds for clients of BuildKit's API.

mod config;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_buildkit::{Address, Devices, Host, Server, Tls};
use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_oci::Platform;
use lapstrake_ops::{Worker, WorkerSettings};
use lapstrake_registry::{Credentials, Registries};
use lapstrake_store::Store;
use lapstrake_sys::memory;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::serve::{BUILDKIT_SOCKET, Serve};
use crate::commands::sweeper::Keep;
use crate::{env, session};
use config::Config;

/// Threads for work that blocks: each build has a few.
const MOST_THREADS: usize = 1024;

/// Heaps of the allocator. More of them would keep more freed memory, and would not be faster on steps that wait.
const HEAPS: usize = 4;
/// The settings of BuildKit's daemon, where it runs as root.
const SETTINGS: &str = "/etc/buildkit/buildkitd.toml";

/// Serves until a signal comes.
pub(crate) fn serve(args: &Serve) -> Outcome<ExitCode> {
    let mut config = settings_file(args).as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    config
        .unknown
        .iter()
        .for_each(|key| tell!("warning: `{key}` in the configuration is not supported, and is ignored"));
    args.ignored.iter().for_each(|flag| tell!("warning: `{flag}` is not supported, and is ignored"));
    let addresses = addresses(args, &config)?;
    let group = args.group.as_deref().map(group).transpose()?.or(config.group);
    let tls = tls(args, &config)?;
    let machine = session::open_for(args.root.as_deref().or(config.root.as_deref()))?;
    let settings = WorkerSettings { most_steps: config.most_steps, dns: std::mem::take(&mut config.dns) };
    let worker = Arc::new(Worker::with_settings(machine.store.clone(), machine.single_id, settings));
    if let Some(limits) = config.build_limits {
        machine.store.limit_builds(limits);
    }
    let trace_socket = args.otel_socket_path.clone().or(config.trace_socket.take());
    let host = host(args, config, &machine.store)?;
    let mut server = Server::new(host, worker)
        .with_insecure_loopback(args.allow_insecure_loopback)
        .with_activated(env::activated_sockets());
    if let Some(path) = trace_socket {
        server = server.with_trace_socket(path);
    }
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    memory::limit_heaps(HEAPS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MOST_THREADS)
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut again = Signals::new()?;
        let stop = async move { signals.next().await };
        // The first signal lets builds end, the second one ends them.
        let kill = async move {
            again.next().await;
            again.next().await;
        };
        let ready = || addresses.iter().for_each(|address| tell!("lapstrake: listening at {address}"));
        server.run(&addresses, group, ready, (stop, kill)).await?;
        Ok::<_, lapstrake_diag::Report>(())
    })?;
    // Steps of builds that were ended get a moment to put things away.
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and Ctrl-C.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// The address of a server that was given none.
pub(super) fn usual_address() -> Result<String, Usage> {
    let dir = env::runtime_dir().ok_or_else(|| {
        Usage("there is no place for a socket: set XDG_RUNTIME_DIR, or give `--addr`".to_owned())
    })?;
    Ok(format!("unix://{}", dir.join("lapstrake/buildkitd.sock").display()))
}

/// The file with settings: the one that the flag names, else BuildKit's own under the daemon's name.
fn settings_file(args: &Serve) -> Option<PathBuf> {
    let usual = || {
        let own = env::config_dir().map(|dir| dir.join("buildkit/buildkitd.toml"));
        let root = rustix::process::geteuid().is_root().then(|| PathBuf::from(SETTINGS));
        root.or(own).filter(|path| path.exists())
    };
    args.config.clone().or_else(|| usual().filter(|_| args.as_buildkitd))
}

fn addresses(args: &Serve, config: &Config) -> Outcome<Vec<Address>> {
    let mut texts = args.addresses.clone();
    if texts.is_empty() {
        texts.clone_from(&config.addresses);
    }
    if texts.is_empty() && args.as_buildkitd {
        texts.push(BUILDKIT_SOCKET.to_owned());
    }
    if texts.is_empty() {
        texts.push(usual_address()?);
    }
    Ok(texts.iter().map(|text| text.parse()).collect::<Result<_, Usage>>()?)
}

/// The number of a group of this machine.
fn group(text: &str) -> Result<u32, Usage> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1).and_then(|number| number.parse().ok())).flatten()
    };
    groups.lines().find_map(of).ok_or_else(|| Usage(format!("--group {text}: there is no such group")))
}

fn tls(args: &Serve, config: &Config) -> Outcome<Option<Tls>> {
    let cert = args.tlscert.as_ref().or(config.cert.as_ref());
    let key = args.tlskey.as_ref().or(config.key.as_ref());
    let (Some(cert), Some(key)) = (cert, key) else { return Ok(None) };
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
    let client_ca = args.tlscacert.as_ref().or(config.ca.as_ref()).map(read).transpose()?;
    Ok(Some(Tls { cert: read(cert)?, key: read(key)?, client_ca }))
}

fn host(args: &Serve, config: Config, store: &Store) -> Outcome<Host> {
    let mut labels: BTreeMap<String, String> = config.labels;
    labels.insert("org.mobyproject.buildkit.worker.executor".to_owned(), "oci".to_owned());
    for label in &args.label {
        let (key, value) =
            label.split_once('=').ok_or_else(|| Usage(format!("--label {label}: not KEY=VALUE")))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let files = settings_file(args).into_iter().chain(env::settings()).collect();
    let registries = Registries {
        credentials: Credentials::None,
        files,
        other_tables: true,
        insecure: false,
        proxies: env::proxies(),
    };
    let mut entitlements = args.allow_insecure_entitlement.clone();
    entitlements.extend(config.entitlements);
    if args.as_buildkitd && !config.cdi_disabled {
        // As that program does: its clients ask for devices one by one.
        entitlements.push("device".to_owned());
    }
    let devices = match config.cdi_dirs {
        _ if config.cdi_disabled => Devices::Disabled,
        dirs if dirs.is_empty() => Devices::Usual,
        dirs => Devices::In(dirs),
    };
    let keep = match config.collection.policy(store.space()?) {
        Some(policy) => policy,
        None => Keep::from_env().policy(),
    };
    Ok(Host {
        state: store.root().to_owned(),
        registries,
        git_environment: env::of_git(),
        platforms: vec![Platform::host()],
        labels,
        entitlements,
        dockerfile_images: args.dockerfile_images,
        frontend_images: config.frontend_images,
        warn: Box::new(|text| tell!("lapstrake: {text}")),
        devices,
        keep,
    })
}
