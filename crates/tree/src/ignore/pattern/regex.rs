//! As much of Go's regular expressions as a pattern can become, as a small automaton: linear in expression times text.
//!
//! There are no groups but `(.*/)?`, and no `+`, `?` or lazy repetition, as patterns have these escaped. Not read: `\p`, `\Q`.

use std::iter::Peekable;
use std::str::Chars;

/// More steps than any pattern needs; repetitions of repetitions make no more.
const MOST_STEPS: usize = 200_000;
/// Go's limit of `{n}`.
const MOST_REPEATS: u32 = 1000;

/// A set of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) negated: bool,
    pub(super) ranges: Vec<(char, char)>,
}

impl Class {
    /// `[^/]`
    pub(super) fn component() -> Class {
        Class { negated: true, ranges: vec![('/', '/')] }
    }

    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != self.negated
    }
}

/// Jumps are relative to their step, so that a part can be copied. A file may have a million patterns: they are small.
#[derive(Clone, Copy, Debug)]
enum Step {
    Char(char),
    /// `.`: anything but a new line.
    Any,
    /// One of the program's classes.
    Class(u32),
    /// The next step, and the one so far away.
    Fork(i32),
    Jump(i32),
    /// Between two characters.
    At(Place),
    Match,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Begin,
    End,
    /// `\b`, and `\B` if not wanted.
    Boundary(bool),
}

impl Place {
    fn holds(self, before: Option<char>, after: Option<char>) -> bool {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        match self {
            Self::Begin => before.is_none(),
            Self::End => after.is_none(),
            Self::Boundary(wanted) => (word(before) != word(after)) == wanted,
        }
    }
}

/// Puts a program together.
#[derive(Default)]
pub(super) struct Builder {
    /// Alternatives that are complete.
    before: Vec<Vec<Step>>,
    steps: Vec<Step>,
    classes: Vec<Class>,
    /// Where the last part of `steps` begins, if it can be repeated.
    last: Option<usize>,
}

impl Builder {
    fn part(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.last = Some(self.steps.len());
        self.steps.extend(steps);
    }

    pub(super) fn char(&mut self, c: char) {
        self.part([Step::Char(c)]);
    }

    pub(super) fn begin(&mut self) {
        self.part([Step::At(Place::Begin)]);
    }

    pub(super) fn end(&mut self) {
        self.part([Step::At(Place::End)]);
    }

    /// One character of a class.
    pub(super) fn class(&mut self, class: Class) {
        let known = self.classes.iter().position(|known| *known == class);
        let index = known.unwrap_or(self.classes.len());
        if known.is_none() {
            self.classes.push(class);
        }
        self.part([Step::Class(index as u32)]);
    }

    /// Repeats the last part; `None` if there is none, or if it is a repetition already.
    pub(super) fn repeat(&mut self, least: u32, most: Option<u32>) -> Option<()> {
        let part = self.steps.split_off(self.last.take()?);
        let length = part.len() as i32;
        let copies = most.unwrap_or(least) as usize;
        if self.steps.len() + (copies + 1) * (part.len() + 2) > MOST_STEPS {
            return None;
        }
        (0..least).for_each(|_| self.steps.extend_from_slice(&part));
        match most {
            None => {
                self.steps.push(Step::Fork(length + 2));
                self.steps.extend_from_slice(&part);
                self.steps.push(Step::Jump(-(length + 1)));
            }
            Some(most) => (least..most).for_each(|_| {
                self.steps.push(Step::Fork(length + 1));
                self.steps.extend_from_slice(&part);
            }),
        }
        Some(())
    }

    fn alternative(&mut self) {
        self.last = None;
        self.before.push(std::mem::take(&mut self.steps));
    }

