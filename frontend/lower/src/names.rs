//! Step names: `[build 2/5] RUN make`.

use lapstrake_dockerfile::words::{self, Mode};
use lapstrake_oci::Platform;

use crate::env::Env;

/// Numbers the steps of one stage.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    /// What the stage is called; empty if it is the only one.
    pub(crate) label: String,
    /// How many steps there will be.
    pub(crate) total: usize,
    /// How many there were.
    pub(crate) done: usize,
    /// Whether names begin with the platform.
    pub(crate) with_platform: bool,
}

impl Naming {
    /// The name of the next step.
    pub(crate) fn next(&mut self, text: &str, platform: &Platform, env: &Env, onbuild: bool) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.done += 1;
        let mut name = "[".to_owned();
        if self.with_platform {
            name.push_str(&format!("{platform}{} ", cross(platform, env)));
        }
        if !self.label.is_empty() {
            name.push_str(&format!("{} ", self.label));
        }
        let width = self.total.to_string().len();
        let onbuild = if onbuild { "ONBUILD " } else { "" };
        name.push_str(&format!("{:width$}/{}] {onbuild}{text}", self.done, self.total));
        name
    }
}

/// `->arm64`, where a stage says that it compiles for another platform.
fn cross(platform: &Platform, env: &Env) -> String {
    let get = |name: &str| env.get(name).unwrap_or_default();
    let whole = env.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let target = match whole {
        Some(target) => target,
        None if ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].iter().any(|name| env.get(name).is_some()) => {
            let or = |value: &str, default: &str| {
                if value.is_empty() { default.to_owned() } else { value.to_owned() }
            };
            let os = or(get("TARGETOS"), &platform.os);
            Platform::new(&os, &or(get("TARGETARCH"), &platform.architecture), get("TARGETVARIANT"))
        }
        None => return String::new(),
    };
    if target.os != platform.os {
        format!("->{target}")
    } else if target.architecture != platform.architecture {
        let short = target.short();
        format!("->{}", short.split_once('/').map_or(short.as_str(), |(_, rest)| rest))
    } else {
        String::new()
    }
}

/// The text of an instruction as a step's name: its variables filled in where they are set, its keyword in upper case.
pub(crate) fn text(line: &str, mode: Mode, lookup: &words::Lookup<'_>) -> String {
    let line = line.trim();
    let expanded =
        words::expand(line, lookup, mode).map_or_else(|_| line.to_owned(), |expanded| expanded.text);
    match expanded.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => expanded.to_uppercase(),
    }
}

/// The first line of a heredoc's body.
pub(crate) fn summary(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_platforms() {
        let platform = Platform::new("linux", "amd64", "");
        let mut naming = Naming { label: "build".into(), total: 12, done: 0, with_platform: false };
        assert_eq!(naming.next("RUN x", &platform, &Env::default(), false), "[build  1/12] RUN x");
        let mut env = Env::default();
        env.set("TARGETARCH", "arm64");
        naming.with_platform = true;
        assert_eq!(
            naming.next("RUN x", &platform, &env, true),
            "[linux/amd64->arm64 build  2/12] ONBUILD RUN x"
        );
        naming.total = 0;
        assert_eq!(naming.next("RUN x", &platform, &env, false), "RUN x");
        assert_eq!(summary("\n echo a\r\nb\n"), "echo a...");
    }
}
