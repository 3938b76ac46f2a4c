//! Paths inside of images: text with `/`, never paths of the host.

use lapstrake_go::path::clean_rooted;

/// `path` seen from directory `dir`: an absolute one stays as written, a relative one is joined and cleaned, an empty
/// one is `dir`.
pub(crate) fn resolve(dir: &str, path: &str) -> String {
    let dir = if dir.is_empty() { "/" } else { dir };
    if path.is_empty() {
        dir.to_owned()
    } else if path.starts_with('/') {
        path.to_owned()
    } else {
        clean_rooted(&format!("{dir}/{path}"))
    }
}

/// Like [`resolve`], for a destination: what makes it a directory (`/`, `/.` at the end, `.`, or nothing at all)
/// stays.
pub(crate) fn destination(dir: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let mut found = resolve(dir, path);
    // As BuildKit has it, `..` is about the text: what a link in front of it leads to does not count.
    if path.split('/').any(|part| part == "..") {
        found = clean_rooted(&found);
    }
    if path.ends_with('/') && !found.ends_with('/') {
        found.push('/');
    } else if path.ends_with("/.") && !path.starts_with('/') {
        found.push_str(if found == "/" { "." } else { "/." });
    }
    found
}

/// The last part of a path, `/` for the root.
pub(crate) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let cleaned = [("a/../b", "/b"), ("../../x", "/x"), ("/", "/"), ("./a//b/.", "/a/b"), ("", "/")];
        for (path, expected) in cleaned {
            assert_eq!(clean_rooted(path), expected, "{path}");
        }
        let destinations = [
            ("/w", "", "/w/"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "x", "/w/x"),
            ("/w", "x/", "/w/x/"),
            ("/w", "x/.", "/w/x/."),
            ("/w", "../x", "/x"),
            ("/w", "/y/../z/", "/z/"),
            ("/w", "/y/.", "/y/."),
            ("/", ".", "/"),
            ("", "a", "/a"),
        ];
        for (dir, path, expected) in destinations {
            assert_eq!(destination(dir, path), expected, "{dir} {path}");
        }
        assert_eq!(resolve("/w", "/a/../b/"), "/a/../b/");
        assert_eq!((base_name("/a/b/"), base_name("x"), base_name("/")), ("b", "x", "/"));
    }
}
