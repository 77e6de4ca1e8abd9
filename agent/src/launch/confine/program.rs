//! How does version 2 of cgroups keep rules?
//!
//! By a program that the kernel asks at each opening of a device file: for each rule, it compares
//! kind, major and minor number, and ends with the answer of the first that fits. It stays attached
//! as long as the group exists; the programs of parents must allow as well (BPF_F_ALLOW_MULTI).

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::{Rule, with_path};
use crate::sys::bpf::{self, Instruction};

/// Registers: the answer, the context, and what is compared.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// The kernel's numbers of kinds of devices.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Whether this process may load such programs at all.
pub(crate) fn can_load() -> bool {
    bpf::load_device_program(&assemble(&[])).is_ok()
}

/// Holds the group in `dir` to `rules`.
///
/// # Errors
/// When the kernel takes no such program, or not for this group.
pub(crate) fn confine(dir: &Path, rules: &[Rule]) -> io::Result<()> {
    let group = File::open(dir).map_err(|error| with_path(dir, error))?;
    let program = bpf::load_device_program(&assemble(rules))?;
    bpf::attach_device_program(group.as_fd(), program.as_fd()).map_err(|e| with_path(dir, e))
}

fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        Instruction::load_word(KIND, CONTEXT, 0),
        // The upper half is the access that is wanted.
        Instruction::and(KIND, 0xffff),
        Instruction::load_word(MAJOR, CONTEXT, 4),
        Instruction::load_word(MINOR, CONTEXT, 8),
    ];
    for rule in rules {
        let minor = rule.minor;
        // From the first comparison to behind the end of this rule.
        let length = if minor.is_some() { 5 } else { 4 };
        let number = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
        let kind = if rule.block { BLOCK } else { CHARACTER };
        code.push(Instruction::skip_unless(KIND, kind, length - 1));
        code.push(Instruction::skip_unless(MAJOR, number(rule.major), length - 2));
        if let Some(minor) = minor {
            code.push(Instruction::skip_unless(MINOR, number(minor), 2));
        }
        code.push(Instruction::set(ANSWER, i32::from(rule.allow)));
        code.push(Instruction::exit());
    }
    code.push(Instruction::set(ANSWER, 1));
    code.push(Instruction::exit());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers, by a machine that knows its few instructions.
    fn answer(code: &[Instruction], kind: i32, major: i32, minor: i32) -> i32 {
        let mut registers = [0, 0, kind | 6 << 16, major, minor];
        let mut at = 0;
        loop {
            let step = code[at];
            at += 1;
            match step {
                it if it == Instruction::and(KIND, 0xffff) => registers[2] &= 0xffff,
                it if it == Instruction::exit() => return registers[0],
                it if it == Instruction::set(ANSWER, it.value()) => registers[0] = it.value(),
                it => {
                    if let Some((register, value, skip)) = it.as_skip_unless()
                        && registers[usize::from(register)] != value
                    {
                        at += usize::try_from(skip).expect("only forward");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |major, minor, allow| Rule { block: false, major, minor, allow };
        let rules = [
            rule(195, Some(3), true),
            rule(195, Some(255), true),
            Rule { block: true, major: 8, minor: Some(0), allow: false },
            rule(195, None, false),
            rule(510, None, false),
        ];
        let code = assemble(&rules);
        for (kind, major, minor, expect) in [
            (CHARACTER, 195, 3, 1),
            (CHARACTER, 195, 255, 1),
            (CHARACTER, 195, 4, 0),
            (CHARACTER, 510, 3, 0),
            (CHARACTER, 1, 3, 1),
            (BLOCK, 195, 4, 1),
            (BLOCK, 8, 0, 0),
            (BLOCK, 8, 1, 1),
        ] {
            assert_eq!(answer(&code, kind, major, minor), expect, "{kind} {major}:{minor}");
        }
    }
}
