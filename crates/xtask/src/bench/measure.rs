//! Running commands in turns and taking the time.

use std::ffi::OsString;
use std::path::Path;
use std::process::{self, Stdio};
use std::time::Instant;

/// What is measured, and what is done before without being measured.
pub(super) struct Command {
    program: String,
    args: Vec<String>,
    env: Vec<(&'static str, OsString)>,
    before: Option<String>,
    rounds: usize,
}

/// Seconds.
#[derive(Clone, Copy)]
pub(super) struct Figures {
    pub(super) median: f64,
    pub(super) least: f64,
}

impl Command {
    pub(super) fn new(program: &str) -> Command {
        Command {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            before: None,
            rounds: usize::MAX,
        }
    }

    pub(super) fn args(mut self, args: &[&str]) -> Command {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(super) fn env(&mut self, name: &'static str, value: &Path) {
        self.env.push((name, value.as_os_str().to_owned()));
    }

    /// A shell command that is run before each round.
    pub(super) fn before(mut self, script: &str) -> Command {
        self.before = Some(script.to_owned());
        self
    }

    /// At most so often.
    pub(super) fn rounds(mut self, rounds: usize) -> Command {
        self.rounds = rounds;
        self
    }

    /// The command as a shell has it, for what is done before another one.
    pub(super) fn as_shell(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        let quoted: Vec<String> = words.map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        format!("{} > /dev/null 2>&1", quoted.join(" "))
    }

    /// Runs it once and returns the most memory that it had, in MB, by GNU time.
    pub(super) fn memory(&self) -> Result<f64, String> {
        if let Some(script) = &self.before {
            crate::run("sh", &["-c", script])?;
        }
        let mut command = process::Command::new("/usr/bin/time");
        command.args(["-f", "%M", "-o", "/dev/stderr", &self.program]).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("/usr/bin/time (package time): {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let kilobytes: Option<f64> = said.lines().last().and_then(|line| line.trim().parse().ok());
        kilobytes
            .filter(|_| output.status.success())
            .map(|k| k * 1024.0 / 1e6)
            .ok_or_else(|| said.into_owned())
    }

    /// Runs it once and returns the seconds that it took.
    pub(super) fn run(&self) -> Result<f64, String> {
        if let Some(script) = &self.before {
            crate::run("sh", &["-c", script])?;
        }
        let mut command = process::Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status().map_err(|error| format!("cannot run `{}`: {error}", self.program))?;
        let seconds = started.elapsed().as_secs_f64();
        if status.success() {
            Ok(seconds)
        } else {
            Err(format!("`{} {}` ended with {status}", self.program, self.args.join(" ")))
        }
    }
}

/// Runs each command `rounds` times at most, taking turns; for those without a limit of their own the first round does
/// not count.
pub(super) fn measure(commands: &[(String, Command)], rounds: usize) -> Result<Vec<Figures>, String> {
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); commands.len()];
    for round in 0..=rounds {
        for ((_, command), seconds) in commands.iter().zip(&mut seconds) {
            let limited = command.rounds <= rounds;
            if limited && round >= command.rounds {
                continue;
            }
            let took = command.run()?;
            if round > 0 || limited {
                seconds.push(took);
            }
        }
    }
    let figures = seconds.into_iter().map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        Figures { median: seconds[seconds.len() / 2], least: seconds[0] }
    });
    Ok(figures.collect())
}

/// Whether the program is on PATH.
pub(super) fn on_path(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}
