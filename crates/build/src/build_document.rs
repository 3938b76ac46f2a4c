//! Builds that are over, as JSON documents for programs.

use std::collections::BTreeMap;

use lapstrake_engine::{Event, ResourceUsage};
use lapstrake_ops::StackReport;
use serde_json::json;

use crate::format::time;
use crate::history::BuildRecord;
use crate::journal::Journal;

/// The build as lists have it.
pub fn build_summary(record: &BuildRecord) -> serde_json::Value {
    let (cached, all) = record.cached();
    json!({
        "ID": record.id,
        "Name": record.title(),
        "Status": record.status.name(),
        "CreatedAt": time(record.started),
        "DurationMs": record.took,
        "Context": record.subject.context,
        "Dockerfile": record.subject.dockerfile,
        "Target": record.subject.target,
        "Image": record.image,
        "Error": record.error,
        "Steps": all,
        "CachedSteps": cached,
    })
}

/// The build with all of its steps; `used` is what [`used_by_step`] gives.
///
/// # Errors
/// A step cannot be written as JSON.
pub fn build_document(
    record: &BuildRecord,
    used: &BTreeMap<String, ResourceUsage>,
) -> serde_json::Result<serde_json::Value> {
    let mut shown = build_summary(record);
    shown["StepList"] = record.steps.iter().map(|step| step_json(step, used)).collect::<Result<_, _>>()?;
    if let Some(report) = &record.report {
        shown["Report"] = report.clone();
    }
    Ok(shown)
}

/// The resources that the processes of each step used, by the step's digest.
pub fn used_by_step(journal: &Journal) -> BTreeMap<String, ResourceUsage> {
    let told = journal.events().iter().filter_map(|event| match event {
        Event::ResourceUsage { step, used, .. } => Some((step.0.clone(), *used)),
        _ => None,
    });
    told.collect()
}

/// A step as JSON: what is remembered of it, and what its processes used.
fn step_json(
    step: &StackReport,
    used: &BTreeMap<String, ResourceUsage>,
) -> serde_json::Result<serde_json::Value> {
    let mut shown = serde_json::to_value(step)?;
    if let Some(used) = used.get(&step.digest) {
        shown["used"] = json!({
            "user_ms": used.user.as_millis(),
            "system_ms": used.system.as_millis(),
            "peak_memory": used.peak_memory,
            "read": used.read,
            "written": used.written,
        });
    }
    Ok(shown)
}
