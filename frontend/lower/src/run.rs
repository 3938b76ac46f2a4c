//! RUN: the process, its mounts, its heredocs.

use lapstrake_diag::Span;
use lapstrake_dockerfile::words::Mode;
use lapstrake_dockerfile::{self as dockerfile, CommandLine, MountType, Run};
use lapstrake_go::{path, quoted};
use lapstrake_graph::{
    Bind, CacheMount, Device, Edge, Exec, File, FileAction, MakeFile, Mount, MountKind, NetworkMode, Op,
    SecretEnv, SecretMount, SecurityMode, Sharing, Source, SshMount, VertexMeta,
};

use crate::error::LowerError;
use crate::names;
use crate::paths;
use crate::stage::{StageRun, place};
use crate::stages::Step;

/// Where the script of a heredoc with `#!` is mounted.
const SCRIPTS: &str = "/dev/pipes/";

/// The mounts of a process, as far as they are known.
#[derive(Default)]
struct Mounts {
    mounts: Vec<Mount>,
    /// Inputs behind the root.
    inputs: Vec<Edge>,
    secret_env: Vec<SecretEnv>,
    /// Targets of SSH sockets.
    sockets: Vec<String>,
}

impl Mounts {
    /// The index of `edge` among the vertex's inputs.
    fn input(&mut self, edge: Edge) -> usize {
        let at = self.inputs.iter().position(|input| *input == edge).unwrap_or_else(|| {
            self.inputs.push(edge);
            self.inputs.len() - 1
        });
        at + 1
    }
}

fn device(device: &dockerfile::Device) -> Device {
    Device { name: device.name.to_string(), required: device.required }
}

impl StageRun<'_, '_> {
    pub(crate) fn run(&mut self, step: &Step<'_>, run: &Run) -> Result<(), LowerError> {
        let mut mounts = Mounts::default();
        let (args, summary) = self.command(step, run, &mut mounts)?;
        let mut parsed = Vec::new();
        for flag in &run.flags().mounts {
            let span = place(step, &flag.text);
            let mount = dockerfile::Mount::parse(&self.mount_text(&flag.text.node), |value| {
                self.expand(value, span).map_err(|error| error.to_string())
            })
            .map_err(|message| LowerError::instruction(message, span))?;
            parsed.push((mount, span));
        }
        for ((mount, span), source) in parsed.iter().zip(&step.sources) {
            let from = match source {
                Some(id) => Some(self.lowering.source_edge(*id)?.ok_or_else(|| self.too_late(mount, *span))?),
                None => None,
            };
            self.mount(mount, from, *span, &mut mounts)?;
        }
        let name = self.run_name(step, summary, &parsed);
        let created_by = format!("RUN {} # buildkit", self.command_row(&args));
        let exec = self.exec(run, args, &mut mounts);
        let mut inputs = vec![self.state.edge];
        inputs.append(&mut mounts.inputs);
        let mut meta = self.uncached_meta(name, step);
        // `RUN --no-cache` keeps them: that flag is about the step's result alone.
        meta.fresh_cache_mounts = meta.ignore_cache;
        meta.ignore_cache |= run.flags().attempts.no_cache;
        let vertex = self.lowering.graph.add(Op::Exec(exec), inputs, meta)?;
        self.layer(created_by, vertex);
        Ok(())
    }

    fn too_late(&self, mount: &dockerfile::Mount, span: Span) -> LowerError {
        let message = format!(
            "cannot mount from stage {} to {}, stage needs to be defined before current command",
            quoted(&mount.from),
            quoted(&mount.target)
        );
        LowerError::stage(message, span)
    }

    /// The command line, and what the step's name says of a heredoc.
    fn command(
        &mut self,
        step: &Step<'_>,
        run: &Run,
        mounts: &mut Mounts,
    ) -> Result<(Vec<String>, Option<String>), LowerError> {
        let line = match &run.command {
            CommandLine::Exec(args) if args.is_empty() => {
                return Err(LowerError::instruction("arguments are required", step.span));
            }
            CommandLine::Exec(args) => return Ok((args.iter().map(ToString::to_string).collect(), None)),
            CommandLine::Shell(line) => line,
        };
        let bodies = step.command.around.heredocs();
        let Some(first) = bodies.first() else { return Ok((self.state.with_shell(line), None)) };
        if !dockerfile::is_heredoc_word(line) {
            let written = bodies.iter().flat_map(|body| ["\n", &body.content, &body.name]);
            let text: String = std::iter::once(line.as_str()).chain(written).collect();
            return Ok((self.state.with_shell(&text), None));
        }
        let data = if first.chomp { first.chomped() } else { first.content.to_string() };
        let summary = Some(names::summary(&first.content));
        if !data.starts_with("#!") || self.state.config.os == "windows" {
            return Ok((self.state.with_shell(&data), summary));
        }
        let script = self.script(&first.name, data)?;
        let input = mounts.input(script);
        let bind = Bind { input, source: "/".to_owned(), readonly: true, keep: false };
        mounts.mounts.push(Mount { target: SCRIPTS.to_owned(), kind: MountKind::Bind(bind) });
        Ok((self.state.with_shell(&format!("{SCRIPTS}{}", first.name)), summary))
    }

