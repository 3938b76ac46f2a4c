//! Short cases; whole files are in `testdata/dockerfiles`.

use proptest::prelude::*;

use super::*;
use crate::syntax::{CommandLine, Copy};

fn parsed(text: &str) -> Parsed {
    parse(&SourceFile::new("Dockerfile", text))
}

fn only(text: &str) -> Command {
    let mut parsed = parsed(&format!("FROM x\n{text}"));
    assert_eq!(parsed.first_error(), None, "{text}");
    let mut stage = parsed.dockerfile.stages.remove(0);
    assert_eq!(stage.instructions.len(), 1, "{text}");
    stage.instructions.remove(0)
}

fn copy(text: &str) -> Copy {
    match only(text).instruction {
        Instruction::Copy(copy) => *copy,
        other => panic!("{other:?}"),
    }
}

fn shell(command: &Command) -> &str {
    match &command.instruction {
        Instruction::Run(run) => match &run.command {
            CommandLine::Shell(text) => text,
            CommandLine::Exec(args) => panic!("{args:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn error_texts() {
    let table = [
        ("", "the Dockerfile cannot be empty"),
        ("# only\n\n# comments\n", "file with no instructions"),
        ("ARG x\n", "dockerfile contains no stages to build"),
        ("RUN x\nFROM y", "no build stage in current context"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a of b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("FROM x\nFNTRYPOINT [\"x\"]", "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"),
        ("FROM x\nENV a", "ENV must have two arguments"),
        ("FROM x\nENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("FROM x\nENV =b", "ENV names can not be blank"),
        ("FROM x\nARG =b", "ARG names can not be blank"),
        ("FROM x\nENV", "ENV requires at least one argument"),
        ("FROM x\nUSER", "USER requires exactly one argument"),
        (
            "FROM x\nCOPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM x\nCOPY --chwon=a b c", "unknown flag: --chwon (did you mean chown?)"),
        ("FROM x\nCOPY --chown=a --chown=b c d", "duplicate flag specified: --chown"),
        ("FROM x\nCOPY --chown b c", "missing a value on flag: --chown"),
        ("FROM x\nCOPY --link=x b c", "expecting boolean value for flag --link, not: x"),
        ("FROM x\nCOPY <<a <<b\na\nb\n", "COPY cannot accept a heredoc as a destination"),
        ("FROM x\nRUN <<a\nb\n", "unterminated heredoc"),
        ("FROM x\nRUN [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM x\nSHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM x\nSHELL []", "SHELL requires at least one argument"),
        ("FROM x\nHEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("FROM x\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("FROM x\nHEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("FROM x\nHEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("FROM x\nHEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("FROM x\nHEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("FROM x\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM x\nONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM x\nONBUILD", "ONBUILD requires at least one argument"),
        ("FROM x\nVOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("FROM x\nRUN --network=x y", "invalid network mode \"x\""),
        ("FROM x\nRUN --security=x y", "security \"x\" is not valid"),
        (
            "FROM x\nRUN --mount=from=$x y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("# escape=x\nFROM x", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM x", "only one escape parser directive can be used"),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(text).first_error().map(|error| error.message.as_str()), Some(expected), "{text}");
    }
}

#[test]
fn parse_errors_come_before_instruction_errors() {
    let parsed = parsed("FROM x\nFOO\nRUM x\nENV a\nCOPY a\n");
    let found: Vec<(&str, &str)> =
        parsed.diagnostics.iter().map(|d| (d.code, d.message.split(' ').next().unwrap())).collect();
    assert_eq!(
        found,
        [
            (code::PARSE, "ENV"),
            (code::INSTRUCTION, "unknown"),
            (code::INSTRUCTION, "unknown"),
            (code::INSTRUCTION, "COPY")
        ]
    );
}

#[test]
fn places_are_exact() {
    let text = "FROM x\nCOPY --chown=me \\\n  # note\n  a \\\n\n  b /c\n";
    let file = SourceFile::new("Dockerfile", text);
    let parsed = parse(&file);
    let command = &parsed.dockerfile.stages[0].instructions[0];
    assert_eq!(command.lines, (2, 6));
    assert_eq!(command.text, "COPY --chown=me   a   b /c");
    let at = |span: Span| &text[span.range()];
    let Instruction::Copy(copy) = &command.instruction else { panic!() };
    assert_eq!(at(copy.transfer.sources[1].span), "b");
    assert_eq!(at(copy.transfer.dest.span), "/c");
    assert_eq!(file.position(copy.transfer.dest.span.start()).column, 5);
    assert_eq!(at(copy.transfer.chown.as_ref().unwrap().span), "--chown=me");
    assert_eq!(command.keyword(), "COPY");
    let warning = &parsed.diagnostics[0];
    assert_eq!((warning.code, warning.lines(&file)), (code::EMPTY_CONTINUATION, Some((6, 6))));
}

#[test]
fn continuation() {
    let table = [
        ("RUN a \\\n  b", "a   b"),
        ("RUN a\\  \nb", "ab"),
        ("RUN a \\\\\nCMD b", "a \\\\"),
        ("RUN a \\\n# gone\nb", "a b"),
        ("RUN a # kept", "a # kept"),
        ("RUN a \\", "a"),
        ("RUN a \\\r\n b\r\n", "a  b"),
        ("\\\n\\\nRUN a", "a"),
        ("  RUN \\\n a", "a"),
    ];
    for (text, expected) in table {
        let parsed = parsed(&format!("FROM x\n{text}"));
        assert_eq!(shell(&parsed.dockerfile.stages[0].instructions[0]), expected, "{text:?}");
    }
    let parsed = parsed("# escape=`\nFROM x\nRUN a `\n b\\\nCMD c");
    assert_eq!(shell(&parsed.dockerfile.stages[0].instructions[0]), "a  b\\");
    assert_eq!(parsed.dockerfile.escape, '`');
}

#[test]
fn bom_and_crlf() {
    let parsed = parsed("\u{feff}# syntax=a/b\r\nFROM x\r\nRUN <<EOF\r\nhi\r\nEOF\r\nCMD [\"x\"]\r\n");
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.dockerfile.directives[0].value, "a/b");
    assert_eq!(parsed.dockerfile.stages[0].instructions[0].around.heredocs()[0].content, "hi\r\n");
}

/// Trap 11.
#[test]
fn broken_json_is_a_shell_string() {
    assert_eq!(shell(&only("RUN [\"echo\", \"x\"]junk")), "[\"echo\", \"x\"]junk");
    assert_eq!(shell(&only("RUN ['echo']")), "['echo']");
    let Instruction::Cmd(empty) = only("CMD []").instruction else { panic!() };
    assert_eq!(empty, CommandLine::Exec(Box::default()));
}

/// Trap 12.
#[test]
fn stopsignal_arg_and_none_swallow_flags() {
    for text in ["STOPSIGNAL --x 9", "ARG --x a=b", "HEALTHCHECK --x NONE"] {
        only(text);
    }
    assert!(parsed("FROM x\nUSER --x me").first_error().is_some());
}

/// Trap 10.
#[test]
fn heredocs_of_copy() {
    let files = |text: &str| -> Vec<(String, String, bool)> {
        copy(text)
            .transfer
            .inline
            .into_iter()
            .map(|file| (file.name.to_string(), file.data.to_string(), file.expand))
            .collect()
    };
    let file = |name: &str, data: &str, expand: bool| (name.to_owned(), data.to_owned(), expand);
    assert_eq!(
        files("COPY <<a <<-'b' c /d/\n1\na\n\t2\n\tb\n"),
        [file("a", "1\n", true), file("b", "2\n", false)]
    );
    assert_eq!(files("COPY <<a <<a /d/\n1\na\n2\na\n"), [file("a", "2\n", true), file("a", "2\n", true)]);
    assert_eq!(files("COPY <<a /d\n# no comment \\\n\n x\na"), [file("a", "# no comment \\\n\n x\n", true)]);
    assert!(only("COPY [\"<<a\", \"b\"]").around.heredocs().is_empty());
    assert!(only("ENV a=<<b").around.heredocs().is_empty());
    let mixed = copy("COPY p <<a q /d/\n1\na\n");
    assert_eq!(mixed.transfer.sources.iter().map(|w| w.node.as_str()).collect::<Vec<_>>(), ["p", "q"]);
}

#[test]
fn onbuild_keeps_bodies() {
    let command = only("OnBuild RUN <<EOF\nx\nEOF");
    assert_eq!(command.lines, (2, 4));
    let Instruction::Onbuild(onbuild) = command.instruction else { panic!() };
    assert_eq!((onbuild.expression.as_str(), onbuild.keyword.as_str()), ("RUN <<EOF\nx\nEOF", "RUN"));
    let again = parse_trigger(&onbuild.expression, Dialect::BuildKit).unwrap();
    assert_eq!(again.around.heredocs()[0].content, "x\n");
    assert_eq!(
        parse_trigger("RUM x", Dialect::BuildKit).unwrap_err(),
        "unknown instruction: RUM (did you mean RUN?)"
    );
    assert!(parse_trigger("RUN a\nRUN b", Dialect::BuildKit).is_err());
}

/// Trap 24.
#[test]
fn doc_comments_survive_blank_lines() {
    let stage = |text: &str| parsed(text).dockerfile.stages[0].doc.clone();
    assert_eq!(stage("# a builds\n\nFROM x AS a"), "builds");
    assert_eq!(stage("# a builds\n#\nFROM x AS a"), "");
    assert_eq!(stage("# syntax=x\n# a builds\nFROM x AS a"), "builds");
    assert_eq!(stage("#  A builds\nFROM x AS A"), "");
    let indented = parsed("  # a builds\nFROM x AS a");
    assert_eq!(indented.dockerfile.stages[0].around.comments(), ["# a builds"]);
}

#[test]
fn env_and_label_in_both_forms() {
    let pairs = |text: &str| match only(text).instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs
            .into_iter()
            .map(|pair| (pair.key.to_string(), pair.value.to_string(), pair.legacy))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let pair = |key: &str, value: &str, legacy| (key.to_owned(), value.to_owned(), legacy);
    assert_eq!(pairs("ENV a  b  c=d \"e\""), [pair("a", "b  c=d \"e\"", true)]);
    assert_eq!(
        pairs("ENV a=b c='d e' f="),
        [pair("a", "b", false), pair("c", "'d e'", false), pair("f", "", false)]
    );
    assert_eq!(pairs("LABEL \"x y\"=z"), [pair("\"x y\"", "z", false)]);
}

#[test]
fn healthchecks() {
    let check = |text: &str| match only(text).instruction {
        Instruction::Healthcheck(check) => check,
        other => panic!("{other:?}"),
    };
    let full = check(
        "HEALTHCHECK --interval=1m30s --timeout=2s --start-period=3s --start-interval=1s --retries=4 cmd a  b",
    );
    assert_eq!(full.test, ["CMD-SHELL", "a  b"]);
    assert_eq!((full.interval, full.retries), (90_000_000_000, 4));
    assert_eq!(check("HEALTHCHECK CMD [\"a\", \"b\"]").test, ["CMD", "a", "b"]);
    assert_eq!(check("HEALTHCHECK none").test, ["NONE"]);
}

#[test]
fn a_line_may_be_too_long() {
    let fits = format!("FROM x\nRUN {}\n", "a".repeat(crate::lines::MAX_LINE - 4));
    assert_eq!(parsed(&fits).first_error(), None);
    let long = format!("FROM x\nRUN {}\n", "a".repeat(crate::lines::MAX_LINE));
    assert_eq!(
        parsed(&long).first_error().unwrap().message,
        "dockerfile line greater than max allowed size of 65535"
    );
    let within = format!("FROM x\nRUN <<E\n{}\nE\n", "a".repeat(crate::lines::MAX_LINE + 1));
    assert_eq!(parsed(&within).first_error().unwrap().message, "unterminated heredoc");
}

#[test]
fn hostile_files_take_linear_time() {
    let many = "RUN a \\\n".repeat(100_000);
    parsed(&format!("FROM x\n{many}"));
    parsed(&"RUN <<A <<B <<C\nA\nB\nC\n".repeat(20_000));
    parsed(&format!("FROM x\n{}", "ONBUILD ".repeat(8_000)));
    parsed(&format!("FROM x\nENV {}", "a=b ".repeat(16_000)));
    parsed(&format!("FROM x\nCOPY {}", "<<A ".repeat(16_000)));
}

proptest! {
    #[test]
    fn nothing_panics(text in "(FROM|RUN|COPY|ENV|ONBUILD|ARG|HEALTHCHECK|#|[ a-z=<'\"$\\\\\\[\\],\n\r\té`-]){0,60}") {
        parsed(&text);
        parsed(&format!("# escape=`\nFROM x\n{text}"));
    }
}

#[test]
fn of_very_many_errors_the_first_are_kept_and_the_rest_counted() {
    let unknown = "RUM x\n".repeat(MOST_ERRORS + 7);
    let text = format!("FROM a\n{unknown}COPY [\"x\", 1]\nRUN y\n");
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    let errors = &parsed.diagnostics;
    assert_eq!((errors.len(), parsed.faults.len()), (MOST_ERRORS + 2, MOST_ERRORS + 2));
    assert!(errors[0].message.starts_with("when using JSON array syntax"), "{}", errors[0].message);
    assert_eq!(errors[MOST_ERRORS].message, "unknown instruction: RUM (did you mean RUN?)");
    assert_eq!(errors[MOST_ERRORS + 1].message, "and 7 more errors from here on");
    assert_eq!(parsed.faults[MOST_ERRORS + 1].lines.0 as usize, MOST_ERRORS + 2);
    assert_eq!(parsed.dockerfile.stages[0].instructions.len(), 1);
}

/// `--device` as BuildKit's code (commit 73ed6825c) reads it: the first field that is nothing else is the name.
#[test]
fn devices_of_a_run() {
    let read = |value: &str| -> Result<(String, bool), String> {
        let file = SourceFile::new("Dockerfile", format!("FROM a\nRUN --device={value} x\n"));
        let parsed = parse(&file);
        if let Some(error) = parsed.first_error() {
            return Err(error.message.clone());
        }
        let Instruction::Run(run) = &parsed.dockerfile.stages[0].instructions[0].instruction else {
            panic!("no RUN")
        };
        let device = &run.flags().devices[0];
        Ok((device.name.to_string(), device.required))
    };
    for (value, name, required) in [
        ("vendor.example/class=one", "vendor.example/class=one", false),
        ("name=vendor.example/class=one,required", "vendor.example/class=one", true),
        ("vendor.example/class,required=false", "vendor.example/class", false),
        ("required=1,vendor.example/class=*", "vendor.example/class=*", true),
        ("NAME=a/b=c,Required=TRUE", "a/b=c", true),
        ("name", "name", false),
        ("required", "", true),
    ] {
        assert_eq!(read(value), Ok((name.to_owned(), required)), "{value}");
    }
    for (value, why) in [
        ("a/b=c,d", "invalid field 'd' must be a key=value pair"),
        ("a/b=c,name=d", "device name already set to a/b=c"),
        ("name=a,required=maybe", "invalid value for required: maybe"),
        ("name=a,requird=1", "unexpected key 'requird' in 'requird=1' (did you mean required?)"),
        ("name=a,other=1", "unexpected key 'other' in 'other=1'"),
    ] {
        assert_eq!(read(value).unwrap_err(), why, "{value}");
    }
}
