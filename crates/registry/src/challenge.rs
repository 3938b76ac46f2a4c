//! `WWW-Authenticate` challenges (RFC 7235) as registries send them.

/// A `Bearer` challenge: where to get a token, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scope: Option<String>,
}

/// The `Bearer` challenge in a header's value, if there is one.
pub(crate) fn bearer(header: &str) -> Option<Bearer> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = Bearer { realm: String::new(), service: None, scope: None };
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => found.realm = value,
            "service" => found.service = Some(value),
            "scope" => found.scope = Some(value),
            _ => {}
        }
    }
    (!found.realm.is_empty()).then_some(found)
}

/// `name="value"` or `name=value`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ', '\t']);
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                tail.split_once(',').map_or((tail.trim().to_owned(), ""), |(v, t)| (v.trim().to_owned(), t))
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = tail.trim_start_matches([',', ' ', '\t']);
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let found = bearer(
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#,
        );
        let found = found.unwrap();
        assert_eq!(found.realm, "https://auth.example/token");
        assert_eq!(found.service.as_deref(), Some("reg"));
        assert_eq!(found.scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(
            bearer(r#"bearer realm=https://x , service="a\"b""#).unwrap().service.as_deref(),
            Some("a\"b")
        );
        for bad in ["", "Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\""] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }
}