    /// The program; `None` if it would be too long.
    pub(super) fn finish(mut self) -> Option<Program> {
        self.alternative();
        let mut steps = self.before.pop().unwrap_or_default();
        if steps.len() + self.before.iter().map(|steps| steps.len() + 2).sum::<usize>() > MOST_STEPS {
            return None;
        }
        steps.push(Step::Match);
        for mut other in self.before.into_iter().rev() {
            // Each alternative has an end of its own, so none has to be jumped over.
            other.push(Step::Match);
            let mut all = vec![Step::Fork(other.len() as i32 + 1)];
            all.append(&mut other);
            all.append(&mut steps);
            steps = all;
        }
        Some(Program { steps: steps.into(), classes: self.classes.into() })
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    steps: Box<[Step]>,
    classes: Box<[Class]>,
}

impl Program {
    /// Reads an expression; `None` if Go would refuse it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut out = Builder::default();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '^' => out.begin(),
                '$' => out.end(),
                '|' => out.alternative(),
                '[' => {
                    let class = class(&mut chars)?;
                    out.class(class);
                }
                '(' => {
                    // Only ever `(.*/)?`.
                    chars.by_ref().take(5).for_each(drop);
                    out.part([Step::Fork(5), Step::Fork(3), Step::Any, Step::Jump(-2), Step::Char('/')]);
                    out.last = None;
                }
                '.' => out.part([Step::Any]),
                '*' => out.repeat(0, None)?,
                '{' => match repetition(&chars) {
                    Some((least, most, rest)) => {
                        let sizes = least.max(most.unwrap_or(0)) <= MOST_REPEATS;
                        if !sizes || most.is_some_and(|most| most < least) {
                            return None;
                        }
                        chars = rest;
                        out.repeat(least, most)?;
                    }
                    None => out.char('{'),
                },
                '\\' => match escape(&mut chars)? {
                    Escape::Char(c) => out.char(c),
                    Escape::Class(class) => out.class(class),
                    Escape::At(place) => out.part([Step::At(place)]),
                },
                c => out.char(c),
            }
        }
        out.finish()
    }

    /// Whether it matches a part of `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        let found = |states: &[bool]| {
            states.iter().zip(&self.steps).any(|(reached, step)| *reached && matches!(step, Step::Match))
        };
        let mut matched = false;
        self.run(text, true, |states| {
            matched = found(states);
            !matched
        });
        matched
    }

    /// Whether there is a text that starts so and may match.
    pub(super) fn could_continue(&self, start: &str) -> bool {
        let takes = |step: &Step| matches!(step, Step::Char(_) | Step::Any | Step::Class(_));
        let mut alive = false;
        self.run(start, false, |states| {
            alive = states.iter().zip(&self.steps).any(|(reached, step)| *reached && takes(step));
            true
        });
        alive
    }

    /// Shows which steps are reached in front of each character and at the end, until told to stop. `whole`: the end of the text
    /// is an end.
    fn run(&self, text: &str, whole: bool, mut show: impl FnMut(&[bool]) -> bool) {
        let mut now = vec![false; self.steps.len()];
        let mut next = now.clone();
        let mut pending = Vec::new();
        let mut before = None;
        let mut chars = text.chars();
        loop {
            let after = chars.clone().next();
            // What follows a text that goes on is not known: a word's character is as good as any.
            let seen = if whole { after } else { after.or(Some('a')) };
            pending.push(0);
            self.enter(&mut now, &mut pending, before, seen);
            if !show(&now) {
                return;
            }
            let Some(c) = chars.next() else { return };
            next.fill(false);
            for (at, step) in self.steps.iter().enumerate().filter(|(at, _)| now[*at]) {
                let takes = match step {
                    Step::Char(wanted) => *wanted == c,
                    Step::Any => c != '\n',
                    Step::Class(class) => self.classes[*class as usize].has(c),
                    Step::Fork(_) | Step::Jump(_) | Step::At(_) | Step::Match => false,
                };
                if takes {
                    pending.push(at + 1);
                }
            }
            if pending.is_empty() && matches!(self.steps.first(), Some(Step::At(Place::Begin))) {
                show(&[]);
                return;
            }
            before = Some(c);
            std::mem::swap(&mut now, &mut next);
        }
    }

    /// Marks the pending steps and what is reached from them without a character.
    fn enter(
        &self,
        states: &mut [bool],
        pending: &mut Vec<usize>,
        before: Option<char>,
        after: Option<char>,
    ) {
        while let Some(at) = pending.pop() {
            if std::mem::replace(&mut states[at], true) {
                continue;
            }
            match &self.steps[at] {
                Step::Fork(far) => pending.extend([at + 1, at.wrapping_add_signed(*far as isize)]),
                Step::Jump(far) => pending.push(at.wrapping_add_signed(*far as isize)),
                Step::At(place) if place.holds(before, after) => pending.push(at + 1),
                _ => {}
            }
        }
    }
}

/// `n}`, `n,}` or `n,m}`, and what is behind; anything else is no repetition, and its brace is a brace.
fn repetition<'t>(chars: &Peekable<Chars<'t>>) -> Option<(u32, Option<u32>, Peekable<Chars<'t>>)> {
    let mut chars = chars.clone();
    let least = number(&mut chars)?;
    let mut most = Some(least);
    if chars.next_if_eq(&',').is_some() {
        most = if chars.peek() == Some(&'}') { None } else { Some(number(&mut chars)?) };
    }
    chars.next_if_eq(&'}')?;
    Some((least, most, chars))
}

/// Digits without a zero in front. One that is too large is larger than any limit.
fn number(chars: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    let zero = digits.len() > 1 && digits.starts_with('0');
    (!digits.is_empty() && !zero).then(|| digits.parse().unwrap_or(u32::MAX))
}

