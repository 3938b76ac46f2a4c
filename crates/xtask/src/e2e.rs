//! Real builds with the real binary, as root and as an ordinary user.

mod archives;
mod errors;
mod language;
mod limits;
mod many;
mod place;
mod servers;
mod single;

use std::path::Path;
use std::process::Command;

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
    ]
    .concat();
    let mut digests = Vec::new();
    for (name, user) in modes {
        let mode = place::prepare(binary, name, *user)?;
        for (case, check) in cases.iter().filter(|(case, _)| format!("{name}::{case}").contains(only)) {
            match check(&mode) {
                Ok(()) => {
                    count.passed += 1;
                    println!("test e2e::{name}::{case} ... ok");
                }
                Err(why) => {
                    count.failed += 1;
                    println!("test e2e::{name}::{case} ... FAILED\n{why}");
                }
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
