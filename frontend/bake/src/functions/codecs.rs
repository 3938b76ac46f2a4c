//! Encodings and digests.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use uuid::Uuid;

use super::Param::{Nullable, Text};
use super::{Call, Function, row};
use crate::value::{Type, Value};

pub(super) const TABLE: &[Function] = &[
    row("base64decode", &[Text], decode),
    row("base64encode", &[Text], |c| Ok(Value::text(STANDARD.encode(c.text(0))))),
    row("csvdecode", &[Text], csv),
    row("jsondecode", &[Text], json),
    row("jsonencode", &[Nullable], |c| {
        Ok(Value::text(String::from_utf8_lossy(&lapstrake_go::to_json(&c.args[0].to_json())).into_owned()))
    }),
    row("md5", &[Text], |c| Ok(hex(&md5::Md5::digest(c.text(0))))),
    row("sha1", &[Text], |c| Ok(hex(&sha1::Sha1::digest(c.text(0))))),
    row("sha256", &[Text], |c| Ok(hex(&sha2::Sha256::digest(c.text(0))))),
    row("sha512", &[Text], |c| Ok(hex(&sha2::Sha512::digest(c.text(0))))),
    row("urlencode", &[Text], |c| Ok(Value::text(query_escaped(c.text(0))))),
    row("uuidv4", &[], |_| Ok(Value::text(Uuid::new_v4().to_string()))),
    row("uuidv5", &[Text, Text], name_uuid),
];

fn hex(bytes: &[u8]) -> Value {
    Value::text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn decode(call: &Call<'_>) -> Result<Value, String> {
    let bytes =
        STANDARD.decode(call.text(0)).map_err(|error| format!("failed to decode base64 data: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "the decoded data is not UTF-8".to_owned())?;
    Ok(Value::text(text))
}

fn json(call: &Call<'_>) -> Result<Value, String> {
    let json = serde_json::from_str(call.text(0)).map_err(|error| format!("invalid JSON: {error}"))?;
    Value::from_json(&json)
}

fn query_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn name_uuid(call: &Call<'_>) -> Result<Value, String> {
    let space = match call.text(0) {
        "dns" => Uuid::NAMESPACE_DNS,
        "url" => Uuid::NAMESPACE_URL,
        "oid" => Uuid::NAMESPACE_OID,
        "x500" => Uuid::NAMESPACE_X500,
        other => Uuid::parse_str(other)
            .map_err(|error| format!("uuidv5() doesn't support namespace {other:?}: {error}"))?,
    };
    Ok(Value::text(Uuid::new_v5(&space, call.text(1).as_bytes()).to_string()))
}

/// Rows of CSV as objects, whose names are in the first row.
fn csv(call: &Call<'_>) -> Result<Value, String> {
    let mut lines = call.text(0).lines().filter(|line| !line.is_empty());
    let fields = |line: &str| lapstrake_go::csv::fields(line).map_err(|error| error.to_string());
    let names = fields(lines.next().ok_or("missing header line")?)?;
    let mut rows = Vec::new();
    for line in lines {
        let cells = fields(line)?;
        if cells.len() != names.len() {
            return Err(format!("a row has {} fields, and the header {}", cells.len(), names.len()));
        }
        let row: BTreeMap<String, Value> =
            names.iter().cloned().zip(cells.iter().map(|cell| Value::text(cell.as_str()))).collect();
        rows.push(Value::object(row));
    }
    let of = Type::Object(names.into_iter().map(|name| (name, Type::String)).collect());
    Ok(Value::list(of, rows))
}
