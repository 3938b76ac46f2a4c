//! The tree as JSON, schema `lapstrake-parse/1`.

use lapstrake_diag::{Diagnostic, SourceFile};
use serde_json::{Map, Value, json};

use crate::heredoc::Heredoc;
use crate::mount::{Mount, Sharing};
use crate::parse::{Parsed, code, parse};
use crate::syntax::{
    Add, Arg, Command, CommandLine, Copy, Flag, Healthcheck, InlineFile, Instruction, Network, Pair, Run,
    Security, Stage, Transfer, Word,
};

/// Parses `file` and gives the tree, or what could be read of it, in the schema `lapstrake-parse/1`.
pub fn parse_json(file: &SourceFile) -> Value {
    document(file, &parse(file))
}

fn document(file: &SourceFile, parsed: &Parsed) -> Value {
    let dockerfile = &parsed.dockerfile;
    let (errors, warnings): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        parsed.diagnostics.iter().partition(|diagnostic| diagnostic.is_error());
    let errors: Vec<Value> = errors.into_iter().map(|error| problem(file, error)).collect();
    let warning = |warning: &Diagnostic| {
        let line = warning.lines(file).map_or(0, |(first, _)| first);
        json!({"line": line, "message": warning.message})
    };
    json!({
        "schema": "lapstrake-parse/1",
        "ok": errors.is_empty(),
        "escape": dockerfile.escape,
        "directives": dockerfile.directives.iter().map(|directive| {
            json!({"name": directive.name, "value": directive.value, "line": directive.line})
        }).collect::<Vec<_>>(),
        "warnings": warnings.into_iter().map(warning).collect::<Vec<_>>(),
        "meta_args": dockerfile.global_args.iter().map(command).collect::<Vec<_>>(),
        "stages": dockerfile.stages.iter().enumerate().map(stage).collect::<Vec<_>>(),
        "error": errors.first(),
        "errors": errors,
    })
}

fn problem(file: &SourceFile, error: &Diagnostic) -> Value {
    let phase = match error.code {
        code::INSTRUCTION => "instruction",
        code::STAGE => "stage",
        _ => "parse",
    };
    let (line, end_line) = error.lines(file).unwrap_or((1, 1));
    // The last label is the exact place where the first one is the whole instruction.
    let start = error.labels.last().map_or(0, |label| label.span.start);
    let instruction = file.line(line).split_whitespace().next().unwrap_or_default();
    json!({
        "phase": phase,
        "line": line,
        "end_line": end_line,
        "column": file.position(start).column,
        "message": error.message,
        "instruction": instruction,
    })
}

fn stage((index, stage): (usize, &Stage)) -> Value {
    json!({
        "index": index,
        "name": stage.from.name().unwrap_or_default(),
        "base": stage.from.base.node,
        "platform": text(stage.from.platform.as_ref()),
        "doc": stage.doc,
        "lines": [stage.lines.0, stage.lines.1],
        "flags": flags(&stage.flags),
        "commands": stage.instructions.iter().map(command).collect::<Vec<_>>(),
    })
}

fn command(command: &Command) -> Value {
    json!({
        "type": command.instruction.keyword().name(),
        "lines": [command.lines.0, command.lines.1],
        "flags": flags(&command.flags),
        "args": args(command),
        "json": command.json,
        "heredocs": command.heredocs.iter().map(heredoc).collect::<Vec<_>>(),
        "fields": fields(command),
    })
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

fn flags(flags: &[Flag]) -> Vec<&str> {
    flags.iter().map(|flag| flag.text.as_str()).collect()
}

fn text(word: Option<&Word>) -> &str {
    word.map_or("", |word| word.node.as_str())
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.node.clone()).collect()
}

fn args(command: &Command) -> Vec<String> {
    match &command.instruction {
        Instruction::Add(_) | Instruction::Copy(_) => texts(&command.args),
        Instruction::Run(Run { command, .. })
        | Instruction::Cmd(command)
        | Instruction::Entrypoint(command) => line(command).0,
        Instruction::Shell(words) => words.clone(),
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            pairs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
        }
        Instruction::Arg(args) => args.iter().map(declared).collect(),
        Instruction::Expose(words) | Instruction::Volume(words) => texts(words),
        Instruction::User(word)
        | Instruction::Workdir(word)
        | Instruction::Stopsignal(word)
        | Instruction::Maintainer(word) => vec![word.node.clone()],
        Instruction::Healthcheck(check) => check.test.clone(),
        Instruction::Onbuild(onbuild) => vec![onbuild.expression.clone()],
    }
}

fn declared(arg: &Arg) -> String {
    match &arg.value {
        Some(value) => format!("{}={value}", arg.name),
        None => arg.name.clone(),
    }
}

/// The words, and whether they are for a shell.
fn line(line: &CommandLine) -> (Vec<String>, bool) {
    match line {
        CommandLine::Shell(text) => (vec![text.clone()], true),
        CommandLine::Exec(words) => (words.clone(), false),
    }
}

