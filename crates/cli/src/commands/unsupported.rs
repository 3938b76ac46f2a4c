//! What other builders have and this one has not yet: refused all at once, or left out with a warning.
//!
//! Only what a build can do without is here: caches, attestations and builders. Whatever decides what is built, or who may
//! see a secret, is refused where it is read.

use super::caches;
use super::options;
use crate::args::Build;
use crate::env;
use lapstrake_diag::Usage;

/// The caches that remain once what is not supported has been left out.
pub(super) struct Supported<'a> {
    /// Of `--cache-from`.
    pub(super) cache_from: Vec<&'a String>,
    /// Of `--cache-to`.
    pub(super) cache_to: Vec<&'a String>,
}

/// Leaves out what is not supported if that was asked for.
///
/// # Errors
/// [`Usage`] names all of it where it was not.
pub(super) fn leave_out(args: &Build) -> Result<Supported<'_>, Usage> {
    let mut missing: Vec<String> = Vec::new();
    // The name of the builder that Docker's clients have from the beginning.
    if let Some(builder) = args.builder.as_ref().filter(|name| *name != "default" && !name.is_empty()) {
        missing.push(format!("--builder {builder}: there is one builder, `default`: this process builds"));
    }
    let cache_from = there("--cache-from", &args.cache_from, &mut missing);
    let cache_to = there("--cache-to", &args.cache_to, &mut missing);
    missing.extend(options::attestations(args));
    if args.ignore_unsupported || from_environment()? {
        missing.iter().for_each(|what| tell!("warning: left out: {what}"));
    } else if !missing.is_empty() {
        let way = "`--ignore-unsupported` (or LAPSTRAKE_IGNORE_UNSUPPORTED=1) builds without";
        return Err(Usage(format!("{}\nhint: {way}", missing.join("\nERROR: "))));
    }
    Ok(Supported { cache_from, cache_to })
}

fn from_environment() -> Result<bool, Usage> {
    let Some(text) = env::value(env::IGNORE_UNSUPPORTED).filter(|text| !text.is_empty()) else {
        return Ok(false);
    };
    lapstrake_go::parse_bool(&text)
        .ok_or_else(|| Usage(format!("{}={text}: neither `true` nor `false`", env::IGNORE_UNSUPPORTED)))
}

/// The caches that are not of a kind still to come; of the others, `missing` gets the reason.
fn there<'a>(flag: &str, texts: &'a [String], missing: &mut Vec<String>) -> Vec<&'a String> {
    let mut found = Vec::new();
    for text in texts {
        match caches::not_there_yet(text) {
            Some(why) => missing.push(format!("{flag} {text}: {why}")),
            None => found.push(text),
        }
    }
    found
}
