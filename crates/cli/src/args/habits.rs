//! Lines that Docker's users have in their fingers: groups of commands become verbs, and what is not here is refused by a
//! word about what is.

use std::ffi::OsString;

use clap::Error;
use clap::error::ErrorKind;

/// `docker GROUP COMMAND`, and the verb that does it.
const GROUPS: [(&str, &[(&str, &str)]); 4] = [
    (
        "image",
        &[
            ("build", "build"),
            ("history", "history"),
            ("import", "import"),
            ("inspect", "inspect"),
            ("list", "images"),
            ("load", "load"),
            ("ls", "images"),
            ("prune", "prune --only images"),
            ("pull", "pull"),
            ("push", "push"),
            ("remove", "rmi"),
            ("rm", "rmi"),
            ("save", "save"),
            ("tag", "tag"),
        ],
    ),
    ("system", &[("df", "df"), ("info", "info"), ("prune", "prune")]),
    ("builder", &[("build", "build"), ("dial-stdio", "dial-stdio"), ("prune", "prune --only cache")]),
    (
        "buildx",
        &[
            ("b", "build"),
            ("bake", "bake"),
            ("build", "build"),
            ("dial-stdio", "dial-stdio"),
            ("du", "df"),
            ("f", "bake"),
            ("history", "builds"),
            ("inspect", "builders inspect"),
            ("ls", "builders ls"),
            ("prune", "prune --only cache"),
            ("version", "builders version"),
        ],
    ),
];

/// Groups and commands that are not here.
const ELSEWHERE: [(&[&str], &str); 5] = [
    (
        &["buildx imagetools", "manifest"],
        "`lapstrake inspect --referrers` and `skopeo inspect` show the content of a registry; `build --platform a,b` makes an index",
    ),
    (&["compose"], "`lapstrake bake` builds the services of a compose file"),
    (
        &["buildx", "builder"],
        "builders cannot be made or chosen: `lapstrake build` builds in its own process",
    ),
    (
        &[
            "attach",
            "commit",
            "container",
            "cp",
            "create",
            "diff",
            "exec",
            "export",
            "kill",
            "logs",
            "pause",
            "port",
            "ps",
            "rename",
            "restart",
            "rm",
            "start",
            "stats",
            "stop",
            "top",
            "unpause",
            "update",
            "wait",
        ],
        "containers end with the command that runs them: `lapstrake run` runs one in the foreground",
    ),
    (
        &[
            "config", "context", "events", "network", "node", "plugin", "secret", "service", "stack",
            "swarm", "system", "trust", "volume",
        ],
        "lapstrake has images and builds only; `lapstrake help` has all verbs",
    ),
];

