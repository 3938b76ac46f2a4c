//! The JSON answers of `--call outline`, `--call targets` and checks. They are BuildKit's to the byte, whose fields have an
//! order and whose writer escapes what could be HTML.

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{Finding, Parsed, Stage};
use lapstrake_lower::{Outline, OutlineArg, OutlineItem};
use serde::Serialize;
use serde_json::{Value, json};

use crate::check::{place, texts};

/// An outline.
#[derive(Serialize)]
pub struct OutlineDocument {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<ItemDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<ItemDocument>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct ArgDocument {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    location: Location,
}

#[derive(Serialize)]
struct ItemDocument {
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    required: bool,
    location: Location,
}

/// The targets; `null` if there are none.
#[derive(Serialize)]
pub struct TargetsDocument {
    targets: Option<Vec<TargetDocument>>,
    /// The texts of the files, in base64.
    pub sources: Vec<String>,
}

#[derive(Serialize)]
struct TargetDocument {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    location: Location,
}

/// The findings of checks.
#[derive(Serialize)]
pub struct CheckDocument {
    /// `null` if nothing was found.
    warnings: Option<Vec<WarningDocument>>,
    sources: Vec<SourceDocument>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDocument>,
}

#[derive(Serialize)]
struct WarningDocument {
    #[serde(rename = "ruleName")]
    rule: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct SourceDocument {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct ErrorDocument {
    message: String,
    location: Location,
}

/// A range for each line.
#[derive(Default, Serialize)]
struct Location {
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero")]
    source_index: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Clone, Copy, Serialize)]
struct Position {
    line: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn location(file: &SourceFile, lines: (u32, u32)) -> Location {
    let (source_index, lines) = place(file, lines);
    let range = |line| Range { start: Position { line }, end: Position { line } };
    Location { source_index, ranges: lines.map(range).collect() }
}

fn sources(file: &SourceFile) -> Vec<String> {
    texts(file).into_iter().map(|(_, text)| text).collect()
}

impl OutlineDocument {
    /// Of an outline.
    pub fn new(outline: &Outline, file: &SourceFile) -> OutlineDocument {
        let item = |item: &OutlineItem| ItemDocument {
            name: item.name.clone(),
            required: item.required,
            location: location(file, item.lines),
        };
        let arg = |arg: &OutlineArg| ArgDocument {
            name: arg.name.clone(),
            description: arg.description.clone(),
            value: arg.value.clone(),
            location: location(file, arg.lines),
        };
        OutlineDocument {
            name: outline.name.clone().unwrap_or_default(),
            description: outline.description.clone(),
            args: outline.args.iter().map(arg).collect(),
            secrets: outline.secrets.iter().map(item).collect(),
            ssh: outline.ssh.iter().map(item).collect(),
            sources: sources(file),
        }
    }
}

impl TargetsDocument {
    /// Of a Dockerfile.
    pub fn new(parsed: &Parsed, file: &SourceFile) -> TargetsDocument {
        let stages = &parsed.dockerfile.stages;
        let target = |(number, stage): (usize, &Stage)| TargetDocument {
            name: stage.from.name().unwrap_or_default(),
            default: number + 1 == stages.len(),
            description: stage.doc.to_string(),
            base: stage.from.base.node.to_string(),
            platform: stage.from.platform.as_ref().map_or(String::new(), |word| word.node.to_string()),
            location: location(file, stage.lines),
        };
        let targets = stages.iter().enumerate().map(target).collect();
        TargetsDocument { targets: Some(targets).filter(|_| !stages.is_empty()), sources: sources(file) }
    }
}

impl CheckDocument {
    /// `error` is what ended the checking, with its lines.
    pub fn new(
        findings: &[Finding],
        error: Option<(&str, Option<(u32, u32)>)>,
        file: &SourceFile,
    ) -> CheckDocument {
        let warning = |finding: &Finding| WarningDocument {
            rule: finding.rule.name(),
            description: finding.rule.description(),
            url: finding.rule.url(),
            detail: finding.detail.to_string(),
            location: location(file, finding.place.lines),
        };
        let source = |(name, data): (&str, String)| SourceDocument {
            filename: name.to_owned(),
            data,
            language: "Dockerfile",
        };
        let error = error.map(|(message, lines)| ErrorDocument {
            message: message.to_owned(),
            location: lines.map_or_else(Location::default, |lines| location(file, lines)),
        });
        CheckDocument {
            warnings: Some(findings.iter().map(warning).collect()).filter(|_| !findings.is_empty()),
            sources: texts(file).into_iter().map(source).collect(),
            error,
        }
    }
}

/// `document`, indented, as Go's encoder writes it.
pub fn written(document: &impl Serialize) -> String {
    String::from_utf8_lossy(&lapstrake_go::to_json_indented(document)).into_owned()
}

/// The names and descriptions of the requests about a Dockerfile, as BuildKit's frontend lists them. Checks are not on its list.
pub const SUBREQUESTS: [(&str, &str); 3] = [
    ("outline", "List all parameters current build target supports"),
    ("targets", "List all targets current build supports"),
    ("subrequests.describe", "List available subrequest types"),
];

/// The document that lists the requests about a Dockerfile, as BuildKit's frontend writes it.
pub fn subrequests() -> Value {
    let request = |(name, description): &(&str, &str)| {
        let target = json!([{ "name": "target", "description": "Target build stage" }]);
        let opts = match *name {
            "outline" => target,
            "targets" => json!([]),
            _ => Value::Null,
        };
        let metadata = ["result.json", "result.txt"].map(|key| json!({ "name": key, "description": "" }));
        json!({
            "name": format!("frontend.{name}"),
            "version": "1.0.0",
            "type": "rpc",
            "description": description,
            "opts": opts,
            "inputs": null,
            "metadata": metadata,
            "refs": null,
        })
    };
    SUBREQUESTS.iter().map(request).collect::<Value>()
}

/// The stages of a Dockerfile with their descriptions, below a row of headings.
#[must_use]
pub fn targets_rows(parsed: &Parsed) -> Vec<[String; 2]> {
    let stages = &parsed.dockerfile.stages;
    let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (number, stage) in stages.iter().enumerate() {
        let name = stage.from.name().unwrap_or_default();
        let name = match (name.as_str(), number + 1 == stages.len()) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push([name, stage.doc.to_string()]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use lapstrake_dockerfile::{Checks, check_syntax, parse};
    use lapstrake_go::TabWriter;
    use lapstrake_lower::{BuildInputs, ImageRequest, ImageResolver, ResolveFailure, ResolvedImage, outline};

    use super::*;

    /// An answer without images.
    struct None;

    impl ImageResolver for None {
        fn resolve(&self, _: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
            Err(std::sync::Arc::new(std::io::Error::other("none")))
        }
    }

    /// As BuildKit's frontend (commit 73ed6825c) wrote it.
    #[test]
    fn outlines_as_buildkit_writes_them() {
        let text = "# t is <i>&\nFROM scratch AS t\n# A is \u{2028}\nARG A=\"<x> & 'y'\u{1}\"\n\
                    RUN --mount=type=ssh \\\n  --mount=type=secret,id=s,required true\n";
        let file = SourceFile::new("Dockerfile", text);
        let parsed = parse(&file);
        let outline = outline(&parsed.dockerfile, &BuildInputs::new(), &None, &Checks::default()).unwrap();
        let written = written(&OutlineDocument::new(&outline, &file));
        let line = |line| format!(r#"{{"start":{{"line":{line}}},"end":{{"line":{line}}}}}"#);
        let ranges = format!("{},{}", line(5), line(6));
        let expected = format!(
            r#"{{"name":"t","description":"is \u003ci\u003e\u0026","args":[{{"name":"A","description":"is",
            "value":"\u003cx\u003e \u0026 'y'\u0001","location":{{"ranges":[{}]}}}}],
            "secrets":[{{"name":"s","required":true,"location":{{"ranges":[{ranges}]}}}}],
            "ssh":[{{"name":"default","location":{{"ranges":[{ranges}]}}}}],"sources":["#,
            line(4)
        );
        let bare = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(&bare(&written)[..bare(&expected).len()], bare(&expected));
        assert!(written.starts_with("{\n  \"name\": \"t\",\n  \"description\""), "{written}");
    }

    /// As BuildKit's frontend wrote it, but for the `definition` of the source, which is of its own client.
    #[test]
    fn checks_as_buildkit_writes_them() {
        let text = "FROM scratch AS A\nFOO x\n";
        let file = SourceFile::new("Dockerfile", text);
        let parsed = parse(&file);
        let checks = Checks::default();
        check_syntax(&parsed, &checks);
        let error =
            ("dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)", Some((2, 2)));
        let found = written(&CheckDocument::new(&checks.findings(), Some(error), &file));
        let line = |line| {
            format!(r#""location":{{"ranges":[{{"start":{{"line":{line}}},"end":{{"line":{line}}}}}]}}"#)
        };
        let expected = format!(
            r#"{{"warnings":[{{"ruleName":"StageNameCasing","description":"Stage names should be lowercase",
            "url":"https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
            "detail":"Stage name 'A' should be lowercase",{}}}],
            "sources":[{{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoIEFTIEEKRk9PIHgK","language":"Dockerfile"}}],
            "buildError":{{"message":"{}",{}}}}}"#,
            line(1),
            error.0,
            line(2)
        );
        let bare = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(bare(&found), bare(&expected));
        let nothing = written(&CheckDocument::new(&[], Option::None, &file));
        assert!(nothing.starts_with("{\n  \"warnings\": null,\n  \"sources\": [\n"), "{nothing}");
    }

    /// A folder in `testdata/targets` is a test; `UPDATE=1` writes what is expected anew.
    #[test]
    fn targets() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/targets");
        let mut count = 0;
        for entry in fs::read_dir(dir).unwrap() {
            let dir = entry.unwrap().path();
            let file = SourceFile::new("Dockerfile", fs::read_to_string(dir.join("Dockerfile")).unwrap());
            let parsed = lapstrake_dockerfile::parse(&file);
            let mut document = TargetsDocument::new(&parsed, &file);
            // They are the file itself.
            document.sources.clear();
            let found =
                format!("{}{}\n", TabWriter::new(0, 1).rows(&targets_rows(&parsed)), written(&document));
            if std::env::var_os("UPDATE").is_some() {
                fs::write(dir.join("expected"), &found).unwrap();
            }
            assert_eq!(
                fs::read_to_string(dir.join("expected")).unwrap_or_default(),
                found,
                "{}",
                dir.display()
            );
            count += 1;
        }
        assert!(count >= 4, "{count} folders");
    }
}
