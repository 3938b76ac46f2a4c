//! `path`: slash-separated text, without a look at any disk.

/// `path.Clean`: no `.`, no doubled slashes, and no `..` where that can be told from the text. An empty path is `.`.
#[must_use]
pub fn clean(path: &str) -> String {
    let cleaned = clean_bytes(path.as_bytes());
    String::from_utf8(cleaned).expect("whole components of UTF-8 text are UTF-8")
}

/// `path.Clean` of `/` and `path`: `..` stops at the root, and a relative path is taken from the root.
#[must_use]
pub fn clean_rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// [`clean`] of a path that need not be text.
#[must_use]
pub fn clean_bytes(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut out = Vec::with_capacity(path.len().max(1));
    if rooted {
        out.push(b'/');
    }
    // What `..` cannot take away: the root, or the `..` in front of a relative path.
    let mut fixed = out.len();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if out.len() > fixed => {
                let slash = out[fixed..].iter().rposition(|byte| *byte == b'/');
                out.truncate(fixed + slash.unwrap_or(0));
            }
            b".." if rooted => {}
            name => {
                if !out.is_empty() && out.last() != Some(&b'/') {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
                if name == b".." {
                    fixed = out.len();
                }
            }
        }
    }
    if out.is_empty() {
        out.push(b'.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned() {
        let table = [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("a//b/", "a/b"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a/..", "../.."),
            ("a/../../b/c/..", "../b"),
            ("/../a/./b/..", "/a"),
            ("/..", "/"),
            ("é/./ü", "é/ü"),
        ];
        for (path, expected) in table {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!((clean_rooted("../a/"), clean_rooted("")), ("/a".to_owned(), "/".to_owned()));
    }
}
