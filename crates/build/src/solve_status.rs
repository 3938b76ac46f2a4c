//! Events as BuildKit's `SolveStatus`, in the JSON form that `buildx --progress=rawjson` writes.

use std::collections::BTreeMap;
use std::time::Duration;

use lapstrake_engine::{Event, StepId, Stream, Warning};
use serde_json::{Value, json};

/// The event in BuildKit's form; `None` for what that form cannot say. `begun` is the time of the build's begin since 1970, and
/// `names` has the steps of the events before.
pub fn solve_status(
    event: &Event,
    begun: Duration,
    names: &mut BTreeMap<StepId, (String, Duration)>,
) -> Option<Value> {
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
