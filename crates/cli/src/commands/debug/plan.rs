//! `lapstrake debug plan`: what a build would do, with one made-up image for all that it would have to ask for.

use std::process::ExitCode;
use std::sync::Arc;

use lapstrake_build::{attrs, plan_document};
use lapstrake_diag::{Outcome, Usage};
use lapstrake_dockerfile::parse_as;
use lapstrake_lower::BuildInputs;
use lapstrake_oci::Platform;

use super::{read, with_includes};
use crate::args::debug::DebugPlan;
use crate::commands::options;

/// Prints the plan.
pub(super) fn plan(args: &DebugPlan) -> Outcome<ExitCode> {
    if !args.fake_images {
        let why =
            "`debug plan` asks no registry: say `--fake-images`, and all images are the same made-up one";
        return Err(Usage(why.to_owned()).into());
    }
    let mut inputs = BuildInputs::new();
    inputs.target.clone_from(&args.target);
    inputs.build_args = options::pairs(&args.build_arg);
    inputs.labels = options::pairs(&args.label);
    if let Some(platform) = &args.platform {
        let platform = platform.parse::<Platform>();
        inputs.platforms = vec![platform.map_err(|e| Usage(format!("--platform: {e}")))?];
    }
    let file = read(&args.file)?;
    let dialect = attrs::dialect(&file, args.syntax.as_deref(), &inputs.build_args);
    let file = Arc::new(with_includes(file, dialect, &args.file)?);
    let parsed = parse_as(&file, dialect);
    say!("{}", plan_document(&file, &parsed, &inputs));
    Ok(ExitCode::SUCCESS)
}
