//! The log of the program itself: off unless somebody asks, and never with a secret in it.

use std::fs;

use super::place::{Mode, dockerfile, expect, lap, must, must_say, script, text};

pub(super) const CASES: &[super::Case] = &[
    ("log_is_off", off),
    ("log_tells_of_choices", tells_of_choices),
    ("log_has_no_secrets", has_no_secrets),
];

fn off(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "plain", "FROM busybox\nRUN true\n")?;
    let plain = text(&lap(mode, "build plain")?);
    if plain.contains("cache lookup") || plain.contains("INFO") {
        return Err(format!("nobody asked for a log: {plain}"));
    }
    expect(&script(mode, "LAPSTRAKE_LOG=no=such=filter ./lapstrake images")?, 2, &["LAPSTRAKE_LOG"])?;
    let nowhere = "LAPSTRAKE_LOG=info LAPSTRAKE_LOG_FILE=/nonexistent/log ./lapstrake images";
    expect(&script(mode, nowhere)?, 2, &["LAPSTRAKE_LOG_FILE=/nonexistent/log"])
}

fn tells_of_choices(mode: &Mode) -> Result<(), String> {
    dockerfile(mode, "logged", "FROM busybox\nRUN true\n")?;
    expect(&lap(mode, "-v build logged")?, 0, &["INFO lapstrake_snapshot", "how layers are stacked"])?;
    let output = lap(mode, "-vv build logged")?;
    expect(&output, 0, &["DEBUG lapstrake_ops", "cache lookup: found in the state directory"])?;
    // The variable wins over the flag, and chooses among the crates.
    let chosen = script(mode, "LAPSTRAKE_LOG=lapstrake_ops=debug ./lapstrake -v build logged")?;
    expect(&chosen, 0, &["cache lookup"])?;
    if text(&chosen).contains("lapstrake_snapshot") {
        return Err(format!("the filter does not count: {}", text(&chosen)));
    }
    // A flag behind the verb is the verb's own, and the status of `run` is the program's.
    expect(&lap(mode, "-v run -v /etc:/there:ro busybox sh -c 'test -d /there && exit 7'")?, 7, &[])?;
    dockerfile(mode, "absent", "FROM scratch\nADD http://127.0.0.1:1/x /\n")?;
    expect(&lap(mode, "-v build absent")?, 3, &["a request is made again"])
}

fn has_no_secrets(mode: &Mode) -> Result<(), String> {
    const CANARY: &str = "xyzzy-canary-0815";
    let steps = "FROM busybox\nARG API_TOKEN\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=HUSH \
                 test -n \"$HUSH\"\n";
    dockerfile(mode, "hushed", steps)?;
    dockerfile(mode, "fetched", &format!("FROM scratch\nADD http://me:{CANARY}@127.0.0.1:1/x /\n"))?;
    let place = mode.place.display().to_string();
    must(&format!("mkdir -p '{place}/logs' && chmod 777 '{place}/logs'"))?;
    let docker =
        format!("{{\"auths\":{{\"127.0.0.1:1\":{{\"username\":\"me\",\"password\":\"{CANARY}\"}}}}}}");
    let logins = mode.place.join("logs/config.json");
    fs::write(&logins, docker).map_err(|error| error.to_string())?;
    must(&format!("chmod 644 '{}'", logins.display()))?;
    let setting = format!(
        "export SECRET={CANARY} DOCKER_CONFIG='{place}/logs' LAPSTRAKE_LOG=trace LAPSTRAKE_LOG_FILE='{place}/logs/log'"
    );
    let secrets = "--secret id=s,env=SECRET --secret id=HTTP_AUTH_TOKEN_127.0.0.1:1,env=SECRET";
    for (command, code) in [
        (format!("build {secrets} --build-arg API_TOKEN={CANARY} hushed"), 0),
        (format!("build {secrets} fetched"), 3),
        ("pull 127.0.0.1:1/some/image".to_owned(), 3),
    ] {
        let output = script(mode, &format!("{setting} && ./lapstrake -vvv {command}"))?;
        expect(&output, code, &[])?;
    }
    let log = format!("'{place}/logs/log'");
    let asked = must_say(&format!("grep -c 'a step asks for a secret' {log}"))?;
    if asked.trim() == "0" {
        return Err("the log says nothing of the secret's use".to_owned());
    }
    let found = must_say(&format!("grep -n '{CANARY}' {log}; true"))?;
    if found.is_empty() { Ok(()) } else { Err(format!("the log has the secret: {found}")) }
}
