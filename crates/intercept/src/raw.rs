//! Raw system calls: unmarked for the program's own requests, marked where our filter would stop us.
#![allow(unsafe_code)]

use soloring_abi::cookie::{COOKIE, MMAP_FLAGS_COOKIE};
use syscalls::{Sysno, raw};

/// Six argument registers of a system call, in the kernel's order (rdi, rsi, rdx, r10, r8, r9).
pub type Args = [usize; 6];

/// Any system call; the result is the raw register: `>= 0` or `-errno`.
///
/// # Safety
/// As the system call itself: its pointer arguments must be what the kernel expects of them.
#[inline]
pub unsafe fn any(nr: usize, a: Args) -> isize {
    // SAFETY: the caller vouches for the arguments.
    unsafe { raw::syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]) as isize }
}

/// A descriptor call of at most five arguments that the filter lets through.
///
/// # Safety
/// As the system call itself. The caller decides that the descriptor is the program's to act on.
#[inline]
pub unsafe fn marked(nr: Sysno, a: [usize; 5]) -> isize {
    // SAFETY: the caller vouches for the arguments; the kernel ignores the sixth of these calls.
    unsafe { any(nr.id() as usize, [a[0], a[1], a[2], a[3], a[4], COOKIE as usize]) }
}

/// `mmap` that the filter lets through whatever the descriptor.
///
/// # Safety
/// As `mmap`: the caller asked for this mapping.
#[inline]
pub unsafe fn marked_mmap(a: Args) -> isize {
    let flags = (a[3] & 0xffff_ffff) | MMAP_FLAGS_COOKIE as usize;
    // SAFETY: the caller vouches for the mapping; the mark lies in bits the kernel ignores.
    unsafe { any(Sysno::mmap.id() as usize, [a[0], a[1], a[2], flags, a[4], a[5]]) }
}

/// Process id from the kernel: correct in children of `vfork` and of raw `clone` as well.
#[inline]
pub fn getpid() -> i32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { raw::syscall0(Sysno::getpid.id() as usize) as i32 }
}

/// Stores `-errno` results in `errno` and answers -1, as the C library's wrappers do.
///
/// # Safety
/// The calling thread must have its C thread-local storage set up.
#[inline]
pub unsafe fn to_errno(ret: isize) -> isize {
    if (-4095..0).contains(&ret) {
        // SAFETY: errno's address is valid for the life of the thread.
        unsafe { *libc::__errno_location() = -ret as i32 };
        return -1;
    }
    ret
}

/// Writes one message to standard error in a single call, without allocating or taking a lock.
pub fn stderr(parts: &[&str]) {
    let mut line = [0u8; 512];
    let mut len = 0;
    for part in parts {
        let n = part.len().min(line.len() - len);
        line[len..len + n].copy_from_slice(&part.as_bytes()[..n]);
        len += n;
    }
    // SAFETY: the buffer is initialised up to `len`.
    unsafe { raw::syscall3(Sysno::write.id() as usize, 2, line.as_ptr() as usize, len) };
}
