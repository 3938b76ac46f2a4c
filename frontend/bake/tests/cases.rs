//! Definitions and what they say. The expectations of `testdata/bake` were compared with `buildx bake --print`.

#![expect(clippy::unwrap_used, reason = "a test fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapstrake_bake::{BakeError, Definition, File, Host, Outside};

/// The usual names, in their order.
const NAMES: [&str; 5] = [
    "compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

fn outside(environment: BTreeMap<String, String>, dotenv: Option<String>) -> Outside {
    let built_in = [("BAKE_CMD_CONTEXT", "cwd://"), ("BAKE_LOCAL_PLATFORM", "linux/amd64")];
    Outside {
        built_in: built_in.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        vars: BTreeMap::new(),
        environment,
        dotenv,
        directory: PathBuf::new(),
        host: Host { now: 1_700_000_000, home: PathBuf::from("/home/user") },
    }
}

fn read(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The targets of a case as `--print` shows them, or the error.
fn printed(case: &Path) -> Result<String, BakeError> {
    let named = |name: &&str| Some(File { name: (*name).to_owned(), text: read(case.join(name))? });
    let files: Vec<File> = NAMES.iter().filter_map(named).collect();
    let environment = read(case.join("environment")).map(|text| pairs(&text)).unwrap_or_default();
    let around =
        Outside { directory: case.to_owned(), ..outside(environment.clone(), read(case.join(".env"))) };
    let definition = Definition::read(&files, &around)?;
    let words = read(case.join("words")).unwrap_or_default();
    let (mut wanted, mut set) = (Vec::new(), Vec::new());
    let mut words = words.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--set" => set.extend(words.next().map(str::to_owned)),
            word => wanted.push(word.to_owned()),
        }
    }
    if wanted.is_empty() {
        wanted.push("default".to_owned());
    }
    let chosen = definition.choose(&wanted, &definition.overrides(&set, &environment)?)?;
    let warnings: String = definition.warnings.iter().map(|warning| format!("# {warning}\n")).collect();
    Ok(warnings + &String::from_utf8(lapstrake_go::to_json_indented(&chosen)).unwrap() + "\n")
}

