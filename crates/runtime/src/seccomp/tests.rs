//! The emitted program against an interpreter of BPF, the table, and another compiler's program.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// Runs a program on (arch, number, first argument), as the kernel would; panics on what the kernel would refuse.
fn run(program: &[Instruction], arch: u32, number: u32, argument: u64) -> u32 {
    let mut data = [0_u32; 16];
    data[0] = number;
    data[1] = arch;
    data[4] = argument as u32;
    data[5] = (argument >> 32) as u32;
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let (yes, no) = (usize::from(jt), usize::from(jf));
        match code {
            0x20 => accumulator = data[k as usize / 4],
            0x05 => at += k as usize,
            0x15 => at += if accumulator == k { yes } else { no },
            0x25 => at += if accumulator > k { yes } else { no },
            0x35 => at += if accumulator >= k { yes } else { no },
            0x45 => at += if accumulator & k != 0 { yes } else { no },
            0x54 => accumulator &= k,
            0x06 => return k,
            other => panic!("no such instruction: {other:#x}"),
        }
    }
}

/// The default in one piece.
fn default_program(machine: Machine) -> Vec<Instruction> {
    emit::program(&machine.tables().map(|(arch, number)| (arch, tree(number))))
}

/// What a kernel makes of the words of two filters: the sterner action, which is the lower number.
fn sterner(one: u32, other: u32) -> u32 {
    let action = |word: u32| (word & 0xffff_0000) as i32;
    if action(other) < action(one) { other } else { one }
}

fn arguments() -> Vec<u64> {
    let mut all: Vec<u64> = (0..64).chain([0xff, 0x1_0000, 0x2_0000, 0x2_0008, 0x2_0009]).collect();
    all.extend((0..40).map(|bit| 1_u64 << bit));
    all.extend([0x7e02_0000, 0x0112_0011, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0008, u64::MAX]);
    all
}

