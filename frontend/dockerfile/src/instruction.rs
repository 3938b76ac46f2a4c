//! Split lines to typed instructions: the second half of parsing.
//!
//! Everything that BuildKit reports while it makes instructions of its tree is reported here, with its texts.

use lapstrake_diag::{Span, Spanned, did_you_mean};
use lapstrake_go::{csv, duration, parse_bool, parse_int, quoted, to_lower, to_upper};

use crate::docs::Docs;
use crate::flags::{BadFlag, Flags, Takes};
use crate::heredoc::{Bodies, Heredoc, heredoc_word};
use crate::mount::unexpanded_from;
use crate::syntax::{
    Add, Arg, Attempts, CommandLine, Copy, Device, Dialect, Flag, From, Healthcheck, InlineFile, Instruction,
    Keyword, MountFlag, Network, Onbuild, Pair, Run, RunFlags, Security, Transfer,
};
use crate::text::{Text, Word};

/// What is wrong with an instruction, and where exactly, if that is less than all of it.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) place: Option<Span>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), place: None, hint: None }
    }

    pub(crate) fn at(message: impl Into<String>, place: Span) -> Problem {
        Problem { message: message.into(), place: Some(place), hint: None }
    }
}

impl std::convert::From<BadFlag> for Problem {
    fn from(bad: BadFlag) -> Problem {
        Problem { hint: bad.hint, ..Problem::at(bad.message, bad.flag.span) }
    }
}

/// An instruction whose arguments are split.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) dialect: Dialect,
    /// Whether nobody will read what is wrong with it, so that nothing need be suggested.
    pub(crate) brief: bool,
    pub(crate) keyword: Word,
    /// What the keyword is.
    pub(crate) known: Option<Keyword>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) args: Args,
    pub(crate) json: bool,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) comments: Vec<Text>,
    /// The line, continuation joined.
    pub(crate) text: Text,
}

/// Arguments as the line parser of the keyword splits them.
#[derive(Debug)]
pub(crate) enum Args {
    /// Words.
    Words(Vec<Word>),
    /// Names with values.
    Pairs(Vec<Pair>),
    /// `HEALTHCHECK type command…`; no words if there is no type.
    Health(Vec<Word>),
    /// The keyword of an ONBUILD trigger and its rest.
    Trigger(Option<Word>),
}

/// What a line turned out to be.
pub(crate) enum Typed {
    From(From),
    Instruction(Instruction),
}

/// Makes an instruction of `request`, and takes what it needs of its arguments if there is nothing wrong with it.
pub(crate) fn typed(request: &mut Request) -> Result<Typed, Problem> {
    let Some(keyword) = request.known else {
        return Err(unknown(&request.keyword, request.brief));
    };
    let instruction = match keyword {
        Keyword::From => return from(request).map(Typed::From),
        Keyword::Add => add(request)?,
        Keyword::Arg => arg(request)?,
        Keyword::Cmd => Instruction::Cmd(command_line(request)?),
        Keyword::Copy => copy(request)?,
        Keyword::Entrypoint => Instruction::Entrypoint(command_line(request)?),
        Keyword::Env => Instruction::Env(pairs(request, keyword)?),
        Keyword::Expose => Instruction::Expose(expose(request)?),
        Keyword::Healthcheck => Instruction::Healthcheck(Box::new(healthcheck(request)?)),
        Keyword::Label => Instruction::Label(pairs(request, keyword)?),
        Keyword::Maintainer => Instruction::Maintainer(single(request, keyword)?),
        Keyword::Onbuild => onbuild(request)?,
        Keyword::Run => run(request)?,
        Keyword::Shell => shell(request)?,
        // Flags in front of a signal are swallowed unread.
        Keyword::Stopsignal => Instruction::Stopsignal(exactly_one(request, keyword)?),
        Keyword::User => Instruction::User(single(request, keyword)?),
        Keyword::Volume => Instruction::Volume(volume(request)?),
        Keyword::Workdir => Instruction::Workdir(single(request, keyword)?),
    };
    Ok(Typed::Instruction(instruction))
}

