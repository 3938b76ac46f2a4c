//! What is told of failures, to the byte: a folder in `testdata/told` is a test. `UPDATE=1` writes what is expected anew.
//!
//! A folder is a context; it may have a `setup`, which a shell runs there first, and a `command`, which it runs instead of
//! `lapstrake build -q .`. `expected` is the exit status and all that is told. In the files of the folder `{web}` and
//! `{git}` stand for the addresses of servers; in what is told `{hash}`, `{time}`, `{host}` and `{place}` are what differs.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::place::{Mode, expect, must, script};
use super::remote::{Server, repository, web};
use lapstrake_testkit::WebServer;

pub(super) const CASES: &[super::Case] = &[("told", told)];

/// The servers, and how the tests write their addresses.
struct Servers {
    git: Server,
    web: WebServer,
}

impl Servers {
    fn addresses(&self) -> [(&'static str, String); 2] {
        let at = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        [("{git}", at("git", self.git.port)), ("{web}", at("http", self.web.port))]
    }
}

fn told(mode: &Mode) -> Result<(), String> {
    let git = repository(mode)?;
    expect(&script(mode, "mkdir -p web && echo served > web/file")?, 0, &[])?;
    let servers = Servers { git, web: web(mode)? };
    let top = super::top().join("testdata/told");
    let mut names = Vec::new();
    for entry in fs::read_dir(&top).map_err(|error| error.to_string())? {
        names.push(entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut wrong = String::new();
    for name in &names {
        let found = run(mode, &top.join(name), name, &servers)?;
        let path = top.join(name).join("expected");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &found).map_err(|error| error.to_string())?;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != found {
            wrong += &format!("{name}: expected\n{expected}but it was\n{found}");
        }
    }
    if names.len() < 40 {
        return Err(format!("only {} folders", names.len()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn run(mode: &Mode, folder: &Path, name: &str, servers: &Servers) -> Result<String, String> {
    let place = mode.place.join("told").join(name);
    must(&format!(
        "rm -rf '{0}' && mkdir -p '{0}' && cp -rT '{1}' '{0}' && rm -f '{0}/expected' && chmod -R a+rwX '{0}'",
        place.display(),
        folder.display()
    ))?;
    if let Some(user) = mode.user {
        must(&format!("chown -R {user} '{}'", place.display()))?;
    }
    for file in ["Dockerfile", "command"] {
        let path = place.join(file);
        let Ok(mut text) = fs::read_to_string(&path) else { continue };
        for (written, address) in servers.addresses() {
            text = text.replace(written, &address);
        }
        fs::write(&path, text).map_err(|error| error.to_string())?;
    }
    let command = fs::read_to_string(place.join("command")).unwrap_or("lapstrake build -q .".to_owned());
    let commands = format!(
        "export PATH=\"$PWD:$PATH\" LAPSTRAKE_NETWORK=host && cd told/{name} && {{ test ! -e setup || sh ./setup; }} && rm -f setup command expected && {command}"
    );
    let place = mode.place.display().to_string();
    Ok(shown(&script(mode, &commands)?, servers).replace(&place, "{place}"))
}

/// The exit status and what was told, without what differs from time to time.
fn shown(output: &Output, servers: &Servers) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    for (written, address) in servers.addresses() {
        text = text.replace(&address, written);
    }
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let text = text.replace(&format!("on this {host} machine"), "on this {host} machine");
    let mut shown = format!("{}\n", output.status);
    for line in text.lines() {
        shown += &timeless(&hashless(line));
        shown.push('\n');
    }
    shown
}

/// `{hash}` for each hash in the line.
fn hashless(line: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        let is_hash = matches!(word.len(), 40 | 64) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        text += if is_hash && word.bytes().any(|byte| byte != b'0') { "{hash}" } else { &word };
        word.clear();
        text.push(letter);
    }
    text.trim_end_matches('\n').to_owned()
}

/// `{time}` for the seconds in front of what a step printed.
fn timeless(line: &str) -> String {
    let time = |word: &str| {
        word.split_once('.').is_some_and(|(whole, part)| {
            part.len() == 3 && [whole, part].iter().all(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    match line.split_once(' ') {
        Some((word, rest)) if time(word) => format!("{{time}} {rest}"),
        _ => line.to_owned(),
    }
}
