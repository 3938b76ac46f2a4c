//! `WWW-Authenticate` challenges (RFC 7235) as registries send them.

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user with a password.
    Basic,
    /// A token.
    Bearer(Bearer),
}

/// A `Bearer` challenge: the server of tokens, and the service. The caller knows the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The address of the token server.
    pub realm: String,
    /// The service.
    pub service: Option<String>,
}

/// The challenge in the values of headers that is met best: a token before a password, as containerd has it.
pub fn challenge<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut found: Vec<Challenge> = headers.into_iter().flat_map(challenges).collect();
    let bearer = found.iter().position(|challenge| matches!(challenge, Challenge::Bearer(_)));
    (!found.is_empty()).then(|| found.swap_remove(bearer.unwrap_or(0)))
}

/// The challenges of one header that can be met.
fn challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    for (scheme, parameters) in schemes(header) {
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            continue;
        }
        let mut bearer = Bearer { realm: String::new(), service: None };
        for (name, value) in parameters {
            match name.to_ascii_lowercase().as_str() {
                "realm" => bearer.realm = value,
                "service" => bearer.service = Some(value),
                _ => {}
            }
        }
        if !bearer.realm.is_empty() {
            found.push(Challenge::Bearer(bearer));
        }
    }
    found
}

/// Schemes with their parameters (`name="value"` or `name=value`), all separated by commas.
fn schemes(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (words, tail) = rest.split_at(end);
        let mut words = words.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { return found };
        let Some(tail) = tail.strip_prefix('=') else {
            // A scheme without parameters.
            found.push((first.to_owned(), Vec::new()));
            rest = tail;
            continue;
        };
        if second.is_some() {
            found.push((first.to_owned(), Vec::new()));
        }
        let (value, tail) = match tail.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                tail.split_once(',').map_or((tail.trim().to_owned(), ""), |(v, t)| (v.trim().to_owned(), t))
            }
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((second.unwrap_or(first).to_owned(), value));
        }
        rest = tail;
    }
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

    fn challenge(header: &str) -> Option<Challenge> {
        super::challenge([header])
    }

    #[test]
    fn tokens_before_passwords() {
        let both = r#"Basic realm="x", Bearer realm="https://a", service="s""#;
        let bearer =
            Challenge::Bearer(Bearer { realm: "https://a".to_owned(), service: Some("s".to_owned()) });
        for header in [
            both,
            r#"Bearer realm="https://a",service="s", Basic"#,
            r#"Basic, Bearer realm="https://a", service=s"#,
        ] {
            assert_eq!(challenge(header), Some(bearer.clone()), "{header}");
        }
        let headers = ["Basic realm=\"x\"", "Bearer realm=\"https://a\",service=\"s\""];
        assert_eq!(super::challenge(headers), Some(bearer));
        assert_eq!(super::challenge(["Negotiate", "Basic realm=\"x, y\""]), Some(Challenge::Basic));
    }

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