/// The message with its file, line and column.
fn told(error: &BakeError) -> String {
    let place = error.place.as_ref().map_or_else(String::new, |place| {
        let at = place.range.as_ref().map_or_else(String::new, |range| {
            let position = place.file.position(range.start);
            format!(":{}:{}", position.line, position.column)
        });
        format!("{}{at}: ", place.file.name())
    });
    format!("{place}{}\n", error.message)
}

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/bake");
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let (file, said) = match printed(&case) {
            Ok(text) => ("print.json", text),
            Err(error) => ("error.txt", told(&error)),
        };
        assert_eq!(file == "error.txt", name.starts_with("error-"), "{name}: {said}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(case.join(file), &said).unwrap();
        }
        assert_eq!(read(case.join(file)).unwrap(), said, "{name}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

fn definition(text: &str) -> Result<Definition, BakeError> {
    let file = File { name: "docker-bake.hcl".to_owned(), text: text.to_owned() };
    Definition::read(&[file], &outside(BTreeMap::new(), None))
}

/// The error of a definition, or of its target `default`.
fn error(text: &str) -> String {
    let wanted = ["default".to_owned()];
    let done = definition(text)
        .and_then(|read| read.choose(&wanted, &read.overrides(&[], &BTreeMap::new())?).map(drop));
    done.err().map_or_else(|| "no error".to_owned(), |error| error.message)
}

/// Each definition ends with an error that has these words.
fn refused(rows: &[(String, &str)]) {
    for (text, wanted) in rows {
        let said = error(text);
        assert!(said.contains(wanted), "{}: {said}", &text[..text.len().min(80)]);
    }
}

#[test]
fn hostile_definitions_end_with_an_error() {
    let doubled = |last: usize| -> String {
        let line = |n: usize| format!("variable \"V{n}\" {{ default = \"${{V{0}}}${{V{0}}}\" }}\n", n - 1);
        "variable \"V0\" { default = \"xxxxxxxx\" }\n".to_owned() + &(1..=last).map(line).collect::<String>()
    };
    let lists = |last: usize| -> String {
        let line = |n: usize| format!("variable \"V{n}\" {{ default = [V{0}, V{0}] }}\n", n - 1);
        format!("variable \"V0\" {{ default = [\"{}\"] }}\n", "x".repeat(256))
            + &(1..=last).map(line).collect::<String>()
    };
    let calls = |last: usize| -> String {
        let line = |n: usize| {
            format!("function \"f{n}\" {{\n params = [x]\n result = f{0}(x) + f{0}(x)\n}}\n", n - 1)
        };
        "function \"f0\" {\n params = [x]\n result = x\n}\n".to_owned()
            + &(1..=last).map(line).collect::<String>()
            + &format!("target \"default\" {{ args = {{ A = f{last}(1) }} }}\n")
    };
    let chain = |last: usize| -> String {
        let line = |n: usize| format!("variable \"V{n}\" {{ default = V{} }}\n", n + 1);
        (0..last).map(line).collect::<String>() + &format!("variable \"V{last}\" {{ default = 1 }}\n")
    };
    let inherits = |last: usize| -> String {
        let line = |n: usize| format!("target \"t{n}\" {{ inherits = [\"t{}\"] }}\n", n + 1);
        (0..last).map(line).collect::<String>()
            + &format!("target \"t{last}\" {{}}\ntarget \"default\" {{ inherits = [\"t0\"] }}\n")
    };
    let groups = |last: usize| -> String {
        let line = |n: usize| format!("group \"g{n}\" {{ targets = [\"g{}\"] }}\n", n + 1);
        (0..last).map(line).collect::<String>()
            + &format!(
                "group \"g{last}\" {{ targets = [\"x\"] }}\ntarget \"x\" {{}}\ngroup \"default\" {{ targets = [\"g0\"] }}\n"
            )
    };
    let numbers =
        |count: usize| format!("[{}]", (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
    let matrix = format!(
        "target \"default\" {{\n name = \"t-${{a}}-${{b}}\"\n matrix = {{ a = {0}, b = {0} }}\n}}\n",
        numbers(100)
    );
    refused(&[
        (doubled(40), "larger than 16 MiB"),
        (lists(60), "larger than 16 MiB"),
        (calls(40), "too much work"),
        (chain(5000), "nested more than"),
        (inherits(1000), "inherit more than"),
        (groups(1000), "nested more than"),
        (matrix, "more than 4096 combinations"),
    ]);
}

#[test]
fn hostile_expressions_end_with_an_error() {
    refused(&[
        (format!("x = {}1{}\n", "(".repeat(5000), ")".repeat(5000)), "cannot parse"),
        ("function \"f\" {\n params = [x]\n result = f(x)\n}\n".to_owned(), "function cycle"),
        (
            "target \"default\" { inherits = [\"a\"] }\ntarget \"a\" { inherits = [\"default\"] }\n"
                .to_owned(),
            "in a circle",
        ),
        ("x = 1e999999999\ntarget \"default\" {}\n".to_owned(), "cannot parse"),
        ("x = pow(10, 100000)\ntarget \"default\" {}\n".to_owned(), "out of range"),
        (
            "x = [for a in range(1024): [for b in range(1024): [for c in range(1024): 1]]]\n".to_owned(),
            "larger than 16 MiB",
        ),
        ("x = range(0, 1e9)\n".to_owned(), "more than 1024"),
        ("x = regex(\"(a{1000}){1000}\", \"a\")\n".to_owned(), "regular expression"),
        ("x = format(\"%999999999d\", 1)\n".to_owned(), "at most 4096"),
        ("x = indent(1e9, \"a\\nb\")\n".to_owned(), "spaces"),
    ]);
}

#[test]
fn wide_graphs_are_no_more_work_than_they_have_edges() {
    let line = |n: usize| {
        format!(
            "target \"t{n}\" {{\n inherits = [\"t{0}\", \"t{0}\"]\n contexts = {{ a = \"target:t{0}\", b = \"target:t{0}\" }}\n annotations = [\"a{n}=x\"]\n}}\n",
            n - 1
        )
    };
    let group = |n: usize| format!("group \"g{n}\" {{ targets = [\"g{0}\", \"g{0}\", \"t{n}\"] }}\n", n - 1);
    let text = "target \"t0\" {}\ngroup \"g0\" { targets = [\"t0\"] }\n".to_owned()
        + &(1..=60).map(line).collect::<String>()
        + &(1..=60).map(group).collect::<String>();
    let read = definition(&text).unwrap();
    let chosen = read.choose(&["g60".to_owned()], &read.overrides(&[], &BTreeMap::new()).unwrap());
    assert_eq!(chosen.unwrap().targets.len(), 61);
}

#[test]
fn compose_files_that_grow_are_refused() {
    let mut text = "x-a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for level in b'b'..b'l' {
        let (this, before) = (char::from(level), char::from(level - 1));
        text.push_str(&format!("x-{this}: &{this} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
    }
    text.push_str("services: {web: {build: .}}\n");
    let file = File { name: "compose.yaml".to_owned(), text };
    let error = Definition::read(&[file], &outside(BTreeMap::new(), None)).unwrap_err();
    assert!(error.message.contains("compose.yaml: cannot parse"), "{}", error.message);
    let circle = "services:\n  a: {extends: b, build: .}\n  b: {extends: a}\n";
    let file = File { name: "compose.yaml".to_owned(), text: circle.to_owned() };
    let error = Definition::read(&[file], &outside(BTreeMap::new(), None)).unwrap_err();
    assert!(error.message.contains("circle"), "{}", error.message);
}

#[test]
fn unknown_attributes_are_told() {
    let read = definition(
        "target \"default\" {\n tag = [\"x\"]\n}\nother \"x\" {}\nvariable \"V\" { defualt = 1 }\n",
    )
    .unwrap();
    let told = read.warnings.join("\n");
    for part in
        ["\"tag\" of the target \"default\"", "did you mean \"tags\"", "the block other \"x\"", "\"defualt\""]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn variables_are_listed() {
    let read = definition(
        "variable \"A\" {\n type = list(string)\n default = [\"x\"]\n description = \"List\"\n}\nvariable \"B\" { default = 1.50 }\nvariable \"C\" { default = null }\n",
    )
    .unwrap();
    let json = serde_json::to_value(&read.variables).unwrap();
    let wanted = serde_json::json!([
        {"name": "A", "type": "list of string", "value": "[\"x\"]", "description": "List"},
        {"name": "B", "value": "1.5"},
        {"name": "C"}
    ]);
    assert_eq!(json, wanted);
}
