//! Values of `--chmod`: octal, or symbolic by the grammar of BSD's setmode(3), with no umask.

use std::iter::Peekable;
use std::str::{Chars, FromStr};

use crate::error::TreeError;

const STICKY: u32 = 0o1000;
/// Whom no letter names: all, but not the sticky bit.
const ALL: u32 = 0o6777;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange(Change);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Steps(Vec<Step>),
}

/// One thing that is done to the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    /// `X`: set for directories, and for what somebody could execute before anything was changed.
    SetIfExecutable(u32),
    /// The three bits at `shift` to those of `who`: taken over, added or taken away.
    Take {
        shift: u32,
        who: u32,
        op: char,
    },
}

impl FromStr for ModeChange {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, TreeError> {
        let change = if text.starts_with(|c: char| c.is_ascii_digit()) {
            u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Change::Octal)
        } else {
            steps(text).map(Change::Steps)
        };
        change.map(Self).ok_or_else(|| TreeError::Invalid { what: "chmod parameter", value: text.into() })
    }
}

/// The clauses of a symbolic mode; `None` if it is none.
fn steps(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.chars().peekable();
    let mut steps = Vec::new();
    loop {
        let mut who = 0;
        while let Some(bits) = rest.peek().and_then(|letter| whose(*letter)) {
            who |= bits;
            rest.next();
        }
        loop {
            let op = rest.next().filter(|op| matches!(op, '+' | '-' | '='))?;
            action(op, who, &mut rest, &mut steps);
            match rest.peek() {
                None => return Some(steps),
                Some(',') => break,
                Some(_) => {}
            }
        }
        rest.next();
    }
}

/// The bits of whom a letter names. The sticky bit is nobody's until `t` asks for it.
fn whose(letter: char) -> Option<u32> {
    match letter {
        'u' => Some(0o4700),
        'g' => Some(0o2070),
        'o' => Some(0o0007),
        'a' => Some(ALL),
        _ => None,
    }
}

/// What stands behind one operator.
fn action(op: char, mut who: u32, rest: &mut Peekable<Chars<'_>>, steps: &mut Vec<Step>) {
    let (mut bits, mut executable) = (0, 0);
    let mut cleared = false;
    // Others alone have neither set-id nor sticky bits.
    let special = who == 0 || who & !0o7 != 0;
    let flush = |steps: &mut Vec<Step>, who: u32, bits: u32, executable: u32, clear: bool| {
        let own = |bits: u32| if who == 0 { bits } else { who & bits };
        if clear {
            steps.push(Step::Clear(if who == 0 { ALL } else { who }));
        }
        if bits != 0 {
            steps.push(if op == '-' { Step::Clear(own(bits)) } else { Step::Set(own(bits)) });
        }
        if executable != 0 {
            steps.push(Step::SetIfExecutable(own(executable)));
        }
    };
    while let Some(letter) = rest.next_if(|letter| "rwxXstugo".contains(*letter)) {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'X' if op != '-' => executable = 0o111,
            'x' | 'X' => bits |= 0o111,
            's' if special => bits |= 0o6000,
            't' if special => {
                who |= STICKY;
                bits |= STICKY;
            }
            'u' | 'g' | 'o' => {
                flush(steps, who, bits, executable, op == '=' && bits != 0);
                (bits, executable, cleared) = (0, 0, op == '=');
                let shift = match letter {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                steps.push(Step::Take { shift, who: if who == 0 { ALL } else { who }, op });
            }
            _ => {}
        }
    }
    flush(steps, who, bits, executable, op == '=' && (bits != 0 || !cleared));
}

impl ModeChange {
    /// The bits that become of `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.0 {
            Change::Octal(octal) => *octal,
            Change::Steps(steps) => {
                let executable = is_dir || mode & 0o111 != 0;
                steps.iter().fold(mode, |mode, step| step.apply(mode, executable))
            }
        }
    }

    /// The mode, if it is one for everything whatever it was before.
    #[must_use]
    pub fn octal(&self) -> Option<u32> {
        match self.0 {
            Change::Octal(mode) => Some(mode),
            Change::Steps(_) => None,
        }
    }
}

impl Step {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        match self {
            Step::Set(bits) => mode | bits,
            Step::Clear(bits) => mode & !bits,
            Step::SetIfExecutable(bits) => mode | if executable { bits } else { 0 },
            Step::Take { shift, who, op } => {
                let (three, who) = (mode >> shift & 0o7, who & 0o777);
                let spread = (three * 0o111) & who;
                match op {
                    '+' => mode | spread,
                    '-' => mode & !spread,
                    _ => mode & !who | spread,
                }
            }
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
            // The sticky bit belongs to nobody, and is touched by `t` alone.
            ("o+t", 0o644, true, 0o644),
            ("u+t", 0o644, true, 0o1644),
            ("o=", 0o1757, true, 0o1750),
            ("a=rx", 0o1777, true, 0o1555),
            ("=t", 0o6777, true, 0o7777),
            ("o+s", 0o755, false, 0o755),
            ("u=", 0o4755, false, 0o055),
            ("=r", 0o6777, false, 0o444),
            // `X` looks at what there was before anything was changed.
            ("a-x,a+X", 0o755, false, 0o755),
            ("u+x,g+X", 0o644, false, 0o744),
            ("-X", 0o755, false, 0o644),
            ("o=g-x", 0o754, false, 0o754),
            ("o=g-x", 0o775, false, 0o776),
            ("g=uw", 0o540, false, 0o520),
            ("u+g", 0o450, false, 0o550),
            ("go-u", 0o577, false, 0o522),
        ];
        for (text, mode, is_dir, want) in cases {
            assert_eq!(text.parse::<ModeChange>().unwrap().apply(mode, is_dir), want, "{text} on {mode:o}");
        }
        for bad in ["", "64a", "10000", "8", "u", "z+x", "u+y", "+x,", "u+r,,g+w", ",", "u+x,g"] {
            assert!(bad.parse::<ModeChange>().is_err(), "{bad:?}");
        }
    }
}
