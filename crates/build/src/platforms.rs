//! `--platform`: for what is built, and whether that is one image or an index of several.

use lapstrake_diag::Usage;
use lapstrake_oci::Platform;
use lapstrake_outputs::IndexNotes;

use crate::output::Output;

/// The platforms in `text`, without doubles. `local` is this machine's.
pub(crate) fn platforms(text: &str, local: &Platform) -> Result<Vec<Platform>, Usage> {
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

/// Whether the result is an index: where there is more than one platform, and where the build argument in `asked` says so.
/// Refuses what such a result cannot do, in the words of BuildKit and buildx.
pub(crate) fn as_index(
    platforms: &[Platform],
    asked: Option<&str>,
    outputs: &[Output],
) -> Result<bool, Usage> {
    let several = platforms.len() > 1;
    let index = match asked.unwrap_or_default() {
        "" => several,
        text => lapstrake_go::parse_bool(text)
            .ok_or_else(|| Usage(format!("invalid boolean value for multi-platform: {text}")))?,
    };
    if several && !index {
        let text = "conflicting config: returning multiple target platforms is not allowed";
        return Err(Usage(text.to_owned()));
    }
    check_outputs(index, outputs)?;
    Ok(index)
}

/// Refuses outputs that cannot take an index, or only an index.
pub(crate) fn check_outputs(index: bool, outputs: &[Output]) -> Result<(), Usage> {
    for output in outputs {
        let text = match output {
            Output::Archive { docker: true, .. } | Output::Layout { docker: true, .. } if index => {
                "docker exporter does not support exporting manifest lists, use the oci exporter instead"
            }
            Output::Image { image, .. }
            | Output::Archive { image, .. }
            | Output::Layout { image, .. }
            | Output::Engine { image }
                if !index && image.index != IndexNotes::default() =>
            {
                "index annotations not supported for single platform export"
            }
            _ => continue,
        };
        return Err(Usage(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::ImageOutput;

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
        let said = |asked, outputs: &[Output]| as_index(&two, asked, outputs).map_err(|error| error.0);
        assert_eq!(said(None, &[archive(false)]), Ok(true));
        assert_eq!(said(Some("1"), &[]), Ok(true));
        let refused = |text: &str| Err(text.to_owned());
        let one = "conflicting config: returning multiple target platforms is not allowed";
        assert_eq!(said(Some("false"), &[]), refused(one));
        assert_eq!(said(Some("x"), &[]), refused("invalid boolean value for multi-platform: x"));
        let docker =
            "docker exporter does not support exporting manifest lists, use the oci exporter instead";
        assert_eq!(said(None, &[archive(true)]), refused(docker));
        assert_eq!(said(None, &[Output::Engine { image: image() }]), Ok(true));
        let alone = |asked, outputs: &[Output]| as_index(&[local()], asked, outputs).map_err(|error| error.0);
        assert_eq!(alone(Some("0"), &[archive(true)]), Ok(false));
        assert_eq!(alone(Some("1"), &[archive(false)]), Ok(true));
        assert_eq!(alone(Some("1"), &[archive(true)]), refused(docker));
        let index =
            IndexNotes { annotations: [("k".to_owned(), "v".to_owned())].into(), ..IndexNotes::default() };
        let said_of_index = Output::Image { image: ImageOutput { index, ..image() }, push: None };
        let none = "index annotations not supported for single platform export";
        assert_eq!(alone(None, std::slice::from_ref(&said_of_index)), refused(none));
        assert_eq!(said(None, &[said_of_index]), Ok(true));
    }
}
