//! Reports as the errors of gRPC.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_diag::{Excerpt, Fault, Place, Report};
use lapstrake_proto::google::rpc;
use prost::Message as _;
use prost_types::Any;
use serde_json::json;
use tonic::{Code, Status};

/// The prefix that clients add themselves.
const PREFIX: &str = "failed to solve: ";
/// The name of the detail that shows a place in a text. Its value is JSON.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// The status of a report, with the place in the Dockerfile as a detail.
pub(crate) fn status(report: &Report) -> Status {
    let text = report.to_string();
    let text = text.strip_prefix(PREFIX).unwrap_or(&text).to_owned();
    let code = match report.fault() {
        Fault::Canceled(_) => Code::Cancelled,
        Fault::Usage => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    let Some(detail) = report.place().and_then(source) else { return Status::new(code, text) };
    let whole = rpc::Status { code: code.into(), message: text.clone(), details: vec![detail] };
    Status::with_details(code, text, whole.encode_to_vec().into())
}

/// The lines of a text that a report shows.
fn source(place: &Place) -> Option<Any> {
    let (first, last) = match &place.excerpt {
        Excerpt::Lines(first, last) => (*first, *last),
        Excerpt::Findings(_) => place.start().map(|(_, line)| (line, line))?,
    };
    let position = |line: u32| json!({ "line": line });
    let value = json!({
        "info": { "filename": place.file.name(), "data": BASE64.encode(place.file.text()), "language": "Dockerfile" },
        "ranges": [{ "start": position(first), "end": position(last) }],
    });
    Some(Any { type_url: SOURCE.to_owned(), value: value.to_string().into_bytes() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapstrake_diag::SourceFile;

    use super::*;

    #[test]
    fn places_are_details() {
        let file = Arc::new(SourceFile::new("Dockerfile", "FROM a\nRUN b\n".to_owned()));
        let report = Report::new("failed to solve: no").at(&file, Excerpt::Lines(2, 2));
        let status = status(&report);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "no"));
        let whole = rpc::Status::decode(status.details()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&whole.details[0].value).unwrap();
        assert_eq!(value["ranges"][0]["start"]["line"], 2);
        assert_eq!(value["info"]["data"], BASE64.encode("FROM a\nRUN b\n"));
    }

    #[test]
    fn cancelled_is_no_failure() {
        assert_eq!(status(&Report::canceled(2)).code(), Code::Cancelled);
    }
}
