//! The functions that are given bytes.

use lapstrake_diag::SourceFile;
use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_dockerfile::{
    CheckOptions, Checks, Dialect, Mount, check_syntax, parse, parse_as, parse_git_ref, parse_json,
    parse_port, print,
};
use lapstrake_go::{TabWriter, Template, csv, duration, path, size};
use lapstrake_lower::{
    BuildInputs, ImageRequest, ImageResolver, ResolveFailure, ResolvedImage, Scope, epoch_source,
    lower_checked, outline,
};
use lapstrake_oci::{Digest, ImageConfig, Platform, Reference};
use lapstrake_tree::TreePath;
use lapstrake_tree::copy::ModeChange;
use lapstrake_tree::ignore::Patterns;

use crate::images;
use crate::worst::Reader;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics if the bytes show a bug.
    pub run: fn(&[u8]),
    /// The longest input that is worth the time, in bytes.
    pub longest: usize,
}

/// Reads a long input once; gives something that depends on all of it.
pub fn read(reader: Reader, text: &str) -> usize {
    match reader {
        Reader::Parse => {
            let file = SourceFile::new("Dockerfile", text);
            let parsed = parse(&file);
            let checks = Checks::new(CheckOptions::of_file(text).unwrap_or_default());
            check_syntax(&parsed, &checks);
            parsed.dockerfile.stages.len() + parsed.diagnostics.len() + checks.findings().len()
        }
        Reader::Expand => match words::expand(text, &value, Mode::plain('\\')) {
            Ok(found) => found.text.len(),
            Err(error) => error.why.len(),
        },
        Reader::Ignore => Patterns::parse(text).map_or(0, |patterns| patterns.cleaned().len()),
        Reader::Git => match parse_git_ref(text) {
            Some(Ok(found)) => found.remote.len(),
            Some(Err(why)) => why.len(),
            None => 0,
        },
        Reader::Mount => {
            let expand = |word: &str| {
                words::expand(word, &value, Mode::plain('\\'))
                    .map(|found| found.text)
                    .map_err(|error| error.to_string())
            };
            Mount::parse(text, expand).map_or_else(|why| why.len(), |mount| mount.target.len())
        }
        Reader::Judge => {
            let (file, path) = text.rsplit_once('\n').unwrap_or(("", text));
            let Ok(patterns) = Patterns::parse(file) else { return 0 };
            let hidden = TreePath::clean(path.as_bytes()).is_ok_and(|path| patterns.excluded(&path).excluded);
            usize::from(hidden) + usize::from(patterns.matches_or_parent(path))
        }
        Reader::Names => {
            names(text.as_bytes());
            text.len()
        }
        Reader::Chmod => text.parse::<ModeChange>().map_or(0, |change| change.apply(0o644, false) as usize),
        Reader::Check => {
            CheckOptions::parse(text).map_or_else(|why| why.len(), |options| usize::from(options.error))
        }
        Reader::Challenge => {
            images::challenges(text.as_bytes());
            text.len()
        }
        Reader::Document => {
            images::documents(text.as_bytes());
            text.len()
        }
    }
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    Target { name: "parse", run: parser, longest: 4096 },
    Target { name: "lower", run: lowering, longest: 4096 },
    Target { name: "words", run: expansion, longest: 1024 },
    Target { name: "patterns", run: patterns, longest: 512 },
    Target { name: "ignore", run: ignore, longest: 1024 },
    Target { name: "git", run: git, longest: 512 },
    Target { name: "mount", run: mount, longest: 512 },
    Target { name: "names", run: names, longest: 256 },
    Target { name: "layers", run: images::layers, longest: 16 << 10 },
    Target { name: "documents", run: images::documents, longest: 4096 },
    Target { name: "challenges", run: images::challenges, longest: 512 },
    Target { name: "go", run: go, longest: 512 },
];

