//! `poll`, `select`, `epoll_wait` and relatives: readiness of rings is refreshed before the program sleeps.
//!
//! The C library's own functions do the sleeping, because they are cancellation points. Signal masks
//! are passed on without SIGSYS: a handler that runs during the sleep may call into a ring.
#![allow(unsafe_code)]

use crate::next::{missing, next};
use libc::{
    c_int, c_void, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval,
};
use soloring_intercept::{mask::Stripped, watch};

/// Calls the C library's function, or answers ENOSYS where it has none.
macro_rules! forward {
    ($name:literal as fn($($ty:ty),* $(,)?) -> c_int, $($arg:expr),* $(,)?) => {
        match next!($name as fn($($ty),*) -> c_int) {
            // SAFETY: the program's own arguments, masks replaced by live copies.
            Some(function) => unsafe { function($($arg),*) },
            None => missing(),
        }
    };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(fds: *mut pollfd, len: nfds_t, timeout_ms: c_int) -> c_int {
    // SAFETY: the program's own array.
    unsafe { watch::before_poll(fds, len as usize) };
    forward!(c"poll" as fn(*mut pollfd, nfds_t, c_int) -> c_int, fds, len, timeout_ms)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll(fds: *mut pollfd, len: nfds_t, timeout_ms: c_int) -> c_int {
    // SAFETY: as this function.
    unsafe { poll(fds, len, timeout_ms) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    len: nfds_t,
    timeout_ms: c_int,
    size: size_t,
) -> c_int {
    // SAFETY: the program's own array.
    unsafe { watch::before_poll(fds, (len as usize).min(size / size_of::<pollfd>())) };
    forward!(
        c"__poll_chk" as fn(*mut pollfd, nfds_t, c_int, size_t) -> c_int,
        fds,
        len,
        timeout_ms,
        size
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    len: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's own array and mask.
    let stripped = unsafe {
        watch::before_poll(fds, len as usize);
        Stripped::new(sigmask)
    };
    forward!(
        c"ppoll" as fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int,
        fds,
        len,
        timeout,
        stripped.as_ptr()
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    len: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
    size: size_t,
) -> c_int {
    // SAFETY: the program's own array and mask.
    let stripped = unsafe {
        watch::before_poll(fds, (len as usize).min(size / size_of::<pollfd>()));
        Stripped::new(sigmask)
    };
    forward!(
        c"__ppoll_chk"
            as fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t, size_t) -> c_int,
        fds,
        len,
        timeout,
        stripped.as_ptr(),
        size
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn select(
    len: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the program's own sets.
    unsafe { watch::before_select(len, [read, write, except].map(|s| s.cast_const())) };
    forward!(
        c"select" as fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *mut timeval) -> c_int,
        len,
        read,
        write,
        except,
        timeout
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pselect(
    len: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's own sets and mask.
    let stripped = unsafe {
        watch::before_select(len, [read, write, except].map(|s| s.cast_const()));
        Stripped::new(sigmask)
    };
    forward!(
        c"pselect"
            as fn(
                c_int,
                *mut fd_set,
                *mut fd_set,
                *mut fd_set,
                *const timespec,
                *const sigset_t,
            ) -> c_int,
        len,
        read,
        write,
        except,
        timeout,
        stripped.as_ptr()
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    watch::before_epoll();
    forward!(
        c"epoll_wait" as fn(c_int, *mut epoll_event, c_int, c_int) -> c_int,
        epfd,
        events,
        max,
        timeout_ms
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
    sigmask: *const sigset_t,
) -> c_int {
    watch::before_epoll();
    // SAFETY: the program's own mask.
    let stripped = unsafe { Stripped::new(sigmask) };
    forward!(
        c"epoll_pwait" as fn(c_int, *mut epoll_event, c_int, c_int, *const sigset_t) -> c_int,
        epfd,
        events,
        max,
        timeout_ms,
        stripped.as_ptr()
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    watch::before_epoll();
    // SAFETY: the program's own mask.
    let stripped = unsafe { Stripped::new(sigmask) };
    forward!(
        c"epoll_pwait2"
            as fn(c_int, *mut epoll_event, c_int, *const timespec, *const sigset_t) -> c_int,
        epfd,
        events,
        max,
        timeout,
        stripped.as_ptr()
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigsuspend(sigmask: *const sigset_t) -> c_int {
    // SAFETY: the program's own mask.
    let stripped = unsafe { Stripped::new(sigmask) };
    forward!(c"sigsuspend" as fn(*const c_void) -> c_int, stripped.as_ptr().cast())
}
