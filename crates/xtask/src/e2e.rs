//! Real builds with the real binary, as root and as an ordinary user.

mod archives;
mod builds;
mod errors;
mod language;
mod limits;
mod many;
mod place;
mod pty;
mod servers;
mod single;
mod terminal;

use std::path::Path;
use std::process::Command;

use self::builds::Bases;
use self::place::Mode;
use crate::tests::Count;

/// A test by name.
type Case = (&'static str, fn(&Mode) -> Result<(), String>);

/// Runs all cases whose name contains `only` in all modes that are possible here.
pub(crate) fn run(binary: &Path, only: &str, count: &mut Count) -> Result<(), String> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let modes: &[(&'static str, Option<&'static str>)] =
        if is_root { &[("root", None), ("user", Some(place::USER))] } else { &[("user", None)] };
    let cases: Vec<Case> = [
        language::CASES,
        errors::CASES,
        archives::CASES,
        limits::CASES,
        servers::CASES,
        many::CASES,
        single::CASES,
        terminal::CASES,
    ]
    .concat();
    let folders = builds::folders()?;
    let mut bases = None;
    let mut digests = Vec::new();
    for (name, user) in modes {
        let mode = place::prepare(binary, name, *user)?;
        let wanted = |case: &str| format!("{name}::{case}").contains(only);
        for (case, check) in cases.iter().filter(|(case, _)| wanted(case)) {
            report(&format!("{name}::{case}"), check(&mode), count);
        }
        let folders: Vec<&String> =
            folders.iter().filter(|folder| wanted(&format!("builds::{folder}"))).collect();
        if !folders.is_empty() {
            if bases.is_none() {
                bases = Some(Bases::new()?);
            }
            let bases = bases.as_ref().ok_or("there are no bases")?;
            bases.bring(&mode)?;
            for folder in folders {
                report(&format!("{name}::builds::{folder}"), builds::check(&mode, bases, folder), count);
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
