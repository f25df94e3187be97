//! `setrlimit`, `getrlimit`, `prlimit` for the number of descriptors: ours stay within the hard limit.
//!
//! Ring descriptors are numbers at and above the base. A program that lowers its hard limit below them could
//! never get another ring. The soft limit is the program's: the engine raises it for the length of a
//! duplication, which must not be seen here. So a hard limit below the room for rings is remembered, told back, and not carried out.
#![allow(unsafe_code)]

use crate::next::{missing, next};
use libc::{c_int, pid_t, rlimit, rlimit64};
use soloring_engine::uapi;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Descriptors above the base that rings and their helpers may need.
const ROOM: u64 = 1024;
/// The hard limit that the program believes in, when it is lower than the real one.
static BELIEVED_MAX: AtomicU64 = AtomicU64::new(u64::MAX);

type Prlimit = (pid_t, u32, *const rlimit64, *mut rlimit64);

/// # Safety
/// The pointers are null or valid.
unsafe fn prlimit_files((pid, resource, new, old): Prlimit) -> c_int {
    let Some(real) = next!(c"prlimit64" as fn(pid_t, u32, *const rlimit64, *mut rlimit64) -> c_int)
    else {
        return missing();
    };
    let own = pid == 0 || pid == soloring_intercept::raw::getpid();
    if !own || resource != libc::RLIMIT_NOFILE {
        // SAFETY: as the caller promises.
        return unsafe { real(pid, resource, new, old) };
    }
    let mut before = rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: asks for the limits as they are.
    if unsafe { real(0, resource, std::ptr::null(), &mut before) } != 0 {
        return -1;
    }
    let believed = BELIEVED_MAX.load(Relaxed);
    let lowest = (uapi::fd_base() as u64 + ROOM).min(before.rlim_max);
    // SAFETY: as the caller promises.
    if let Some(wanted) = unsafe { new.as_ref() } {
        let set = rlimit64 {
            rlim_cur: wanted.rlim_cur,
            rlim_max: if wanted.rlim_cur <= wanted.rlim_max {
                wanted.rlim_max.max(lowest)
            } else {
                wanted.rlim_max
            },
        };
        // SAFETY: a live structure.
        if unsafe { real(0, resource, &set, std::ptr::null_mut()) } != 0 {
            return -1;
        }
        let told = if set.rlim_max == wanted.rlim_max { u64::MAX } else { wanted.rlim_max };
        BELIEVED_MAX.store(told, Relaxed);
        uapi::note_soft_limit(wanted.rlim_cur);
    }
    // SAFETY: as the caller promises.
    if let Some(old) = unsafe { old.as_mut() } {
        *old = before;
        old.rlim_cur = uapi::soft_limit_told(before.rlim_cur, before.rlim_max);
        old.rlim_max = before.rlim_max.min(believed);
    }
    0
}

// `rlimit` and `rlimit64` are the same structure on x86-64.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prlimit(
    pid: pid_t,
    resource: u32,
    new: *const rlimit,
    old: *mut rlimit,
) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((pid, resource, new.cast(), old.cast())) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn prlimit64(
    pid: pid_t,
    resource: u32,
    new: *const rlimit64,
    old: *mut rlimit64,
) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((pid, resource, new, old)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setrlimit(resource: u32, new: *const rlimit) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((0, resource, new.cast(), std::ptr::null_mut())) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setrlimit64(resource: u32, new: *const rlimit64) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((0, resource, new, std::ptr::null_mut())) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrlimit(resource: u32, old: *mut rlimit) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((0, resource, std::ptr::null(), old.cast())) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrlimit64(resource: u32, old: *mut rlimit64) -> c_int {
    // SAFETY: as this function.
    unsafe { prlimit_files((0, resource, std::ptr::null(), old)) }
}
