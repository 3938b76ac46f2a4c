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
    ("system", &[("df", "df"), ("prune", "prune")]),
    ("builder", &[("build", "build"), ("prune", "prune --only cache")]),
    ("buildx", &[("b", "build"), ("build", "build"), ("du", "df"), ("prune", "prune --only cache")]),
];

/// Groups and commands that are not here.
const ELSEWHERE: [(&[&str], &str); 8] = [
    (
        &["buildx imagetools", "manifest"],
        "what a registry has is told by `lapstrake inspect --referrers` and `skopeo inspect`; `build --platform a,b` makes an index",
    ),
    (&["system info", "info"], "`lapstrake doctor` says what of this machine builds can use"),
    (&["version"], "`lapstrake --version`"),
    (&["buildx history"], "`lapstrake builds` has the builds that are over"),
    (&["buildx bake", "bake", "compose"], "build one target after the other with `lapstrake build`"),
    (
        &["buildx", "builder"],
        "there is no builder to make or choose: `lapstrake build` builds in its own process",
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

/// What becomes of a flag that Docker has and a verb has not.
enum Flag {
    /// What it asks for is so anyway.
    Dropped,
    /// It is refused with these words.
    Refused(&'static str),
}

/// The verbs with such flags.
const FLAGS: [(&str, &[&str], Flag); 12] = [
    ("pull", &["--disable-content-trust", "--disable-content-trust=true"], Flag::Dropped),
    ("push", &["--disable-content-trust", "--disable-content-trust=true"], Flag::Dropped),
    ("pull", &["--disable-content-trust=false"], NO_NOTARY),
    ("push", &["--disable-content-trust=false"], NO_NOTARY),
    ("rmi", &["--no-prune"], Flag::Dropped),
    (
        "images",
        &["--tree"],
        Flag::Refused("each platform has its row: `--format '{{.Platform}} {{.ID}}'` tells of them"),
    ),
    // Nothing of a step's container stays, and no context is sent.
    (
        "build",
        &["--rm", "--rm=true", "--rm=false", "--force-rm", "--force-rm=true", "--force-rm=false"],
        Flag::Dropped,
    ),
    ("build", &["--compress", "--compress=true", "--compress=false"], Flag::Dropped),
    (
        "build",
        &["--squash"],
        Flag::Refused(
            "layers are not put together: copy the result of a stage into another one, `COPY --from=…`",
        ),
    ),
    ("build", &["--isolation"], Flag::Refused("steps are isolated in one way only")),
    ("build", &["--policy"], Flag::Refused("sources are pinned by `--locked` and `lapstrake.lock`")),
    // There are none.
    ("prune", &["--volumes", "--volumes=true"], Flag::Dropped),
];
const NO_NOTARY: Flag =
    Flag::Refused("signatures of Docker Content Trust are not checked: pin images by their digests");

/// A line in lapstrake's own words.
pub(super) fn translated(words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let mut words = grouped(words)?;
    let Some(verb) = words.get(1).and_then(|word| word.to_str()).map(str::to_owned) else { return Ok(words) };
    for (_, names, flag) in FLAGS.iter().filter(|(of, ..)| *of == verb) {
        // With a value of its own or in the next word.
        let is = |word: &OsString| {
            let text = word.to_str().unwrap_or_default();
            names.iter().any(|name| {
                text == *name
                    || (!name.contains('=')
                        && matches!(flag, Flag::Refused(_))
                        && text.starts_with(&format!("{name}=")))
            })
        };
        match flag {
            Flag::Dropped => words.retain(|word| !is(word)),
            Flag::Refused(why) => {
                if words.iter().skip(2).any(is) {
                    return Err(refused(&format!("`{}` is not there: {why}", names[names.len() - 1])));
                }
            }
        }
    }
    Ok(words)
}

fn grouped(mut words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let (first, second) = (text(1), text(2));
    let group = GROUPS.iter().find(|(group, _)| *group == first);
    let verb = group.and_then(|(_, commands)| commands.iter().find(|(command, _)| *command == second));
    if let Some((_, verb)) = verb {
        words.splice(1..3, verb.split(' ').map(OsString::from));
        return Ok(words);
    }
    let both = format!("{first} {second}");
    let told = |line: &str| ELSEWHERE.iter().find(|(lines, _)| lines.contains(&line));
    match told(&both).map(|told| (told, both.as_str())).or(told(&first).map(|told| (told, first.as_str()))) {
        Some(((_, instead), line)) => Err(refused(&format!("`{line}` is not there: {instead}"))),
        None => Ok(words),
    }
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
    fn what_is_not_there_is_told_with_what_is() {
        for (line, word) in [
            ("ps -a", "`ps` is not there: containers end with"),
            ("buildx imagetools inspect x", "skopeo inspect"),
            ("buildx ls", "no builder to make or choose"),
            ("system info", "lapstrake doctor"),
            ("system events", "images and builds only"),
            ("images --tree=true", "each platform has its row"),
            ("build --squash .", "COPY --from"),
            ("build --policy=x .", "lapstrake.lock"),
            ("pull --disable-content-trust=false x", "are not checked"),
        ] {
            let told = translated(words(line)).unwrap_err().to_string();
            assert!(told.contains(word), "{line}: {told}");
        }
    }
}
