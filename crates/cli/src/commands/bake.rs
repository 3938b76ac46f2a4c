//! `lapstrake bake`: the targets of bake files and compose files.

mod permits;
mod requests;
mod run;
mod shown;
mod sources;

use std::collections::BTreeMap;
use std::process::ExitCode;

use lapstrake_bake::{Definition, Host, Outside, Target, TargetSet, attestation};
use lapstrake_build::is_remote;
use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_oci::Platform;

use super::call::Call;
use super::check::Asked;
use crate::args::bake::Bake;
use crate::{env, session};

/// The words of the command line: where the definition is, and which targets are wanted.
struct Words {
    /// The repository or the address of the definition.
    remote: Option<String>,
    /// The value of `BAKE_CMD_CONTEXT`.
    context: String,
    targets: Vec<String>,
}

impl Words {
    fn read(args: &Bake) -> Words {
        let mut targets = args.targets.clone();
        let mut address = || {
            if targets.first().is_some_and(|word| is_remote(word)) { Some(targets.remove(0)) } else { None }
        };
        let remote = address();
        let context = if remote.is_some() { address() } else { None };
        if targets.is_empty() {
            targets.push("default".to_owned());
        }
        Words { remote, context: context.unwrap_or_else(|| "cwd://".to_owned()), targets }
    }
}

/// Runs the verb `bake`.
pub(crate) fn bake(args: &Bake) -> Outcome<ExitCode> {
    let words = Words::read(args);
    let list = shown::List::asked(args)?;
    let call = Call::read(if args.check { "check" } else { args.call.as_deref().unwrap_or("build") })?;
    if env::bake_relative_paths().is_some_and(|text| lapstrake_go::parse_bool(&text) != Some(false)) {
        let text = "BUILDX_BAKE_FILE_RELATIVE_PATHS is not supported: paths of bake files are relative to this directory";
        return Err(Usage(text.to_owned()).into());
    }
    // Only a definition that is elsewhere needs the state, which is opened once.
    let mut machine = None;
    let definition_files = match &words.remote {
        Some(remote) => {
            let opened = machine.insert(session::open()?);
            sources::remote(remote, &args.file, opened)?
        }
        None => sources::local(&args.file)?,
    };
    let sources::Found { files, context: remote } = definition_files;
    let outside = outside(args, &words)?;
    let definition = Definition::read(&files, &outside).map_err(lapstrake_bake::BakeError::report)?;
    definition.warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    if let Some(list) = list {
        list.print(&definition)?;
        return Ok(ExitCode::SUCCESS);
    }
    let environment = env::all();
    let overrides = definition.overrides(&overrides(args, call.is_some()), &environment);
    let overrides = overrides.map_err(lapstrake_bake::BakeError::report)?;
    let mut chosen =
        definition.choose(&words.targets, &overrides).map_err(lapstrake_bake::BakeError::report)?;
    for target in chosen.targets.values_mut() {
        requests::place(target, remote.as_deref())?;
        if let Some(epoch) = env::source_date_epoch().filter(|epoch| !epoch.is_empty()) {
            target.args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(Some(epoch));
        }
    }
    if args.print {
        say!("{}", String::from_utf8_lossy(&lapstrake_go::to_json_indented(&chosen)));
        return Ok(ExitCode::SUCCESS);
    }
    let granted = overrides.granted().map_err(lapstrake_bake::BakeError::report)?;
    permits::check(&chosen, &args.allow, granted)?;
    let (told, built) = split(chosen, args.call.as_deref().unwrap_or("check"))?;
    if built.targets.is_empty() && told.is_empty() {
        tell!("nothing to build: the chosen groups have no targets");
        return Ok(ExitCode::SUCCESS);
    }
    let mut machine = match machine {
        Some(machine) => machine,
        None => session::open()?,
    };
    if !built.targets.is_empty() {
        run::run(args, &built, &mut machine)?;
    }
    tell_all(args, told, &machine)
}

