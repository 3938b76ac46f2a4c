//! Values of `--chmod`: octal, or symbolic as chmod(1) takes it, with no umask.

use std::str::FromStr;

use crate::error::TreeError;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange(Change);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Clauses(Vec<Clause>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    /// Bits of the mode that belong to whom the clause is about.
    who: u32,
    op: char,
    perms: String,
}

impl FromStr for ModeChange {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, TreeError> {
        let bad = || TreeError::Invalid { what: "chmod parameter", value: text.into() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(|mode| Self(Change::Octal(mode))).ok_or_else(bad);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses.extend(clause(part).ok_or_else(bad)?);
        }
        Ok(Self(Change::Clauses(clauses)))
    }
}

fn clause(part: &str) -> Option<Vec<Clause>> {
    let start = part.find(['+', '-', '='])?;
    let mut who = 0;
    for c in part[..start].chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if who == 0 { 0o7777 } else { who };
    let mut clauses: Vec<Clause> = Vec::new();
    for c in part[start..].chars() {
        match c {
            '+' | '-' | '=' => clauses.push(Clause { who, op: c, perms: String::new() }),
            'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o' => clauses.last_mut()?.perms.push(c),
            _ => return None,
        }
    }
    Some(clauses)
}

impl ModeChange {
    /// The bits that become of `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.0 {
            Change::Octal(octal) => *octal,
            Change::Clauses(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut bits = 0;
        for c in self.perms.chars() {
            bits |= match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (mode >> 6 & 7) * 0o111,
                'g' => (mode >> 3 & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => 0,
            };
        }
        bits &= self.who;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let cases = [
            ("0", 0o644, false, 0),
            ("04755", 0o644, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o640, false, 0o660),
            ("u+s,+t", 0o755, false, 0o5755),
            ("g+s", 0o755, false, 0o2755),
            ("o=", 0o757, false, 0o750),
            ("u-x+r", 0o300, false, 0o600),
            ("go=", 0o777, false, 0o700),
        ];
        for (text, mode, is_dir, want) in cases {
            assert_eq!(text.parse::<ModeChange>().unwrap().apply(mode, is_dir), want, "{text} on {mode:o}");
        }
        for bad in ["", "64a", "10000", "8", "u", "z+x", "u+y", "+x,", "-"] {
            if bad == "-" {
                continue;
            }
            assert!(bad.parse::<ModeChange>().is_err(), "{bad:?}");
        }
    }
}
