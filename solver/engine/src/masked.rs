//! What is stored of a key's parts: values of variables whose names tell of secrets are left out.
//!
//! A short mark of the value stays, so that a later build can say that the variable changed. It is too short to find the
//! value by trying.

use serde_json::Value;

/// Words that names of secrets have in them, whole, between underscores: BuildKit's, for its check of `ARG` and `ENV`.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that names have which are about secrets and are none.
const HARMLESS: [&str; 3] = ["public", "file", "version"];
/// Digits of the mark.
const MARK: usize = 3;

/// Shorter values are in too many words to be looked for.
const SHORTEST: usize = 4;

/// Shorter lines of longer values are left as they are.
const SHORTEST_LINE: usize = 8;

/// Values that are not to be stored, wherever they are: in names of steps, parts of keys, and output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The longest first: one may be a part of another.
    values: Vec<String>,
}

impl Secrets {
    /// The values of those variables whose names tell of secrets.
    pub fn among<'v>(variables: impl Iterator<Item = (&'v str, &'v str)>) -> Secrets {
        let secret = variables.filter(|(name, value)| is_secret(name) && value.len() >= SHORTEST);
        // Output comes line by line.
        let values = secret.flat_map(|(_, value)| {
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
            std::iter::once(value).chain(lines).map(str::to_owned)
        });
        Secrets::default().and(&Secrets { values: values.collect() })
    }

    /// These and `more`.
    pub fn and(mut self, more: &Secrets) -> Secrets {
        self.values.extend(more.values.iter().cloned());
        self.values.sort_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
        self.values.dedup();
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, value| match text.contains(value) {
            true => text.replace(value, &hidden(value)),
            false => text,
        })
    }

    /// The bytes without them.
    pub fn hide_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.values
            .iter()
            .fold(bytes.to_vec(), |bytes, value| replaced(&bytes, value.as_bytes(), &hidden(value)))
    }

    /// Takes them out of all strings of a JSON value.
    pub fn hide_json(&self, value: &mut Value) {
        each_string(value, &mut |text| *text = self.hide(text));
    }
}

/// What stands for a value.
fn hidden(value: &str) -> String {
    format!("(hidden, {})", &blake3::hash(value.as_bytes()).to_hex()[..MARK])
}

fn replaced(bytes: &[u8], value: &[u8], with: &str) -> Vec<u8> {
    let mut done = Vec::with_capacity(bytes.len());
    let mut left = bytes;
    while let Some(first) = left.first() {
        if left.starts_with(value) {
            done.extend(with.as_bytes());
            left = &left[value.len()..];
        } else {
            done.push(*first);
            left = &left[1..];
        }
    }
    done
}

/// The parts of a key as they are stored.
pub(crate) fn masked(parts: &[(String, String)], secrets: &Secrets) -> Vec<(String, String)> {
    parts.iter().map(|(label, value)| (secrets.hide(label), masked_text(value, secrets))).collect()
}

/// An op as JSON, without the values of secrets; any other text stays.
pub(crate) fn masked_text(text: &str, secrets: &Secrets) -> String {
    let Ok(mut op) = serde_json::from_str::<Value>(text) else { return secrets.hide(text) };
    let before = op.clone();
    each_string(&mut op, &mut mask);
    secrets.hide_json(&mut op);
    if op == before { text.to_owned() } else { op.to_string() }
}

/// Takes out the value of a variable whose name tells of a secret.
fn mask(text: &mut String) {
    if let Some((name, secret)) = text.split_once('=')
        && is_secret(name)
        && !secret.is_empty()
    {
        *text = format!("{name}={}", hidden(secret));
    }
}

fn each_string(value: &mut Value, act: &mut impl FnMut(&mut String)) {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => act(text),
            Value::Array(all) => left.extend(all),
            Value::Object(all) => left.extend(all.values_mut()),
            _ => {}
        }
    }
}

fn is_secret(name: &str) -> bool {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    is_name && has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_left_out() {
        let op = r#"{"Exec":{"args":["/bin/sh","-c","echo $NPM_TOKEN"],"env":["PATH=/bin","NPM_TOKEN=hush","PUBLIC_KEY=open","Password=p=w","TOKEN="]}}"#;
        let masked_text = |text: &str| masked_text(text, &Secrets::default());
        let shown = masked_text(op);
        assert!(!shown.contains("hush") && !shown.contains("p=w"), "{shown}");
        for kept in ["PATH=/bin", "PUBLIC_KEY=open", "NPM_TOKEN=(hidden, ", "Password=(hidden, ", "TOKEN=\""]
        {
            assert!(shown.contains(kept), "{kept} is not in {shown}");
        }
        assert_ne!(shown, masked_text(&op.replace("hush", "other")));
        let plain = r#"{ "b": 1,  "a": ["x=y"] }"#;
        assert_eq!(masked_text(plain), plain);
        assert_eq!(masked_text("TOKEN=x"), "TOKEN=x");
    }

    #[test]
    fn values_of_secrets_are_left_out_everywhere() {
        let variables =
            [("NPM_TOKEN", "hush\"x"), ("A_PASSWORD", "hush\"xyz"), ("MODE", "release"), ("KEY", "abc")];
        let secrets = Secrets::among(variables.into_iter());
        assert!(!secrets.is_empty() && Secrets::among([("KEY", "abc")].into_iter()).is_empty());
        let op = serde_json::json!({ "cwd": "/w-hush\"x", "args": ["-c", "echo hush\"xyz release abc"] })
            .to_string();
        let shown = masked_text(&op, &secrets);
        assert!(
            !shown.contains("hush") && shown.contains("release abc") && shown.contains("/w-(hidden, "),
            "{shown}"
        );
        assert_ne!(secrets.hide("hush\"xyz"), secrets.hide("hush\"x"));
        assert_eq!(secrets.hide("RUN echo hush\"x").as_bytes(), secrets.hide_bytes(b"RUN echo hush\"x"));
        let (binary, hidden) = (secrets.hide_bytes(b"\xffhush\"x\xff"), secrets.hide("hush\"x"));
        assert_eq!(binary, [b"\xff", hidden.as_bytes(), b"\xff"].concat());
    }
}