/// The tree as JSON without places: what printing must keep.
fn tree(file: &SourceFile) -> serde_json::Value {
    fn without_places(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(items) => items.iter_mut().for_each(without_places),
            serde_json::Value::Object(fields) => {
                for key in ["lines", "line", "warnings"] {
                    fields.remove(key);
                }
                fields.values_mut().for_each(without_places);
            }
            _ => {}
        }
    }
    let mut tree = parse_json(file);
    without_places(&mut tree);
    tree
}

/// Both dialects; spans lie in the text; a tree without errors survives being printed.
fn parser(bytes: &[u8]) {
    let file = SourceFile::from_bytes("Dockerfile", bytes);
    let parsed = parse(&file);
    parse_as(&file, Dialect::Lapstrake);
    for diagnostic in &parsed.diagnostics {
        let span = diagnostic.span().unwrap_or_default();
        assert!(span.start() <= span.end() && span.end() <= file.text().len(), "{span:?}");
        let shown = lapstrake_diag::render(diagnostic, &file, lapstrake_diag::Style::Plain);
        assert!(!shown.is_empty());
    }
    if let Ok(options) = CheckOptions::of_file(file.text()) {
        let checks = Checks::new(options);
        check_syntax(&parsed, &checks);
        checks.findings();
    }
    let before = tree(&file);
    // BuildKit reads flags byte by byte, and half a character that ends at such a byte can be written in no text.
    let cut = file.text().bytes().any(|byte| matches!(byte, 0x85 | 0xa0));
    if parsed.first_error().is_none() && !cut {
        let printed = print(&parsed.dockerfile);
        assert_eq!(before, tree(&SourceFile::new("Dockerfile", printed.as_str())), "printed: {printed:?}");
    }
}

/// One image, whatever is asked for; a name with `trigger` in it has triggers.
pub(crate) struct Fake;

impl ImageResolver for Fake {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveFailure> {
        let mut config = ImageConfig::default();
        if request.reference.to_string().contains("trigger") {
            config.config.on_build =
                ["COPY --from=a /x /", "ARG v=1", "RUN <<E\nx\nE", "ENV a=$v"].map(str::to_owned).to_vec();
        }
        let manifest = Digest::sha256(request.reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest, config, guessed: false })
    }
}

/// The same text gives the same plan, or the same error.
fn lowering(bytes: &[u8]) {
    let file = SourceFile::from_bytes("Dockerfile", bytes);
    let parsed = parse(&file);
    if parsed.first_error().is_some() {
        return;
    }
    let inputs = BuildInputs { build_platform: Platform::new("linux", "amd64", ""), ..BuildInputs::new() };
    let lowered = |scope| {
        let checks = Checks::new(CheckOptions::default());
        let plan = lower_checked(&parsed.dockerfile, &inputs, &Fake, &checks, scope);
        let plan = plan.map(|plan| lapstrake_lower::dump(&plan)).map_err(|error| error.to_string());
        (plan, checks.findings().len())
    };
    assert_eq!(lowered(Scope::Target), lowered(Scope::Target));
    drop(lowered(Scope::All));
    drop(outline(&parsed.dockerfile, &inputs, &Fake, &Checks::default()));
    drop(epoch_source(&parsed.dockerfile, &inputs));
}

fn value(name: &str) -> Option<String> {
    match name {
        "unset" | "u" => None,
        "empty" | "e" => Some(String::new()),
        "quoted" | "q" => Some("a \"b c\" 'd' \\ $x".to_owned()),
        _ => Some(format!("/v/{name}.tar.gz")),
    }
}

/// The first byte says the mode.
fn expansion(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first() else { return };
    let word = String::from_utf8_lossy(rest);
    let is = |bit: u8| flags & (1 << bit) != 0;
    let mode = Mode {
        escape: if is(0) { '`' } else { '\\' },
        raw_quotes: is(1),
        raw_escapes: is(2),
        skip_process_quotes: is(3),
        skip_unset_env: is(4),
    };
    match words::expand(&word, &value, mode) {
        Ok(found) => {
            assert!(found.text.len() <= words::MAX_EXPANSION);
            assert!(found.matched.intersection(&found.unmatched).next().is_none());
        }
        Err(error) => assert!(!error.why.is_empty()),
    }
}

