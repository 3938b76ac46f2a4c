//! Reports as the errors of gRPC.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapstrake_diag::{Excerpt, Fault, Place, Report, SourceFile};
use lapstrake_engine::Secrets;
use lapstrake_llb::SourceMap;
use lapstrake_oci::Digest;
use lapstrake_proto::google::rpc;
use lapstrake_proto::pb;
use prost::Message as _;
use prost_types::Any;
use serde_json::json;
use tonic::{Code, Status};

use crate::caller::Names;

/// The prefix that clients add themselves.
const PREFIX: &str = "failed to solve: ";
/// The name of the detail that shows a place in a text. Its value is JSON.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
/// The name of the detail with the digest of the step that failed.
const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
/// The name of the detail that says where in a program the error was made.
const STACK: &str = "github.com/moby/buildkit/stack.Stack+json";

/// The most bytes of texts that one build keeps for its errors.
const MOST_TEXT: usize = 16 << 20;

/// The texts of a client that steps were made from. The oldest ones go when there are too many.
#[derive(Default)]
pub(crate) struct Texts {
    maps: VecDeque<Arc<SourceMap>>,
    bytes: usize,
}

impl Texts {
    /// Keeps the texts of one more definition.
    pub(crate) fn add(&mut self, map: Arc<SourceMap>) {
        self.bytes += map.bytes();
        self.maps.push_back(map);
        while self.bytes > MOST_TEXT
            && let Some(oldest) = self.maps.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// The places of a step, as details of an error. The newest definition counts.
    fn details(&self, step: &str) -> Vec<Any> {
        let places = self.maps.iter().rev().map(|map| map.places(step)).find(|places| !places.is_empty());
        // The last place comes first, as from BuildKit: clients wrap the error in one place after the other.
        places.into_iter().flatten().rev().map(|(info, ranges)| place(info, ranges)).collect()
    }
}

/// The status of a report. Its details are the places of the step that failed in the texts of the client, or else the place in
/// the Dockerfile. `names` says where the Dockerfile is.
pub(crate) fn status(report: &Report, names: Option<&Names>, texts: &Texts) -> Status {
    let mut places = report.step().map(|step| texts.details(step)).unwrap_or_default();
    if places.is_empty() {
        places.extend(report.place().and_then(|place| source(place, names)));
    }
    let step = report.step().filter(|step| step.starts_with("sha256:"));
    let step = step.map(|step| detail(VERTEX, &json!({ "digest": step })));
    with_details(report, [origin()].into_iter().chain(step).chain(places).collect())
}

/// `status` with one more detail.
pub(crate) fn with_detail(status: &Status, detail: Any) -> Status {
    let mut whole = to_rpc(status);
    whole.details.push(detail);
    of_rpc(&whole)
}

fn detail(name: &str, value: &serde_json::Value) -> Any {
    Any { type_url: name.to_owned(), value: value.to_string().into_bytes() }
}

/// The program that the error comes from. Clients show it with `--debug`, where those in Go show a stack.
fn origin() -> Any {
    let frame = json!({ "Name": "lapstrake_buildkit::error::status", "File": file!(), "Line": line!() });
    let version = env!("CARGO_PKG_VERSION");
    detail(STACK, &json!({ "frames": [frame], "cmdline": ["lapstrake"], "version": version }))
}

/// `status` without secrets. Texts in base64, which are those of Dockerfiles, have none.
pub(crate) fn hidden(status: &Status, secrets: &Secrets) -> rpc::Status {
    let mut whole = to_rpc(status);
    whole.message = secrets.hide(&whole.message);
    for detail in &mut whole.details {
        match serde_json::from_slice::<serde_json::Value>(&detail.value) {
            Ok(mut value) => {
                secrets.hide_json(&mut value);
                detail.value = value.to_string().into_bytes();
            }
            Err(_) => detail.value = secrets.hide_bytes(&detail.value),
        }
    }
    whole
}

/// A place in a text of a client as a detail of an error.
pub(crate) fn place(info: &pb::SourceInfo, ranges: &[pb::Range]) -> Any {
    let position = |position: Option<&pb::Position>| {
        position.map(|at| json!({ "line": at.line, "character": at.character }))
    };
    let range = |range: &pb::Range| json!({ "start": position(range.start.as_ref()), "end": position(range.end.as_ref()) });
    let definition = info.definition.as_ref().map(|definition| {
        let ops = definition.def.iter().map(|op| BASE64.encode(op));
        json!({ "def": ops.collect::<Vec<_>>() })
    });
    let value = json!({
        "info": {
            "filename": info.filename,
            "data": BASE64.encode(&info.data),
            "definition": definition,
            "language": info.language,
        },
        "ranges": ranges.iter().map(range).collect::<Vec<_>>(),
    });
    Any { type_url: SOURCE.to_owned(), value: value.to_string().into_bytes() }
}

/// An error of another driver as the status for this one.
pub(crate) fn of_rpc(error: &rpc::Status) -> Status {
    let code = match Code::from_i32(error.code) {
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::with_details(code, error.message.clone(), error.encode_to_vec().into())
}

/// The whole of a status.
pub(crate) fn to_rpc(status: &Status) -> rpc::Status {
    let whole = rpc::Status::decode(status.details()).ok().filter(|_| !status.details().is_empty());
    let details = whole.map(|whole| whole.details).unwrap_or_default();
    rpc::Status { code: status.code().into(), message: status.message().to_owned(), details }
}

/// `status` with a word about what failed in front of its text.
pub(crate) fn prefixed(status: &Status, what: &str) -> Status {
    let whole = to_rpc(status);
    of_rpc(&rpc::Status { message: format!("{what}: {}", whole.message), ..whole })
}

/// Whether `status` has a place in a text.
pub(crate) fn has_source(status: &Status) -> bool {
    to_rpc(status).details.iter().any(|detail| detail.type_url == SOURCE)
}

/// `status` with a line of a Dockerfile for its place. `names` says where the Dockerfile is.
pub(crate) fn at_line(status: &Status, file: &Arc<SourceFile>, line: u32, names: Option<&Names>) -> Status {
    let report = Report::new("").at(file, Excerpt::Lines(line, line));
    let mut whole = to_rpc(status);
    whole.details.extend(report.place().and_then(|place| source(place, names)));
    of_rpc(&whole)
}

fn with_details(report: &Report, details: Vec<Any>) -> Status {
    let text = report.to_string();
    let text = text.strip_prefix(PREFIX).unwrap_or(&text).to_owned();
    let code = match report.fault() {
        Fault::Canceled(_) => Code::Cancelled,
        Fault::Usage => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    let whole = rpc::Status { code: code.into(), message: text.clone(), details };
    Status::with_details(code, text, whole.encode_to_vec().into())
}

/// The lines of a text that a report shows.
fn source(place: &Place, names: Option<&Names>) -> Option<Any> {
    let (first, last) = match &place.excerpt {
        Excerpt::Lines(first, last) => (*first, *last),
        Excerpt::Findings(_) => place.start().map(|(_, line)| (line, line))?,
    };
    let position = |line: u32| json!({ "line": line });
    let ranges = (first..=last).map(|line| json!({ "start": position(line), "end": position(line) }));
    let value = json!({
        "info": {
            "filename": place.file.name(),
            "data": BASE64.encode(place.file.text()),
            "definition": definition(names),
            "language": "Dockerfile",
        },
        "ranges": ranges.collect::<Vec<_>>(),
    });
    Some(Any { type_url: SOURCE.to_owned(), value: value.to_string().into_bytes() })
}

/// The definition of the directory that has the Dockerfile, as the JSON of Go's encoder. Nothing of a Dockerfile that is not in
/// a directory of the client.
fn definition(names: Option<&Names>) -> serde_json::Value {
    let Some(Names { dockerfile, file, .. }) = names else { return serde_json::Value::Null };
    let follow = json!([file, format!("{file}.dockerignore")]).to_string();
    let source = pb::SourceOp {
        identifier: format!("local://{dockerfile}"),
        attrs: [
            ("local.followpaths".to_owned(), follow),
            ("local.sharedkeyhint".to_owned(), dockerfile.clone()),
        ]
        .into(),
    };
    let op = pb::Op { op: Some(pb::op::Op::Source(source)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::sha256(&op).to_string(), index: 0 };
    let last = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    json!({ "def": [BASE64.encode(op), BASE64.encode(last)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_details() {
        let file = Arc::new(SourceFile::new("Dockerfile", "FROM a\nRUN b\n".to_owned()));
        let report = Report::new("failed to solve: no").at(&file, Excerpt::Lines(2, 2));
        let names = Names {
            dockerfile: "dockerfile".to_owned(),
            file: "Dockerfile".to_owned(),
            sessions: std::collections::BTreeMap::new(),
        };
        let status = status(&report, Some(&names), &Texts::default());
        assert_eq!((status.code(), status.message()), (Code::Unknown, "no"));
        let whole = rpc::Status::decode(status.details()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&whole.details[1].value).unwrap();
        assert_eq!(value["ranges"][0]["start"]["line"], 2);
        assert_eq!(value["info"]["definition"]["def"].as_array().map(Vec::len), Some(2));
        assert_eq!(value["info"]["data"], BASE64.encode("FROM a\nRUN b\n"));
    }

    #[test]
    fn cancelled_is_no_failure() {
        assert_eq!(status(&Report::canceled(2), None, &Texts::default()).code(), Code::Cancelled);
    }
}
