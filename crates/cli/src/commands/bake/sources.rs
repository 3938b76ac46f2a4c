//! The files of a definition: here, on standard input, in a repository or on the web.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lapstrake_bake::File;
use lapstrake_build::{
    Addressee, Build as Building, Client, Machine, Place, Resolved, Trace, Writing, WritingFiles, is_remote,
};
use lapstrake_diag::{Context as _, Outcome, Report, Usage};
use lapstrake_engine::Progress;
use lapstrake_graph::Source;
use lapstrake_ops::{Debug, Secret, Worker};
use lapstrake_registry::Registries;
use lapstrake_request::BuildRequest;

use super::requests::usage;
use crate::client::LocalClient;
use crate::env;

/// The usual names, in their order.
const NAMES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// The largest definition, in bytes.
const LARGEST: u64 = 2 << 20;

/// The files of a definition.
pub(super) struct Found {
    pub(super) files: Vec<File>,
    /// The repository or archive that contexts are relative to.
    pub(super) context: Option<String>,
}

fn nothing() -> Report {
    let hint = format!("name a file with `-f`, or write one of {}", NAMES.join(", "));
    Report::new("couldn't find a bake definition").with_hint(hint)
}

/// The files of `$BUILDX_BAKE_FILE`.
fn of_environment() -> Vec<String> {
    let Some(files) = env::value("BUILDX_BAKE_FILE") else { return Vec::new() };
    let separator = env::value("BUILDX_BAKE_PATH_SEPARATOR").filter(|text| !text.is_empty());
    let separator = separator.unwrap_or_else(|| ":".to_owned());
    files.split(&separator).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The files that `named` are, or the usual ones.
pub(super) fn local(named: &[String]) -> Outcome<Found> {
    let given = if named.is_empty() { of_environment() } else { named.to_vec() };
    let mut files = Vec::new();
    if given.is_empty() {
        for name in NAMES.iter().filter(|name| Path::new(name).exists()) {
            files.push(read(name)?);
        }
        return if files.is_empty() { Err(nothing()) } else { Ok(Found { files, context: None }) };
    }
    for name in &given {
        files.push(read(name.strip_prefix("cwd://").unwrap_or(name))?);
    }
    Ok(Found { files, context: None })
}

fn read(name: &str) -> Outcome<File> {
    let unreadable = || format!("cannot read `{name}`");
    let mut bytes = Vec::new();
    let stdin = name == "-";
    if stdin {
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    } else {
        let file = std::fs::File::open(name).with_context(unreadable)?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    }
    text_of(name, bytes)
}

fn text_of(name: &str, bytes: Vec<u8>) -> Outcome<File> {
    if bytes.len() as u64 > LARGEST {
        return Err(Report::new(format!("`{name}` is larger than {} MiB", LARGEST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| Report::new(format!("`{name}` is not UTF-8")))?;
    Ok(File { name: name.to_owned(), text })
}

/// The files of a repository, of an archive on the web, or the one file at an address.
pub(super) fn remote(address: &str, named: &[String], machine: &Machine) -> Outcome<Found> {
    let mut here = Vec::new();
    let mut there = Vec::new();
    for name in named {
        match name.strip_prefix("cwd://") {
            Some(name) => here.push(read(name)?),
            None => there.push(name.clone()),
        }
    }
    let mut found = Found { files: Vec::new(), context: None };
    if is_repository(address)? {
        found.files = files(address, &there, machine)?;
        found.context = Some(address.to_owned());
    } else {
        let dockerfile =
            format!("FROM scratch\nADD [{}, \"/definition\"]\n", serde_json::Value::from(address));
        let fetched = fetch(&dockerfile, None, machine)?;
        let (_, bytes) = fetched.into_iter().find(|(name, _)| name == "definition").ok_or_else(nothing)?;
        if is_archive(&bytes) {
            let text = format!(
                "{address}: definitions in archives are not supported: use a git repository, or a file"
            );
            return Err(usage(text));
        }
        found.files.push(text_of(address, bytes)?);
    }
    found.files.extend(here);
    if found.files.is_empty() { Err(nothing()) } else { Ok(found) }
}

fn is_repository(address: &str) -> Outcome<bool> {
    if !is_remote(address) {
        return Ok(false);
    }
    let client = LocalClient::with(&[], &[], None)?;
    let request = BuildRequest { context: PathBuf::from(address), ..BuildRequest::default() };
    Ok(matches!(Resolved::to_tell(&request, &client)?.place, Place::Remote(Source::Git(_))))
}

/// Whether the bytes begin as bzip2, gzip, xz or tar do.
fn is_archive(bytes: &[u8]) -> bool {
    let magic: [&[u8]; 3] = [b"BZh", &[0x1f, 0x8b, 8], &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    magic.iter().any(|magic| bytes.starts_with(magic)) || bytes.get(257..262) == Some(b"ustar")
}

/// The named files of a repository, or those with the usual names.
fn files(address: &str, named: &[String], machine: &Machine) -> Outcome<Vec<File>> {
    // The last letter as a class makes a pattern, which may fit nothing.
    let pattern = |name: &str| format!("{}[{}]", &name[..name.len() - 1], &name[name.len() - 1..]);
    let words: Vec<String> = match named {
        [] => NAMES.iter().map(|name| pattern(name)).collect(),
        named => named.to_vec(),
    };
    let mut dockerfile = "FROM scratch\n".to_owned();
    for word in &words {
        let list = serde_json::json!(["--parents", word, "/"]);
        let list = list.as_array().cloned().unwrap_or_default();
        let paths: Vec<String> = list.iter().skip(1).map(ToString::to_string).collect();
        dockerfile.push_str(&format!("COPY --parents [{}]\n", paths.join(", ")));
    }
    let fetched = fetch(&dockerfile, Some(address), machine)?;
    let usual: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let order = if named.is_empty() { usual.as_slice() } else { named };
    let mut files = Vec::new();
    for name in order {
        let clean = lapstrake_go::path::clean(name);
        if let Some((_, bytes)) = fetched.iter().find(|(found, _)| *found == clean) {
            files.push(text_of(name, bytes.clone())?);
        } else if !named.is_empty() {
            return Err(Report::new(format!("{address}: there is no file `{name}`")));
        }
    }
    Ok(files)
}

/// The files of the image that a Dockerfile makes. This is a build, so that what was fetched is kept and known.
fn fetch(dockerfile: &str, context: Option<&str>, machine: &Machine) -> Outcome<Vec<(String, Vec<u8>)>> {
    let local = LocalClient::with(&[], &[], Some(dockerfile.to_owned()))?;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let client: Arc<dyn Client> = Arc::new(Taking { local, taken: taken.clone() });
    let request = BuildRequest {
        context: PathBuf::from(context.unwrap_or("-")),
        dockerfile: context.map(|_| PathBuf::from("-")),
        outputs: vec!["type=tar,dest=-".to_owned()],
        ..BuildRequest::default()
    };
    let resolved = Resolved::parse(&request, &client)?;
    let worker = Arc::new(Worker::new(machine.store.clone(), machine.single_id));
    let building = Building { worker: &worker, client: &*client, progress: Progress::none() };
    let mut trace = Trace::default();
    let built = super::super::block_on(lapstrake_build::build(building, &request, resolved, &mut trace));
    built.map_err(|error| error.context("cannot fetch the definition"))?;
    let bytes = std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
    let mut files = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.take(LARGEST + 1).read_to_end(&mut bytes)?;
            files.push((name.trim_start_matches("./").to_owned(), bytes));
        }
    }
    Ok(files)
}

/// This process, but for the output, which is kept.
struct Taking {
    local: Arc<dyn Client>,
    taken: Arc<Mutex<Vec<u8>>>,
}

/// Takes what a definition may have at most.
struct Bounded<'b>(&'b mut Vec<u8>);

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > 8 * LARGEST {
            return Err(std::io::Error::other("the definition is too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Client for Taking {
    fn directory(&self, named: &Path) -> Outcome<PathBuf> {
        self.local.directory(named)
    }

    fn file(&self, named: &Path) -> std::io::Result<Vec<u8>> {
        self.local.file(named)
    }

    fn secret(&self, id: &str) -> Outcome<Option<Secret>> {
        self.local.secret(id)
    }

    fn ssh_agent(&self, id: &str) -> Outcome<Option<PathBuf>> {
        self.local.ssh_agent(id)
    }

    fn registries(&self) -> Registries {
        self.local.registries()
    }

    fn git_environment(&self) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        self.local.git_environment()
    }

    fn stdin(&self) -> Box<dyn std::io::Read + Send> {
        self.local.stdin()
    }

    fn output(&self, _dest: Option<&Path>, write: &mut Writing<'_>) -> Outcome<()> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut Bounded(&mut taken))
    }

    fn output_directory(&self, dest: &Path, _write: &mut WritingFiles<'_>) -> Outcome<()> {
        Err(Usage(format!("`{}` is no output of a definition", dest.display())).into())
    }

    fn engine(&self) -> Outcome<Addressee> {
        self.local.engine()
    }

    fn debugger(&self) -> Option<Debug> {
        None
    }
}