/// The values from outside of the files.
fn outside(args: &Bake, words: &Words) -> Outcome<Outside> {
    let mut vars = BTreeMap::new();
    for text in args.var.iter().filter(|text| !text.is_empty()) {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Usage(format!("--var {text}: not NAME=VALUE")))?;
        vars.insert(name.to_owned(), value.to_owned());
    }
    let platform = Platform::host().to_string();
    let built_in = [("BAKE_CMD_CONTEXT", words.context.clone()), ("BAKE_LOCAL_PLATFORM", platform)];
    let no_environment =
        env::value("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP").and_then(|text| lapstrake_go::parse_bool(&text));
    let dotenv = match std::fs::read_to_string(".env") {
        Ok(text) => Some(text),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound || std::path::Path::new(".env").is_dir() =>
        {
            None
        }
        Err(error) => return Err(Report::new(format!("cannot read `.env`: {error}"))),
    };
    Ok(Outside {
        built_in: built_in.map(|(name, value)| (name.to_owned(), value)).into(),
        vars,
        environment: if no_environment == Some(true) { BTreeMap::new() } else { env::all() },
        dotenv,
        directory: std::path::PathBuf::from("."),
        host: Host { now: jiff::Timestamp::now().as_second(), home: env::home() },
    })
}

/// The overrides of `--set`, and those that other flags are short for.
fn overrides(args: &Bake, called: bool) -> Vec<String> {
    let mut all = args.set.clone();
    let mut add = |wanted: bool, text: &str| {
        if wanted {
            all.push(text.to_owned());
        }
    };
    add(args.push, "*.push=true");
    add(args.load, "*.load=true");
    add(args.no_cache, "*.no-cache=true");
    add(args.pull, "*.pull=true");
    if called {
        let method = args.call.as_deref().unwrap_or("check");
        all.push(format!("*.call={}", method.split(',').next().unwrap_or(method)));
    }
    let attested = [("sbom", &args.sbom), ("provenance", &args.provenance)];
    for (kind, value) in attested.into_iter().filter_map(|(kind, value)| Some((kind, value.as_ref()?))) {
        all.push(format!("*.attest={}", attestation(kind, value)));
    }
    all
}

/// A target whose Dockerfile is told of, and the way.
type Told = (Target, Call);

/// The targets that are told of, and those that are built.
fn split(chosen: TargetSet, asked: &str) -> Outcome<(Vec<Told>, TargetSet)> {
    let options = asked.split_once(',').map_or("", |(_, options)| options);
    let mut told = Vec::new();
    let TargetSet { groups, targets } = chosen;
    let mut built = TargetSet { groups, targets: BTreeMap::new() };
    for (name, target) in targets {
        let method = target.call.as_deref().filter(|method| !method.is_empty()).unwrap_or("build");
        let text = if options.is_empty() || method == "build" {
            method.to_owned()
        } else {
            format!("{method},{options}")
        };
        match Call::read(&text)? {
            Some(call) => told.push((target, call)),
            None => drop(built.targets.insert(name, target)),
        }
    }
    // A context of a target that is told of need not be built.
    if built.targets.values().all(|target| target.linked) && !told.is_empty() {
        built.targets.clear();
    }
    if options == "format=json" && told.len() > 1 {
        let names: Vec<&str> = told.iter().map(|(target, _)| target.name.as_str()).collect();
        return Err(Usage(format!(
            "`format=json` is for one target, and these are {}: name one",
            names.join(", ")
        ))
        .into());
    }
    Ok((told, built))
}

fn tell_all(args: &Bake, told: Vec<Told>, machine: &lapstrake_build::Machine) -> Outcome<ExitCode> {
    let json = args.call.as_deref().is_some_and(|call| call.ends_with("format=json"));
    let mut code = ExitCode::SUCCESS;
    for (number, (target, call)) in told.into_iter().enumerate() {
        let asked = requests::Baking::of(args, &target)?;
        if !json {
            if number > 0 {
                say!("");
            }
            say!("{}", target.name);
            if !target.description.is_empty() {
                say!("{}", target.description);
            }
            say!("");
        }
        let machine = lapstrake_build::Machine { store: machine.store.clone(), single_id: machine.single_id };
        let told = call.tell(Asked { request: asked.request, client: asked.client, machine })?;
        if told != ExitCode::SUCCESS {
            code = told;
        }
    }
    Ok(code)
}
