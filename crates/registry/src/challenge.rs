//! `WWW-Authenticate` challenges (RFC 7235) as registries send them.

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user with a password.
    Basic,
    /// A token.
    Bearer(Bearer),
}

/// A `Bearer` challenge: where to get a token, and for which service. What for is known to who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Where.
    pub realm: String,
    /// Which service.
    pub service: Option<String>,
}

/// The challenge in a header's value, if it is one that we can meet.
pub fn challenge(header: &str) -> Option<Challenge> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = Bearer { realm: String::new(), service: None };
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => found.realm = value,
            "service" => found.service = Some(value),
            _ => {}
        }
    }
    (!found.realm.is_empty()).then_some(Challenge::Bearer(found))
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
        let bearer = |realm: &str, service: &str| {
            let bearer = Bearer { realm: realm.to_owned(), service: Some(service.to_owned()) };
            Some(Challenge::Bearer(bearer))
        };
        let full =
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(challenge(full), bearer("https://auth.example/token", "reg"));
        assert_eq!(challenge(r#"bearer realm=https://x , service="a\"b""#), bearer("https://x", "a\"b"));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("basic"), Some(Challenge::Basic));
        for bad in ["", "Digest realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\""] {
            assert_eq!(challenge(bad), None, "{bad}");
        }
    }
}