/// The treatment of a flag that Docker has and a verb lacks.
enum Flag {
    /// A switch that makes no difference here.
    Dropped,
    /// A switch that is refused with these words where it is on.
    RefusedOn(&'static str),
    /// A switch that is refused with these words where it is off.
    RefusedOff(&'static str),
    /// A flag with a value, refused with these words.
    Refused(&'static str),
}

/// The verbs with such flags.
const FLAGS: [(&str, &[&str], Flag); 10] = [
    ("pull", &["--disable-content-trust"], NO_NOTARY),
    ("push", &["--disable-content-trust"], NO_NOTARY),
    ("rmi", &["--no-prune"], Flag::Dropped),
    (
        "images",
        &["--tree"],
        Flag::RefusedOn("each platform has a row: use `--format '{{.Platform}} {{.ID}}'`"),
    ),
    // Nothing of a step's container stays, and no context is sent.
    ("build", &["--rm", "--force-rm", "--compress"], Flag::Dropped),
    (
        "build",
        &["--squash"],
        Flag::RefusedOn(
            "layers are not put together: copy the result of a stage into another one, `COPY --from=…`",
        ),
    ),
    ("build", &["--isolation"], Flag::Refused("steps are isolated in one way only")),
    ("build", &["--policy"], Flag::Refused("sources are pinned by `--locked` and `lapstrake.lock`")),
    (
        "bake",
        &["--policy"],
        Flag::Refused("sources are pinned by `lapstrake build --locked` and `lapstrake.lock`"),
    ),
    // There are none.
    ("prune", &["--volumes"], Flag::Dropped),
];
const NO_NOTARY: Flag =
    Flag::RefusedOff("signatures of Docker Content Trust are not checked: pin images by their digests");

/// A line in lapstrake's own words.
pub(super) fn translated(words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let mut words = grouped(words)?;
    let Some(verb) = words.get(1).and_then(|word| word.to_str()).map(str::to_owned) else { return Ok(words) };
    for (_, names, flag) in FLAGS.iter().filter(|(of, ..)| *of == verb) {
        settle(&mut words, names, flag)?;
    }
    Ok(words)
}

/// Takes the flags with these names out of a line, or refuses them.
fn settle(words: &mut Vec<OsString>, names: &[&str], flag: &Flag) -> Result<(), Error> {
    // What follows `--` is no flag.
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let mut at = 2;
    let mut left = end.saturating_sub(at);
    while left > 0 {
        left -= 1;
        let text = words[at].to_str().unwrap_or_default();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if !names.contains(&name) {
            at += 1;
            continue;
        }
        let refuse = |why: &str| Err(refused(&format!("`{text}` is not supported: {why}")));
        let on = value.map_or(Some(true), lapstrake_go::parse_bool);
        match (flag, on) {
            (Flag::Refused(why), _)
            | (Flag::RefusedOn(why), Some(true))
            | (Flag::RefusedOff(why), Some(false)) => {
                return refuse(why);
            }
            (_, None) => return Err(refused(&format!("`{text}`: neither `true` nor `false`"))),
            (Flag::Dropped | Flag::RefusedOn(_) | Flag::RefusedOff(_), Some(_)) => drop(words.remove(at)),
        }
    }
    Ok(())
}

fn grouped(mut words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    builder_last(&mut words);
    let text = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let (first, second) = (text(1), text(2));
    let group = GROUPS.iter().find(|(group, _)| *group == first);
    let verb = group.and_then(|(_, commands)| commands.iter().find(|(command, _)| *command == second));
    if let Some((_, verb)) = verb {
        words.splice(1..3, verb.split(' ').map(OsString::from));
        return Ok(words);
    }
    if group.is_some() && (second.is_empty() || matches!(second.as_str(), "--help" | "-h" | "help")) {
        return Err(group_help(&first));
    }
    // A slip of the fingers that Docker's users make: a list is of images, and `prune` no name that one would look for.
    if first == "images" && second == "prune" {
        words.splice(1..3, ["prune", "--only", "images"].map(OsString::from));
        return Ok(words);
    }
    let both = format!("{first} {second}");
    let told = |line: &str| ELSEWHERE.iter().find(|(lines, _)| lines.contains(&line));
    match told(&both).map(|told| (told, both.as_str())).or(told(&first).map(|told| (told, first.as_str()))) {
        Some(((_, instead), line)) => Err(refused(&format!("`{line}` is not supported: {instead}"))),
        None => Ok(words),
    }
}

/// `buildx --builder NAME VERB` is `buildx VERB --builder NAME`.
fn builder_last(words: &mut Vec<OsString>) {
    if words.get(1).is_none_or(|first| first != "buildx") {
        return;
    }
    while let Some(flag) = words.get(2).and_then(|word| word.to_str()) {
        let length = match flag {
            "--builder" => 2,
            _ if flag.starts_with("--builder=") => 1,
            _ => return,
        };
        if words.len() < 3 + length {
            return;
        }
        let moved: Vec<OsString> = words.drain(2..2 + length).collect();
        words.splice(3..3, moved);
    }
}

/// The commands of a group, and the verbs that do the same.
fn group_help(name: &str) -> Error {
    let commands = GROUPS.iter().filter(|(group, _)| *group == name).flat_map(|(_, commands)| *commands);
    let rows: String =
        commands.map(|(command, verb)| format!("  {command:<10} lapstrake {verb}\n")).collect();
    let text = format!("Usage: lapstrake {name} COMMAND\n\nCommands, and the verbs that they are:\n{rows}");
    let command = clap::Command::new("lapstrake").override_help(text);
    command
        .try_get_matches_from([name, "--help"])
        .err()
        .unwrap_or_else(|| refused(&format!("`{name}` needs a command")))
}

fn refused(why: &str) -> Error {
    Error::raw(ErrorKind::InvalidSubcommand, format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::super::Args;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("lapstrake").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn groups_are_verbs() {
        for (line, same) in [
            ("image ls -a", "images -a"),
            ("image rm x --no-prune", "rmi x"),
            ("system df -v", "df -v"),
            ("system prune -af --volumes", "prune -af"),
            ("images prune -f", "prune --only images -f"),
            ("images prune-tool", "images prune-tool"),
            ("buildx ls", "builders ls"),
            ("buildx inspect --bootstrap default", "builders inspect --bootstrap default"),
            ("system info -f json", "info -f json"),
            ("image prune -af", "prune --only images -af"),
            ("builder prune -f", "prune --only cache -f"),
            ("push -a x", "push -a x"),
            ("builder build -t x .", "build -t x ."),
            ("buildx build --push -t x .", "build --push -t x ."),
            ("push --disable-content-trust x", "push x"),
            ("build -t image .", "build -t image ."),
            ("run x image ls", "run x image ls"),
            ("run x --platform y --tree", "run x --platform y --tree"),
            ("pull --platform linux/arm64 x", "pull --platform linux/arm64 x"),
            ("build --rm=false --force-rm --compress -t x .", "build -t x ."),
            ("build --rm=1 --force-rm=F --squash=false -t x .", "build -t x ."),
            ("build -t x -- --rm", "build -t x -- --rm"),
            ("pull --disable-content-trust=t x", "pull x"),
            ("buildx bake --print app", "bake --print app"),
            ("buildx --builder b f -f x.hcl", "bake --builder b -f x.hcl"),
            ("buildx history logs x", "builds logs x"),
            ("buildx --builder b dial-stdio", "dial-stdio --builder b"),
            ("builder dial-stdio --addr unix:///s", "dial-stdio --addr unix:///s"),
            ("buildx --builder b build -t x .", "build --builder b -t x ."),
            ("buildx --builder=b build -t x .", "build --builder=b -t x ."),
        ] {
            assert_eq!(translated(words(line)).unwrap(), words(same), "{line}");
        }
    }

    /// All that is there, and nothing that is there is refused.
    #[test]
    fn every_group_leads_to_a_verb() {
        let verbs: Vec<String> = <Args as clap::CommandFactory>::command()
            .get_subcommands()
            .map(|verb| verb.get_name().to_owned())
            .collect();
        for (_, verb) in GROUPS.iter().flat_map(|(_, commands)| *commands) {
            let verb = verb.split(' ').next().unwrap_or_default();
            assert!(verbs.iter().any(|name| name == verb), "{verb}");
        }
        for line in ELSEWHERE.iter().flat_map(|(lines, _)| *lines) {
            assert!(!verbs.iter().any(|name| name == line), "{line}");
        }
        for (verb, ..) in &FLAGS {
            assert!(verbs.iter().any(|name| name == verb), "{verb}");
        }
    }

    #[test]
    fn a_bare_group_says_what_it_has() {
        for group in ["image", "system", "builder", "buildx", "image --help"] {
            let help = translated(words(group)).unwrap_err();
            assert!(!help.use_stderr() && help.to_string().contains("lapstrake prune"), "{group}: {help}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        for (line, word) in [
            ("ps -a", "`ps` is not supported: containers end with"),
            ("buildx imagetools inspect x", "skopeo inspect"),
            ("buildx create --use", "builders cannot be made or chosen"),
            ("compose build", "`lapstrake bake`"),
            ("bake --policy disabled=true", "lapstrake.lock"),
            ("system events", "images and builds only"),
            ("images --tree=true", "each platform has a row"),
            ("build --squash .", "COPY --from"),
            ("build --policy=x .", "lapstrake.lock"),
            ("build --squash=T .", "COPY --from"),
            ("build --rm=maybe .", "neither `true` nor `false`"),
            ("pull --disable-content-trust=false x", "are not checked"),
        ] {
            let told = translated(words(line)).unwrap_err().to_string();
            assert!(told.contains(word), "{line}: {told}");
        }
    }
}
