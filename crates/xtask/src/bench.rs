//! `cargo xtask bench [NAME]`: how long things take, beside what the machine itself needs for the same and beside
//! the peers that are on PATH. All figures of a case come from one run, its commands taking turns, so that a noisy
//! machine is noisy for all of them. Never a test: it prints, and judges nothing but the ratio.
//!
//! `TMPDIR` says on which file system. `cargo xtask bench table` makes the table in `crates/xtask/bench/README.md`.

mod base;
mod images;
mod inputs;
mod measure;
mod peers;
mod sandbox;
pub(crate) mod table;

use std::path::{Path, PathBuf};

use self::inputs::Inputs;
use self::measure::{Command, Figures, measure};
use self::peers::Peer;

/// Where everything happens, and with what.
struct Bench {
    lapstrake: PathBuf,
    // Before the place: they end before it goes.
    peers: Vec<Peer>,
    inputs: Inputs,
    place: tempfile::TempDir,
}

/// A budget of the design.
enum Budget {
    /// Seconds.
    Wall(f64),
    /// Times the limit.
    Times(f64),
}

type Case = (&'static str, fn(&Bench) -> Result<(), String>);

const CASES: [Case; 10] = [
    ("cached", cached),
    ("run-true", run_true),
    ("copy-cold", copy_cold),
    ("copy-unchanged", copy_unchanged),
    ("copy-one-changed", copy_one_changed),
    ("copy-many", copy_many),
    ("copy-one-of-some", copy_one_of_some),
    ("copy-one-of-many", copy_one_of_many),
    ("base-image", |bench| base::bench(&bench.lapstrake, bench.place.path(), &bench.peers)),
    ("images", |bench| images::bench(&bench.lapstrake, bench.place.path(), &bench.peers)),
];

/// How fast Dockerfiles are parsed and lowered, typical ones and long ones of the worst kinds.
fn language() -> Result<(), String> {
    crate::run("cargo", &["build", "--quiet", "--release", "--package", "lapstrake-fuzz", "--bin", "speed"])?;
    let speed = crate::target()?.join("release/speed").display().to_string();
    crate::run(&speed, &[])?;
    crate::run(&speed, &["worst", "10000000"])
}

/// The release binary, or the one that `LAPSTRAKE_TEST_BINARY` names, as it is once it was installed. The pieces in which a linker writes a file stay its pieces in the
/// page cache, and cost each start of it two milliseconds until the file is read from the disk again.
fn installed() -> Result<PathBuf, String> {
    let named = std::env::var_os("LAPSTRAKE_TEST_BINARY").map(PathBuf::from);
    let binary = named.map_or_else(crate::release_binary, Ok)?;
    let installed = binary.with_file_name("lapstrake-installed");
    std::fs::copy(&binary, &installed)
        .map_err(|error| format!("cannot copy {}: {error}", binary.display()))?;
    Ok(installed)
}

/// What a file of this run must say: the command, the time, the commit, the machine.
fn heading(only: &str) -> String {
    let said = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).current_dir(crate::top()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let commit = said("git", &["describe", "--always", "--dirty"]);
    let (date, machine) = (said("date", &["-u", "+%F %H:%M"]), said("uname", &["-srm"]));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let task = format!("cargo xtask bench {only}");
    format!("# {}, {date}, {commit}, {machine}, {processors} processors, load {load}", task.trim_end())
}

/// Runs the cases whose name contains `only`.
pub(crate) fn bench(only: &str) -> Result<(), String> {
    if only == "table" {
        return table::write(&crate::top());
    }
    println!("{}", heading(only));
    if only == "sandbox" {
        return sandbox::bench();
    }
    if "language".contains(only) {
        language()?;
    }
    if !CASES.iter().any(|(name, _)| name.contains(only)) {
        return if "language".contains(only) { Ok(()) } else { Err(format!("there is no case `{only}`")) };
    }
    let place = tempfile::tempdir().map_err(|error| format!("cannot make a directory: {error}"))?;
    let inputs = Inputs::new(place.path())?;
    let lapstrake = installed()?;
    let bench = Bench { lapstrake, peers: Peer::find(place.path()), inputs, place };
    println!("{:<34} {:>10} {:>10} {:>8}  budget", "case", "median", "least", "ratio");
    for (name, case) in CASES {
        if name.contains(only) {
            case(&bench)?;
        }
    }
    if only.is_empty() {
        sandbox::bench()?;
    }
    Ok(())
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Our build of `context`, with a state of its own.
    fn build(&self, context: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(&self.lapstrake.display().to_string());
        command.env("LAPSTRAKE_ROOT", &self.path("state"));
        // Nothing else is to work on the disk meanwhile.
        command.env("LAPSTRAKE_KEEP_STORAGE", Path::new("off"));
        command.args(&["build", "-q"]).args(more).args(&[&context.display().to_string()])
    }

    /// The same by a peer.
    fn peer(&self, peer: &Peer, context: &Path, more: &[&str]) -> Command {
        peer.build(self.place.path(), context, more)
    }

    fn fresh(&self, command: Command) -> Command {
        command.before(&format!("rm -rf '{}'", self.path("state").display()))
    }
}

/// Prints a case: ours, the limit, and peers.
fn report(name: &str, figures: &[(String, Figures)], limit: f64, budget: &Budget) {
    let ours = figures.first().map_or(0.0, |(_, figures)| figures.median);
    let (text, met) = match budget {
        Budget::Wall(wall) => (format!("<= {:.0} ms", wall * 1e3), ours <= *wall),
        Budget::Times(times) => (format!("<= {times} x limit"), ours <= limit * times),
    };
    for (number, (who, figures)) in figures.iter().enumerate() {
        let verdict = if number > 0 {
            String::new()
        } else {
            format!("{text}: {}", if met { "met" } else { "NOT MET" })
        };
        let title = format!("{name}: {who}");
        let ratio = figures.median / limit.max(1e-9);
        let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        println!("{title:<34} {:>10} {:>10} {ratio:>7.2}x  {verdict}", ms(figures.median), ms(figures.least));
    }
}

/// Measures ours, the limit and peers in turns, and prints them.
fn compare(
    name: &str,
    rounds: usize,
    commands: Vec<(String, Command)>,
    budget: &Budget,
) -> Result<(), String> {
    let figures = measure(&commands, rounds)?;
    let limit = figures.get(1).map_or(0.0, |figures| figures.median);
    let names = commands.into_iter().map(|(name, _)| name);
    report(name, &names.zip(figures).collect::<Vec<_>>(), limit, budget);
    Ok(())
}

fn shell(script: &str) -> Command {
    Command::new("sh").args(&["-c", script])
}

/// Twenty steps, all cached; two hundred.
fn cached(bench: &Bench) -> Result<(), String> {
    let (twenty, many) = (bench.inputs.steps(20)?, bench.inputs.steps(200)?);
    for steps in [&twenty, &many] {
        bench.build(steps, &[]).run()?;
    }
    let mut commands = vec![
        ("lapstrake, 20 steps".to_owned(), bench.build(&twenty, &[])),
        ("sh -c true".to_owned(), shell("true")),
        ("lapstrake, 200 steps".to_owned(), bench.build(&many, &[])),
    ];
    for peer in &bench.peers {
        bench.peer(peer, &twenty, &[]).run()?;
        commands.push((format!("{}, 20 steps", peer.name()), bench.peer(peer, &twenty, &[])));
    }
    compare("cached", 20, commands, &Budget::Wall(0.010))
}

/// One more step that does nothing.
fn run_true(bench: &Bench) -> Result<(), String> {
    let (one, more) = (bench.inputs.steps(1)?, bench.inputs.steps(11)?);
    let mut makers: Vec<(String, Command, Command)> = vec![(
        "lapstrake".to_owned(),
        bench.build(&one, &["--no-cache"]),
        bench.build(&more, &["--no-cache"]),
    )];
    for peer in &bench.peers {
        let peers = |context| bench.peer(peer, context, &["--no-cache"]);
        makers.push((peer.name().to_owned(), peers(&one), peers(&more)));
    }
    let limit = measure(&[(String::new(), shell("true"))], 20)?[0];
    let mut figures = Vec::new();
    for (name, one, more) in makers {
        let both = measure(&[(String::new(), one), (String::new(), more)], 5)?;
        let step = |a: f64, b: f64| (b - a) / 10.0;
        let each = Figures {
            median: step(both[0].median, both[1].median),
            least: step(both[0].least, both[1].least),
        };
        figures.push((name, each));
    }
    figures.insert(1, ("sh -c true".to_owned(), limit));
    report("RUN true", &figures, limit.median, &Budget::Wall(0.004));
    Ok(())
}

/// 20 000 files that nobody has seen.
fn copy_cold(bench: &Bench) -> Result<(), String> {
    let context = bench.inputs.files(20_000)?;
    let copy = bench.path("copy").display().to_string();
    let cp =
        shell(&format!("cp -a '{}/src' '{copy}'", context.display())).before(&format!("rm -rf '{copy}'"));
    let mut commands =
        vec![("lapstrake".to_owned(), bench.fresh(bench.build(&context, &[]))), ("cp -a".to_owned(), cp)];
    for peer in &bench.peers {
        commands.push((peer.name().to_owned(), bench.peer(peer, &context, &["--no-cache"])));
    }
    compare("COPY 20 000 files", 5, commands, &Budget::Times(1.3))
}

/// 50 000 files that are all as they were.
fn copy_unchanged(bench: &Bench) -> Result<(), String> {
    let context = bench.inputs.files(50_000)?;
    bench.build(&context, &[]).run()?;
    let mut commands =
        vec![("lapstrake".to_owned(), bench.build(&context, &[])), ("find".to_owned(), find(&context))];
    for peer in &bench.peers {
        bench.peer(peer, &context, &[]).run()?;
        commands.push((peer.name().to_owned(), bench.peer(peer, &context, &[])));
    }
    compare("50 000 files, unchanged", 7, commands, &Budget::Times(1.5))
}

/// 50 000 files, one of them new.
fn copy_one_changed(bench: &Bench) -> Result<(), String> {
    let context = bench.inputs.files(50_000)?;
    bench.build(&context, &[]).run()?;
    let touch = format!("date +%s%N > '{}/src/d0/d7/f3'", context.display());
    // The budget is for the build; an image has to name its layer by the digest of its whole tar besides.
    let only = ["-o", "type=cacheonly"];
    let mut commands = vec![
        ("lapstrake".to_owned(), bench.build(&context, &only).before(&touch)),
        ("lapstrake, unchanged".to_owned(), bench.build(&context, &only)),
        ("lapstrake, and an image".to_owned(), bench.build(&context, &[]).before(&touch)),
    ];
    for peer in &bench.peers {
        commands.push((peer.name().to_owned(), bench.peer(peer, &context, &[]).before(&touch)));
    }
    compare("50 000 files, one changed", 5, commands, &Budget::Times(3.0))
}

/// 20 000 files, one of them new, with the image.
fn copy_one_of_some(bench: &Bench) -> Result<(), String> {
    let context = bench.inputs.files(20_000)?;
    bench.build(&context, &[]).run()?;
    let touch = format!("date +%s%N > '{}/src/d0/d7/f3'", context.display());
    let mut commands = vec![
        ("lapstrake".to_owned(), bench.build(&context, &[]).before(&touch)),
        ("find".to_owned(), find(&context)),
    ];
    for peer in &bench.peers {
        bench.peer(peer, &context, &[]).run()?;
        commands.push((peer.name().to_owned(), bench.peer(peer, &context, &[]).before(&touch)));
    }
    compare("20 000 files, one changed, with the image", 5, commands, &Budget::Wall(0.2))
}

/// 400 000 files, one of them new, with the image.
fn copy_one_of_many(bench: &Bench) -> Result<(), String> {
    let context = bench.inputs.files(400_000)?;
    bench.build(&context, &[]).run()?;
    let changed = |file: &str| format!("date +%s%N > '{}/src/{file}'", context.display());
    let build = |file: &str| bench.build(&context, &[]).before(&changed(file));
    // Names are sorted: `d99` is the last directory, `d189` is near the middle.
    let mut commands = vec![
        ("lapstrake, near the end".to_owned(), build("d99/d1999/f3")),
        ("find".to_owned(), find(&context)),
        ("lapstrake, in the middle".to_owned(), build("d189/d3789/f3")),
        ("lapstrake, at the beginning".to_owned(), build("d0/d7/f3")),
        ("lapstrake, unchanged".to_owned(), bench.build(&context, &[])),
    ];
    for peer in &bench.peers {
        let build = bench.peer(peer, &context, &[]).before(&changed("d99/d1999/f3"));
        commands.push((format!("{}, near the end", peer.name()), build));
    }
    compare("400 000 files, one changed", 3, commands, &Budget::Wall(2.0))?;
    for file in ["d99/d1999/f3", "d189/d3789/f3", "d0/d7/f3"] {
        let megabytes = build(file).memory()?;
        let met = if megabytes <= 250.0 { "met" } else { "NOT MET" };
        println!("memory, one of 400 000 files: lapstrake, {file}   {megabytes:.0} MB   <= 250 MB: {met}");
    }
    Ok(())
}

/// Twice as many files take twice as long at most, and a quarter of a second.
fn copy_many(bench: &Bench) -> Result<(), String> {
    let (half, all) = (bench.inputs.files(50_000)?, bench.inputs.files(100_000)?);
    for context in [&half, &all] {
        bench.build(context, &[]).run()?;
    }
    let commands = vec![
        ("lapstrake".to_owned(), bench.build(&all, &[])),
        ("lapstrake, 50 000".to_owned(), bench.build(&half, &[])),
    ];
    compare("100 000 files, unchanged", 7, commands, &Budget::Wall(0.250))
}

/// What a walk with one stat for each file costs.
fn find(context: &Path) -> Command {
    Command::new("find").args(&[&context.display().to_string(), "-printf", "%p %s %T@ %C@\n"])
}
