//! `lapstrake import`

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use lapstrake_build::{Import, changed_config};
use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_oci::{Platform, Reference};

use crate::args::images;
use crate::env;
use crate::session;

/// Makes an image of a root file system's tar.
pub(crate) fn import(args: &images::Import) -> Outcome<ExitCode> {
    let parsed =
        |name: &String| Reference::new_name(name).map_err(|e| Usage(format!("invalid name `{name}`: {e}")));
    let names: Vec<Reference> = args.name.iter().map(parsed).collect::<Result<_, _>>()?;
    let platform = match &args.platform.clone().or_else(env::default_platform) {
        Some(text) => text.parse().map_err(|error| Usage(format!("--platform {text}: {error}")))?,
        None => Platform::host(),
    };
    let config = changed_config(&platform, &args.change)?;
    let session = session::open()?;
    let tar: Box<dyn Read + Send> = if args.tar.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.tar).with_context(|| format!("cannot open `{}`", args.tar.display()))?)
    };
    let import = Import {
        config,
        names: names.clone(),
        message: args.message.clone(),
        epoch: epoch()?,
        tar: args.tar.display().to_string(),
    };
    let id = import.run(tar, &session)?;
    if args.json {
        say!("{}", serde_json::json!({"ID": id, "Name": names.first().map(Reference::familiar)}));
    } else {
        say!("{id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// `SOURCE_DATE_EPOCH`: two imports of the same tar then give the same image.
fn epoch() -> Result<Option<i64>, Usage> {
    let Some(text) = env::source_date_epoch() else { return Ok(None) };
    let bad = |_| Usage(format!("SOURCE_DATE_EPOCH is not a number of seconds: `{text}`"));
    text.parse().map(Some).map_err(bad)
}
