//! The traps of the language, as far as a text alone shows them. Those that need more to be known stand in
//! `src/lowering/tests.rs`, those that need steps to run in `crates/cli/tests/e2e/traps.rs`; all are called `trap_NN_…`, and
//! a test of xtask counts them.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{CheckOptions, Checks, check_syntax, parse, parse_json};
use lapstrake_graph::{FileAction, Op, Plan};
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, ResolveFailure, ResolvedImage, Scope, lower, lower_checked,
};
use lapstrake_oci::{Digest, ImageConfig, Platform};
use serde_json::{Value, json};

/// One image, whatever is asked for.
struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config: ImageConfig::default(), guessed: false })
    }
}

fn inputs() -> BuildInputs {
    BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() }
}

fn plan(text: &str) -> Result<Plan, String> {
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    assert_eq!(parsed.first_error(), None, "{text}");
    lower(&parsed.dockerfile, &inputs(), &Fake).map_err(|error| error.to_string())
}

fn tree(text: &str) -> Value {
    parse_json(&SourceFile::new("Dockerfile", text))
}

fn command(text: &str) -> Value {
    tree(text)["stages"][0]["commands"][0].clone()
}

/// The files that heredocs make, with their contents.
fn files(text: &str) -> Vec<(String, String)> {
    let plan = plan(text).unwrap();
    let mut found = Vec::new();
    for id in plan.graph.topological() {
        let Op::File(file) = &plan.graph[id].op else { continue };
        for action in &file.actions {
            if let FileAction::MakeFile(file) = action {
                found.push((file.name.clone(), String::from_utf8(file.data.clone()).unwrap()));
            }
        }
    }
    found
}

#[test]
fn trap_04_a_name_and_link_cannot_go_together() {
    let error = plan("FROM a\nCOPY --link --chown=app x /x").err();
    assert_eq!(error.as_deref(), Some("invalid user index: -1"));
    assert!(plan("FROM a\nCOPY --link --chown=1:2 x /x").is_ok());
}

#[test]
fn trap_05_a_mode_undoes_link() {
    let merges = |text: &str| {
        let plan = plan(text).unwrap();
        plan.graph.topological().into_iter().filter(|id| matches!(plan.graph[*id].op, Op::Merge)).count()
    };
    assert_eq!(merges("FROM a\nCOPY --link x /x"), 1);
    assert_eq!(merges("FROM a\nCOPY --link --chmod=644 x /x"), 0);
}

#[test]
fn trap_10_heredoc_bodies_have_their_own_escapes() {
    // A backslash escapes whatever the file says, and is dropped in front of any character.
    let text = "# escape=`\nFROM a\nENV v=1\nCOPY <<E /x\n\\$v $v `$v \\n \\\\ \"$v\"\nE";
    assert_eq!(files(text), [("E".to_owned(), "$v 1 `1 n \\ \"1\"\n".to_owned())]);
    let raw = files("FROM a\nCOPY <<\"E\" /x\n\\$v\nE");
    assert_eq!(raw[0].1, "\\$v\n");
    // Bodies are looked up by name: the last one counts for both.
    let twice = files("FROM a\nCOPY <<E <<E /x/\none\nE\ntwo\nE");
    assert_eq!(twice.iter().map(|(_, data)| data.as_str()).collect::<Vec<_>>(), ["two\n", "two\n"]);
    assert_eq!(files("FROM a\r\nCOPY <<E /x\r\none\r\nE\r\n")[0].1, "one\r\n");
}

#[test]
fn trap_11_broken_json_is_a_shell_string() {
    let run = command("FROM a\nRUN [\"echo\", \"x\"]junk");
    assert_eq!((&run["json"], &run["args"]), (&json!(false), &json!(["[\"echo\", \"x\"]junk"])));
    assert_eq!(command("FROM a\nCMD ['a']")["args"], json!(["['a']"]));
    assert_eq!(command("FROM a\nCMD [\"a\"]")["json"], json!(true));
    let numbers = tree("FROM a\nCMD [1]");
    assert_eq!(
        numbers["error"]["message"],
        "when using JSON array syntax, arrays must be comprised of strings only"
    );
}

#[test]
fn trap_12_flags_are_taken_from_every_instruction_byte_by_byte() {
    for line in ["STOPSIGNAL --x=y 9", "ARG --x a", "HEALTHCHECK --x=y NONE"] {
        assert_eq!(tree(&format!("FROM a\n{line}"))["error"], Value::Null, "{line}");
    }
    assert_eq!(tree("FROM a\nCMD --x y")["error"]["message"], "unknown flag: --x");
    assert_eq!(
        command("FROM a\nCOPY --chown=\u{e9} a b")["flags"],
        json!(["--chown=\u{c3}\u{a9}"]),
        "bytes become code points"
    );
}

#[test]
fn trap_24_comments_and_directives_are_found_in_two_ways() {
    let doc = |text: &str| tree(text)["stages"][0]["doc"].clone();
    assert_eq!(doc("# s the stage\n\nFROM a AS s"), "the stage", "blank lines do not part them");
    assert_eq!(doc("# s the stage\n#\nFROM a AS s"), "", "an empty comment does");
    // Space in front ends the directives for `syntax`, not for `escape`; a shebang does the opposite.
    let syntax = |text: &str| lapstrake_dockerfile::detect_syntax(text).map(|(syntax, _)| syntax);
    assert_eq!(syntax(" # syntax=x\nFROM a"), None);
    assert_eq!(tree(" # escape=`\nFROM a")["escape"], "`");
    assert_eq!(syntax("#!/bin/x\n# syntax=x\nFROM a").as_deref(), Some("x"));
    assert_eq!(tree("#!/bin/x\n# escape=`\nFROM a")["escape"], "\\");
    assert_eq!(syntax("// syntax=x\n").as_deref(), Some("x"));
    assert_eq!(syntax("{\"syntax\": \"x\"}").as_deref(), Some("x"));
}

#[test]
fn trap_27_skip_all_does_not_skip_experimental_rules() {
    let rules = |directive: &str| {
        let text = format!("# check={directive}\n# no name\nFROM a AS S\n");
        let file = SourceFile::new("Dockerfile", text.as_str());
        let checks = Checks::new(CheckOptions::of_file(&text).unwrap());
        let parsed = parse(&file);
        check_syntax(&parsed, &checks);
        lower_checked(&parsed.dockerfile, &inputs(), &Fake, &checks, Scope::All).unwrap();
        checks.findings().iter().map(|finding| finding.rule.name()).collect::<Vec<_>>()
    };
    assert_eq!(rules("skip=none"), ["StageNameCasing"]);
    assert!(rules("skip=all").is_empty());
    assert_eq!(rules("skip=all;experimental=all"), ["InvalidDefinitionDescription"]);
}

#[test]
fn trap_18_the_name_of_a_file_of_the_web_is_that_of_its_address() {
    let sources = |url: &str| {
        let plan = plan(&format!("FROM a\nADD {url} /d/")).unwrap();
        let mut found = Vec::new();
        for id in plan.graph.topological() {
            if let Op::File(file) = &plan.graph[id].op
                && let FileAction::Copy(copy) = &file.actions[0]
            {
                found.extend(copy.sources.clone());
            }
        }
        found
    };
    assert_eq!(sources("https://host/a/b.txt?c=d"), ["/b.txt"]);
    assert_eq!(sources("https://host/"), ["/__unnamed__"]);
}
