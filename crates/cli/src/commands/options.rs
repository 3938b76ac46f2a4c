//! Option values that need the environment or files: text to data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lapstrake_diag::{Context as _, Outcome, Usage};
use lapstrake_ops::Secret;
use lapstrake_request::argument_lines;

use crate::env;

/// `KEY=VALUE` pairs; without a value, the environment's, and nothing if that has none.
pub(crate) fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .filter_map(|text| match text.split_once('=') {
            Some((key, value)) => Some((key.to_owned(), value.to_owned())),
            None => Some((text.clone(), env::value(text)?)),
        })
        .collect()
}

/// `--build-arg` and `--build-arg-file`.
pub(crate) fn build_args(args: &[String], files: &[PathBuf]) -> Result<BTreeMap<String, String>, Usage> {
    variables("--build-arg-file", files, args)
}

/// Variables of files that `flag` names, and of the command line. A later file wins over an earlier one, and the command
/// line over all files.
pub(crate) fn variables(
    flag: &str,
    files: &[PathBuf],
    args: &[String],
) -> Result<BTreeMap<String, String>, Usage> {
    let mut all = BTreeMap::new();
    for file in files {
        let bad = |why: String| Usage(format!("{flag} {}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
        let lines = argument_lines(&text).map_err(|line| bad(format!("line {line} has no name")))?;
        all.extend(pairs(&lines));
    }
    all.extend(pairs(args));
    Ok(all)
}

/// `a=b,c=d`, in order.
fn fields(text: &str) -> Vec<(&str, &str)> {
    text.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect()
}

/// The place of a secret's value.
pub(crate) enum SecretSource {
    /// A file, which is read whenever a step needs the secret.
    File(PathBuf),
    /// The value of a variable of the environment.
    Value(Secret),
}

impl SecretSource {
    /// The value.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> Outcome<Secret> {
        match self {
            SecretSource::Value(value) => Ok(value.clone()),
            SecretSource::File(path) => {
                let value = std::fs::read(path);
                Ok(value.with_context(|| format!("cannot read the secret `{}`", path.display()))?.into())
            }
        }
    }
}

/// `--secret`
pub(crate) fn secret(text: &String) -> Result<(String, SecretSource), Usage> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for (key, value) in fields(text) {
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" => {}
            _ => return Err(Usage(format!("--secret {text}: unknown key `{key}`"))),
        }
    }
    let id = id.ok_or_else(|| Usage(format!("--secret {text}: no id")))?;
    let from_env = |name: &str| env::value(name).map(|value| SecretSource::Value(value.into_bytes().into()));
    let secret = match (file, variable) {
        (Some(file), _) => readable(file, text)?,
        (None, Some(name)) => {
            from_env(&name).ok_or_else(|| Usage(format!("--secret {text}: no variable `{name}`")))?
        }
        (None, None) => match from_env(&id) {
            Some(value) => value,
            None => readable(PathBuf::from(&id), text)?,
        },
    };
    Ok((id, secret))
}

fn readable(file: PathBuf, text: &str) -> Result<SecretSource, Usage> {
    match std::fs::File::open(&file) {
        Ok(_) => Ok(SecretSource::File(file)),
        Err(error) => Err(Usage(format!("--secret {text}: cannot read `{}`: {error}", file.display()))),
    }
}

/// `--ssh`
pub(crate) fn ssh(text: &String) -> Result<(String, PathBuf), Usage> {
    let (id, socket) = text.split_once('=').unwrap_or((text, ""));
    if !socket.is_empty() {
        return Ok((id.to_owned(), PathBuf::from(socket)));
    }
    match env::value("SSH_AUTH_SOCK") {
        Some(socket) => Ok((id.to_owned(), PathBuf::from(socket))),
        None => Err(Usage(format!("--ssh {text}: no agent is running (SSH_AUTH_SOCK is not set)"))),
    }
}
