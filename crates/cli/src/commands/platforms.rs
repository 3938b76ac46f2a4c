//! `--platform`: for what is built, and what is said to whoever wants more than one thing.

use lapstrake_oci::Platform;

use super::output::Output;
use crate::exit::Usage;

/// The platforms in `text`, without doubles. `local` is this machine's.
pub(super) fn platforms(text: &str, local: &Platform) -> Result<Vec<Platform>, Usage> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let platform = match part {
            _ if part.eq_ignore_ascii_case("local") => local.clone(),
            _ => part.parse::<Platform>().map_err(|error| Usage(format!("--platform: {error}")))?,
        };
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    Ok(all)
}

/// Refuses more than one platform: where BuildKit and buildx refuse them too in their words, else in ours. `index` is the
/// build argument that asks for an index, or asks for none.
pub(super) fn one(platforms: &[Platform], index: Option<&str>, outputs: &[Output]) -> Result<(), Usage> {
    let several = platforms.len() > 1;
    let index = match index.unwrap_or_default() {
        "" => None,
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        other => return Err(Usage(format!("invalid boolean value for multi-platform: {other}"))),
    };
    if several && index == Some(false) {
        let text = "conflicting config: returning multiple target platforms is not allowed";
        return Err(Usage(text.to_owned()));
    }
    if index == Some(true) && !several {
        tell!(
            "BUILDKIT_MULTI_PLATFORM is not heeded yet: one platform is written as a manifest, without an index"
        );
    }
    if !several {
        return Ok(());
    }
    for output in outputs {
        let text = match output {
            Output::Engine { .. } => "docker exporter does not currently support exporting manifest lists",
            Output::Archive { docker: true, .. } | Output::Layout { docker: true, .. } => {
                "docker exporter does not support exporting manifest lists, use the oci exporter instead"
            }
            _ => continue,
        };
        return Err(Usage(text.to_owned()));
    }
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let text = "more than one platform in one build is not there yet: build for one after the other";
    Err(Usage(format!("--platform {}: {text}", names.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::output::ImageOutput;

    fn local() -> Platform {
        Platform::new("linux", "amd64", "")
    }

    #[test]
    fn names_are_read_once() {
        let read = |text: &str| {
            let found = platforms(text, &local()).map_err(|error| error.0)?;
            Ok::<_, String>(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("linux/arm64").as_deref(), Ok("linux/arm64"));
        assert_eq!(read("local,linux/x86_64,linux/arm64/v8").as_deref(), Ok("linux/amd64 linux/arm64"));
        let error = read("linux/amd64,").unwrap_err();
        assert!(error.starts_with("--platform: \"\" is an invalid"), "{error}");
    }

    #[test]
    fn several_are_refused_by_who_cannot_take_them() {
        let image = || ImageOutput::default();
        let archive = |docker| Output::Archive { docker, dest: None, image: image() };
        let two = platforms("linux/amd64,linux/arm64", &local()).unwrap();
        let said = |index, outputs: &[Output]| one(&two, index, outputs).unwrap_err().0;
        let ours = "--platform linux/amd64,linux/arm64: more than one platform in one build is not there yet: \
                    build for one after the other";
        assert_eq!(said(None, &[archive(false)]), ours);
        assert_eq!(said(Some("1"), &[]), ours);
        assert_eq!(
            said(Some("false"), &[]),
            "conflicting config: returning multiple target platforms is not allowed"
        );
        assert_eq!(said(Some("x"), &[]), "invalid boolean value for multi-platform: x");
        assert_eq!(
            said(None, &[archive(true)]),
            "docker exporter does not support exporting manifest lists, use the oci exporter instead"
        );
        assert_eq!(
            said(None, &[Output::Engine { image: image() }]),
            "docker exporter does not currently support exporting manifest lists"
        );
        assert!(one(&[local()], Some("0"), &[archive(true)]).is_ok());
    }
}
