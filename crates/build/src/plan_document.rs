//! The plan of a build as a document, with one made-up image for all that a registry would have to be asked for.

use std::sync::Arc;

use lapstrake_diag::{Diagnostic, SourceFile};
use lapstrake_dockerfile::{Checks, Finding, Parsed, check_syntax, code};
use lapstrake_graph::{Exec, File, FileAction, Graph, NetworkMode, Op, Target, Vertex};
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, LowerError, Outline, OutlineArg, OutlineItem, ResolveFailure,
    ResolvedImage, Scope, lower_checked, outline,
};
use lapstrake_oci::{ContainerConfig, DiffId, Digest, History, ImageConfig, RootFs};
use serde_json::{Value, json};

use crate::check::options as check_options;

/// The plan by the schema `lapstrake-plan/1`. Errors of the Dockerfile are a part of the document.
pub fn plan_document(file: &Arc<SourceFile>, parsed: &Parsed, inputs: &BuildInputs) -> Value {
    let failed = |error: Value, warnings: Vec<Value>| json!({"schema": "lapstrake-plan/1", "ok": false, "error": error, "warnings": warnings});
    let checks = match check_options(file, inputs) {
        Ok(options) => Checks::new(options),
        Err(error) => {
            let error = json!({"phase": "parse", "line": 0, "end_line": 0, "message": error.to_string()});
            return failed(error, Vec::new());
        }
    };
    check_syntax(parsed, &checks);
    if let Some(error) = parsed.first_error() {
        let mut told = problem(file, error);
        // Some errors are not where BuildKit says they are.
        if let Some(fault) = parsed.faults.first() {
            (told["line"], told["end_line"]) = (json!(fault.lines.0), json!(fault.lines.1));
        }
        return failed(told, warnings(&checks));
    }
    let names = parsed.dockerfile.stages.iter().map(|stage| json!({"name": stage.from.name()}));
    match lower_checked(&parsed.dockerfile, inputs, &MadeUp, &checks, Scope::Target) {
        Err(error) => failed(refusal(file, parsed, &error), warnings(&checks)),
        Ok(_) if checks.error().is_some() => {
            let error = json!({"phase": "stage", "line": 0, "end_line": 0, "message": checks.error()});
            failed(error, warnings(&checks))
        }
        Ok(plan) => json!({
            "schema": "lapstrake-plan/1",
            "ok": true,
            "error": null,
            "warnings": warnings(&checks),
            "outline": outline(&parsed.dockerfile, inputs, &MadeUp, &Checks::default()).ok().map(|found| outline_of(&found)),
            "image": plan.targets.first().map(image),
            "targets": names.collect::<Vec<_>>(),
            "steps": plan.targets.first().map_or_else(Vec::new, |target| steps(&plan.graph, target)),
        }),
    }
}

fn warnings(checks: &Checks) -> Vec<Value> {
    let warning = |finding: &Finding| json!({"rule": finding.rule.name(), "message": finding.detail, "lines": finding.place.lines});
    checks.findings().iter().map(warning).collect()
}

fn outline_of(outline: &Outline) -> Value {
    let item =
        |item: &OutlineItem| json!({"name": item.name, "required": item.required, "lines": item.lines});
    let arg = |arg: &OutlineArg| json!({"name": arg.name, "value": arg.value, "description": arg.description, "lines": arg.lines});
    json!({
        "args": outline.args.iter().map(arg).collect::<Vec<_>>(),
        "secrets": outline.secrets.iter().map(item).collect::<Vec<_>>(),
        "ssh": outline.ssh.iter().map(item).collect::<Vec<_>>(),
    })
}

fn problem(file: &SourceFile, error: &Diagnostic) -> Value {
    let phase = match error.code {
        code::INSTRUCTION => "instruction",
        code::STAGE => "stage",
        _ => "parse",
    };
    let (line, end_line) = error.lines(file).unwrap_or((0, 0));
    json!({"phase": phase, "line": line, "end_line": end_line, "message": error.message})
}

fn refusal(file: &SourceFile, parsed: &Parsed, error: &LowerError) -> Value {
    match error.diagnostic() {
        Some(diagnostic) => {
            let mut told = problem(file, &diagnostic);
            if let Some((first, last)) = error.span().and_then(|span| parsed.dockerfile.lines_at(span)) {
                (told["line"], told["end_line"]) = (json!(first), json!(last));
            }
            told
        }
        None => json!({"phase": "stage", "line": 0, "end_line": 0, "message": error.to_string()}),
    }
}

fn image(target: &Target) -> Value {
    let draft = &target.image;
    let base = draft.config.history.iter().map(|row| (&row.created_by, row.empty_layer));
    let own = draft.history.iter().map(|row| (&row.created_by, row.layer.is_none()));
    let row = |(created_by, empty): (&String, bool)| json!({"created_by": created_by, "empty_layer": empty});
    let config = lapstrake_go::to_json(&draft.config.config);
    json!({
        "architecture": draft.config.architecture,
        "os": draft.config.os,
        "author": draft.config.author,
        "config": serde_json::from_slice::<Value>(&config).unwrap_or_default(),
        "history": base.chain(own).map(row).collect::<Vec<_>>(),
    })
}

