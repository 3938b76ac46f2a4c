//! One JSON object a line: BuildKit's `SolveStatus`, as `buildx --progress=rawjson` writes it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};

use lapstrake_build::solve_status;
use lapstrake_engine::Event;

use super::held::hold;
use lapstrake_build::Tails;

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>) -> Tails {
    let mut tails = Tails::default();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut names = BTreeMap::new();
    for event in events {
        tails.note(&event);
        if let Some(line) = solve_status(&event, begun, &mut names) {
            let turn = hold();
            writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
            drop(turn);
        }
    }
    tails
}
