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

/// The parts of a key as they are stored.
pub(crate) fn masked(parts: &[(String, String)]) -> Vec<(String, String)> {
    parts.iter().map(|(label, value)| (label.clone(), masked_text(value))).collect()
}

/// An op as JSON, without the values of secrets; any other text stays.
pub(crate) fn masked_text(text: &str) -> String {
    let Ok(mut op) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    if mask(&mut op) { op.to_string() } else { text.to_owned() }
}

/// Says whether anything was left out.
fn mask(value: &mut Value) -> bool {
    let mut left = vec![value];
    let mut any = false;
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => {
                if let Some((name, secret)) = text.split_once('=')
                    && is_secret(name)
                    && !secret.is_empty()
                {
                    let mark = &blake3::hash(secret.as_bytes()).to_hex()[..MARK];
                    *text = format!("{name}=(hidden, {mark})");
                    any = true;
                }
            }
            Value::Array(all) => left.extend(all),
            Value::Object(all) => left.extend(all.values_mut()),
            _ => {}
        }
    }
    any
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
}
