//! File actions of `posix_spawn` that would name ring descriptors in a child without a SIGSYS handler.
//!
//! From glibc 2.38 on, `posix_spawn` asks the kernel to reset all handlers in the child (CLONE_CLEAR_SIGHAND),
//! before that child closes and duplicates descriptors: a call that the filter stops would kill it there.
//! Ring descriptors close on exec anyway, so closing one is no action at all, and "close everything from" is
//! written out as the descriptors that are open when it is added.
#![allow(unsafe_code)]

use crate::next::next;
use libc::{c_char, c_int, posix_spawn_file_actions_t};
use soloring_engine::uapi;
use soloring_intercept::dispatch::high_fd;
use soloring_intercept::sweep::for_each_open;
use std::ffi::CStr;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn_file_actions_addclose(
    actions: *mut posix_spawn_file_actions_t,
    fd: c_int,
) -> c_int {
    if uapi::is_ring_fd(fd) {
        return 0;
    }
    match next!(
        c"posix_spawn_file_actions_addclose" as fn(*mut posix_spawn_file_actions_t, c_int) -> c_int
    ) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(actions, fd) },
        None => libc::ENOSYS,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn_file_actions_addclosefrom_np(
    actions: *mut posix_spawn_file_actions_t,
    from: c_int,
) -> c_int {
    if from >= 0 && handlers_are_reset() {
        let mut ret = 0;
        let listed = for_each_open(|fd| {
            let fd = fd as c_int;
            if fd >= from && !high_fd(fd) && ret == 0 {
                // SAFETY: as this function.
                ret = unsafe { posix_spawn_file_actions_addclose(actions, fd) };
            }
        });
        if listed {
            return ret;
        }
    }
    match next!(
        c"posix_spawn_file_actions_addclosefrom_np"
            as fn(*mut posix_spawn_file_actions_t, c_int) -> c_int
    ) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(actions, from) },
        None => libc::ENOSYS,
    }
}

/// Whether this C library's `posix_spawn` clears the handlers of its child.
fn handlers_are_reset() -> bool {
    unsafe extern "C" {
        fn gnu_get_libc_version() -> *const c_char;
    }
    // SAFETY: returns a constant string.
    let version = unsafe { CStr::from_ptr(gnu_get_libc_version()) };
    let minor = version.to_str().ok().and_then(|v| v.strip_prefix("2.")?.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= 38)
}
