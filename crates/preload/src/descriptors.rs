//! `close`, `fclose`, `dup`, `fcntl`, `mmap`, `epoll_ctl`, `close_range` on descriptors that may be rings.
//!
//! Below the base everything goes straight to the C library (or, where it adds nothing, the kernel).
#![allow(unsafe_code)]

use crate::next::next;
use libc::{c_int, c_uint, c_void, off_t, size_t};
use soloring_intercept::dispatch::{dispatch, high_fd, note_close, note_close_range};
use soloring_intercept::raw::{self, Args};

/// Number of a system call, for the dispatcher.
macro_rules! caught {
    ($nr:expr, $($arg:expr),*) => {{
        let mut args: Args = [0; 6];
        let mut rest = args.iter_mut();
        $( *rest.next().expect("at most six") = $arg as usize; )*
        // SAFETY: the program's own arguments in the system call's order.
        unsafe { raw::to_errno(dispatch($nr as usize, &args)) }
    }};
}

/// A system call that the C library adds nothing to. Used where the loader may not be ready for a
/// look-up: allocators map memory while they are being looked up.
macro_rules! plain {
    ($nr:expr, $($arg:expr),*) => {{
        let mut args: Args = [0; 6];
        let mut rest = args.iter_mut();
        $( *rest.next().expect("at most six") = $arg as usize; )*
        // SAFETY: the program's own arguments in the system call's order.
        unsafe { raw::to_errno(raw::any($nr as usize, args)) }
    }};
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if high_fd(fd) {
        return caught!(libc::SYS_close, fd) as c_int;
    }
    note_close(fd);
    match next!(c"close" as fn(c_int) -> c_int) {
        // SAFETY: as this function.
        Some(close) => unsafe { close(fd) },
        None => plain!(libc::SYS_close, fd) as c_int,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __close(fd: c_int) -> c_int {
    // SAFETY: as this function.
    unsafe { close(fd) }
}

/// Closes its descriptor by the C library's own, internal call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fclose(stream: *mut libc::FILE) -> c_int {
    // SAFETY: the program's stream; what is wrong with it is wrong for the call below as well.
    note_close(unsafe { libc::fileno(stream) });
    match next!(c"fclose" as fn(*mut libc::FILE) -> c_int) {
        // SAFETY: as this function.
        Some(fclose) => unsafe { fclose(stream) },
        None => libc::EOF,
    }
}

/// As `fclose`, for `popen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pclose(stream: *mut libc::FILE) -> c_int {
    // SAFETY: as for fclose.
    note_close(unsafe { libc::fileno(stream) });
    match next!(c"pclose" as fn(*mut libc::FILE) -> c_int) {
        // SAFETY: as this function.
        Some(pclose) => unsafe { pclose(stream) },
        None => -1,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    if high_fd(fd) {
        caught!(libc::SYS_dup, fd) as c_int
    } else {
        plain!(libc::SYS_dup, fd) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if high_fd(old) || high_fd(new) {
        return caught!(libc::SYS_dup2, old, new) as c_int;
    }
    if old != new {
        note_close(new);
    }
    plain!(libc::SYS_dup2, old, new) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: as this function.
    unsafe { dup2(old, new) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if high_fd(old) || high_fd(new) {
        return caught!(libc::SYS_dup3, old, new, flags) as c_int;
    }
    if old != new {
        note_close(new);
    }
    plain!(libc::SYS_dup3, old, new, flags) as c_int
}

// `fcntl` is variadic; on x86-64 the one optional argument arrives in the third register either way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> c_int {
    if high_fd(fd) {
        return caught!(libc::SYS_fcntl, fd, cmd, arg) as c_int;
    }
    match next!(c"fcntl" as fn(c_int, c_int, usize) -> c_int) {
        // SAFETY: as this function.
        Some(fcntl) => unsafe { fcntl(fd, cmd, arg) },
        None => plain!(libc::SYS_fcntl, fd, cmd, arg) as c_int,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, cmd: c_int, arg: usize) -> c_int {
    // SAFETY: as this function; off_t has 64 bits either way.
    unsafe { fcntl(fd, cmd, arg) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    off: off_t,
) -> *mut c_void {
    let ret = if high_fd(fd) {
        caught!(libc::SYS_mmap, addr, len, prot, flags, fd, off)
    } else {
        plain!(libc::SYS_mmap, addr, len, prot, flags, fd, off)
    };
    ret as *mut c_void
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    off: off_t,
) -> *mut c_void {
    // SAFETY: as this function; off_t has 64 bits either way.
    unsafe { mmap(addr, len, prot, flags, fd, off) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    if high_fd(epfd) || high_fd(fd) {
        return caught!(libc::SYS_epoll_ctl, epfd, op, fd, event) as c_int;
    }
    plain!(libc::SYS_epoll_ctl, epfd, op, fd, event) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if high_fd(last.min(i32::MAX as u32) as c_int) {
        return caught!(libc::SYS_close_range, first, last, flags) as c_int;
    }
    if flags as c_uint & libc::CLOSE_RANGE_CLOEXEC == 0 {
        note_close_range(first, last);
    }
    plain!(libc::SYS_close_range, first, last, flags) as c_int
}

/// glibc 2.34: closes everything from `first` up; its own fallback walks `/proc/self/fd` by raw calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    caught!(libc::SYS_close_range, first.max(0), c_uint::MAX, 0);
}
