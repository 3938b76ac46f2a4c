//! From verdicts per system call number to classic BPF: a binary search over ranges of equal verdicts.
//!
//! A kernel runs a new filter once per system call number to find those that are always allowed, so the length of a
//! chain of comparisons would count twice.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use lapstrake_sys::seccomp::Instruction;
use rustix::io::Errno;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_LESS: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets into `struct seccomp_data`, and the halves of its first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_LOW: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

/// The low half of an argument, the first being 0.
const fn argument_low(argument: u32) -> u32 {
    ARGUMENT_LOW + 8 * argument
}

const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Errno(Errno),
    /// Allowed where the first argument has none of these bits, else `EPERM`.
    NoneOf(u32),
    /// Allowed where the first argument, all 64 bits of it, is in one of these sorted ranges, else `EPERM`.
    OneOf(&'static [RangeInclusive<u32>]),
    /// Refused with this where the low half of the first argument is one of these; allowed elsewhere.
    RefuseIf {
        values: &'static [u32],
        errno: Errno,
    },
    /// Whoever holds the listener answers.
    Ask,
    /// The same where this argument has any of these bits; allowed elsewhere.
    AskIfAny {
        argument: u32,
        bits: u32,
    },
    /// The same where the low half of this argument is that; allowed elsewhere.
    AskIf {
        argument: u32,
        value: u32,
    },
}

/// A verdict for every number, kept as the places where it changes.
#[derive(Clone, Debug)]
pub(super) struct Tree(BTreeMap<u32, Verdict>);

impl Tree {
    pub(super) fn new(everywhere: Verdict) -> Self {
        Self(BTreeMap::from([(0, everywhere)]))
    }

    /// Overwrites the verdict of a range.
    pub(super) fn set(&mut self, range: RangeInclusive<u32>, verdict: Verdict) {
        let (first, last) = range.into_inner();
        if let Some(next) = last.checked_add(1) {
            let after = self.get(next);
            self.0.insert(next, after);
        }
        let covered: Vec<u32> = self.0.range(first..=last).map(|(start, _)| *start).collect();
        for start in covered {
            self.0.remove(&start);
        }
        self.0.insert(first, verdict);
    }

    pub(super) fn get(&self, number: u32) -> Verdict {
        let found = self.0.range(..=number).next_back();
        *found.expect("there is an entry at 0 from the start, and whatever replaces it starts there too").1
    }

    /// The places where the verdict really changes.
    fn merged(&self) -> Vec<(u32, Verdict)> {
        let mut merged: Vec<(u32, Verdict)> = Vec::new();
        for (start, verdict) in &self.0 {
            if merged.last().is_none_or(|(_, last)| last != verdict) {
                merged.push((*start, *verdict));
            }
        }
        merged
    }
}

/// The whole program: one tree per architecture, death for all others.
pub(super) fn program(trees: &[(u32, Tree)]) -> Vec<Instruction> {
    let mut program = vec![load(ARCH)];
    for (arch, tree) in trees {
        let mut body = vec![load(NUMBER)];
        body.extend(search(&tree.merged(), &|verdict| leaf(*verdict)));
        program.push(jump(JUMP_EQUAL, *arch, 1, 0));
        program.push(skip(body.len()));
        program.extend(body);
    }
    program.push(give(KILL_PROCESS));
    program
}

/// Finds the range that the accumulator is in.
fn search<V>(ranges: &[(u32, V)], leaf: &dyn Fn(&V) -> Vec<Instruction>) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return leaf(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (left, right) = (search(low, leaf), search(high, leaf));
    let middle = high[0].0;
    let mut code = match u8::try_from(left.len()) {
        Ok(distance) => vec![jump(JUMP_NOT_LESS, middle, distance, 0)],
        Err(_) => vec![jump(JUMP_NOT_LESS, middle, 0, 1), skip(left.len())],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![give(ALLOW)],
        Verdict::Errno(errno) => vec![refuse(errno)],
        Verdict::NoneOf(bits) => {
            vec![load(ARGUMENT_LOW), jump(JUMP_ANY_BIT, bits, 0, 1), refuse(Errno::PERM), give(ALLOW)]
        }
        Verdict::RefuseIf { values, errno } => {
            let mut code = vec![load(ARGUMENT_LOW)];
            for value in values {
                code.extend([jump(JUMP_EQUAL, *value, 0, 1), refuse(errno)]);
            }
            code.push(give(ALLOW));
            code
        }
        Verdict::Ask => vec![give(NOTIFY)],
        Verdict::AskIfAny { argument, bits } => {
            vec![load(argument_low(argument)), jump(JUMP_ANY_BIT, bits, 0, 1), give(NOTIFY), give(ALLOW)]
        }
        Verdict::AskIf { argument, value } => {
            vec![load(argument_low(argument)), jump(JUMP_EQUAL, value, 0, 1), give(NOTIFY), give(ALLOW)]
        }
        Verdict::OneOf(ranges) => {
            let mut tree = Tree::new(Verdict::Errno(Errno::PERM));
            for range in ranges {
                tree.set(range.clone(), Verdict::Allow);
            }
            let mut code =
                vec![load(ARGUMENT_HIGH), jump(JUMP_EQUAL, 0, 1, 0), refuse(Errno::PERM), load(ARGUMENT_LOW)];
            code.extend(search(&tree.merged(), &|verdict| leaf(*verdict)));
            code
        }
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn skip(count: usize) -> Instruction {
    let k = u32::try_from(count).expect("the kernel takes no program of more than 4096 instructions");
    Instruction { code: JUMP, jt: 0, jf: 0, k }
}

fn give(k: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k }
}

fn refuse(errno: Errno) -> Instruction {
    give(ERRNO | errno.raw_os_error().unsigned_abs())
}