fn class(chars: &mut Peekable<Chars<'_>>) -> Option<Class> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let mut first = true;
    while first || chars.next_if_eq(&']').is_none() {
        first = false;
        let rest: String = chars.clone().take(16).collect();
        if let Some((name, _)) = rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) {
            ranges.extend(named(name)?);
            chars.by_ref().take(name.len() + 4).for_each(drop);
            continue;
        }
        let low = match chars.next()? {
            '\\' => match escape(chars)? {
                Escape::Char(c) => c,
                Escape::Class(of) => {
                    ranges.extend(if of.negated { others(&of.ranges) } else { of.ranges });
                    continue;
                }
                Escape::At(_) => return None,
            },
            c => c,
        };
        let mut behind = chars.clone();
        let mut high = low;
        if behind.next() == Some('-') && behind.peek().is_some_and(|c| *c != ']') {
            *chars = behind;
            high = match chars.next()? {
                '\\' => match escape(chars)? {
                    Escape::Char(c) => c,
                    Escape::Class(_) | Escape::At(_) => return None,
                },
                c => c,
            };
        }
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
    Some(Class { negated, ranges })
}

/// What a class without a hole lacks.
fn others(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut out = Vec::new();
    let mut from = 0u32;
    for (low, high) in ranges {
        out.extend(char::from_u32(from).zip((*low as u32).checked_sub(1).and_then(char::from_u32)));
        from = *high as u32 + 1;
    }
    out.extend(char::from_u32(from).map(|from| (from, char::MAX)));
    out.retain(|(low, high)| low <= high);
    out
}

const WORD: [(char, char); 4] = [('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
const SPACE: [(char, char); 3] = [('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];

/// A class in `[:…:]`, perhaps with `^` in front.
fn named(name: &str) -> Option<Vec<(char, char)>> {
    if let Some(name) = name.strip_prefix('^') {
        return named(name).map(|ranges| others(&ranges));
    }
    Some(match name {
        "alnum" => vec![('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => vec![('A', 'Z'), ('a', 'z')],
        "ascii" => vec![('\0', '\u{7f}')],
        "blank" => vec![('\t', '\t'), (' ', ' ')],
        "cntrl" => vec![('\0', '\u{1f}'), ('\u{7f}', '\u{7f}')],
        "digit" => vec![('0', '9')],
        "graph" => vec![('!', '~')],
        "lower" => vec![('a', 'z')],
        "print" => vec![(' ', '~')],
        "punct" => vec![('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => vec![('\t', '\r'), (' ', ' ')],
        "upper" => vec![('A', 'Z')],
        "word" => WORD.to_vec(),
        "xdigit" => vec![('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    })
}

/// What a backslash makes of what is behind it.
enum Escape {
    Char(char),
    Class(Class),
    At(Place),
}

/// What stands for itself behind a backslash does; letters mean something.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<Escape> {
    let class =
        |negated: bool, ranges: &[(char, char)]| Escape::Class(Class { negated, ranges: ranges.to_vec() });
    Some(match chars.next()? {
        'd' => class(false, &[('0', '9')]),
        'D' => class(true, &[('0', '9')]),
        's' => class(false, &SPACE),
        'S' => class(true, &SPACE),
        'w' => class(false, &WORD),
        'W' => class(true, &WORD),
        'A' => Escape::At(Place::Begin),
        'z' => Escape::At(Place::End),
        'b' => Escape::At(Place::Boundary(true)),
        'B' => Escape::At(Place::Boundary(false)),
        'a' => Escape::Char('\u{7}'),
        'f' => Escape::Char('\u{c}'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\u{b}'),
        'x' => hexadecimal(chars)?,
        digit @ '0'..='7' => octal(digit, chars)?,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escape::Char(c),
        _ => return None,
    })
}

/// Two digits, or any number of them in braces.
fn hexadecimal(chars: &mut Peekable<Chars<'_>>) -> Option<Escape> {
    let digits: String = match chars.next_if_eq(&'{') {
        Some(_) => chars.by_ref().take_while(|c| *c != '}').collect(),
        None => chars.by_ref().take(2).collect(),
    };
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).map(Escape::Char)
}

/// Up to three digits; one alone that is no zero would be a reference, which Go does not have.
fn octal(first: char, chars: &mut Peekable<Chars<'_>>) -> Option<Escape> {
    let mut value = first.to_digit(8)?;
    let mut digits = 1;
    while digits < 3
        && let Some(digit) = chars.next_if(|c| c.is_digit(8))
    {
        value = value * 8 + digit.to_digit(8)?;
        digits += 1;
    }
    if digits == 1 && first != '0' {
        return None;
    }
    char::from_u32(value).map(Escape::Char)
}
