//! What the rules find in `testdata/checks/*/Dockerfile`, and what `testdata/outlines/*/Dockerfile` may be given: a folder
//! is a test. `UPDATE=1` writes the expectations anew.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::{CheckOptions, Checks, check_syntax, parse};
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, OutlineItem, ResolveFailure, ResolvedImage, Scope,
    lower_checked, outline,
};
use lapstrake_oci::{ContainerConfig, DiffId, Digest, ImageConfig, Platform, RootFs};
use lapstrake_tree::ignore::Patterns;

/// One image for amd64, whatever is asked for.
struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            config: ContainerConfig { env: vec!["PATH=/bin".to_owned()], ..ContainerConfig::default() },
            rootfs: RootFs { diff_ids: vec![DiffId(Digest::sha256(b"layer"))], ..RootFs::default() },
            ..ImageConfig::default()
        };
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config, guessed: false })
    }
}

fn inputs() -> BuildInputs {
    BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() }
}

fn folders(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name);
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() > 3, "{name}: {found:?}");
    found
}

/// Compares with the file `expected` in each folder.
fn compare(folder: &str, told: impl Fn(&Path, &SourceFile) -> String) {
    let mut wrong = String::new();
    for dir in folders(folder) {
        let file = SourceFile::new("Dockerfile", fs::read_to_string(dir.join("Dockerfile")).unwrap());
        let found = told(&dir, &file);
        let expected = dir.join("expected");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            writeln!(wrong, "{}:\n{found}", dir.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn checks() {
    compare("checks", |dir, file| {
        let ignore = fs::read_to_string(dir.join(".dockerignore")).unwrap_or_default();
        let inputs = BuildInputs { ignore: Patterns::parse(&ignore).unwrap(), ..inputs() };
        let checks = Checks::new(CheckOptions::of_file(file.text()).unwrap());
        let parsed = parse(file);
        check_syntax(&parsed, &checks);
        let error = match parsed.first_error() {
            Some(error) => Some(error.message.clone()),
            None => {
                let lowered = lower_checked(&parsed.dockerfile, &inputs, &Fake, &checks, Scope::All);
                lowered.err().map(|error| error.to_string())
            }
        };
        let mut told = String::new();
        for found in checks.findings() {
            let (first, last) = found.place.lines;
            writeln!(told, "{first}-{last} {}: {}", found.rule.name(), found.detail).unwrap();
        }
        for error in error.into_iter().chain(checks.error()) {
            writeln!(told, "error: {error}").unwrap();
        }
        told
    });
}

#[test]
fn outlines() {
    compare("outlines", |_, file| {
        // What a source's time turned out to be.
        let inputs = BuildInputs { source_epoch: Some(1_000_000_000), ..inputs() };
        let found = outline(&parse(file).dockerfile, &inputs, &Fake, &Checks::default()).unwrap();
        let mut told = format!("target {:?} {:?}\n", found.name.unwrap_or_default(), found.description);
        for arg in &found.args {
            writeln!(told, "arg {} = {:?} {:?} (line {})", arg.name, arg.value, arg.description, arg.lines.0)
                .unwrap();
        }
        let mut list = |kind: &str, items: &[OutlineItem]| {
            for item in items {
                let required = if item.required { " required" } else { "" };
                writeln!(told, "{kind} {}{required} (line {})", item.name, item.lines.0).unwrap();
            }
        };
        list("secret", &found.secrets);
        list("ssh", &found.ssh);
        told
    });
}
