//! One JSON object a line: BuildKit's `SolveStatus`, as `buildx --progress=rawjson` writes it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapstrake_engine::{Event, StepId, Stream, Warning};
use serde_json::{Value, json};

use super::held::hold;
use super::tail::Tails;

/// Shows events until there are no more.
pub(super) fn show(events: &Receiver<Event>) -> Tails {
    let mut tails = Tails::default();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut names = BTreeMap::new();
    for event in events {
        tails.note(&event);
        if let Some(line) = status(&event, begun, &mut names) {
            let turn = hold();
            writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
            drop(turn);
        }
    }
    tails
}

/// Nothing for what BuildKit's form cannot say.
fn status(event: &Event, begun: Duration, names: &mut BTreeMap<StepId, (String, Duration)>) -> Option<Value> {
    let time = |at: Duration| {
        let at = begun + at;
        lapstrake_oci::rfc3339(i64::try_from(at.as_secs()).unwrap_or(i64::MAX), at.subsec_nanos())
    };
    Some(match event {
        Event::Started { step, name, at } => {
            names.insert(step.clone(), (name.clone(), *at));
            json!({"vertexes": [{"digest": step.0, "name": name, "started": time(*at)}]})
        }
        Event::Completed { step, at, cached, error } => {
            let (name, started) = names.get(step).cloned().unwrap_or_default();
            let mut vertex =
                json!({"digest": step.0, "name": name, "started": time(started), "completed": time(*at)});
            if *cached {
                vertex["cached"] = true.into();
            }
            if let Some(error) = error {
                vertex["error"] = error.as_str().into();
            }
            json!({"vertexes": [vertex]})
        }
        Event::Status { step, id, current, total, done, at } => {
            let mut status = json!({"id": id, "vertex": step.0, "current": current, "timestamp": time(*at)});
            if *total > 0 {
                status["total"] = (*total).into();
            }
            if *done {
                status["completed"] = time(*at).into();
            }
            json!({"statuses": [status]})
        }
        Event::Log { step, stream, data, at } => {
            let number = if *stream == Stream::Stdout { 1 } else { 2 };
            json!({"logs": [{"vertex": step.0, "stream": number, "data": base64(data), "timestamp": time(*at)}]})
        }
        Event::Warning(warning) => json!({"warnings": [described(warning)]}),
        Event::ResourceUsage { .. } => return None,
    })
}

/// BuildKit has texts in base64 and a range for each line.
fn described(warning: &Warning) -> Value {
    let range = |line: u32| json!({"start": {"line": line}, "end": {"line": line}});
    let mut value = json!({
        "level": 1,
        "short": base64(warning.short.as_bytes()),
        "detail": [base64(warning.detail.as_bytes())],
        "sourceInfo": {"filename": warning.file, "language": "Dockerfile"},
        "range": (warning.lines.0..=warning.lines.1).map(range).collect::<Vec<_>>(),
    });
    if let Some(url) = &warning.url {
        value["url"] = url.as_str().into();
    }
    value
}

fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}
