//! The tree as JSON, schema `lapstrake-parse/1`.
//!
//! Nothing is expanded. Absent, null, false, 0 and empty mean the same to a reader.

use lapstrake_diag::{Diagnostic, SourceFile};
use serde_json::{Value, json};

use crate::heredoc::Heredoc;
use crate::mount::Mount;
use crate::parse::{Fault, Parsed, parse};
use crate::syntax::{
    Add, Arg, Command, CommandLine, Copy, Flag, Healthcheck, Instruction, Network, Pair, Run, Security,
    Stage, Transfer,
};
use crate::text::{Text, Word};

/// Parses `file` and gives the tree, or what could be read of it, in the schema `lapstrake-parse/1`.
pub fn parse_json(file: &SourceFile) -> Value {
    let Parsed { dockerfile, diagnostics, faults, empty_continuations, .. } = parse(file);
    let directive =
        |found: &crate::Directive| json!({ "name": found.name, "value": found.value, "line": found.line });
    let warning = |found: &crate::EmptyContinuation| json!({ "line": found.line, "message": format!("Empty continuation line found in: {}", found.text) });
    let mut errors =
        diagnostics.iter().zip(&faults).map(|(diagnostic, fault)| error(diagnostic, fault, file));
    json!({
        "schema": "lapstrake-parse/1",
        "ok": faults.is_empty(),
        "escape": dockerfile.escape,
        "directives": dockerfile.directives.iter().map(directive).collect::<Vec<_>>(),
        "warnings": empty_continuations.iter().map(warning).collect::<Vec<_>>(),
        "parts": parts(file),
        "meta_args": dockerfile.global_args.iter().map(command).collect::<Vec<_>>(),
        "stages": dockerfile.stages.iter().enumerate().map(|(index, found)| stage(index, found)).collect::<Vec<_>>(),
        "error": errors.next(),
        "errors": errors.collect::<Vec<_>>(),
    })
}

/// Where the lines come from, if files are put together: a part's first and last line, and which line of which file the
/// first one is.
fn parts(file: &SourceFile) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut line = 1;
    while file.is_joined() && line <= file.line_count() {
        let origin = file.origin(line);
        parts.push(json!({ "name": origin.name, "line": origin.line, "lines": origin.part }));
        line = origin.part.1 + 1;
    }
    parts
}

/// Lines are those that BuildKit reports. The column is that of the exact place, if it is on the first of the lines.
fn error(diagnostic: &Diagnostic, fault: &Fault, file: &SourceFile) -> Value {
    let places = diagnostic.labels.iter().rev().map(|label| file.position(label.span.start()));
    let exact = places.clone().find(|place| place.line == fault.lines.0);
    json!({
        "phase": fault.phase.name(),
        "line": fault.lines.0,
        "end_line": fault.lines.1,
        "column": exact.map_or(1, |place| place.column),
        "message": diagnostic.message,
        "instruction": fault.instruction,
    })
}

fn stage(index: usize, stage: &Stage) -> Value {
    json!({
        "index": index,
        "name": stage.from.name(),
        "base": stage.from.base.node,
        "platform": stage.from.platform.as_deref().map(text),
        "after": texts(&*stage.from.after),
        "doc": stage.doc,
        "lines": stage.lines,
        "flags": flags(stage.around.flags()),
        "commands": stage.instructions.iter().map(command).collect::<Vec<_>>(),
    })
}

fn command(command: &Command) -> Value {
    json!({
        "type": command.instruction.keyword().name(),
        "lines": command.lines,
        "flags": flags(command.around.flags()),
        "args": args(command),
        "json": command.json,
        "heredocs": command.around.heredocs().iter().map(heredoc).collect::<Vec<_>>(),
        "fields": fields(command),
    })
}

fn flags(flags: &[Flag]) -> Vec<&str> {
    flags.iter().map(|flag| flag.text.as_str()).collect()
}

fn text(word: &Word) -> &str {
    &word.node
}

fn texts<'w>(words: impl IntoIterator<Item = &'w Word>) -> Vec<&'w str> {
    words.into_iter().map(text).collect()
}

fn heredoc(heredoc: &Heredoc) -> Value {
    json!({
        "name": heredoc.name,
        "fd": heredoc.fd,
        "expand": heredoc.expand,
        "chomp": heredoc.chomp,
        "content": heredoc.content,
    })
}

fn args(command: &Command) -> Value {
    match &command.instruction {
        Instruction::Add(add) => json!(texts(add.transfer.words())),
        Instruction::Copy(copy) => json!(texts(copy.transfer.words())),
        Instruction::Arg(args) => {
            let declared = |arg: &Arg| match &arg.value {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.to_string(),
            };
            json!(args.iter().map(declared).collect::<Vec<_>>())
        }
        Instruction::Run(run) => json!(line(&run.command)),
        Instruction::Cmd(command) | Instruction::Entrypoint(command) => json!(line(command)),
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            json!(pairs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect::<Vec<_>>())
        }
        Instruction::Expose(words) | Instruction::Volume(words) => json!(texts(words)),
        Instruction::Healthcheck(check) => json!(check.test),
        Instruction::Onbuild(onbuild) => json!([onbuild.expression]),
        Instruction::Shell(argv) => json!(argv),
        Instruction::Maintainer(word)
        | Instruction::Stopsignal(word)
        | Instruction::User(word)
        | Instruction::Workdir(word) => json!([word.node]),
    }
}