#[test]
fn table_is_sorted_and_without_doubles() {
    assert!(CALLS.windows(2).all(|pair| pair[0].name < pair[1].name));
    for machine in [Machine::X86, Machine::Arm] {
        for (_, number) in machine.tables() {
            let mut numbers: Vec<u32> = CALLS.iter().filter_map(number).collect();
            let count = numbers.len();
            assert!(count > 250);
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }
}

#[test]
fn programs_are_short() {
    for machine in [Machine::X86, Machine::Arm] {
        let length = default_program(machine).len();
        assert!(length < 600, "{machine:?}: {length}");
    }
}

#[test]
fn program_says_what_the_table_says() {
    for machine in [Machine::X86, Machine::Arm] {
        let program = default_program(machine);
        for (arch, number) in machine.tables() {
            let tree = tree(number);
            for call in (0..700).chain([0xf_0000, 0xf_0001, 0xf_0005, 0xf_0006, 0x4000_0000, u32::MAX]) {
                for argument in arguments() {
                    let low = argument as u32;
                    let expected = match tree.get(call) {
                        Verdict::Allow => ALLOW,
                        Verdict::Errno(errno) => 0x0005_0000 | errno.raw_os_error() as u32,
                        Verdict::NoneOf(bits) if low & bits == 0 => ALLOW,
                        Verdict::OneOf(ranges)
                            if argument >> 32 == 0 && ranges.iter().any(|range| range.contains(&low)) =>
                        {
                            ALLOW
                        }
                        Verdict::NoneOf(_) | Verdict::OneOf(_) => EPERM,
                        Verdict::RefuseIf { values, errno } if values.contains(&low) => {
                            0x0005_0000 | errno.raw_os_error() as u32
                        }
                        Verdict::RefuseIf { .. } => ALLOW,
                        asking => panic!("the default asks nobody: {asking:?}"),
                    };
                    assert_eq!(
                        run(&program, arch, call, argument),
                        expected,
                        "{arch:#x} {call} {argument:#x}"
                    );
                }
            }
        }
    }
}

/// The two filters that a container has are the default, to the error number; and each of them is needed.
#[test]
fn early_and_late_are_the_default() {
    for machine in [Machine::X86, Machine::Arm] {
        let (default, early, late) =
            (default_program(machine), early_program(machine), late_program(machine));
        assert!(late.len() < 40, "{}", late.len());
        let mut lets_pass = Vec::new();
        for (arch, _) in machine.tables().into_iter().chain([(1, machine.tables()[0].1)]) {
            for call in (0..700).chain([0xf_0000, 0xf_0005, 0x4000_0000, 0x4000_00a6, u32::MAX]) {
                for argument in arguments() {
                    let expected = run(&default, arch, call, argument);
                    let (first, then) = (run(&early, arch, call, argument), run(&late, arch, call, argument));
                    assert_eq!(sterner(then, first), expected, "{arch:#x} {call} {argument:#x}");
                    if first != expected && lets_pass.last() != Some(&(arch, call)) {
                        lets_pass.push((arch, call));
                    }
                }
            }
        }
        let mut calls: Vec<u32> = set_up(machine).collect();
        calls.sort_unstable();
        let expected: Vec<_> = calls.into_iter().map(|call| (machine.tables()[0].0, call)).collect();
        assert_eq!(lets_pass, expected);
    }
}

#[test]
fn known_verdicts() {
    let program = default_program(Machine::X86);
    for (arch, number, argument, expected, what) in [
        (X86_64, 0, 0, ALLOW, "read"),
        (X86_64, 165, 0, EPERM, "mount"),
        (X86_64, 272, 0x1000_0000, EPERM, "unshare"),
        (X86_64, 56, 0x0100_0011, ALLOW, "clone as fork"),
        (X86_64, 56, 0x1000_0011, EPERM, "clone with a user namespace"),
        (X86_64, 435, 0, ENOSYS, "clone3"),
        (X86_64, 250, 0, EPERM, "keyctl"),
        (X86_64, 304, 0, EPERM, "open_by_handle_at"),
        (X86_64, 425, 0, EPERM, "io_uring_setup"),
        (X86_64, 161, 0, ALLOW, "chroot"),
        (X86_64, 41, 2, ALLOW, "socket of inet"),
        (X86_64, 41, 38, EPERM, "socket of alg"),
        (X86_64, 41, 40, EPERM, "socket of vsock"),
        (X86_64, 135, 0xffff_ffff, ALLOW, "personality asked for"),
        (X86_64, 135, 0x0040_0000, EPERM, "personality without randomisation"),
        (X86_64, 600, 0, ENOSYS, "one of the future"),
        (X86_64, 0x4000_0001, 0, ENOSYS, "write of x32"),
        (I386, 3, 0, ALLOW, "read of i386"),
        (I386, 21, 0, EPERM, "mount of i386"),
        (X86_64, 53, 1, ALLOW, "socketpair of unix"),
        (X86_64, 53, 40, EPERM, "socketpair of vsock"),
        (I386, 359, 2, ALLOW, "socket of inet of i386"),
        (I386, 359, 38, EPERM, "socket of alg of i386"),
        (I386, 360, 40, EPERM, "socketpair of vsock of i386"),
        (I386, 102, 1, ENOSYS, "socket by socketcall"),
        (I386, 102, 1 << 32 | 1, ENOSYS, "socket by socketcall, whose number is an int"),
        (I386, 102, 3, ALLOW, "connect by socketcall"),
        (I386, 102, 8, ENOSYS, "socketpair by socketcall"),
        (I386, 102, 1 << 32 | 8, ENOSYS, "socketpair by socketcall, whose number is an int"),
        (I386, 102, 16, ALLOW, "sendmsg by socketcall"),
        (I386, 117, 23, ALLOW, "shmget by ipc, as shmget"),
        (I386, 425, 0, EPERM, "io_uring_setup of i386"),
        (X86_64, 0x4000_0000 | 41, 40, ENOSYS, "socket of x32"),
        (X86_64, 0x4000_0000 | 53, 40, ENOSYS, "socketpair of x32"),
        (0xc000_00b7, 63, 0, KILL, "read of aarch64"),
    ] {
        assert_eq!(run(&program, arch, number, argument), expected, "{what}");
    }
    assert_eq!(run(&default_program(Machine::Arm), 0xc000_00b7, 63, 0), ALLOW);
}

/// The policy up to the newest call, compiled by seccompiler. It has one verdict for a mismatch, so the calls with
/// `ENOSYS` are left out.
#[test]
fn agrees_with_another_compiler() {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let condition = |operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, value).unwrap()])
            .unwrap()
    };
    for call in CALLS {
        let Some(number) = call.x86_64 else { continue };
        let conditions = match verdict(call.name) {
            Verdict::Allow => vec![],
            Verdict::Errno(_) => continue,
            Verdict::RefuseIf { .. } => continue,
            Verdict::NoneOf(bits) => vec![condition(SeccompCmpOp::MaskedEq(u64::from(bits)), 0)],
            Verdict::OneOf(ranges) => ranges
                .iter()
                .flat_map(Clone::clone)
                .map(|value| condition(SeccompCmpOp::Eq, u64::from(value)))
                .collect(),
            asking => panic!("the default asks nobody: {asking:?}"),
        };
        rules.insert(i64::from(number), conditions);
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, TargetArch::x86_64).unwrap();
    let theirs: BpfProgram = filter.try_into().unwrap();
    let theirs: Vec<Instruction> =
        theirs.iter().map(|one| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect();
    let ours = default_program(Machine::X86);
    for number in (0..=466).filter(|number| *number != 435) {
        for argument in arguments() {
            assert_eq!(
                run(&ours, X86_64, number, argument),
                run(&theirs, X86_64, number, argument),
                "{number} {argument:#x}"
            );
        }
    }
}

/// Calls about owners are asked about, in this machine's own table only; nothing else changes.
#[test]
fn one_id_asks() {
    const ASK: u32 = 0x7fc0_0000;
    let Programs { single_id, one_id_insecure, .. } = Programs::new(Machine::X86);
    let default = default_program(Machine::X86);
    for (number, asks) in [(92, true), (4, true), (105, true), (0, false), (157, false)] {
        assert_eq!(run(&single_id, X86_64, number, 0) == ASK, asks, "{number}");
        assert_eq!(run(&one_id_insecure, X86_64, number, 0) == ASK, asks, "{number}");
    }
    // openat: its flags are not the first argument, which is the only one that is set here.
    assert_eq!(run(&single_id, X86_64, 257, 0o100), ALLOW);
    assert_eq!(run(&single_id, X86_64, 437, 0), ENOSYS);
    assert_eq!(run(&one_id_insecure, X86_64, 272, 0x1000_0000), ALLOW);
    for number in 0..700 {
        assert_eq!(run(&single_id, I386, number, 0), run(&default, I386, number, 0), "{number}");
        let ours = run(&single_id, X86_64, number, 0);
        assert!(ours == ASK || ours == run(&default, X86_64, number, 0) || number == 437, "{number}");
    }
    assert_eq!(run(&single_id, 1, 0, 0), KILL);
}
