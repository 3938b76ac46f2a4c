//! Real builds with the real binary, as root and as an ordinary user.

mod archives;
mod builds;
mod caches;
mod changing;
mod checks;
mod configs;
mod confined;
mod conform;
mod containerd;
mod damage;
mod deep;
mod epoch;
mod errors;
mod evil;
mod exporters;
mod extensions;
mod found;
mod habits;
mod held;
mod hostile;
mod images;
mod inodes;
mod kills;
mod language;
mod limits;
mod logins;
mod lookalikes;
mod many;
mod migration;
mod model;
mod named;
mod networks;
mod others;
mod outfiles;
mod overlays;
mod packed;
mod place;
mod placed;
mod platforms;
mod proxy;
mod pty;
mod push;
mod registry;
mod remote;
mod secure;
mod servers;
mod settings;
mod single;
mod terminal;
mod told;
mod traps;
mod trouble;
mod unfetched;
mod unpacked;
mod upkeep;

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use self::builds::Bases;
use self::place::Mode;
use crate::count::Count;

/// A test by name.
type Case = (&'static str, fn(&Mode) -> Result<(), String>);

/// No test takes longer. What hangs is killed, so that the run ends and names it.
const LONGEST: Duration = Duration::from_secs(600);
/// Unless somebody asked for more rounds of a test that goes on for as long as one likes.
const LONGEST_ASKED: Duration = Duration::from_secs(6 * 3600);

/// Runs all cases whose name contains `only` in all modes that are possible here.
pub(crate) fn run(binary: &Path, only: &str, count: &mut Count) -> Result<(), String> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let modes: &[(&'static str, Option<&'static str>)] = if is_root {
        &[("root", None), ("user", Some(place::USER)), ("single", Some(place::SINGLE))]
    } else {
        &[("user", None)]
    };
    let cases = cases();
    let folders = builds::folders()?;
    let mut bases = None;
    let mut digests = Vec::new();
    for (name, user) in modes {
        let mode = place::prepare(binary, name, *user)?;
        let single = *user == Some(place::SINGLE);
        let wanted = |case: &str| format!("{name}::{case}").contains(only);
        let concerned = |case: &str| {
            (!single || single::concerns(case)) && wanted(case) && networks::concerns(case, user.is_none())
        };
        for (case, check) in cases.iter().filter(|(case, _)| concerned(case)) {
            report(&format!("{name}::{case}"), watched(&mode, || check(&mode)), count);
        }
        let folders: Vec<&String> = folders
            .iter()
            .filter(|folder| wanted(&format!("builds::{folder}")) && (!single || single::builds(folder)))
            .collect();
        if !folders.is_empty() {
            if bases.is_none() {
                bases = Some(Bases::new()?);
            }
            let bases = bases.as_ref().ok_or("there are no bases")?;
            watched(&mode, || bases.bring(&mode, single))?;
            for folder in folders {
                let result = watched(&mode, || builds::check(&mode, bases, folder));
                report(&format!("{name}::builds::{folder}"), result, count);
            }
        }
        digests.push(language::reproducible(&mode)?);
        place::clean(&mode)?;
    }
    if digests.windows(2).all(|pair| pair[0] == pair[1]) {
        count.passed += 1;
    } else {
        count.failed += 1;
        println!("test e2e::same_layers_for_root_and_user ... FAILED\n{digests:?}");
    }
    Ok(())
}

/// All that are no folders.
fn cases() -> Vec<Case> {
    [
        language::CASES,
        configs::CASES,
        errors::CASES,
        checks::CASES,
        extensions::CASES,
        archives::CASES,
        lookalikes::CASES,
        limits::CASES,
        held::CASES,
        hostile::CASES,
        overlays::CASES,
        inodes::CASES,
        networks::CASES,
        servers::CASES,
        push::CASES,
        logins::CASES,
        others::CASES,
        outfiles::CASES,
        packed::CASES,
        images::CASES,
        exporters::CASES,
        platforms::CASES,
        containerd::CASES,
        evil::CASES,
        trouble::CASES,
        unfetched::CASES,
        secure::CASES,
        remote::CASES,
        settings::CASES,
        epoch::CASES,
        told::CASES,
        traps::CASES,
        many::CASES,
        kills::CASES,
        single::CASES,
        terminal::CASES,
        habits::CASES,
        upkeep::CASES,
        migration::CASES,
        caches::CASES,
        damage::CASES,
        deep::CASES,
        model::CASES,
        changing::CASES,
        confined::CASES,
        found::CASES,
        placed::CASES,
        unpacked::CASES,
        named::CASES,
    ]
    .concat()
}

/// What `check` says, unless it takes too long.
fn watched(mode: &Mode, check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let asked = ["LAPSTRAKE_SOAK_ROUNDS", "LAPSTRAKE_KILL_ROUNDS", "LAPSTRAKE_MODEL_ROUNDS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let longest = if asked { LONGEST_ASKED } else { LONGEST };
    let (done, over) = channel::<()>();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut late = false;
            while over.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
                late = true;
                place::kill_all(mode);
            }
            late
        });
        let result = check();
        drop(done);
        match watch.join() {
            Ok(false) => result,
            _ => Err(format!("it took more than {longest:?}, and was killed: {result:?}")),
        }
    })
}

fn report(test: &str, result: Result<(), String>, count: &mut Count) {
    match result {
        Ok(()) => {
            count.passed += 1;
            println!("test e2e::{test} ... ok");
        }
        Err(why) => {
            count.failed += 1;
            println!("test e2e::{test} ... FAILED\n{why}");
        }
    }
}
