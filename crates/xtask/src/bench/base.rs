//! An image like those that others begin with: layers of many small files and of binaries, taken from this machine's own
//! `/usr`. Built, pushed with gzip, pulled and unpacked again, beside BuildKit; and a commit of its tree beside `cp -a`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lapstrake_testkit::Registry;

use super::measure::{Command, measure};
use super::peers::Peer;

/// The directories of each layer. Those that this machine lacks are left out.
const LAYERS: [(&str, &[&str]); 4] = [
    ("programs", &["sbin", "libexec", "share/perl", "share/i18n", "share/locale"]),
    ("compiler", &["lib/gcc", "include"]),
    ("python", &["lib/python3", "lib/python3.11", "lib/python3.12", "lib/python3.13"]),
    ("texts", &["share/doc", "share/vim"]),
];
const ROUNDS: usize = 3;

/// The places and programs of these measurements.
struct Base<'b> {
    lapstrake: &'b Path,
    place: &'b Path,
    registry: Registry,
    megabytes: f64,
}

/// Measures all of it with the binary at `lapstrake`, below `place`, beside BuildKit if it is one of the peers.
pub(super) fn bench(lapstrake: &Path, place: &Path, peers: &[Peer]) -> Result<(), String> {
    let megabytes = inputs(place)?;
    let registry = Registry::start(place, "base-registry", "")?;
    let base = Base { lapstrake, place, registry, megabytes };
    base.commit(peers)?;
    base.push(peers)?;
    base.pull(peers)
}

/// Makes the context, and tells how many MB it has.
fn inputs(place: &Path) -> Result<f64, String> {
    let failed = |error: std::io::Error| error.to_string();
    let context = place.join("base-image");
    let (mut layers, mut tree) = ("FROM scratch\n".to_owned(), "FROM scratch\nCOPY . /\n".to_owned());
    for (layer, parts) in LAYERS {
        let dir = context.join(layer);
        for part in parts {
            let from = Path::new("/usr").join(part);
            let to = dir.join(part);
            if let Some(above) = to.parent().filter(|_| from.is_dir()) {
                fs::create_dir_all(above).map_err(failed)?;
                crate::run("cp", &["-a", &from.display().to_string(), &to.display().to_string()])?;
            }
        }
        fs::create_dir_all(&dir).map_err(failed)?;
        writeln!(layers, "COPY {layer} /usr/").map_err(|error| error.to_string())?;
    }
    tree.push_str("LABEL all=1\n");
    fs::write(context.join("Dockerfile"), layers).map_err(failed)?;
    fs::write(context.join("Dockerfile.tree"), tree).map_err(failed)?;
    let said = std::process::Command::new("du").arg("-sb").arg(&context).output().map_err(failed)?;
    let bytes =
        String::from_utf8_lossy(&said.stdout).split_whitespace().next().and_then(|text| text.parse().ok());
    Ok(bytes.unwrap_or(0.0) / 1e6)
}

