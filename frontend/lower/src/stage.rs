//! One stage, instruction by instruction. RUN is in `run`, COPY and ADD are in `transfer`.

use std::borrow::Cow;

use lapstrake_diag::Span;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{
    Arg, Command, CommandLine, Dialect, Instruction, Pair, Place, Text, Word, parse_port,
};
use lapstrake_go::path;
use lapstrake_graph::{Edge, File, FileAction, HistoryDraft, MakeDir, Op, Owner, VertexId, VertexMeta};
use lapstrake_oci::Healthcheck;

use crate::env::{Env, set_line, split_line};
use crate::error::LowerError;
use crate::lowering::Lowering;
use crate::names::{self, Naming};
use crate::paths;
use crate::root::DEFAULT_PATH;
use crate::signals::is_signal;
use crate::stages::{Base, NodeId, Step};
use crate::state::StageState;
use crate::text;
use crate::used::Used;

/// Arguments that no process sees.
pub(crate) const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A stage that is being lowered.
pub(crate) struct StageRun<'r, 'd> {
    pub(crate) lowering: &'r mut Lowering<'d>,
    pub(crate) state: StageState,
    pub(crate) naming: Naming,
    pub(crate) label: String,
    /// What it uses of what it may be given.
    pub(crate) used: Used,
    /// Which of CMD, ENTRYPOINT and HEALTHCHECK this very stage has, and where.
    once: Once,
    ignore_cache: bool,
    /// Where the instruction stands that is being lowered.
    pub(crate) at: Place,
    /// The comments above it.
    pub(crate) comments: Vec<Text>,
}

/// Instructions of which only the last one in a stage counts.
#[derive(Default)]
struct Once {
    cmd: Option<Place>,
    entrypoint: Option<Place>,
    healthcheck: Option<Place>,
}

