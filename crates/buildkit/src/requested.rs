//! Platforms that a client asked for, beside those of the results that a frontend gives back.

use lapstrake_oci::Platform;

use crate::jobs::Job;

/// Why the platforms of the results are not those that the client of `job` asked for; nothing where they are the same.
/// `is_index` says whether the results have names.
pub(crate) fn mismatch<'p>(
    job: &Job,
    is_index: bool,
    results: impl Iterator<Item = &'p Platform>,
) -> Option<String> {
    let attr = |key: &str| job.request.frontend_attrs.get(key).map_or("", String::as_str);
    // A subrequest has no images.
    if !attr("requestid").is_empty() {
        return None;
    }
    let asked = attr("platform");
    differing(asked, is_index, &results.map(ToString::to_string).collect::<Vec<_>>())
}

fn differing(asked: &str, is_index: bool, results: &[String]) -> Option<String> {
    let mut wanted = Vec::new();
    for text in asked.split(',').filter(|text| !text.is_empty()) {
        let platform = match text.parse::<Platform>() {
            Ok(platform) => platform.to_string(),
            Err(error) => return Some(format!("Invalid platform result requested {text:?}: {error}")),
        };
        if wanted.contains(&platform) {
            return Some(format!("Duplicate platform result requested {text:?}"));
        }
        wanted.push(platform);
    }
    let host = Platform::host().to_string();
    if wanted.is_empty() {
        wanted.push(host.clone());
    }
    let results = if results.is_empty() { std::slice::from_ref(&host) } else { results };
    if let ([wanted], [result]) = (&*wanted, results) {
        return (wanted != result)
            .then(|| format!("Requested platform {wanted:?} does not match result platform {result:?}"));
    }
    if !is_index && wanted.len() > 1 {
        return Some("Multiple platforms requested but result is not multi-platform".to_owned());
    }
    let same = wanted.len() == results.len() && results.iter().all(|result| wanted.contains(result));
    (!same).then(|| {
        let (wanted, results) = (wanted.join(","), results.join(","));
        format!("Requested platforms {wanted} do not match result platforms {results}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_compared() {
        let both = ["linux/amd64".to_owned(), "linux/arm64".to_owned()];
        let host = [Platform::host().to_string()];
        let other = ["plan9/mips".to_owned()];
        assert_eq!(differing("", false, &host), None);
        assert_eq!(differing("", false, &[]), None);
        assert_eq!(differing("linux/arm64,linux/amd64", true, &both), None);
        for (asked, is_index, results, text) in [
            ("linux/amd64,linux/arm64", false, &host[..], "Multiple platforms requested but result is not"),
            ("", true, &both[..], "do not match result platforms linux/amd64,linux/arm64"),
            (
                "linux/amd64",
                false,
                &other[..],
                "\"linux/amd64\" does not match result platform \"plan9/mips\"",
            ),
            ("linux/amd64,linux/amd64", true, &both[..], "Duplicate platform"),
            ("a/b/c/d/e", true, &both[..], "Invalid platform"),
        ] {
            let found = differing(asked, is_index, results).unwrap();
            assert!(found.contains(text), "{found}");
        }
    }
}