fn unknown(keyword: &Word, brief: bool) -> Problem {
    if brief {
        return Problem::at("unknown instruction", keyword.span);
    }
    let hint = did_you_mean(&keyword.node, Keyword::ALL.iter().map(|(_, name)| *name))
        .map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
    let mut problem = Problem::at(format!("unknown instruction: {}{hint}", keyword.node), keyword.span);
    if keyword.node.eq_ignore_ascii_case("INCLUDE") {
        problem.hint = Some(format!("lapstrake has this instruction: {EXTEND}"));
    }
    problem
}

/// How to get what only [`Dialect::Lapstrake`] has.
const EXTEND: &str = "write `# syntax=lapstrake` in the first line";

/// Checks the flags; `extra` are those that only [`Dialect::Lapstrake`] has.
fn check_flags(
    request: &Request,
    known: &[(&'static str, Takes)],
    extra: &[(&'static str, Takes)],
) -> Result<Flags, BadFlag> {
    match request.dialect {
        Dialect::Lapstrake => Flags::check(&request.flags, &[known, extra].concat(), request.brief),
        Dialect::BuildKit => Flags::check(&request.flags, known, request.brief).map_err(|mut bad| {
            let name = bad.flag.text.split('=').next().and_then(|name| name.strip_prefix("--"));
            if extra.iter().any(|(extra, _)| Some(*extra) == name) {
                bad.hint = Some(format!("lapstrake has this flag: {EXTEND}"));
            }
            bad
        }),
    }
}

fn no_flags(request: &Request) -> Result<(), Problem> {
    check_flags(request, &[], &[])?;
    Ok(())
}

/// The arguments, if they are words.
pub(crate) fn words(request: &Request) -> &[Word] {
    match &request.args {
        Args::Words(words) | Args::Health(words) => words,
        Args::Pairs(_) | Args::Trigger(_) => &[],
    }
}

fn at_least_one(keyword: Keyword) -> Problem {
    Problem::new(format!("{} requires at least one argument", keyword.name()))
}

fn exactly_one(request: &Request, keyword: Keyword) -> Result<Word, Problem> {
    match words(request) {
        [word] => Ok(word.clone()),
        _ => Err(Problem::new(format!("{} requires exactly one argument", keyword.name()))),
    }
}

fn single(request: &Request, keyword: Keyword) -> Result<Word, Problem> {
    let word = exactly_one(request, keyword)?;
    no_flags(request)?;
    Ok(word)
}

fn pairs(request: &mut Request, keyword: Keyword) -> Result<Vec<Pair>, Problem> {
    no_flags(request)?;
    match &mut request.args {
        Args::Pairs(pairs) if !pairs.is_empty() => match pairs.iter().find(|pair| pair.key.is_empty()) {
            Some(pair) => Err(blank_name(keyword, pair.span)),
            None => Ok(std::mem::take(pairs)),
        },
        _ => Err(at_least_one(keyword)),
    }
}

fn blank_name(keyword: Keyword, place: Span) -> Problem {
    Problem::at(format!("{} names can not be blank", keyword.name()), place)
}

fn from(request: &Request) -> Result<From, Problem> {
    let (base, alias) = match words(request) {
        [base] => (base, None),
        [base, word, name] if is_as(&word.node) => {
            if !valid_stage_name(&to_lower(&name.node)) {
                let message = format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quoted(&name.node)
                );
                return Err(Problem::at(message, name.span));
            }
            (base, Some(Box::new((word.clone(), name.clone()))))
        }
        _ => return Err(Problem::new("FROM requires either one or three arguments")),
    };
    let flags = check_flags(request, &[("platform", Takes::Value)], &[("after", Takes::Values)])?;
    let after = flags.values("after").into();
    Ok(From { base: base.clone(), platform: flags.value("platform").map(Box::new), alias, after })
}

/// `as` in any case; Unicode has a third form of its `s`.
fn is_as(word: &str) -> bool {
    word.eq_ignore_ascii_case("AS") || (!word.is_ascii() && to_upper(word) == "AS")
}

fn valid_stage_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

/// Flags in front of the names are swallowed unread.
fn arg(request: &Request) -> Result<Instruction, Problem> {
    let words = words(request);
    if words.is_empty() {
        return Err(at_least_one(Keyword::Arg));
    }
    let mut docs = Docs::new(&request.comments);
    let mut args = Vec::with_capacity(words.len());
    for word in words {
        let (name, value) = match word.node.split_once('=') {
            Some(("", _)) => return Err(blank_name(Keyword::Arg, word.span)),
            Some((name, value)) => (name, Some(value.into())),
            None => (word.node.as_str(), None),
        };
        let doc = docs.of(name);
        args.push(Arg { name: name.into(), value, span: word.span, doc });
    }
    Ok(Instruction::Arg(args))
}

const TRANSFER_FLAGS: [(&str, Takes); 4] =
    [("chown", Takes::Value), ("chmod", Takes::Value), ("link", Takes::Bool), ("exclude", Takes::Values)];

fn transfer(
    request: &Request,
    keyword: Keyword,
    own: &[(&'static str, Takes)],
    extra: &[(&'static str, Takes)],
) -> Result<(Transfer, Flags), Problem> {
    let [sources @ .., dest] = words(request) else { return Err(no_destination(keyword)) };
    if sources.is_empty() {
        return Err(no_destination(keyword));
    }
    let known: Vec<(&'static str, Takes)> = TRANSFER_FLAGS.iter().chain(own).copied().collect();
    let flags = check_flags(request, &known, extra)?;
    let heredoc = |word: &Word| heredoc_word(&word.node).ok().flatten();
    if heredoc(dest).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", keyword.name());
        return Err(Problem::at(message, dest.span));
    }
    let mut bodies = Bodies::new(&request.heredocs);
    let mut paths = Vec::new();
    let mut inline = Vec::new();
    for source in sources {
        match heredoc(source) {
            Some(here) => inline.push(InlineFile {
                data: bodies.of(&here),
                name: here.name,
                expand: here.expand,
                word: source.clone(),
            }),
            None => paths.push(source.clone()),
        }
    }
    let transfer = Transfer {
        sources: paths,
        inline,
        dest: dest.clone(),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.boolean("link") == Some(true),
        exclude: flags.values("exclude"),
    };
    Ok((transfer, flags))
}

fn no_destination(keyword: Keyword) -> Problem {
    Problem::new(format!(
        "{} requires at least two arguments, but only one was provided. Destination could not be determined",
        keyword.name()
    ))
}

fn copy(request: &Request) -> Result<Instruction, Problem> {
    let own = [("from", Takes::Value), ("parents", Takes::Bool)];
    let (transfer, flags) = transfer(request, Keyword::Copy, &own, &[("optional", Takes::Bool)])?;
    let is_set = |name| flags.boolean(name) == Some(true);
    let (parents, optional) = (is_set("parents"), is_set("optional"));
    Ok(Instruction::Copy(Box::new(Copy { transfer, from: flags.value("from"), parents, optional })))
}

fn add(request: &Request) -> Result<Instruction, Problem> {
    let own = [("keep-git-dir", Takes::Bool), ("checksum", Takes::Value), ("unpack", Takes::Bool)];
    let (transfer, flags) = transfer(request, Keyword::Add, &own, &[])?;
    Ok(Instruction::Add(Box::new(Add {
        transfer,
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: flags.value("checksum"),
        unpack: flags.boolean("unpack"),
    })))
}

/// The words of a JSON array, or the text as one word for a shell.
fn line_of(request: &Request, words: &[Word]) -> CommandLine {
    let texts = || words.iter().map(|word| word.node.clone());
    match words {
        _ if request.json => CommandLine::Exec(texts().collect()),
        [word] => CommandLine::Shell(word.node.clone()),
        _ => CommandLine::Shell(texts().collect::<Vec<_>>().join(" ").into()),
    }
}

fn command_line(request: &Request) -> Result<CommandLine, Problem> {
    no_flags(request)?;
    Ok(line_of(request, words(request)))
}

fn shell(request: &Request) -> Result<Instruction, Problem> {
    no_flags(request)?;
    let words = words(request);
    if words.is_empty() {
        return Err(at_least_one(Keyword::Shell));
    }
    match line_of(request, words) {
        CommandLine::Exec(args) => Ok(Instruction::Shell(args.into_vec())),
        CommandLine::Shell(_) => Err(Problem::new("SHELL requires the arguments to be in JSON form")),
    }
}

fn expose(request: &mut Request) -> Result<Vec<Word>, Problem> {
    if words(request).is_empty() {
        return Err(at_least_one(Keyword::Expose));
    }
    no_flags(request)?;
    let Args::Words(ports) = &mut request.args else { return Err(at_least_one(Keyword::Expose)) };
    let mut ports = std::mem::take(ports);
    ports.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(ports)
}

fn volume(request: &Request) -> Result<Vec<Word>, Problem> {
    let words = words(request);
    if words.is_empty() {
        return Err(at_least_one(Keyword::Volume));
    }
    no_flags(request)?;
    let mut volumes = Vec::new();
    for word in words {
        let path = word.node.trim();
        if path.is_empty() {
            return Err(Problem::at("VOLUME specified can not be an empty string", word.span));
        }
        volumes.push(Spanned::new(path.into(), word.span));
    }
    Ok(volumes)
}

fn onbuild(request: &Request) -> Result<Instruction, Problem> {
    let Args::Trigger(Some(trigger)) = &request.args else { return Err(at_least_one(Keyword::Onbuild)) };
    no_flags(request)?;
    let keyword = to_upper(trigger.node.trim());
    match Keyword::parse(&keyword) {
        Some(Keyword::Onbuild) => {
            return Err(Problem::at("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", trigger.span));
        }
        Some(Keyword::From | Keyword::Maintainer) => {
            return Err(Problem::at(format!("{keyword} isn't allowed as an ONBUILD trigger"), trigger.span));
        }
        _ => {}
    }
    let mut expression = Text::from(behind_onbuild(&request.text));
    for heredoc in &request.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(Instruction::Onbuild(Onbuild { expression, keyword: keyword.into() }))
}

/// The text of the trigger. White space is what a regular expression's `\\s` has: an ONBUILD behind another kind of space
/// stays where it is.
fn behind_onbuild(text: &str) -> &str {
    const KEYWORD: &str = "ONBUILD";
    let space = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let trimmed = text.trim_start_matches(space);
    match trimmed.split_at_checked(KEYWORD.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(KEYWORD) => rest.trim_start_matches(space),
        _ => text,
    }
}

fn healthcheck(request: &Request) -> Result<Healthcheck, Problem> {
    let [kind, command @ ..] = words(request) else { return Err(at_least_one(Keyword::Healthcheck)) };
    let upper = to_upper(&kind.node);
    if upper == "NONE" {
        // Flags in front of NONE are swallowed unread.
        if let Some(word) = command.first() {
            return Err(Problem::at("HEALTHCHECK NONE takes no arguments", word.span));
        }
        return Ok(Healthcheck { test: vec![upper.into()], ..Healthcheck::default() });
    }
    let known =
        ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Takes::Value));
    let flags = check_flags(request, &known, &[])?;
    if upper != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quoted(&upper));
        return Err(Problem::at(message, kind.span));
    }
    if command.is_empty() {
        return Err(Problem::new("Missing command after HEALTHCHECK CMD"));
    }
    let test = match line_of(request, command) {
        CommandLine::Exec(args) => std::iter::once("CMD".into()).chain(args).collect(),
        CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text],
    };
    Ok(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Problem> {
    const MILLISECOND: i64 = 1_000_000;
    let Some(word) = flags.value(name) else { return Ok(0) };
    match duration::parse(&word.node) {
        Ok(0) => Ok(0),
        Ok(duration) if duration >= MILLISECOND => Ok(duration),
        Ok(_) => Err(Problem::at(format!("Interval {} cannot be less than 1ms", quoted(name)), word.span)),
        Err(message) => Err(Problem::at(message.to_string(), word.span)),
    }
}

fn retries(flags: &Flags) -> Result<i64, Problem> {
    let Some(word) = flags.value("retries") else { return Ok(0) };
    match parse_int(&word.node) {
        Ok(number) if number < 0 => {
            Err(Problem::at(format!("--retries cannot be negative ({number})"), word.span))
        }
        Ok(number) => Ok(number),
        Err(message) => Err(Problem::at(message.to_string(), word.span)),
    }
}

fn run(request: &Request) -> Result<Instruction, Problem> {
    let given = if request.flags.is_empty() { None } else { Some(Box::new(run_flags(request)?)) };
    Ok(Instruction::Run(Run { command: line_of(request, words(request)), given }))
}

fn run_flags(request: &Request) -> Result<RunFlags, Problem> {
    let known = [
        ("mount", Takes::Values),
        ("network", Takes::Value),
        ("security", Takes::Value),
        ("device", Takes::Values),
    ];
    let extra = [("no-cache", Takes::Bool), ("retry", Takes::Value), ("timeout", Takes::Value)];
    let flags = check_flags(request, &known, &extra)?;
    // In the order in which BuildKit complains.
    let mut devices = Vec::new();
    for word in flags.values("device") {
        devices.push(device(&word.node).map_err(|message| Problem::at(message, word.span))?);
    }
    let mut mounts = Vec::new();
    for text in flags.values("mount") {
        let from = unexpanded_from(&text.node, request.dialect)
            .map_err(|message| Problem::at(message, text.span))?;
        mounts.push(MountFlag { text, from });
    }
    let mut network = Network::Default;
    if let Some(word) = flags.values("network").first() {
        network = match word.node.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => return Err(Problem::at(format!("invalid network mode {}", quoted(other)), word.span)),
        };
    }
    let mut security = Security::Sandbox;
    if let Some(word) = flags.values("security").first() {
        security = match word.node.as_str() {
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            other => return Err(Problem::at(format!("security {} is not valid", quoted(other)), word.span)),
        };
    }
    let attempts = attempts(&flags)?;
    Ok(RunFlags { mounts, network, security, devices, attempts })
}

fn attempts(flags: &Flags) -> Result<Attempts, Problem> {
    let retry = match flags.value("retry") {
        None => 0,
        Some(word) => word.node.parse().map_err(|_| {
            let message = format!("--retry {} is not a number of tries", quoted(&word.node));
            Problem::at(message, word.span)
        })?,
    };
    let timeout = interval(flags, "timeout")?;
    Ok(Attempts { no_cache: flags.boolean("no-cache") == Some(true), retry, timeout })
}

fn device(text: &str) -> Result<Device, String> {
    let fields = csv::fields(text).map_err(|why| format!("failed to parse csv devices: {why}"))?;
    let mut device = Device::default();
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (to_lower(key), Some(value)),
            None => (to_lower(&field), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required =
                    parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            ("name", Some(value)) if device.name.is_empty() => device.name = value.into(),
            ("name", Some(_)) => return Err(format!("device name already set to {}", device.name)),
            _ if device.name.is_empty() => device.name = field.into(),
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            (_, Some(_)) => {
                let hint = lapstrake_diag::did_you_mean_exactly(&key, ["name", "required"])
                    .map_or(String::new(), |hint| format!(" (did you mean {hint}?)"));
                return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        }
    }
    Ok(device)
}
