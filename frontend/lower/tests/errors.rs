//! What is said of the wrong files in `testdata/errors`, with places: a folder is a test. `UPDATE=1` writes the
//! expectations anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lapstrake_diag::{Diagnostic, SourceFile, Style, excerpt, render};
use lapstrake_dockerfile::{Dockerfile, parse};
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, LowerError, ResolveFailure, ResolvedImage, lower,
};
use lapstrake_oci::{Digest, ImageConfig, Platform};

/// One image, whatever is asked for.
struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config: ImageConfig::default(), guessed: false })
    }
}

/// Place and message, and what a person sees.
fn told(diagnostic: &Diagnostic, lines: (u32, u32), file: &SourceFile) -> String {
    let at = diagnostic.span().map(|span| file.position(span.start()));
    let column = at.map_or(0, |position| position.column);
    let shown = render(diagnostic, file, Style::Plain);
    let shown: Vec<String> = shown.lines().map(|line| line.chars().take(120).collect()).collect();
    format!("lines {}-{} column {column}: {}\n{}\n", lines.0, lines.1, diagnostic.message, shown.join("\n"))
}

fn refused(error: &LowerError, dockerfile: &Dockerfile, file: &SourceFile) -> String {
    match error.diagnostic() {
        Some(diagnostic) => {
            let lines = error.span().and_then(|span| dockerfile.lines_at(span));
            told(&diagnostic, lines.unwrap_or_default(), file)
        }
        None => format!("{error}\n"),
    }
}

fn all(file: &SourceFile) -> String {
    let parsed = parse(file);
    let mut text = String::new();
    for (diagnostic, fault) in parsed.diagnostics.iter().zip(&parsed.faults) {
        text.push_str(&told(diagnostic, fault.lines, file));
    }
    if let Some(fault) = parsed.faults.first().filter(|fault| fault.lines.0 > 0) {
        let shown = excerpt(file, fault.lines.0, fault.lines.1);
        shown.lines().for_each(|line| writeln!(text, "{line:.100}").unwrap_or_default());
    }
    if !text.is_empty() {
        return text;
    }
    let inputs = BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() };
    match lower(&parsed.dockerfile, &inputs, &Fake) {
        Ok(_) => "nothing is wrong\n".to_owned(),
        Err(error) => refused(&error, &parsed.dockerfile, file),
    }
}

#[test]
fn errors() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/errors");
    let mut wrong = String::new();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let dir = entry.unwrap().path();
        let file = SourceFile::new("Dockerfile", fs::read_to_string(dir.join("Dockerfile")).unwrap());
        let found = all(&file);
        count += 1;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(dir.join("expected"), &found).unwrap();
        } else if fs::read_to_string(dir.join("expected")).unwrap_or_default() != found {
            writeln!(wrong, "{}:\n{found}", dir.display()).unwrap();
        }
    }
    assert!(count > 90 && wrong.is_empty(), "{count} cases\n{wrong}");
}