impl Base<'_> {
    fn lap(&self, args: &str) -> Command {
        let script = format!(
            "cd '{}' && LAPSTRAKE_KEEP_STORAGE=off LAPSTRAKE_ROOT=base-state '{}' {args}",
            self.place.display(),
            self.lapstrake.display()
        );
        Command::new("sh").args(&["-c", &script])
    }

    fn sh(&self, script: &str) -> Command {
        Command::new("sh").args(&["-c", &format!("cd '{}' && {script}", self.place.display())])
    }

    /// A shell command after which our state directory is empty.
    fn fresh(&self) -> String {
        format!("rm -rf '{}/base-state'", self.place.display())
    }

    /// The same for the registry.
    fn emptied(&self) -> String {
        format!("rm -rf '{}/registry/docker'", self.place.display())
    }

    /// A tree of many files, from a context that nobody has seen to a stored image.
    fn commit(&self, peers: &[Peer]) -> Result<(), String> {
        let tree = "build -q -t tree:1 -f base-image/Dockerfile.tree base-image";
        let copied = "rm -rf copy && cp -a base-image copy && sync -f copy";
        let mut rows = vec![
            ("lapstrake", self.lap(tree).before(&self.fresh())),
            ("cp -a and sync", self.sh(copied).before(&format!("rm -rf '{}/copy'", self.place.display()))),
        ];
        let context = self.place.join("base-image");
        for peer in peers {
            let built = peer.output_of(&context, "Dockerfile.tree", "type=image,name=bench");
            rows.extend(built.zip(peer.emptied()).map(|(build, empty)| (peer.name(), build.before(&empty))));
        }
        self.table("commit of a tree, build -t", rows)
    }

    /// The layers are there: compressing and sending them is measured.
    fn push(&self, peers: &[Peer]) -> Result<(), String> {
        let name = format!("{}/bench/ours:1", self.registry.address);
        let state = format!("LAPSTRAKE_ROOT='{}/base-state'", self.place.display());
        let begun = format!(
            "{}; {}; cd '{}' && {state} '{}' build -q -o type=cacheonly base-image > /dev/null 2>&1",
            self.emptied(),
            self.fresh(),
            self.place.display(),
            self.lapstrake.display()
        );
        let push = format!("build -q --push -t {name} base-image");
        let mut rows = vec![("lapstrake", self.lap(&push).before(&begun))];
        let context = self.place.join("base-image");
        let theirs = self.theirs();
        for peer in peers {
            let output = format!("type=image,name={theirs},push=true,registry.insecure=true");
            let (Some(pushed), Some(empty)) = (peer.output(&context, &output), peer.emptied()) else {
                continue;
            };
            let Some(built) = peer.output(&context, "") else { continue };
            let before = format!("{}; {empty}; {}", self.emptied(), built.as_shell());
            rows.push((peer.name(), pushed.before(&before)));
        }
        self.table("gzip and push of four layers", rows)
    }

    fn theirs(&self) -> String {
        format!("{}/bench/theirs:1", self.registry.address)
    }

    /// The image of the last push, BuildKit's or our own, as the base of a step.
    fn pull(&self, peers: &[Peer]) -> Result<(), String> {
        let based = self.place.join("base-based");
        let base = if peers.iter().any(|peer| peer.emptied().is_some()) {
            self.theirs()
        } else {
            format!("{}/bench/ours:1", self.registry.address)
        };
        let failed = |error: std::io::Error| error.to_string();
        fs::create_dir_all(&based).map_err(failed)?;
        fs::write(based.join("Dockerfile"), format!("FROM {base}\nWORKDIR /made\n")).map_err(failed)?;
        let unpacked = self.lap("build -q -o type=image,unpack=true base-based").before(&self.fresh());
        let mut rows = vec![("lapstrake", unpacked)];
        rows.push(("lapstrake pull, packed", self.lap(&format!("pull -q {base}")).before(&self.fresh())));
        for peer in peers {
            let built = peer.output(&based, "type=image,name=bench");
            rows.extend(built.zip(peer.emptied()).map(|(build, empty)| (peer.name(), build.before(&empty))));
        }
        self.table("pull and unpack of four layers", rows)
    }

    /// Measures and prints in MB/s of the tree.
    fn table(&self, name: &str, rows: Vec<(&str, Command)>) -> Result<(), String> {
        let rows: Vec<(String, Command)> =
            rows.into_iter().map(|(who, command)| (who.to_owned(), command)).collect();
        let figures = measure(&rows, ROUNDS)?;
        let ours = figures.first().map_or(1.0, |figures| figures.median);
        for ((who, _), figures) in rows.iter().zip(figures) {
            let (speed, times) = (self.megabytes / figures.median, figures.median / ours);
            println!(
                "{:<60} {:>8.2} s  {:>8.2} s  {speed:>6.0} MB/s  {times:>6.2} x lapstrake",
                format!("{name}: {who}"),
                figures.median,
                figures.least
            );
        }
        Ok(())
    }
}
