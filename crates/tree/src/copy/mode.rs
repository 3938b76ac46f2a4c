//! `--chmod`: octal, or symbolic as `chmod(1)` has it, with no umask.

use crate::error::TreeError;

/// The mode that `spec` makes of `mode`.
///
/// # Errors
/// [`TreeError::Invalid`] if `spec` is neither form.
pub fn change_mode(spec: &str, mode: u32, is_dir: bool) -> Result<u32, TreeError> {
    let bad = || TreeError::Invalid { what: "chmod parameter", value: spec.to_owned() };
    if spec.starts_with(|c: char| c.is_ascii_digit()) {
        let octal = u32::from_str_radix(spec, 8).map_err(|_| bad())?;
        return if octal <= 0o7777 { Ok(octal) } else { Err(bad()) };
    }
    let mut mode = mode & 0o7777;
    for clause in spec.split(',') {
        let who_end = clause.find(['+', '-', '=']).ok_or_else(bad)?;
        let mut who = 0;
        for c in clause[..who_end].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o0007,
                'a' => 0o6777,
                _ => return Err(bad()),
            };
        }
        let who = if who == 0 { 0o6777 } else { who };
        let mut rest = &clause[who_end..];
        while let Some(operator) = rest.chars().next() {
            let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
            let bits = permissions(&rest[1..end], mode, who, is_dir).ok_or_else(bad)?;
            match operator {
                '+' => mode |= bits,
                '-' => mode &= !bits,
                _ => mode = (mode & !(who & 0o6777)) | bits,
            }
            rest = &rest[end..];
        }
    }
    Ok(mode)
}

fn permissions(letters: &str, mode: u32, who: u32, is_dir: bool) -> Option<u32> {
    let mut bits = 0;
    for c in letters.chars() {
        bits |= match c {
            'r' => 0o444 & who,
            'w' => 0o222 & who,
            'x' => 0o111 & who,
            'X' if is_dir || mode & 0o111 != 0 => 0o111 & who,
            'X' => 0,
            's' => 0o6000 & who,
            't' => 0o1000,
            'u' => spread(mode >> 6 & 7) & who,
            'g' => spread(mode >> 3 & 7) & who,
            'o' => spread(mode & 7) & who,
            _ => return None,
        };
    }
    Some(bits)
}

fn spread(bits: u32) -> u32 {
    bits << 6 | bits << 3 | bits
}

#[cfg(test)]
mod tests {
    use super::change_mode;

    #[test]
    fn modes() {
        for (spec, mode, is_dir, expected) in [
            ("755", 0o644, false, Some(0o755)),
            ("0", 0o644, false, Some(0)),
            ("10000", 0o644, false, None),
            ("64a", 0o644, false, None),
            ("u=rwX,go=rX", 0o640, true, Some(0o755)),
            ("u=rwX,go=rX", 0o640, false, Some(0o644)),
            ("+x", 0o644, false, Some(0o755)),
            ("a-w", 0o666, false, Some(0o444)),
            ("g=u", 0o640, false, Some(0o660)),
            ("u+s,+t", 0o755, false, Some(0o5755)),
            ("u+x-w", 0o644, false, Some(0o544)),
            ("z+x", 0o644, false, None),
            ("", 0o644, false, None),
        ] {
            assert_eq!(change_mode(spec, mode, is_dir).ok(), expected, "{spec}");
        }
    }
}
