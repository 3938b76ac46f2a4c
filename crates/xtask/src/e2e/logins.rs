//! Logins that programs keep: `credsStore`, `credHelpers`, `docker-credential-*`.

use std::fs;
use std::process::Output;

use super::place::{Mode, dockerfile, expect, must, nothing_left, script, text};
use super::registry::Registry;

pub(super) const CASES: &[super::Case] = &[("credential_helpers", helpers)];

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
    let server = Registry::of(mode, &auth)?;
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
