//! As much of Go's regular expressions as a pattern can become, as a small automaton: linear in expression times text.
//!
//! There are no groups but `(.*/)?`, and no `+`, `?` or lazy repetition, as patterns have these escaped. Not read: `\p`, `\Q`.

use std::iter::Peekable;
use std::str::Chars;

use smallvec::{SmallVec, smallvec};

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

    fn is_component(&self) -> bool {
        self.negated && *self.ranges == [('/', '/')]
    }

    pub(super) fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != self.negated
    }
}

/// Jumps are relative to their step, so that a part can be copied. A file may have a million patterns: they are small.
#[derive(Clone, Copy, Debug)]
enum Step {
    Char(char),
    /// `.`: anything but a new line.
    Any,
    /// `[^/]`, which most patterns have.
    Component,
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
        if class.is_component() {
            return self.part([Step::Component]);
        }
        let known = self.classes.iter().position(|known| *known == class);
        let index = known.unwrap_or(self.classes.len());
        if known.is_none() {
            self.classes.push(class);
        }
        self.part([Step::Class(index as u32)]);
    }

    /// Repeats the last part; `None` if there is none, or if it is a repetition already.
    pub(super) fn repeat(&mut self, least: u32, most: Option<u32>) -> Option<()> {
        let last = self.last.take()?;
        if let (1, [step]) = (self.steps.len() - last, &self.steps[last..])
            && least == 0
            && most.is_none()
        {
            // One character any number of times, as nearly every pattern has it.
            let step = *step;
            self.steps.truncate(last);
            self.steps.extend([Step::Fork(3), step, Step::Jump(-2)]);
            return Some(());
        }
        let part = self.steps.split_off(last);
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
    pub(super) fn finish(self) -> Option<Program> {
        let mut steps = self.steps;
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
        let tail = tail(&steps);
        Some(Program { steps: steps.into(), classes: self.classes.into(), tail })
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    steps: Box<[Step]>,
    classes: Box<[Class]>,
    /// How many characters stand at the end, and must be there.
    tail: u32,
}

/// See [`Program::tail`]. What a fork goes past need not be there; of several alternatives nothing has to be.
fn tail(steps: &[Step]) -> u32 {
    let [Step::At(Place::Begin), .., Step::At(Place::End), Step::Match] = steps else { return 0 };
    let end = steps.len() - 2;
    let mut begin = end - steps[..end].iter().rev().take_while(|step| matches!(step, Step::Char(_))).count();
    for (at, step) in steps[..end].iter().enumerate() {
        if let Step::Fork(far) | Step::Jump(far) = step {
            begin = begin.max(at.wrapping_add_signed(*far as isize));
        }
    }
    end.saturating_sub(begin) as u32
}

impl Program {
    /// Reads an expression; `None` if Go would refuse it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut out = Builder { steps: Vec::with_capacity(text.len() + 1), ..Builder::default() };
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '^' => out.begin(),
                '$' => out.end(),
                '|' => out.alternative(),
                '[' if chars.clone().take(3).eq("^/]".chars()) => {
                    chars.by_ref().take(3).for_each(drop);
                    out.part([Step::Component]);
                }
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
        let mut matched = false;
        self.run(text, true, |states| {
            matched = states.iter().any(|at| matches!(self.steps[*at as usize], Step::Match));
            !matched
        });
        matched
    }

    /// Whether there is a text that starts so and may match.
    pub(super) fn could_continue(&self, start: &str) -> bool {
        let takes = |step: Step| matches!(step, Step::Char(_) | Step::Any | Step::Component | Step::Class(_));
        let mut alive = false;
        self.run(start, false, |states| {
            alive = states.iter().any(|at| takes(self.steps[*at as usize]));
            true
        });
        alive
    }

    /// False if the characters at the end, which have to be there, are not.
    fn may_end(&self, text: &str) -> bool {
        let end = self.steps.len().saturating_sub(2);
        let tail = self.steps[end - self.tail as usize..end].iter().rev();
        let mut chars = text.chars().rev();
        tail.into_iter()
            .all(|step| matches!((step, chars.next()), (Step::Char(wanted), Some(c)) if *wanted == c))
    }

    /// False if the characters at the beginning, which have to be there, are not. Most patterns are done with so.
    fn may_begin(&self, text: &str) -> bool {
        let [Step::At(Place::Begin), steps @ ..] = &*self.steps else { return true };
        let mut chars = text.chars();
        for step in steps {
            match (step, chars.next()) {
                (Step::Char(wanted), Some(c)) if *wanted == c => {}
                (Step::Char(_), Some(_)) => return false,
                _ => return true,
            }
        }
        true
    }

    /// Shows which steps are reached in front of each character and at the end, until told to stop. `whole`: the end of the text
    /// is an end.
    fn run(&self, text: &str, whole: bool, mut show: impl FnMut(&[u32]) -> bool) {
        if !self.may_begin(text) || (whole && !self.may_end(text)) {
            show(&[]);
            return;
        }
        let anchored = matches!(self.steps.first(), Some(Step::At(Place::Begin)));
        let mut now = States::new(self.steps.len());
        let mut next = now.clone();
        let mut before = None;
        let mut chars = text.chars();
        loop {
            let after = chars.clone().next();
            // What follows a text that goes on is not known: a word's character is as good as any.
            let seen = if whole { after } else { after.or(Some('a')) };
            if before.is_none() || !anchored {
                self.enter(&mut now, 0, before, seen);
            }
            if !show(&now.list) {
                return;
            }
            let Some(c) = chars.next() else { return };
            next.clear();
            let following = chars.clone().next();
            let seen = if whole { following } else { following.or(Some('a')) };
            for &at in &now.list {
                let takes = match self.steps[at as usize] {
                    Step::Char(wanted) => wanted == c,
                    Step::Any => c != '\n',
                    Step::Component => c != '/',
                    Step::Class(class) => self.classes[class as usize].has(c),
                    Step::Fork(_) | Step::Jump(_) | Step::At(_) | Step::Match => false,
                };
                if takes {
                    self.enter(&mut next, at + 1, Some(c), seen);
                }
            }
            if next.list.is_empty() && anchored {
                show(&[]);
                return;
            }
            before = Some(c);
            std::mem::swap(&mut now, &mut next);
        }
    }

    /// Adds a step and what is reached from it without a character.
    fn enter(&self, states: &mut States, step: u32, before: Option<char>, after: Option<char>) {
        let mut at = states.list.len();
        states.add(step);
        // What is reached stands behind what it is reached from, and is looked at in its turn.
        while let Some(&step) = states.list.get(at) {
            at += 1;
            match self.steps[step as usize] {
                Step::Fork(far) => {
                    states.add(step + 1);
                    states.add(step.wrapping_add_signed(far));
                }
                Step::Jump(far) => states.add(step.wrapping_add_signed(far)),
                Step::At(place) if place.holds(before, after) => states.add(step + 1),
                _ => {}
            }
        }
    }
}

/// The steps that are reached, each once.
#[derive(Clone)]
struct States {
    list: SmallVec<[u32; 32]>,
    /// A bit for each step.
    has: SmallVec<[u64; 2]>,
}

impl States {
    fn new(steps: usize) -> States {
        States { list: SmallVec::new(), has: smallvec![0; steps.div_ceil(64)] }
    }

    fn add(&mut self, step: u32) {
        let (word, bit) = (step as usize / 64, 1 << (step % 64));
        if self.has[word] & bit == 0 {
            self.has[word] |= bit;
            self.list.push(step);
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.has.fill(0);
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
