//! Questions about a Dockerfile that build nothing: checks, outlines and lists of targets.

use std::collections::BTreeMap;

use lapstrake_build::{
    CheckDocument, Loaded, OutlineDocument, TargetsDocument, check, from_argument, options, outline,
    subrequests, usable, wanted_rules, written,
};
use lapstrake_diag::Report;
use lapstrake_dockerfile::{Checks, Phase, check_syntax};
use tonic::Status;

use crate::jobs::Job;

/// The version of all answers.
const VERSION: &str = "1.0.0";

/// Answers the question `id`.
///
/// # Errors
/// [`tonic::Code::Unimplemented`] for a question that nobody knows; else what is wrong with the Dockerfile.
pub(crate) async fn answer(job: &Job, id: &str, loaded: Loaded) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    let failed = |report: Report| job.status(&report);
    if id == "frontend.subrequests.describe" {
        return Ok(metadata(format!("{:#}", subrequests()), None));
    }
    if !matches!(id, "frontend.lint" | "frontend.outline" | "frontend.targets") {
        return Err(Status::unimplemented(format!("unsupported request {id}")));
    }
    let (tools, mut resolved, file, parsed) = loaded.into_parts();
    resolved.inputs.platforms.truncate(1);
    Ok(match id {
        "frontend.lint" => {
            let (checks, wrong) = match wanted_rules(&file, &resolved.inputs).map_err(failed)? {
                Ok(options) => {
                    let checks = Checks::new(options);
                    let wrong = check(&tools, &mut resolved, (&file, &parsed), &checks).await;
                    (checks, wrong)
                }
                Err(wrong) => (Checks::default(), Some(wrong)),
            };
            let findings = checks.findings();
            let wrong = wrong.as_ref().map(|wrong| (wrong.message.as_str(), wrong.lines));
            let clean = findings.is_empty() && wrong.is_none();
            metadata(written(&CheckDocument::new(&findings, wrong, &file)), Some(u8::from(!clean)))
        }
        "frontend.outline" => {
            let checks = Checks::new(options(&file, &resolved.inputs).map_err(failed)?);
            check_syntax(&parsed, &checks);
            usable(&parsed, &file).map_err(failed)?;
            let outline = outline(&tools, &mut resolved, (&file, &parsed), &checks).await.map_err(failed)?;
            metadata(written(&OutlineDocument::new(&outline, &file)), None)
        }
        _ => {
            from_argument(&resolved.inputs).map_err(failed)?;
            // A file without stages has no targets, which is no error.
            let empty = parsed.dockerfile.stages.is_empty();
            if !(empty && parsed.faults.iter().all(|fault| fault.phase == Phase::Stage)) {
                usable(&parsed, &file).map_err(failed)?;
            }
            metadata(written(&TargetsDocument::new(&parsed, &file)), None)
        }
    })
}

fn metadata(json: String, status: Option<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    all.insert("result.txt".to_owned(), json.clone().into_bytes());
    all.insert("result.json".to_owned(), json.into_bytes());
    all.insert("version".to_owned(), VERSION.as_bytes().to_vec());
    if let Some(status) = status {
        all.insert("result.statuscode".to_owned(), status.to_string().into_bytes());
    }
    all
}
