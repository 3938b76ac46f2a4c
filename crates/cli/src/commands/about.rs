//! `lapstrake version`, `info` and `completion`, and what `buildx` says of its builders.

use std::process::ExitCode;

use lapstrake_diag::{Outcome, Report, Usage};
use lapstrake_go::Template;
use lapstrake_oci::Platform;
use serde_json::{Value, json};

use crate::args::Args;
use crate::args::about::{About, Builders, Completion, Info, Pages, Version};
use crate::rows::{Rows, show};
use crate::session;

/// The version of this binary.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shows which version this is. Client and server of Docker are one program here.
pub(crate) fn version(args: &Version) -> Outcome<ExitCode> {
    let host = Platform::host();
    let kernel = lapstrake_sys::kernel::release();
    let part = json!({"Version": VERSION, "Os": host.os, "Arch": host.architecture, "KernelVersion": kernel});
    let document = json!({"Client": part, "Server": part});
    if let Some(format) = &args.format {
        return shown(&document, format);
    }
    say!("lapstrake {VERSION}\n OS/Arch:  {host}\n Kernel:   {kernel}");
    Ok(ExitCode::SUCCESS)
}

/// Shows what the machine and the store are.
pub(crate) fn info(args: &Info) -> Outcome<ExitCode> {
    // Inside of its namespace everybody is root.
    let rootless = !rustix::process::geteuid().is_root();
    let session = session::open()?;
    let host = Platform::host();
    let images = session.store.images()?.len();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let document = json!({
        "Images": images, "Driver": "overlayfs", "DockerRootDir": session.store.root(), "Name": name,
        "ServerVersion": VERSION, "KernelVersion": lapstrake_sys::kernel::release(), "OSType": host.os,
        "Architecture": host.architecture, "NCPU": cpus, "MemTotal": memory(), "Rootless": rootless,
    });
    if let Some(format) = &args.format {
        return shown(&document, format);
    }
    say!("Version:         {VERSION}");
    say!("Images:          {images}");
    say!("State directory: {}", session.store.root().display());
    say!("Platform:        {host}");
    say!("Kernel:          {}", lapstrake_sys::kernel::release());
    say!("Processors:      {cpus}");
    say!("Memory:          {}", lapstrake_go::size::human(memory()));
    say!("Rootless:        {rootless}");
    say!("\n`lapstrake doctor` checks whether this machine can run builds.");
    Ok(ExitCode::SUCCESS)
}

/// The machine's memory in bytes.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)))
}

fn shown(document: &Value, format: &str) -> Outcome<ExitCode> {
    let text = if format == "json" { "{{json .}}" } else { format };
    let template = Template::parse(text).map_err(|error| Usage(format!("--format: {error}")))?;
    say!("{}", show(&template, document)?);
    Ok(ExitCode::SUCCESS)
}

/// The one builder, in the words of `buildx`.
pub(crate) fn builders(args: &Builders) -> Outcome<ExitCode> {
    if let Some(other) = args.name.as_ref().filter(|name| *name != "default") {
        return Err(Report::new(format!(
            "no builder {other:?} found: the only builder is `default`, this process"
        )));
    }
    let platform = Platform::host().to_string();
    let row = json!({
        "Name": "default", "DriverEndpoint": "lapstrake", "Status": "running", "Buildkit": VERSION,
        "Platforms": platform, "Current": true,
    });
    match args.what {
        About::Version => say!("lapstrake {VERSION}"),
        About::Ls => {
            let headings = &[
                ("Name", "NAME/NODE"),
                ("DriverEndpoint", "DRIVER/ENDPOINT"),
                ("Status", "STATUS"),
                ("Buildkit", "BUILDKIT"),
                ("Platforms", "PLATFORMS"),
            ];
            let usual = "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}";
            let rows = Rows { headings, usual, rows: vec![row] };
            crate::console::out(format_args!("{}", rows.text(args.format.as_deref())?))?;
        }
        About::Inspect => say!(
            "Name:          default\nDriver:        lapstrake\n\nNodes:\nName:          default\n\
             Endpoint:      this process\nStatus:        running\nBuildKit version: {VERSION}\nPlatforms:     {platform}"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints completions for a shell, or writes man pages.
pub(crate) fn completion(args: &Completion) -> Outcome<ExitCode> {
    use clap_complete::Shell;
    let Some(pages) = args.shell else {
        say!(
            "usage: lapstrake completion bash|zsh|fish|elvish|powershell\n\n\
              as in `lapstrake completion bash > ~/.local/share/bash-completion/completions/lapstrake`"
        );
        return Ok(ExitCode::SUCCESS);
    };
    let shell = match pages {
        Pages::Bash => Shell::Bash,
        Pages::Zsh => Shell::Zsh,
        Pages::Fish => Shell::Fish,
        Pages::Elvish => Shell::Elvish,
        Pages::Powershell => Shell::PowerShell,
        Pages::Man => {
            let to = args.to.as_deref().unwrap_or(std::path::Path::new("."));
            std::fs::create_dir_all(to)?;
            clap_mangen::generate_to(Args::all(), to)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::all(), "lapstrake", &mut text);
    crate::console::out(format_args!("{}", String::from_utf8_lossy(&text)))?;
    Ok(ExitCode::SUCCESS)
}
