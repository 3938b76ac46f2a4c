//! Random Dockerfiles and random edits of their contexts: with all caches a build gives the image that it gives without
//! any, and does no step again that need not be.
//!
//! `LAPSTRAKE_MODEL_ROUNDS` says how many edits (40 as root, half as many as a user), `LAPSTRAKE_MODEL_SEED` which.

use std::fs;
use std::path::PathBuf;

use super::place::{Mode, expect, must, script, state, text};

pub(super) const CASES: &[super::Case] = &[("model", model)];

/// The files that there may be, and the directories.
const FILES: [&str; 6] = ["a", "b", "d/x", "d/y", "d/e/z", "s/t"];

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// What an edit means for what copies can see.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edit {
    /// Nothing that counts is different.
    Invisible,
    /// Something may be.
    Visible,
}

struct Model<'a> {
    mode: &'a Mode,
    dir: PathBuf,
    random: Random,
}

/// A Dockerfile of one to three stages.
fn dockerfile(random: &mut Random) -> String {
    let stages = 1 + random.below(3);
    let mut text = String::new();
    for stage in 0..stages {
        let base = match (stage, random.below(3)) {
            (0, _) | (_, 0 | 1) => "busybox".to_owned(),
            _ => format!("s{}", random.below(stage)),
        };
        text.push_str(&format!("FROM {base} AS s{stage}\n"));
        for step in 0..1 + random.below(4) {
            let line = match random.below(8) {
                0 => "COPY . /c/".to_owned(),
                1 => format!("COPY {} /f{step}", random.pick(&["a", "b", "d", "d/x"])),
                2 => format!("COPY --exclude=*x {} /g{step}/", random.pick(&["d", "."])),
                3 => format!("COPY {} /h{step}/", random.pick(&["d/*", "?", "*/e"])),
                4 if stage > 0 => format!("COPY --from=s{} /log /i{step}", random.below(stage)),
                5 => format!(
                    "RUN --mount=type=bind,source={},target=/m cat /m/* /m/*/* >> /log 2>/dev/null; true",
                    random.pick(&["d", "."])
                ),
                6 => format!("ENV V{step}={}", random.below(9)),
                _ => "RUN (ls -R /c /g1 /g0; cat /f* /h*/*) >> /log 2>/dev/null; true".to_owned(),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str("RUN echo end >> /log\n");
    }
    text
}

impl Model<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// Files are given times after the epoch that images are clamped to, so that none of them counts.
    fn write(&mut self, path: &str, content: &str) -> Result<(), String> {
        let file = self.at(path);
        let parent = file.parent().map(PathBuf::from).unwrap_or_default();
        // A file may stand where a directory has to be, and the other way round.
        if parent != self.dir && !parent.is_dir() {
            fs::remove_file(&parent).unwrap_or_default();
        }
        if file.is_dir() {
            fs::remove_dir_all(&file).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(&parent)
            .and_then(|()| fs::write(&file, content))
            .map_err(|error| error.to_string())
    }

    fn edit(&mut self) -> Result<(Edit, String), String> {
        let path = FILES[self.random.below(FILES.len())];
        let file = self.at(path);
        let number = self.random.below(1000);
        let shown = file.display().to_string();
        let (edit, what) = match self.random.below(10) {
            0 | 1 => (Edit::Visible, self.write(path, &format!("{number}\n")).map(|()| "content")?),
            // The same size, within one tick of the clock: only the index's own caution can tell.
            2 => {
                self.write(path, "same1")?;
                self.write(path, "same2")?;
                (Edit::Visible, "same size twice")
            }
            3 if file.is_file() => {
                let times = format!("touch -d @{} '{shown}'", 1_700_000_000 + number);
                must(&times)?;
                (Edit::Invisible, "time")
            }
            4 if file.is_file() => {
                let mode = ["600", "644", "755", "400"][number % 4];
                must(&format!("chmod {mode} '{shown}'"))?;
                (Edit::Visible, "mode")
            }
            5 if file.is_file() => {
                must(&format!("mv '{shown}' '{shown}n{}'", number % 3))?;
                (Edit::Visible, "rename")
            }
            6 => {
                let link = self.at("link");
                let target = ["a", "d", "nowhere", "d/x"][number % 4];
                must(&format!("rm -rf '{0}' && ln -s {target} '{0}'", link.display()))?;
                (Edit::Visible, "symlink")
            }
            7 => {
                // What was a directory becomes a file, or one becomes a directory.
                must(&format!("rm -rf '{0}'", self.at("d/e").display()))?;
                let path = if number.is_multiple_of(2) { "d/e" } else { "d/e/z" };
                (Edit::Visible, self.write(path, "swapped\n").map(|()| "kind")?)
            }
            8 if file.is_file() && path != "a" && path != "d/x" => {
                must(&format!("rm -f '{shown}'"))?;
                (Edit::Visible, "remove")
            }
            _ => {
                let ignore = ["s\n", "d/y\n", "", "*n?\n!a\n"][number % 4];
                (Edit::Visible, self.write(".dockerignore", ignore).map(|()| "ignore")?)
            }
        };
        must(&format!(
            "chown -R --reference '{0}' '{0}'/* '{0}'/.dockerignore 2>/dev/null; true",
            self.dir.display()
        ))?;
        Ok((edit, format!("{what} of {path}")))
    }

    /// A build; what it said is the image, or that it failed and why.
    fn build(&self, root: &str, flags: &str) -> Result<(bool, String), String> {
        let root = state(self.mode).with_file_name(format!("{root}-{}", self.mode.name));
        let import = if root.exists() { "" } else { "./lapstrake import bb.tar busybox > /dev/null && " };
        let build = format!(
            "export LAPSTRAKE_ROOT='{}' SOURCE_DATE_EPOCH=1500000000 && {import}\
             ./lapstrake build -q {flags} -o type=image,rewrite-timestamp=true model-ctx",
            root.display()
        );
        let built = script(self.mode, &build)?;
        let said = if built.status.success() { &built.stdout } else { &built.stderr };
        Ok((built.status.success(), String::from_utf8_lossy(said).into_owned()))
    }

    /// How many steps the last build did.
    fn done(&self) -> Result<usize, String> {
        let root = state(self.mode).with_file_name(format!("model-{}", self.mode.name));
        let seen =
            script(self.mode, &format!("LAPSTRAKE_ROOT='{}' ./lapstrake builds inspect", root.display()))?;
        expect(&seen, 0, &["Steps:"])?;
        Ok(text(&seen)
            .lines()
            .filter(|line| line.starts_with("DONE") && !line.contains("load build"))
            .count())
    }

    fn check(&self, edit: Edit) -> Result<(), String> {
        let cached = self.build("model", "")?;
        let fresh = self.build("oracle", "--no-cache --checksum=always")?;
        if cached != fresh {
            return Err(format!("with the cache: {cached:?}; without: {fresh:?}"));
        }
        if cached.0 && edit == Edit::Invisible {
            // It is the last build of its root.
            match self.done()? {
                0 => {}
                some => return Err(format!("{some} steps were done again for nothing")),
            }
        }
        if cached.0 {
            self.build("model", "")?;
            match self.done()? {
                0 => {}
                some => return Err(format!("{some} steps are not cached directly after they were done")),
            }
        }
        Ok(())
    }
}

fn model(mode: &Mode) -> Result<(), String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("LAPSTRAKE_MODEL_ROUNDS").unwrap_or(if mode.user.is_none() { 40 } else { 20 });
    let seed = number("LAPSTRAKE_MODEL_SEED").unwrap_or(7);
    let dir = mode.place.join("model-ctx");
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    if let Some(user) = mode.user {
        must(&format!("chown {user} '{}'", dir.display()))?;
    }
    let mut model = Model { mode, dir, random: Random(seed) };
    for path in FILES {
        model.write(path, path)?;
    }
    model.write(".dockerignore", "")?;
    let mut text = String::new();
    for round in 0..rounds {
        // A few edits for each Dockerfile.
        let (edit, what) = if round % 5 == 0 {
            text = dockerfile(&mut model.random);
            model.write("Dockerfile", &text)?;
            (Edit::Visible, "another Dockerfile".to_owned())
        } else {
            model.edit()?
        };
        model.check(edit).map_err(|why| format!("round {round}, seed {seed}, {what}: {why}\n{text}"))?;
    }
    Ok(())
}
