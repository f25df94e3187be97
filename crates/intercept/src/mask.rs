//! Signal masks as the program sees them: SIGSYS never really blocked, reported as if it were.
#![allow(unsafe_code)]

use crate::sigaction::SIGSYS_BIT;
use crate::stack;

/// A C library `sigset_t` without SIGSYS, to pass on in the program's place.
#[derive(Clone, Copy)]
pub struct Stripped {
    set: libc::sigset_t,
    present: bool,
}

impl Stripped {
    /// Copies `set`, or notes that it is null.
    ///
    /// # Safety
    /// `set` is null or points to a signal set.
    pub unsafe fn new(set: *const libc::sigset_t) -> Stripped {
        // SAFETY: all zeros is the empty set.
        let mut copy: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: as the caller promises; a valid signal number.
        unsafe {
            if let Some(set) = set.as_ref() {
                copy = *set;
                libc::sigdelset(&mut copy, libc::SIGSYS);
            }
        }
        Stripped { set: copy, present: !set.is_null() }
    }

    /// Pointer to hand to the C library: null where the program passed null.
    pub fn as_ptr(&self) -> *const libc::sigset_t {
        if self.present { &self.set } else { std::ptr::null() }
    }
}

/// Whether the program believes SIGSYS to be blocked on this thread.
pub fn sigsys_blocked() -> bool {
    // SAFETY: this thread's own record.
    unsafe { (*stack::thread()).sigsys_blocked }
}

/// Notes what the program did to SIGSYS by a mask change: `how` as in `sigprocmask`, `has` whether the
/// set named SIGSYS.
pub fn note_change(how: i32, has: bool) {
    let blocked = match how {
        libc::SIG_BLOCK => has || sigsys_blocked(),
        libc::SIG_UNBLOCK => !has && sigsys_blocked(),
        libc::SIG_SETMASK => has,
        _ => return,
    };
    // SAFETY: this thread's own record.
    unsafe { (*stack::thread()).sigsys_blocked = blocked };
}

/// Whether a kernel mask names SIGSYS.
pub fn names_sigsys(mask: u64) -> bool {
    mask & SIGSYS_BIT != 0
}

/// A kernel mask less SIGSYS.
pub fn without_sigsys(mask: u64) -> u64 {
    mask & !SIGSYS_BIT
}

/// A kernel mask with SIGSYS.
pub fn with_sigsys(mask: u64) -> u64 {
    mask | SIGSYS_BIT
}
