//! `lapstrake doctor`: what of the machine is there, what is missing, and what would help.

use std::process::ExitCode;

use lapstrake_build::doctor::{Contents, Finding, State, Surroundings, examine};
use lapstrake_diag::Outcome;
use lapstrake_go::TabWriter;

use crate::args::Doctor;
use crate::{env, session};

/// Runs the verb `doctor`.
pub(crate) fn doctor(args: &Doctor) -> Outcome<ExitCode> {
    let surroundings = Surroundings {
        state_root: env::state_root(rustix::process::geteuid().is_root()),
        ids: session::asked_ids().unwrap_or_default(),
        copies_as: (env::mounts().as_deref() == Some("copy")).then(|| session::BY_WISH.to_owned()),
        git: env::on_path("git"),
    };
    let reading = match (args.state, args.repair) {
        (_, true) => Contents::Repaired,
        (true, false) => Contents::Read,
        (false, false) => Contents::Unread,
    };
    let findings = examine(&surroundings, reading);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        let mut rows = Vec::new();
        for Finding { name, state, detail, hint } in &findings {
            let word = match state {
                State::Ok => "ok",
                State::Limited => "limited",
                State::Missing => "MISSING",
            };
            rows.push([word.to_owned(), (*name).to_owned(), detail.clone()]);
            rows.extend(hint.iter().map(|hint| [String::new(), String::new(), format!("hint: {hint}")]));
        }
        say!("{}", TabWriter::columns(&[9, 19], 1).rows(&rows).trim_end_matches('\n'));
    }
    let bad = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if bad { ExitCode::from(3) } else { ExitCode::SUCCESS })
}
