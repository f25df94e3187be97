//! `mmap` and `munmap`: raw calls, which nobody can come between; a failure is a negative errno.
//!
//! With `--cfg soloring_sanitize` they go through the C library instead, where a sanitizer listens. It has to
//! hear of them, or what was done to an earlier mapping at the same address counts as done to this one.
#![allow(unsafe_code)]

/// # Safety
/// As mmap(2).
pub(crate) unsafe fn mmap(
    addr: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    off: u64,
) -> usize {
    #[cfg(not(soloring_sanitize))]
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        syscalls::raw_syscall!(syscalls::Sysno::mmap, addr, len, prot, flags, fd, off)
    }
    #[cfg(soloring_sanitize)]
    // SAFETY: the same.
    let at = unsafe { libc::mmap(addr as *mut libc::c_void, len, prot, flags, fd, off as i64) };
    #[cfg(soloring_sanitize)]
    if at == libc::MAP_FAILED { failure() } else { at as usize }
}

/// # Safety
/// As munmap(2): nobody uses the pages any more.
pub(crate) unsafe fn munmap(addr: usize, len: usize) -> usize {
    #[cfg(not(soloring_sanitize))]
    // SAFETY: the caller vouches for the pages.
    unsafe {
        syscalls::raw_syscall!(syscalls::Sysno::munmap, addr, len)
    }
    #[cfg(soloring_sanitize)]
    // SAFETY: the same.
    let failed = unsafe { libc::munmap(addr as *mut libc::c_void, len) } != 0;
    #[cfg(soloring_sanitize)]
    if failed { failure() } else { 0 }
}

#[cfg(soloring_sanitize)]
fn failure() -> usize {
    // SAFETY: the address of this thread's errno.
    -unsafe { *libc::__errno_location() } as isize as usize
}