fn fields(command: &Command) -> Value {
    match &command.instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            json!({"pairs": pairs.iter().map(pair).collect::<Vec<_>>()})
        }
        Instruction::Arg(args) => json!({"args": args.iter().map(|arg| {
            json!({"key": arg.name, "value": arg.value, "doc": arg.doc})
        }).collect::<Vec<_>>()}),
        Instruction::Copy(copy) => copied(copy),
        Instruction::Add(add) => added(add),
        Instruction::Run(run) => ran(run, &command.heredocs),
        Instruction::Cmd(words) | Instruction::Entrypoint(words) => {
            let (cmdline, shell) = line(words);
            json!({"cmdline": cmdline, "shell": shell})
        }
        Instruction::Shell(words) => json!({"argv": words}),
        Instruction::Healthcheck(check) => health(check),
        Instruction::Expose(ports) => json!({"ports": texts(ports)}),
        Instruction::Volume(paths) => json!({"paths": texts(paths)}),
        Instruction::User(user) => json!({"user": user.node}),
        Instruction::Workdir(path) => json!({"path": path.node}),
        Instruction::Stopsignal(signal) => json!({"signal": signal.node}),
        Instruction::Maintainer(who) => json!({"maintainer": who.node}),
        Instruction::Onbuild(onbuild) => json!({"expression": onbuild.expression}),
    }
}

fn pair(pair: &Pair) -> Value {
    json!({"key": pair.key, "value": pair.value, "eq": !pair.legacy})
}

fn transfer(transfer: &Transfer) -> Map<String, Value> {
    let inline = |file: &InlineFile| json!({"name": file.name, "data": file.data, "expand": file.expand});
    [
        ("sources", json!(texts(&transfer.sources))),
        ("dest", json!(transfer.dest.node)),
        ("inline", transfer.inline.iter().map(inline).collect()),
        ("chown", json!(text(transfer.chown.as_ref()))),
        ("chmod", json!(text(transfer.chmod.as_ref()))),
        ("link", json!(transfer.link)),
        ("exclude", json!(texts(&transfer.exclude))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

fn copied(copy: &Copy) -> Value {
    let mut fields = transfer(&copy.transfer);
    fields.insert("from".to_owned(), json!(text(copy.from.as_ref())));
    fields.insert("parents".to_owned(), json!(copy.parents));
    Value::Object(fields)
}

fn added(add: &Add) -> Value {
    let mut fields = transfer(&add.transfer);
    fields.insert("checksum".to_owned(), json!(text(add.checksum.as_ref())));
    fields.insert("keep_git_dir".to_owned(), json!(add.keep_git_dir));
    fields.insert("unpack".to_owned(), json!(add.unpack));
    Value::Object(fields)
}

fn ran(run: &Run, heredocs: &[Heredoc]) -> Value {
    let (cmdline, shell) = line(&run.command);
    let inline = heredocs.iter().map(|heredoc| json!({"name": heredoc.name, "data": heredoc.content}));
    let mut fields = json!({
        "cmdline": cmdline,
        "shell": shell,
        "inline": inline.collect::<Vec<_>>(),
        "network": match run.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        },
        "security": match run.security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        },
        "devices": run.devices.iter().map(|device| {
            json!({"name": device.name, "required": device.required})
        }).collect::<Vec<_>>(),
    });
    let mounts = run.mounts.iter().map(|mount| Mount::parse(&mount.text.node, |value| Ok(value.to_owned())));
    match mounts.collect::<Result<Vec<Mount>, String>>() {
        Ok(mounts) => fields["mounts"] = mounts.iter().map(mounted).collect(),
        Err(why) => fields["mount_error"] = json!(why),
    }
    fields
}

fn mounted(mount: &Mount) -> Value {
    json!({
        "type": mount.kind.name(),
        "from": mount.from,
        "source": mount.source,
        "target": mount.target,
        "readonly": mount.readonly,
        "size": mount.size,
        "id": mount.id,
        "sharing": mount.sharing.map(Sharing::name),
        "required": mount.required,
        "env": mount.env,
        "mode": mount.mode,
        "uid": mount.uid,
        "gid": mount.gid,
    })
}

fn health(check: &Healthcheck) -> Value {
    json!({
        "test": check.test,
        "interval_ns": check.interval,
        "timeout_ns": check.timeout,
        "start_period_ns": check.start_period,
        "start_interval_ns": check.start_interval,
        "retries": check.retries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        parse_json(&SourceFile::new("Dockerfile", text))
    }

    #[test]
    fn a_tree() {
        let text = "# syntax=x/y\nARG V=1\nFROM --platform=$P a:${V} AS Build\n\
                    RUN --mount=type=cache,target=/c <<EOF\nmake\nEOF\nENV a=\"b c\"\n";
        let tree = parsed(text);
        assert_eq!(tree["ok"], json!(true));
        assert_eq!(tree["directives"], json!([{"name": "syntax", "value": "x/y", "line": 1}]));
        assert_eq!(tree["meta_args"][0]["args"], json!(["V=1"]));
        let stage = &tree["stages"][0];
        assert_eq!((&stage["name"], &stage["platform"]), (&json!("build"), &json!("$P")));
        let run = &stage["commands"][0];
        assert_eq!(run["lines"], json!([4, 6]));
        assert_eq!(run["heredocs"][0]["content"], json!("make\n"));
        assert_eq!(run["fields"]["mounts"][0]["type"], json!("cache"));
        assert_eq!(stage["commands"][1]["args"], json!(["a=\"b c\""]));
    }

    #[test]
    fn errors_are_told_all_with_the_first_apart() {
        let tree = parsed("FROM a\nRUM x\nRUN y\nCOPY z\n");
        assert_eq!(tree["ok"], json!(false));
        let error = &tree["error"];
        assert_eq!((&error["phase"], &error["line"]), (&json!("instruction"), &json!(2)));
        assert_eq!(error["instruction"], json!("RUM"));
        assert_eq!(tree["errors"].as_array().map(Vec::len), Some(2));
        assert_eq!(tree["stages"][0]["commands"].as_array().map(Vec::len), Some(1));
    }
}
