//! The files of a service's `env_file`: variables for build arguments without a value.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::dotenv;

/// The largest file of variables, in bytes.
const LARGEST: u64 = 1 << 20;

/// An entry of `env_file`.
struct EnvFile<'j> {
    path: &'j str,
    /// Whether the file must exist.
    required: bool,
}

impl<'j> EnvFile<'j> {
    fn of(entry: &'j Json) -> Result<EnvFile<'j>, String> {
        match entry {
            Json::String(path) => Ok(EnvFile { path, required: true }),
            Json::Object(fields) => {
                if let Some(format) = fields.get("format") {
                    return Err(format!(
                        "env_file: `format: {format}` is not supported: write the file in the form of `.env`, and remove `format`"
                    ));
                }
                let path = fields.get("path").and_then(Json::as_str).ok_or("env_file: a path is required")?;
                Ok(EnvFile { path, required: fields.get("required") != Some(&Json::Bool(false)) })
            }
            _ => Err("env_file: a path or a mapping is required".to_owned()),
        }
    }

    /// The text of the file below `directory`, if the file exists.
    fn text(&self, directory: &Path) -> Result<Option<String>, String> {
        let fail = |why: &dyn std::fmt::Display| format!("env_file {}: {why}", self.path);
        let found = directory.join(self.path).canonicalize();
        let file = match found {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.required => return Ok(None),
            Err(error) => return Err(fail(&error)),
        };
        let directory = directory.canonicalize().map_err(|error| fail(&error))?;
        if !file.starts_with(&directory) {
            return Err(fail(
                &"the file is outside of the current directory: copy the file, or give its values as `args`",
            ));
        }
        if !file.is_file() {
            return Err(fail(&"not a file"));
        }
        let mut text = String::new();
        let open = File::open(&file).map_err(|error| fail(&error))?;
        open.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| fail(&error))?;
        if text.len() as u64 > LARGEST {
            return Err(fail(&"larger than 1 MiB"));
        }
        Ok(Some(text))
    }
}

/// The variables of all files of `service`; a later file wins. Relative paths start at `directory`.
///
/// # Errors
/// A required file is missing, a file lies outside of `directory`, or a file is wrong.
pub(super) fn variables(
    service: &Map<String, Json>,
    directory: &Path,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let entries = match service.get("env_file") {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(Json::Array(entries)) => entries.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
    };
    let mut all = BTreeMap::new();
    for entry in entries {
        let file = EnvFile::of(entry)?;
        if let Some(text) = file.text(directory)? {
            all.extend(dotenv::parse(&text, outer).map_err(|why| format!("env_file {}: {why}", file.path))?);
        }
    }
    Ok(all)
}