/// `${x#…}` and its likes: pattern and value are two lines. What is cut off is an end of the value.
fn patterns(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, x) = text.split_once('\n').unwrap_or((&text, ""));
    let known = |name: &str| (name == "x").then(|| x.to_owned());
    for operator in ["#", "##", "%", "%%", "/", "//"] {
        let word = format!("${{x{operator}{pattern}}}");
        let Ok(found) = words::expand(&word, &known, Mode::plain('\\')) else { continue };
        // A brace in the pattern ends it, and a quote may join what is behind it.
        if pattern.contains(['}', '"', '\'', '\\', '$']) {
            continue;
        }
        match operator {
            "#" | "##" => assert!(x.ends_with(&found.text), "{word} of {x:?}: {:?}", found.text),
            "%" | "%%" => assert!(x.starts_with(&found.text), "{word} of {x:?}: {:?}", found.text),
            _ => {}
        }
    }
}

/// An ignore file, and the path in its last line.
fn ignore(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, path) = text.rsplit_once('\n').unwrap_or(("", &text));
    let Ok(patterns) = Patterns::parse(file) else { return };
    let _: bool = patterns.matches_or_parent(path);
    let Ok(path) = TreePath::clean(path.as_bytes()) else { return };
    let verdict = patterns.excluded(&path);
    assert!(!verdict.excluded || verdict.rule.is_some_and(|rule| patterns.rule(rule).is_some()));
    // What is hidden with its directory hidden too could only be taken back by a negation that the walk must see.
    if let Some(dir) = path.parent()
        && !dir.is_root()
        && patterns.excluded(&dir).excluded
        && !verdict.excluded
    {
        assert!(patterns.may_return_below(&dir), "{file:?} takes {path:?} back");
    }
}

/// What git is told can be no option, and has no line ends.
fn git(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(Ok(found)) = parse_git_ref(&text) {
        assert!(!found.remote.is_empty(), "{text:?}");
        lapstrake_lower::git_source(&found, false, false);
    }
}

/// `RUN --mount=…`, as it is and with variables in it.
fn mount(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop(Mount::parse(&text, |value| Ok(value.to_owned())));
    let expand = |word: &str| {
        words::expand(word, &value, Mode::plain('\\'))
            .map(|found| found.text)
            .map_err(|error| error.to_string())
    };
    drop(Mount::parse(&text, expand));
}

/// Templates, comma-separated fields, durations, sizes and paths: what is written again reads as the same.
fn go(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let data = serde_json::json!({"A": "a", "B": [1, "b", null], "C": {"D": true, "Labels": {"x.y": "z"}}});
    if let Ok(template) = Template::parse(&text) {
        // A range over a string that grows with each turn could be as long as it likes.
        if !text.contains("range") {
            drop(template.show(&data));
        }
    }
    if let Ok(fields) = csv::fields(&text) {
        let quoted: Vec<String> =
            fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        assert_eq!(csv::fields(&quoted.join(",")), Ok(fields), "{text:?}");
    }
    if let Ok(length) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::text(length)), Ok(length), "{text:?}");
        assert_eq!(duration::parse_with_days(&text), Ok(length), "{text:?}");
        assert!(!duration::human(length / 1_000_000_000).is_empty());
    }
    if let Some(bytes) = size::parse(&text) {
        assert!(!size::human(bytes).is_empty());
    }
    let clean = path::clean(&text);
    assert_eq!(path::clean(&clean), clean, "{text:?}");
    // Columns neither lose nor change a cell.
    let lines: Vec<&str> = text.split('\n').collect();
    let letters = |text: &str| text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\n')).collect::<String>();
    assert_eq!(letters(&TabWriter::new(4, 1).lines(&lines)), letters(&text), "{text:?}");
}

/// References, platforms, digests and ports: what can be read is written so that it reads the same again.
fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference), "{text:?}");
        assert_eq!(reference.familiar().parse::<Reference>().as_ref(), Ok(&reference), "{text:?}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform), "{text:?}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(port) = parse_port(&text) {
        assert!(port.entries().next().is_some(), "{text:?}");
    }
}
