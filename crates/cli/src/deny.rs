//! Takes the kernel's ring away from a child: the filter that container engines install.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Offsets into `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The three calls answer EPERM, everything else passes.
const FILTER: [libc::sock_filter; 8] = [
    step(LOAD, OFFSET_ARCH, 0, 0),
    step(JUMP_EQUAL, AUDIT_ARCH, 0, 5),
    step(LOAD, OFFSET_NR, 0, 0),
    step(JUMP_EQUAL, libc::SYS_io_uring_setup as u32, 2, 0),
    step(JUMP_EQUAL, libc::SYS_io_uring_enter as u32, 1, 0),
    step(JUMP_EQUAL, libc::SYS_io_uring_register as u32, 0, 1),
    step(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
    step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
];

/// Makes `command` start its program with io_uring denied, as in a container.
pub fn io_uring_in(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes two system calls and touches constants only: nothing that a child
    // between fork and exec may not do.
    unsafe { command.pre_exec(install) }
}

/// Installs the filter for the calling thread and what it executes. Cannot be undone.
///
/// # Errors
/// As `prctl(2)` and `seccomp(2)`; EINVAL where the kernel has no seccomp filters.
fn install() -> io::Result<()> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` names a constant array of the length it says; the kernel copies it.
    if unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    } != 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
