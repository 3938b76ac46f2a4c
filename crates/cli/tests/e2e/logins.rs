//! Logins that programs keep: `credsStore`, `credHelpers`, `docker-credential-*`.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use super::place::{Mode, dockerfile, expect, must, nothing_left, script, text};
use lapstrake_testkit::Registry;

pub(super) const CASES: &[super::Case] =
    &[("credential_helpers", helpers), ("helpers_are_the_caller", caller), ("login_as_docker", as_docker)];

/// A daemon with D-Bus' way of telling who calls (EXTERNAL): who says that he is somebody is believed if the kernel says
/// so too.
const BUS: &str = r#"
import os, socket, struct, sys
path = sys.argv[1]
bus = socket.socket(socket.AF_UNIX)
bus.bind(path)
os.chmod(path, 0o777)
bus.listen()
print("ready", flush=True)
while True:
    who, _ = bus.accept()
    said = who.recv(100).decode().split()
    uid = struct.unpack("3i", who.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    good = said[:2] == ["AUTH", "EXTERNAL"] and bytes.fromhex(said[2]).decode() == str(uid)
    who.send(b"OK" if good else f"REJECTED: {said[2]} is not {uid}".encode())
    who.close()
"#;

/// Greets the daemon as D-Bus' own library does, and keeps one login.
const CALLER: &str = r#"#!/usr/bin/env python3
import json, os, socket, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
bus = socket.socket(socket.AF_UNIX)
bus.connect(here + "/bus")
bus.send(("AUTH EXTERNAL " + str(os.getuid()).encode().hex()).encode())
answer = bus.recv(100).decode()
if answer != "OK":
    sys.exit(answer)
open(here + "/ids", "a").write(f"{os.getuid()} {os.geteuid()} {os.getgid()}\n")
server = sys.stdin.read()
print(json.dumps({"ServerURL": server, "Username": "me", "Secret": "secret"}))
"#;

/// A program that keeps logins with a daemon of the caller's is seen by it as the caller, be it asked from within the
/// namespace in which an ordinary user builds.
fn caller(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd");
    fs::write(&htpasswd, super::push::HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let server = Registry::start(&mode.place, "registry", &auth)?;
    let bin = mode.place.join("callers");
    must(&format!("rm -rf '{0}' && mkdir -p '{0}' && chmod 777 '{0}'", bin.display()))?;
    let helper = bin.join("docker-credential-bus");
    fs::write(&helper, CALLER).map_err(|error| error.to_string())?;
    must(&format!("chmod 755 '{}'", helper.display()))?;
    let mut bus = Command::new("python3")
        .args(["-c", BUS, &bin.join("bus").display().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start the daemon: {error}"))?;
    let mut ready = [0; 5];
    let began = bus.stdout.as_mut().map(|said| said.read_exact(&mut ready));
    let tried = || {
        began.ok_or("no output")?.map_err(|error| format!("the daemon does not start: {error}"))?;
        dockerfile(mode, "by-caller", "FROM busybox\nRUN echo pushed > /x\n")?;
        let name = format!("{}/team/caller:1", server.address);
        let commands = format!(
            "export DOCKER_CONFIG=$PWD/config-of-the-caller PATH='{}':/usr/bin:/bin && mkdir -p $DOCKER_CONFIG && \
             echo '{{\"credsStore\": \"bus\"}}' > $DOCKER_CONFIG/config.json && \
             ./lapstrake build -q -t {name} --push by-caller && ./lapstrake pull -q {name} && \
             echo \"$(id -u) $(id -u) $(id -g)\" > mine && sort -u callers/ids | cmp - mine && echo the same",
            bin.display()
        );
        expect(&script(mode, &commands)?, 0, &["sha256:", "the same"])
    };
    let tried = tried();
    super::place::stop(&mut bus);
    tried?;
    nothing_left(mode)
}

/// What Docker's command line says and takes, beside what it did with a server like this.
fn as_docker(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd");
    fs::write(&htpasswd, super::push::HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let server = Registry::start(&mode.place, "registry", &auth)?;
    let host = &server.address;
    let run = |commands: &str| {
        script(mode, &format!("export DOCKER_CONFIG=$PWD/as-docker && lap=./lapstrake && {commands}"))
    };
    for (command, code, words) in [
        (
            "login -u me -p secret",
            0,
            &["Login Succeeded", "WARNING! Using --password via the CLI is insecure"][..],
        ),
        ("login", 0, &["Authenticating with existing credentials... [Username: me]", "Login Succeeded"]),
        ("login -u me -p x --password-stdin", 2, &["cannot specify both --password and --password-stdin"]),
        ("login --password-stdin", 2, &["the --password-stdin option requires --username to be set"]),
        ("login -u '' -p x", 2, &["username is empty"]),
        ("login -u me -p ''", 2, &["password is empty"]),
        ("login -u me", 2, &["cannot perform an interactive login from a non-TTY device"]),
        ("login -u me -p wrong", 1, &["denied access with this user name and password"]),
        ("logout", 0, &["Removing login credentials for https://index.docker.io/v1/", "Not logged in"]),
        ("logout https://{host}/v2/", 0, &["Removing login credentials for {host}\n"]),
        ("login", 2, &["cannot perform an interactive login"]),
    ] {
        let to = if command.contains("{host}") || command == "logout" { "" } else { host.as_str() };
        let words: Vec<String> = words.iter().map(|word| word.replace("{host}", host)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = command.replace("{host}", host);
        let done = run(&format!("$lap {command} {to} < /dev/null"))?;
        expect(&done, code, &words).map_err(|why| format!("{command}: {why}"))?;
    }
    // One end of a line is the shell's, more are the password's; a dash is standard input.
    for (piped, command, code) in [
        ("secret\\n", "--password-stdin", 0),
        ("secret\\r\\n", "-p -", 0),
        ("secret", "-p - --password-stdin", 0),
        ("secret\\n\\n", "--password-stdin", 1),
        ("\\n", "--password-stdin", 2),
    ] {
        let done = run(&format!("printf '{piped}' | $lap login -u me {command} {host}"))?;
        expect(&done, code, &[]).map_err(|why| format!("{piped} {command}: {why}"))?;
        without(&done, "is insecure")?;
    }
    nothing_left(mode)
}

/// Keeps logins in a directory beside it, a file for each server. `broken` fails, `empty` says nothing in many words.
const HELPER: &str = r#"#!/bin/sh
here=$(dirname "$0"); name=${0##*docker-credential-}
echo "$name $1" >> "$here/asked"
case $name in
broken) echo "the keychain is locked" >&2; exit 1;;
empty) cat > /dev/null; echo '{"ServerURL":"","Username":"","Secret":""}'; exit 0;;
esac
file() { echo "$here/kept-$(echo "$1" | tr -c 'a-z0-9.\n' _)"; }
case $1 in
store) text=$(cat); server=$(echo "$text" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$text" > "$(file "$server")";;
get) server=$(cat); f=$(file "$server"); [ -e "$f" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$f";;
erase) server=$(cat); rm "$(file "$server")";;
esac
"#;

fn helpers(mode: &Mode) -> Result<(), String> {
    let htpasswd = mode.place.join("htpasswd");
    fs::write(&htpasswd, super::push::HTPASSWD).map_err(|error| error.to_string())?;
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let server = Registry::start(&mode.place, "registry", &auth)?;
    let (host, name) = (&server.address, format!("{}/team/kept:1", server.address));
    dockerfile(mode, "kept-by-helper", "FROM busybox\nRUN echo pushed > /x\n")?;
    let bin = mode.place.join("helpers");
    must(&format!("rm -rf '{0}' && mkdir -p '{0}' && chmod 777 '{0}'", bin.display()))?;
    for program in ["keeper", "broken", "empty"] {
        let path = bin.join(format!("docker-credential-{program}"));
        fs::write(&path, HELPER).map_err(|error| error.to_string())?;
        must(&format!("chmod 755 '{}'", path.display()))?;
    }
    let with = |config: &str, command: &str| {
        script(
            mode,
            &format!(
                "export DOCKER_CONFIG=$PWD/helped PATH='{}':/usr/bin:/bin && mkdir -p $DOCKER_CONFIG && \
                 printf '%s' '{config}' > $DOCKER_CONFIG/config.json && {command}; \
                 code=$?; cat $DOCKER_CONFIG/config.json; exit $code",
                bin.display()
            ),
        )
    };
    let helped = format!("{{\"credHelpers\": {{\"{host}\": \"keeper\"}}, \"credsStore\": \"broken\"}}");
    let push = format!("./lapstrake build -q -t {name} --push kept-by-helper");
    let login = format!("echo secret | ./lapstrake login -u me --password-stdin {host}");
    // Nothing is kept yet; what is kept is used, and is nowhere else.
    expect(&with(&helped, &push)?, 1, &["denied access"])?;
    let kept = with(&helped, &login)?;
    expect(&kept, 0, &["Login Succeeded", "kept in docker-credential-keeper", &format!("\"{host}\": {{}}")])?;
    without(&kept, "\"auth\"")?;
    expect(&with(&helped, &push)?, 0, &["sha256:"])?;
    // The store is for all that have no helper of their own.
    expect(&with("{\"credsStore\": \"keeper\"}", &push)?, 0, &["sha256:"])?;
    // An identity token is no password of a user who is called so.
    let token = "f=$(ls helpers/kept-*); sed -i 's/\"Username\":\"me\"/\"Username\":\"<token>\"/' $f";
    expect(&with(&helped, &format!("{token} && {push}"))?, 1, &["denied access"])?;
    expect(&with(&helped, &login)?, 0, &["Login Succeeded"])?;
    let out = format!("./lapstrake logout {host}");
    expect(&with(&helped, &out)?, 0, &[&format!("Removing login credentials for {host}")])?;
    expect(&with(&helped, &out)?, 0, &[&format!("Not logged in to {host}")])?;
    expect(&with(&helped, &push)?, 1, &["denied access"])?;
    // What fails is told with what it says; what is not there by its name; who has nothing is as good as nobody.
    let locked = ["docker-credential-broken", "the keychain is locked"];
    expect(&with("{\"credsStore\": \"broken\"}", &push)?, 1, &locked)?;
    expect(&with("{\"credsStore\": \"broken\"}", &login)?, 1, &locked)?;
    expect(&with("{\"credsStore\": \"broken\"}", &out)?, 1, &locked)?;
    let nowhere = ["docker-credential-nowhere", "no such program in $PATH"];
    expect(&with("{\"credsStore\": \"nowhere\"}", &push)?, 1, &nowhere)?;
    expect(&with("{\"credsStore\": \"empty\"}", &push)?, 1, &["denied access"])?;
    let asked = fs::read_to_string(bin.join("asked")).map_err(|error| error.to_string())?;
    for line in ["keeper get\n", "keeper store\n", "keeper erase\n", "broken get\n", "empty get\n"] {
        if !asked.contains(line) {
            return Err(format!("nobody asked `{}`: {asked}", line.trim()));
        }
    }
    nothing_left(mode)
}

fn without(output: &Output, word: &str) -> Result<(), String> {
    if text(output).contains(word) { Err(format!("{word} is told: {}", text(output))) } else { Ok(()) }
}