    /// A tree with nothing but an executable file.
    fn script(&mut self, name: &str, data: String) -> Result<Edge, LowerError> {
        let meta = |name: &str| VertexMeta { name: name.to_owned(), ..VertexMeta::default() };
        let empty = self.lowering.graph.add(Op::Source(Source::Scratch), vec![], meta("FROM scratch"))?;
        let file = MakeFile {
            needs_parent: false,
            dest: "/".to_owned(),
            name: name.to_owned(),
            mode: 0o755,
            chmod: None,
            data: data.into_bytes(),
            owner: None,
            timestamp: self.lowering.globals.epoch,
        };
        let op = Op::File(File { actions: vec![FileAction::MakeFile(file)] });
        let meta = meta("[internal] preparing inline document");
        Ok(self.lowering.graph.add(op, vec![empty.into()], meta)?.into())
    }

    fn mount(
        &mut self,
        mount: &dockerfile::Mount,
        from: Option<Edge>,
        span: Span,
        mounts: &mut Mounts,
    ) -> Result<(), LowerError> {
        let root = || LowerError::instruction(format!("invalid mount target {}", quoted("/")), span);
        let over_root = !mount.target.is_empty() && self.target(&mount.target) == "/";
        match mount.kind {
            MountType::Secret | MountType::Ssh if over_root => return Err(root()),
            MountType::Secret => self.secret(mount, mounts),
            MountType::Ssh => {
                if !mount.source.is_empty() {
                    return Err(LowerError::instruction("ssh does not support source", span));
                }
                self.ssh(mount, mounts);
            }
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                let target = self.target(&mount.target);
                if target == "/" {
                    return Err(root());
                }
                let kind = self.mount_kind(mount, from, mounts)?;
                mounts.mounts.push(Mount { target, kind });
            }
        }
        Ok(())
    }

    fn mount_kind(
        &mut self,
        mount: &dockerfile::Mount,
        from: Option<Edge>,
        mounts: &mut Mounts,
    ) -> Result<MountKind, LowerError> {
        let source = path::clean_rooted(&mount.source);
        Ok(match mount.kind {
            MountType::Cache => {
                // With a source, owner and mode are those of what is found there.
                let own = source == "/";
                let id = if mount.id.is_empty() { cache_id(&mount.target) } else { mount.id.clone() };
                MountKind::Cache(CacheMount {
                    id: self.lowering.inputs.cache_id(&id),
                    sharing: match mount.sharing {
                        Some(dockerfile::Sharing::Private) => Sharing::Private,
                        Some(dockerfile::Sharing::Locked) => Sharing::Locked,
                        Some(dockerfile::Sharing::Shared) | None => Sharing::Shared,
                    },
                    from: from.map(|edge| mounts.input(edge)),
                    source,
                    readonly: mount.readonly,
                    mode: mount.mode.filter(|_| own).unwrap_or(0o755),
                    uid: mount.uid.filter(|_| own).unwrap_or(0),
                    gid: mount.gid.filter(|_| own).unwrap_or(0),
                })
            }
            MountType::Tmpfs => MountKind::Tmpfs { size: mount.size },
            MountType::Bind | MountType::Secret | MountType::Ssh => {
                let edge = match from {
                    Some(edge) => edge,
                    None => self.context()?,
                };
                MountKind::Bind(Bind {
                    input: mounts.input(edge),
                    source,
                    readonly: mount.readonly,
                    keep: false,
                })
            }
        })
    }

    /// A mount's target, from the working directory.
    fn target(&self, target: &str) -> String {
        let dir = self.state.cwd();
        if target.starts_with('/') {
            path::clean_rooted(target)
        } else {
            path::clean_rooted(&format!("{dir}/{target}"))
        }
    }

    fn secret(&mut self, mount: &dockerfile::Mount, mounts: &mut Mounts) {
        let id = [&mount.source, &mount.id].into_iter().find(|id| !id.is_empty());
        let id = id.cloned().unwrap_or_else(|| paths::base_name(&mount.target).to_owned());
        self.used.mount(mount.kind, &id, mount.required, self.at.lines);
        if let Some(name) = &mount.env {
            let name = if name.is_empty() { id.clone() } else { name.clone() };
            mounts.secret_env.push(SecretEnv { id: id.clone(), name, required: mount.required });
            if mount.target.is_empty() {
                return;
            }
        }
        let target = if mount.target.is_empty() {
            format!("/run/secrets/{}", paths::base_name(&id))
        } else {
            self.target(&mount.target)
        };
        let kind = MountKind::Secret(SecretMount {
            id,
            required: mount.required,
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        });
        mounts.mounts.push(Mount { target, kind });
    }

    fn ssh(&mut self, mount: &dockerfile::Mount, mounts: &mut Mounts) {
        let id = if mount.id.is_empty() { "default".to_owned() } else { mount.id.clone() };
        self.used.mount(mount.kind, &id, mount.required, self.at.lines);
        let target = if mount.target.is_empty() {
            format!("/run/buildkit/ssh_agent.{}", mounts.sockets.len())
        } else {
            self.target(&mount.target)
        };
        mounts.sockets.push(target.clone());
        let kind = MountKind::Ssh(SshMount {
            id,
            required: mount.required,
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        });
        mounts.mounts.push(Mount { target, kind });
    }

    fn exec(&self, run: &Run, args: Vec<String>, mounts: &mut Mounts) -> Exec {
        let inputs = self.lowering.inputs;
        let mut env = self.state.env.lines();
        if let Some(socket) = mounts.sockets.first()
            && self.state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        Exec {
            args,
            env,
            cwd: self.state.cwd().to_owned(),
            user: self.state.config.config.user.clone(),
            hostname: inputs.hostname(),
            mounts: std::mem::take(&mut mounts.mounts),
            secret_env: std::mem::take(&mut mounts.secret_env),
            network: match run.flags().network {
                dockerfile::Network::Default => inputs.network,
                dockerfile::Network::None => NetworkMode::None,
                dockerfile::Network::Host => NetworkMode::Host,
            },
            security: match run.flags().security {
                dockerfile::Security::Sandbox => SecurityMode::Sandbox,
                dockerfile::Security::Insecure => SecurityMode::Insecure,
            },
            extra_hosts: inputs.extra_hosts.clone(),
            shm_size: inputs.shm_size,
            ulimits: inputs.ulimits.clone(),
            devices: run.flags().devices.iter().map(device).collect(),
            retry: run.flags().attempts.retry,
            timeout: run.flags().attempts.timeout.unsigned_abs(),
            valid_exit_codes: Vec::new(),
            readonly_root: false,
            proxy_env: self.lowering.globals.proxy.clone(),
        }
    }

    /// The name of the step: quotes stay, variables that are set are filled in, secrets are masked.
    fn run_name(
        &mut self,
        step: &Step<'_>,
        summary: Option<String>,
        mounts: &[(dockerfile::Mount, Span)],
    ) -> String {
        let plain = Mode::plain(self.lowering.escape);
        let mut line = self.with_from(step.command.text.trim(), plain).into_owned();
        if let Some(summary) = summary {
            line.push_str(&format!(" ({summary})"));
        }
        let secret = |name: &str| {
            mounts
                .iter()
                .any(|(mount, _)| mount.kind == MountType::Secret && mount.env.as_deref() == Some(name))
        };
        let env = &self.state.env;
        let lookup = |name: &str| {
            if secret(name) { Some("****".to_owned()) } else { env.get(name).map(str::to_owned) }
        };
        let mode = Mode { raw_quotes: true, skip_unset_env: true, ..plain };
        let text = names::text(&line, mode, &lookup);
        self.name(&text, step)
    }

    /// The command as a row of history writes it: the ARGs in force, then the words.
    fn command_row(&self, args: &[String]) -> String {
        let mut declared: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.state.args {
            let value = self.state.env.get(name).or(value.as_deref()).unwrap_or_default();
            match declared.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => declared.push((name, value)),
            }
        }
        let mut words = Vec::new();
        if !declared.is_empty() {
            words.push(format!("|{}", declared.len()));
            words.extend(declared.iter().map(|(name, value)| format!("{name}={value}")));
        }
        words.extend(args.iter().cloned());
        words.join(" ")
    }
}

/// The id of a cache that gives none: its target, as written.
fn cache_id(target: &str) -> String {
    let cleaned = path::clean_rooted(target);
    match (target.starts_with('/'), cleaned.as_str()) {
        (true, _) => cleaned,
        (false, "/") => ".".to_owned(),
        (false, path) => path[1..].to_owned(),
    }
}
