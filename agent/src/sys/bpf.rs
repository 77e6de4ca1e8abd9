//! How is a small program for the kernel loaded and attached to a cgroup?
//!
//! By bpf(2), with instructions put together here: the few of them need no assembler.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Commands of bpf(2).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
/// Kind of program that is asked at each access to a device.
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// Where such a program is attached.
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of groups below may be attached too; all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// One instruction: code, registers, offset, value (linux/bpf.h, `struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Target in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    /// `target = *(u32 *)(source + offset)`.
    pub(crate) const fn load_word(target: u8, source: u8, offset: i16) -> Self {
        Self { code: 0x61, registers: target | source << 4, offset, value: 0 }
    }

    /// `target &= value`, in 32 bits.
    pub(crate) const fn and(target: u8, value: i32) -> Self {
        Self { code: 0x54, registers: target, offset: 0, value }
    }

    /// `target = value`.
    pub(crate) const fn set(target: u8, value: i32) -> Self {
        Self { code: 0xb7, registers: target, offset: 0, value }
    }

    /// Goes over the next `skip` instructions unless the lower half of `register` is `value`.
    pub(crate) const fn skip_unless(register: u8, value: i32, skip: i16) -> Self {
        Self { code: 0x56, registers: register, offset: skip, value }
    }

    /// Ends with the answer in register 0.
    pub(crate) const fn exit() -> Self {
        Self { code: 0x95, registers: 0, offset: 0, value: 0 }
    }

    /// Its value.
    #[cfg(test)]
    pub(crate) const fn value(self) -> i32 {
        self.value
    }

    /// The arguments of [`Self::skip_unless`].
    #[cfg(test)]
    pub(crate) fn as_skip_unless(self) -> Option<(u8, i32, i16)> {
        (self.code == 0x56).then_some((self.registers, self.value, self.offset))
    }
}

/// What `BPF_PROG_LOAD` reads; later kernels take the rest for zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// What `BPF_PROG_ATTACH` reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Calls bpf(2) with the attributes of a command.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    let size = size_of::<T>();
    // SAFETY: the attributes are read only, are of this size, and name memory that lives as long as
    // the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// Loads a program that is asked at each access to a device.
///
/// # Errors
/// Without the right to do so, or where the kernel has no such programs.
pub(crate) fn load_device_program(code: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &load)?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches such a program to a group of version 2, for as long as that exists.
///
/// # Errors
/// Without the right to do so, or where a parent's program forbids others.
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    let attach = Attach {
        target: number(group)?,
        program: number(program)?,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}
