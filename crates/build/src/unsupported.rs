//! Features of other builders that are not supported yet: refused all at once, or ignored with a warning.
//!
//! Only what a build can do without is here: caches, attestations and builders. Whatever decides what is built, or who may
//! see a secret, is refused where it is read.

use lapstrake_diag::Usage;
use lapstrake_request::BuildRequest;

use crate::attrs;
use crate::cache as caches;

/// The caches that remain once what is not supported has been left out.
pub(crate) struct Supported<'a> {
    /// Of `--cache-from`.
    pub cache_from: Vec<&'a String>,
    /// Of `--cache-to`.
    pub cache_to: Vec<&'a String>,
}

/// Leaves out what is not supported if that was asked for.
///
/// # Errors
/// [`Usage`] names all of it where it was not.
pub(crate) fn leave_out<'r>(
    request: &'r BuildRequest,
    warnings: &mut Vec<String>,
) -> Result<Supported<'r>, Usage> {
    let mut missing: Vec<String> = Vec::new();
    // The name of the builder that Docker's clients have from the beginning.
    if let Some(builder) = request.builder.as_ref().filter(|name| *name != "default" && !name.is_empty()) {
        missing.push(format!("--builder {builder}: there is one builder, `default`: this process builds"));
    }
    let cache_from = there("--cache-from", &request.cache.from, &mut missing);
    let cache_to = there("--cache-to", &request.cache.to, &mut missing);
    missing.extend(attrs::attestations(&request.attestations));
    if request.ignore_unsupported {
        warnings.extend(missing.iter().map(|what| format!("warning: ignored: {what}")));
    } else if !missing.is_empty() {
        let way = "`--ignore-unsupported` (or LAPSTRAKE_IGNORE_UNSUPPORTED=1) builds without";
        return Err(Usage(format!("{}\nhint: {way}", missing.join("\nERROR: "))));
    }
    Ok(Supported { cache_from, cache_to })
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