/// The words of a command; text for a shell is one word, and no text is none.
fn line(command: &CommandLine) -> Vec<&str> {
    match command {
        CommandLine::Shell(text) if text.is_empty() => Vec::new(),
        CommandLine::Shell(text) => vec![text],
        CommandLine::Exec(words) => words.iter().map(Text::as_str).collect(),
    }
}

fn fields(command: &Command) -> Value {
    match &command.instruction {
        Instruction::Add(found) => add(found),
        Instruction::Copy(found) => copy(found),
        Instruction::Arg(args) => {
            let arg = |arg: &Arg| json!({ "key": arg.name, "value": arg.value, "doc": &*arg.doc });
            json!({ "args": args.iter().map(arg).collect::<Vec<_>>() })
        }
        Instruction::Run(found) => run(found, command.around.heredocs()),
        Instruction::Cmd(found) | Instruction::Entrypoint(found) => {
            json!({ "cmdline": line(found), "shell": !command.json })
        }
        Instruction::Env(found) | Instruction::Label(found) => pairs(found),
        Instruction::Expose(words) => json!({ "ports": texts(words) }),
        Instruction::Volume(words) => json!({ "paths": texts(words) }),
        Instruction::Healthcheck(found) => healthcheck(found),
        Instruction::Onbuild(onbuild) => json!({ "expression": onbuild.expression }),
        Instruction::Shell(argv) => json!({ "argv": argv }),
        Instruction::Maintainer(word) => json!({ "maintainer": word.node }),
        Instruction::Stopsignal(word) => json!({ "signal": word.node }),
        Instruction::User(word) => json!({ "user": word.node }),
        Instruction::Workdir(word) => json!({ "path": word.node }),
    }
}

fn pairs(pairs: &[Pair]) -> Value {
    let pair = |pair: &Pair| json!({ "key": pair.key, "value": pair.value, "eq": !pair.legacy });
    json!({ "pairs": pairs.iter().map(pair).collect::<Vec<_>>() })
}

fn transfer(transfer: &Transfer) -> Value {
    let inline = transfer.inline.iter();
    let inline = inline.map(|file| json!({ "name": file.name, "data": &*file.data, "expand": file.expand }));
    json!({
        "sources": texts(&transfer.sources),
        "dest": transfer.dest.node,
        "inline": inline.collect::<Vec<_>>(),
        "chown": transfer.chown.as_ref().map(text),
        "chmod": transfer.chmod.as_ref().map(text),
        "link": transfer.link,
        "exclude": texts(&transfer.exclude),
    })
}

fn copy(copy: &Copy) -> Value {
    let mut fields = transfer(&copy.transfer);
    fields["from"] = json!(copy.from.as_ref().map(text));
    fields["parents"] = json!(copy.parents);
    fields["optional"] = json!(copy.optional);
    fields
}

fn add(add: &Add) -> Value {
    let mut fields = transfer(&add.transfer);
    fields["checksum"] = json!(add.checksum.as_ref().map(text));
    fields["keep_git_dir"] = json!(add.keep_git_dir);
    fields["unpack"] = json!(add.unpack);
    fields
}

fn run(run: &Run, heredocs: &[Heredoc]) -> Value {
    let inline = heredocs.iter();
    let inline = inline.map(|body| json!({ "name": body.name, "data": body.content, "chomp": body.chomp }));
    let devices = run.flags().devices.iter();
    let devices = devices.map(|device| json!({ "name": device.name, "required": device.required }));
    let mut fields = json!({
        "cmdline": line(&run.command),
        "shell": matches!(run.command, CommandLine::Shell(_)),
        "inline": inline.collect::<Vec<_>>(),
        "network": match run.flags().network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        },
        "security": match run.flags().security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        },
        "devices": devices.collect::<Vec<_>>(),
        "no_cache": run.flags().attempts.no_cache,
        "retry": run.flags().attempts.retry,
        "timeout_ns": run.flags().attempts.timeout,
    });
    let unexpanded = |value: &str| Ok(value.to_owned());
    let mounts = run
        .flags()
        .mounts
        .iter()
        .map(|flag| Mount::parse(&flag.text.node, unexpanded).map(|found| mount(&found)));
    match mounts.collect::<Result<Vec<_>, _>>() {
        Ok(mounts) => fields["mounts"] = json!(mounts),
        Err(message) => fields["mount_error"] = json!(message),
    }
    fields
}

fn mount(mount: &Mount) -> Value {
    json!({
        "type": mount.kind.name(),
        "from": mount.from,
        "source": mount.source,
        "target": mount.target,
        "readonly": mount.readonly,
        "size": mount.size,
        "id": mount.id,
        "sharing": mount.sharing.map(crate::Sharing::name),
        "required": mount.required,
        "env": mount.env,
        "mode": mount.mode,
        "uid": mount.uid,
        "gid": mount.gid,
    })
}

fn healthcheck(check: &Healthcheck) -> Value {
    json!({
        "test": check.test,
        "interval_ns": check.interval,
        "timeout_ns": check.timeout,
        "start_period_ns": check.start_period,
        "start_interval_ns": check.start_interval,
        "retries": check.retries,
    })
}