/// The processes and file changes that the target needs, inputs first.
fn steps(graph: &Graph, target: &Target) -> Vec<Value> {
    let needed = graph.needed_by(target.edge.vertex);
    needed.into_iter().filter_map(|id| graph.get(id).and_then(step)).collect()
}

fn step(vertex: &Vertex) -> Option<Value> {
    let lines = vertex.meta.lines.map(|lines| [lines.first, lines.last]);
    match &vertex.op {
        Op::Exec(exec) => Some(process(exec, lines)),
        Op::File(file) => Some(json!({"kind": "file", "lines": lines, "actions": actions(file)})),
        Op::Source(_) | Op::Merge | Op::Diff => None,
    }
}

fn process(exec: &Exec, lines: Option<[u32; 2]>) -> Value {
    let network = match exec.network {
        NetworkMode::Default => "default",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    };
    json!({
        "kind": "exec",
        "lines": lines,
        "args": exec.args,
        "env": exec.env,
        "cwd": exec.cwd,
        "user": exec.user,
        "network": network,
    })
}

/// A copy of several sources is an action for each.
fn actions(file: &File) -> Vec<Value> {
    let mut actions = Vec::new();
    for action in &file.actions {
        match action {
            FileAction::Copy(copy) => {
                actions.extend(copy.sources.iter().map(|source| json!(["copy", source, copy.dest])));
            }
            FileAction::MakeDir(dir) => actions.push(json!(["mkdir", dir.path])),
            FileAction::Symlink(link) => actions.push(json!(["symlink", link.text, link.path])),
            FileAction::Remove(remove) => actions.push(json!(["rm", remove.path])),
            FileAction::MakeFile(file) => actions.push(json!(["copy", format!("/{}", file.name), file.dest])),
        }
    }
    actions
}

/// Knows every image, and always the same one.
struct MadeUp;

impl ImageResolver for MadeUp {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let layer = Digest::sha256(b"made up");
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            config: ContainerConfig {
                env: vec![path.to_owned()],
                cmd: Some(vec!["/bin/sh".to_owned()]),
                ..ContainerConfig::default()
            },
            history: vec![History { created_by: "fake base".to_owned(), ..History::default() }],
            rootfs: RootFs { diff_ids: vec![DiffId(layer)], ..RootFs::default() },
            ..ImageConfig::default()
        };
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config, guessed: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str, inputs: &BuildInputs) -> Value {
        let file = Arc::new(SourceFile::new("Dockerfile", text));
        plan_document(&file, &lapstrake_dockerfile::parse(&file), inputs)
    }

    #[test]
    fn only_what_the_target_needs() {
        let text = "FROM a AS one\nARG V=1\nRUN --network=none make $V\nFROM b AS two\nRUN never\nFROM a\n\
                    WORKDIR /srv\nCOPY --from=one /x /y/\nCMD [\"run\"]\n";
        let mut inputs = BuildInputs::new();
        inputs.build_args.insert("V".to_owned(), "2".to_owned());
        let plan = planned(text, &inputs);
        assert_eq!(plan["ok"], json!(true), "{plan}");
        let steps = plan["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), 3, "{plan}");
        let exec = steps.iter().find(|step| step["kind"] == "exec").expect("a process");
        assert_eq!(exec["args"], json!(["/bin/sh", "-c", "make $V"]));
        assert!(exec["env"].as_array().is_some_and(|env| env.contains(&json!("V=2"))), "{exec}");
        assert_eq!((&exec["network"], &exec["lines"]), (&json!("none"), &json!([3, 3])));
        let files: Vec<&Value> = steps.iter().filter(|step| step["kind"] == "file").collect();
        assert_eq!(files[0]["actions"], json!([["mkdir", "/srv"]]));
        assert_eq!(files[1]["actions"], json!([["copy", "/x", "/y/"]]));
        let image = &plan["image"];
        assert_eq!(
            (&image["config"]["Cmd"], &image["config"]["WorkingDir"]),
            (&json!(["run"]), &json!("/srv"))
        );
        assert_eq!(image["history"][0]["created_by"], json!("fake base"));
        assert_eq!(plan["targets"][1]["name"], json!("two"));
    }

    #[test]
    fn errors_have_their_line() {
        let plan = planned("FROM a\nSTOPSIGNAL SIGNOT\n", &BuildInputs::new());
        assert_eq!((&plan["ok"], &plan["error"]["line"]), (&json!(false), &json!(2)), "{plan}");
        let plan = planned("FROM a\nRUM\n", &BuildInputs::new());
        assert_eq!(plan["error"]["phase"], json!("instruction"), "{plan}");
    }
}
