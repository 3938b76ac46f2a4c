//! The default system call filter: what the default profile of Docker's engine means, as a BPF program.
//!
//! | call | verdict |
//! |---|---|
//! | in [`table`] | allowed |
//! | `clone` with a namespace flag | `EPERM` |
//! | `clone3` | `ENOSYS`: its flags are in memory, where a filter cannot look; programs fall back to `clone` |
//! | `personality` but for the harmless ones | `EPERM` |
//! | `socket` and `socketpair` of a family that has brought more holes than uses | `EPERM` |
//! | `socketcall` that makes sockets | `ENOSYS`: the family is in memory, where a filter cannot look; `socket` and `socketpair` are calls of their own since Linux 4.3 |
//! | newer than the newest in the table | `ENOSYS`, so that programs take an older way |
//! | any other | `EPERM` |
//! | any of a foreign architecture | the process is killed |
//!
//! Where one id is mapped, calls about owners are answered by [`crate::ids`] instead of being allowed.

mod asks;
mod emit;
mod table;

use std::ops::RangeInclusive;

use lapstrake_sys::seccomp::Instruction;
use rustix::io::Errno;

use emit::{Tree, Verdict};
use table::{CALLS, Call};

/// Namespace flags of `clone`: cgroup, uts, ipc, user, pid, net, mount.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// Linux, `UNAME26`, `PER_LINUX32`, both, and the question.
const PERSONALITIES: &[RangeInclusive<u32>] =
    &[0..=0, 8..=8, 0x2_0000..=0x2_0000, 0x2_0008..=0x2_0008, u32::MAX..=u32::MAX];
/// Not among them: DECnet, Econet, ATM SVC, IrDA, WANPIPE, ISDN, CAIF, the kernel's crypto, VM sockets, and new ones.
const FAMILIES: &[RangeInclusive<u32>] =
    &[0..=11, 13..=18, 21..=22, 24..=24, 26..=33, 35..=36, 39..=39, 41..=45];

/// The calls of `socketcall` with a family: `SYS_SOCKET` and `SYS_SOCKETPAIR` of `linux/net.h`.
const MAKE_SOCKETS: &[u32] = &[1, 8];

/// The number of a call on one architecture.
type Column = fn(&Call) -> Option<u32>;

/// A pair of system call tables that one kernel serves: its own and the 32-bit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    X86,
    Arm,
}

impl Machine {
    /// The one that this program was built for; `None` where there is no table.
    pub(crate) fn here() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86),
            "aarch64" => Some(Self::Arm),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` and the way into the table.
    fn tables(self) -> [(u32, Column); 2] {
        match self {
            Self::X86 => [(0xc000_003e, |call| call.x86_64), (0x4000_0003, |call| call.i386)],
            Self::Arm => [(0xc000_00b7, |call| call.aarch64), (0x4000_0028, |call| call.arm)],
        }
    }
}

/// What programs are held by.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The default, with the calls that making a container takes.
    pub(crate) early: Vec<Instruction>,
    /// Refuses these and no others. A kernel takes the sterner of two filters' words, so both are the default.
    pub(crate) late: Vec<Instruction>,
    /// The default where one id is mapped.
    pub(crate) single_id: Vec<Instruction>,
    /// Nothing but the questions of [`crate::ids`].
    pub(crate) one_id_insecure: Vec<Instruction>,
}

impl Programs {
    pub(crate) fn new(machine: Machine) -> Self {
        let [native, foreign] = machine.tables();
        let mut all = Tree::new(Verdict::Allow);
        ask(&mut all, native.1);
        let mut asks = tree(native.1);
        ask(&mut asks, native.1);
        let free = (foreign.0, Tree::new(Verdict::Allow));
        Self {
            early: early_program(machine),
            late: late_program(machine),
            single_id: emit::program(&[(native.0, asks), (foreign.0, tree(foreign.1))]),
            one_id_insecure: emit::program(&[(native.0, all), free]),
        }
    }
}

/// `AUDIT_ARCH_*` of this machine's own table.
pub(crate) fn native_arch(machine: Machine) -> u32 {
    machine.tables()[0].0
}

/// The calls that are asked about, in this machine's own table.
pub(crate) fn asked(machine: Machine) -> impl Iterator<Item = (u32, &'static str)> {
    let number = machine.tables()[0].1;
    let asked = CALLS.iter().filter(|call| asks::verdict(call.name).is_some());
    asked.filter_map(move |call| Some((number(call)?, call.name)))
}

/// Lets what concerns owners be answered.
fn ask(tree: &mut Tree, number: Column) {
    for call in CALLS {
        if let (Some(number), Some(verdict)) = (number(call), asks::verdict(call.name)) {
            tree.set(number..=number, verdict);
        }
    }
}

/// The calls of set-up that the default refuses, in a machine's own table: `umount2`, `pivot_root`, `sethostname`, `setns`,
/// and those on mounts.
fn set_up(machine: Machine) -> impl Iterator<Item = u32> {
    let own = match machine {
        Machine::X86 => [166, 155, 170, 308],
        Machine::Arm => [39, 41, 161, 268],
    };
    // `open_tree`, `move_mount`, `fsopen`, `fsconfig`, `fsmount`; `mount_setattr`.
    own.into_iter().chain(428..=432).chain([442])
}

/// The default filter for `machine`, but for the calls of set-up.
fn early_program(machine: Machine) -> Vec<Instruction> {
    let [native, foreign] = machine.tables();
    let mut early = tree(native.1);
    set_up(machine).for_each(|call| early.set(call..=call, Verdict::Allow));
    emit::program(&[(native.0, early), (foreign.0, tree(foreign.1))])
}

/// What the early one lacks. Short, as it is loaded between a container's start and its program.
fn late_program(machine: Machine) -> Vec<Instruction> {
    let [native, foreign] = machine.tables();
    let mut late = Tree::new(Verdict::Allow);
    set_up(machine).for_each(|call| late.set(call..=call, Verdict::Errno(Errno::PERM)));
    emit::program(&[(native.0, late), (foreign.0, Tree::new(Verdict::Allow))])
}

fn tree(number: Column) -> Tree {
    // ARM has private calls far above the others, which say nothing about how new the table is.
    let newest = CALLS.iter().filter_map(number).filter(|number| *number < 0x1000).max().unwrap_or(0);
    let mut tree = Tree::new(Verdict::Errno(Errno::NOSYS));
    tree.set(0..=newest, Verdict::Errno(Errno::PERM));
    for call in CALLS {
        if let Some(number) = number(call) {
            tree.set(number..=number, verdict(call.name));
        }
    }
    tree
}

fn verdict(name: &str) -> Verdict {
    match name {
        "clone" => Verdict::NoneOf(NAMESPACE_FLAGS),
        "clone3" => Verdict::Errno(Errno::NOSYS),
        "personality" => Verdict::OneOf(PERSONALITIES),
        "socket" | "socketpair" => Verdict::OneOf(FAMILIES),
        // The call that it stands for is the first argument.
        "socketcall" => Verdict::RefuseIf { values: MAKE_SOCKETS, errno: Errno::NOSYS },
        _ => Verdict::Allow,
    }
}

#[cfg(test)]
mod tests;