impl Lowering<'_> {
    /// Lowers the stage, image or context `id`. What it needs must be lowered already, or stand further down and be
    /// refused.
    pub(crate) fn lower_stage(&mut self, id: NodeId) -> Result<(), LowerError> {
        let state = match (&self.stages[id].base, self.stages[id].replaced) {
            (Base::Stage(base), false) => {
                let base = *base;
                let mut state =
                    self.stages[base].state.clone().expect("a base stands further up and is lowered first");
                // The base's triggers have fired; nobody inherits them.
                state.config.config.on_build.clear();
                state
            }
            _ => self.root_state(id)?,
        };
        let node = &mut self.stages[id];
        if node.replaced || node.stage.is_none() {
            node.state = Some(state);
            return Ok(());
        }
        let steps = std::mem::take(&mut node.steps);
        let naming = node.naming.clone();
        let used = std::mem::take(&mut node.used);
        let label = node.label.clone();
        let ignore_cache = self.inputs.no_cache.covers(self.stages[id].name.as_deref());
        let state = self.wait(id, state)?;
        let mut run = StageRun {
            lowering: self,
            state,
            naming,
            label,
            used,
            once: Once::default(),
            ignore_cache,
            at: Place { span: Span::default(), lines: (0, 0) },
            comments: Vec::new(),
        };
        run.begin();
        for step in &steps {
            run.at = Place { span: step.span, lines: (step.lines.first, step.lines.last) };
            run.comments = step.command.around.comments().to_vec();
            run.check_words(&step.command);
            run.step(step)?;
        }
        let (state, used) = (run.state, run.used);
        let node = &mut self.stages[id];
        node.used = used;
        node.steps = steps;
        node.state = Some(state);
        Ok(())
    }

    /// `state`, not to be built on before the stages are done that `id` waits for.
    fn wait(&mut self, id: NodeId, state: StageState) -> Result<StageState, LowerError> {
        let node = &self.stages[id];
        if node.after.is_empty() {
            return Ok(state);
        }
        let after = node.after.iter().filter_map(|id| self.stages[*id].state.as_ref());
        let after: Vec<Edge> = after.map(|state| state.edge).collect();
        let name = format!("[{}] after {}", node.label, self.labels_of(&node.after));
        let meta = VertexMeta { name, lines: node.lines, ..VertexMeta::default() };
        let edge = self.graph.add_after(Op::Merge, vec![state.edge], after, meta)?.into();
        Ok(StageState { edge, ..state })
    }

    fn labels_of(&self, ids: &[NodeId]) -> String {
        ids.iter().map(|id| self.stages[*id].label.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The state of a node whose base is no stage. Images that only a `--from` names are made when they are needed,
    /// since they stand behind the stages.
    fn root_state(&mut self, id: NodeId) -> Result<StageState, LowerError> {
        if let Some(state) = &self.stages[id].state {
            return Ok(state.clone());
        }
        let edge = self.root_edge(id)?;
        let root = self.stages[id].root.as_ref().expect("bases are resolved before anything is lowered");
        Ok(StageState {
            edge,
            env: Env::default(),
            config: root.config.clone(),
            history: Vec::new(),
            args: Vec::new(),
            platform: root.platform.clone(),
            guessed: root.guessed,
            workdir_set: false,
        })
    }

    /// The tree of a node that a step takes files from; `None` if it is a stage that comes later.
    pub(crate) fn source_edge(&mut self, id: NodeId) -> Result<Option<Edge>, LowerError> {
        if self.stages[id].stage.is_none() && self.stages[id].state.is_none() {
            let state = self.root_state(id)?;
            self.stages[id].state = Some(state);
        }
        Ok(self.stages[id].state.as_ref().map(|state| state.edge))
    }
}

impl StageRun<'_, '_> {
    fn begin(&mut self) {
        let config = &mut self.state.config.config;
        let has_path = config.env.iter().any(|line| split_line(line).0 == "PATH");
        if !has_path && self.state.platform.os != "windows" {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for line in &config.env {
            let (name, value) = split_line(line);
            self.state.env.set(name, value);
        }
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), LowerError> {
        let command = step.command.as_ref();
        let span = step.span;
        match &command.instruction {
            Instruction::Add(add) => self.add(step, add),
            Instruction::Arg(args) => self.arg(args, step),
            Instruction::Cmd(line) => {
                self.cmd(command, line);
                Ok(())
            }
            Instruction::Copy(copy) => self.copy(step, copy),
            Instruction::Entrypoint(line) => {
                self.entrypoint(command, line);
                Ok(())
            }
            Instruction::Env(pairs) => self.env(pairs, step),
            Instruction::Expose(ports) => self.expose(ports, step),
            Instruction::Healthcheck(check) => {
                let earlier = self.once.healthcheck.replace(self.at);
                self.check_once(command, earlier);
                self.healthcheck(check);
                Ok(())
            }
            Instruction::Label(pairs) => self.label(pairs, step),
            Instruction::Maintainer(who) => {
                self.state.config.author = who.node.to_string();
                self.row(format!("MAINTAINER {}", who.node));
                Ok(())
            }
            Instruction::Onbuild(onbuild) => {
                self.state.config.config.on_build.push(onbuild.expression.to_string());
                Ok(())
            }
            Instruction::Run(run) => self.run(step, run),
            Instruction::Shell(shell) => {
                let shell: Vec<String> = shell.iter().map(ToString::to_string).collect();
                self.row(format!("SHELL {}", text::list(&shell)));
                self.state.config.config.shell = shell;
                Ok(())
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.expand(&signal.node, place(step, signal))?;
                if !is_signal(&signal) {
                    return Err(LowerError::instruction(format!("invalid signal: {signal}"), span));
                }
                self.row(format!("STOPSIGNAL {signal}"));
                self.state.config.config.stop_signal = signal;
                Ok(())
            }
            Instruction::User(user) => {
                let user = self.expand(&user.node, place(step, user))?;
                self.row(format!("USER {user}"));
                self.state.config.config.user = user;
                Ok(())
            }
            Instruction::Volume(paths) => self.volume(paths, step),
            Instruction::Workdir(path) => self.workdir(path, step),
        }
    }

    /// `word` with variables filled in, quotes and escapes off.
    pub(crate) fn expand(&self, word: &str, span: Span) -> Result<String, LowerError> {
        words::expand(word, &|name| self.state.lookup(name), Mode::plain(self.lowering.escape))
            .map(|expanded| expanded.text)
            .map_err(|error| LowerError::instruction(error.to_string(), span))
    }

    /// The name of the next step.
    pub(crate) fn name(&mut self, text: &str, step: &Step<'_>) -> String {
        self.naming.next(text, &self.state.platform, &self.state.env, step.onbuild)
    }

    /// The instruction's text for its step's name, quotes off.
    pub(crate) fn step_text(&self, command: &Command) -> String {
        let mode = Mode::plain(self.lowering.escape);
        names::text(&self.with_from(&command.text, mode), mode, &|name| self.state.lookup(name))
    }

    /// An instruction with global ARGs filled in behind `--from=` and the `from=` of its mounts, which see no others.
    pub(crate) fn with_from<'t>(&self, text: &'t str, mode: Mode) -> Cow<'t, str> {
        if self.lowering.dialect == Dialect::BuildKit || !text.contains('$') {
            return Cow::Borrowed(text);
        }
        let mut flags = true;
        let words = text.split(' ').enumerate().map(|(number, word)| {
            flags &= number == 0 || word.is_empty() || word.starts_with("--");
            match word.strip_prefix("--mount=") {
                Some(mount) if flags => format!("--mount={}", self.mount_text(mount)),
                None if flags && word.starts_with("--from=") => self.expand_globals(word, mode),
                _ => word.to_owned(),
            }
        });
        Cow::Owned(words.collect::<Vec<String>>().join(" "))
    }

    /// What a `--mount` says, with global ARGs filled in behind `from=` where the dialect has that.
    pub(crate) fn mount_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.lowering.dialect == Dialect::BuildKit || !text.contains('$') {
            return Cow::Borrowed(text);
        }
        let mode = Mode { raw_quotes: true, ..Mode::plain(self.lowering.escape) };
        let is_from = |field: &str| {
            let key = field.trim_start_matches('"').split_once('=');
            key.is_some_and(|(key, _)| key.eq_ignore_ascii_case("from"))
        };
        let fields = text.split(',').map(|field| match is_from(field) {
            true => self.expand_globals(field, mode),
            false => field.to_owned(),
        });
        Cow::Owned(fields.collect::<Vec<String>>().join(","))
    }

    fn expand_globals(&self, word: &str, mode: Mode) -> String {
        let globals = |name: &str| self.lowering.globals.args.get(name).map(str::to_owned);
        words::expand(word, &globals, mode).map_or(word.to_owned(), |expanded| expanded.text)
    }

    pub(crate) fn meta(&self, name: String, step: &Step<'_>) -> VertexMeta {
        VertexMeta { name, lines: Some(step.lines), ..VertexMeta::default() }
    }

    /// Like [`StageRun::meta`], for the steps that `--no-cache` is about.
    pub(crate) fn uncached_meta(&self, name: String, step: &Step<'_>) -> VertexMeta {
        VertexMeta { ignore_cache: self.ignore_cache, ..self.meta(name, step) }
    }

    /// A row without a layer.
    fn row(&mut self, created_by: String) {
        self.state.history.push(HistoryDraft { created_by, layer: None });
    }

    /// Makes `vertex` the stage's tree, and its layer a row.
    pub(crate) fn layer(&mut self, created_by: String, vertex: VertexId) {
        self.state.edge = vertex.into();
        self.state.history.push(HistoryDraft { created_by, layer: Some(vertex) });
    }

    fn env(&mut self, pairs: &[Pair], step: &Step<'_>) -> Result<(), LowerError> {
        let written = pairs;
        let pairs = self.expand_pairs(pairs, step)?;
        for ((name, value), written) in pairs.iter().zip(written) {
            self.check_legacy(step, written);
            self.check_secret("ENV", name);
            let lines = &mut self.state.config.config.env;
            // Whatever is among the lines is in the environment too: only known names need looking for.
            match self.state.env.get(name) {
                Some(_) => set_line(lines, name, value),
                None => lines.push(format!("{name}={value}")),
            }
            self.state.env.set(name, value);
        }
        self.row(pairs_row("ENV", &pairs));
        Ok(())
    }

    fn label(&mut self, pairs: &[Pair], step: &Step<'_>) -> Result<(), LowerError> {
        let written = pairs;
        let pairs = self.expand_pairs(pairs, step)?;
        written.iter().for_each(|pair| self.check_legacy(step, pair));
        self.state.config.config.labels.extend(pairs.iter().cloned());
        self.row(pairs_row("LABEL", &pairs));
        Ok(())
    }

    /// All of them see the environment from before the instruction.
    fn expand_pairs(&self, pairs: &[Pair], step: &Step<'_>) -> Result<Vec<(String, String)>, LowerError> {
        let mut expanded = Vec::new();
        for pair in pairs {
            let span = if step.onbuild { step.span } else { pair.span };
            expanded.push((self.expand(&pair.key, span)?, self.expand(&pair.value, span)?));
        }
        Ok(expanded)
    }

    fn arg(&mut self, args: &[Arg], step: &Step<'_>) -> Result<(), LowerError> {
        let mut texts = Vec::new();
        for arg in args {
            self.check_secret("ARG", &arg.name);
            let given = self.lowering.globals.build_args.get(arg.name.as_str()).cloned();
            let inherited =
                given.is_none() && arg.value.is_none() && self.lowering.globals.args.get(&arg.name).is_some();
            let value = match (given, &arg.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    let span = if step.onbuild { step.span } else { arg.span };
                    self.check_word(default, Mode::plain(self.lowering.escape)).unwrap_or_default();
                    Some(self.expand(default, span)?)
                }
                (None, None) => self.lowering.globals.args.get(&arg.name).map(str::to_owned),
            };
            if let Some(value) = &value
                && !NOT_IN_ENV.contains(&arg.name.as_str())
            {
                self.state.env.set(&arg.name, value);
            }
            self.used.arg(arg, value.as_deref(), inherited, self.at.lines);
            texts.push(match &value {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.to_string(),
            });
            self.state.args.push((arg.name.to_string(), value));
        }
        self.row(format!("ARG {}", texts.join(" ")));
        Ok(())
    }

    fn cmd(&mut self, command: &Command, line: &CommandLine) {
        let earlier = self.once.cmd.replace(self.at);
        self.check_once(command, earlier);
        let args = self.default_command(command, line);
        self.row(format!("CMD {}", text::quoted_list(&args)));
        self.state.config.config.cmd = Some(args);
        self.state.config.config.args_escaped = true;
    }

    fn default_command(&self, command: &Command, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(args) => args.iter().map(ToString::to_string).collect(),
            CommandLine::Shell(text) => {
                self.check_shell_form(command);
                self.state.with_shell(text)
            }
        }
    }

    /// Takes away an inherited CMD, never one of the same stage.
    fn entrypoint(&mut self, command: &Command, line: &CommandLine) {
        let earlier = self.once.entrypoint.replace(self.at);
        self.check_once(command, earlier);
        let args = self.default_command(command, line);
        self.row(format!("ENTRYPOINT {}", text::quoted_list(&args)));
        self.state.config.config.entrypoint = (!args.is_empty()).then_some(args);
        if self.once.cmd.is_none() {
            self.state.config.config.cmd = None;
        }
    }

    fn healthcheck(&mut self, check: &lapstrake_dockerfile::Healthcheck) {
        let check = Healthcheck {
            test: check.test.iter().map(ToString::to_string).collect(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        };
        self.row(format!("HEALTHCHECK {}", text::healthcheck(&check)));
        self.state.config.config.healthcheck = Some(check);
    }

    fn expose(&mut self, ports: &[Word], step: &Step<'_>) -> Result<(), LowerError> {
        let mut items = Vec::new();
        for word in ports {
            let span = place(step, word);
            let mode = Mode::plain(self.lowering.escape);
            let expanded = words::expand(&word.node, &|name| self.state.lookup(name), mode)
                .map_err(|error| LowerError::instruction(error.to_string(), span))?;
            items.extend(expanded.words.into_iter().map(|text| (text, span)));
        }
        let mut entries = Vec::new();
        for (text, span) in items {
            self.check_port(&text);
            let port = parse_port(&text).map_err(|message| LowerError::instruction(message, span))?;
            entries.extend(port.entries());
        }
        self.row(format!("EXPOSE {}", text::list(&entries)));
        let exposed = &mut self.state.config.config.exposed_ports;
        exposed.extend(entries.into_iter().map(|entry| (entry, lapstrake_oci::Empty {})));
        Ok(())
    }

    fn volume(&mut self, words: &[Word], step: &Step<'_>) -> Result<(), LowerError> {
        let mut paths = Vec::new();
        for word in words {
            let path = self.expand(&word.node, place(step, word))?;
            if path.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(LowerError::instruction(message, place(step, word)));
            }
            paths.push(path);
        }
        self.row(format!("VOLUME {}", text::list(&paths)));
        let volumes = &mut self.state.config.config.volumes;
        volumes.extend(paths.into_iter().map(|path| (path, lapstrake_oci::Empty {})));
        Ok(())
    }

    fn workdir(&mut self, path: &Word, step: &Step<'_>) -> Result<(), LowerError> {
        let path = self.expand(&path.node, place(step, path))?;
        self.check_workdir(&path);
        self.state.workdir_set = true;
        let dir = paths::resolve(self.state.cwd(), &path);
        self.state.config.config.working_dir.clone_from(&dir);
        let created_by = format!("WORKDIR {dir}");
        if dir == "/" {
            self.row(created_by);
            return Ok(());
        }
        let user = &self.state.config.config.user;
        let owner = (!user.is_empty()).then(|| Owner::parse(user));
        let epoch = self.lowering.globals.epoch;
        let make =
            MakeDir { path: path::clean_rooted(&dir), mode: 0o755, parents: true, owner, timestamp: epoch };
        let op = Op::File(File { actions: vec![FileAction::MakeDir(make)] });
        let text = self.step_text(&step.command);
        let name = self.name(&text, step);
        let meta = self.meta(name, step);
        let vertex = self.lowering.graph.add(op, vec![self.state.edge], meta)?;
        self.layer(created_by, vertex);
        Ok(())
    }
}

fn pairs_row(keyword: &str, pairs: &[(String, String)]) -> String {
    let words = pairs.iter().flat_map(|(name, value)| [" ", name, "=", value]);
    std::iter::once(keyword).chain(words).collect()
}

/// Where a word stands; words of triggers stand in no file.
pub(crate) fn place(step: &Step<'_>, word: &Word) -> Span {
    if step.onbuild { step.span } else { word.span }
}
