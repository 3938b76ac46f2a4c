//! Patterns for names of targets, as Go's `path.Match` reads them.

/// Whether `pattern` fits all of `name`. A pattern that cannot be read fits nothing.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name) = (0, 0);
    // The place behind the last `*`, and the place in the name that it has reached.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, in_name));
            continue;
        }
        if at == pattern.len() && in_name == name.len() {
            return true;
        }
        let one = name.get(in_name).and_then(|c| step(&pattern[at..], *c));
        match (one, star) {
            (Some(length), _) => {
                at += length;
                in_name += 1;
            }
            (None, Some((behind, reached))) if reached < name.len() && name[reached] != '/' => {
                star = Some((behind, reached + 1));
                (at, in_name) = (behind, reached + 1);
            }
            (None, _) => return false,
        }
    }
}

/// The length of the first part of `pattern`, if this part fits `c`.
fn step(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => (c != '/').then_some(1),
        '\\' => (*pattern.get(1)? == c).then_some(2),
        '[' => {
            let end = pattern.iter().skip(2).position(|c| *c == ']')? + 2;
            let (negated, class) = match pattern[1] {
                '^' => (true, &pattern[2..end]),
                _ => (false, &pattern[1..end]),
            };
            let mut found = false;
            let mut at = 0;
            while at < class.len() {
                match class.get(at..at + 3) {
                    Some([low, '-', high]) => {
                        found |= (*low..=*high).contains(&c);
                        at += 3;
                    }
                    _ => {
                        found |= class[at] == c;
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(end + 1)
        }
        other => (other == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for (pattern, name, wanted) in [
            ("*", "app", true),
            ("app-*", "app-1", true),
            ("app-*", "web", false),
            ("*-[12]", "app-2", true),
            ("*-[^12]", "app-2", false),
            ("a?p", "app", true),
            ("a*p*", "axpxp", true),
            ("[", "[", false),
            ("*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(fits(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
