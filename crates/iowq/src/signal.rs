//! The reserved signal: which number, and the handler that does nothing.
//!
//! # The number
//! SIGRTMAX-3 (61 with glibc) first, then downwards. glibc keeps 32 and 33 for itself, musl 34 too;
//! programs that use real-time signals count up from SIGRTMIN; Valgrind takes SIGRTMAX, and the
//! Java class library wakes blocked threads with SIGRTMAX-2, whose handler would be installed over
//! ours long after the start. A number counts as free when its disposition is the default one.
//!
//! # What the program may do to it
//! The disposition is looked at before every interruption. Reset to the default (programs that
//! sweep all signals): the handler is put back. Taken by a handler of the program's, or ignored:
//! the next free number is used from then on; a worker opens its mask for it before its next work,
//! and what it runs just then cannot be interrupted. No handler of the program ever runs for a
//! signal that we send.
#![allow(unsafe_code)]

use crate::sys::{SigSet, sigbit};
use std::sync::atomic::{AtomicI32, Ordering};

/// Candidates below SIGRTMAX: -3 to -12.
const OFFSET_FIRST: i32 = 3;
const OFFSET_LAST: i32 = 12;

/// The number in use; 0 before the first choice, and when nothing is free.
static SIGNO: AtomicI32 = AtomicI32::new(0);

/// Interrupts the system call that the worker is in, by having been delivered.
extern "C" fn on_interrupt(_signo: libc::c_int) {}

enum Disposition {
    Ours,
    Default,
    Taken,
}

fn disposition(signo: i32) -> Disposition {
    // SAFETY: sigaction is plain data for which all zeroes is a value.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given; `old` is live for the call.
    if unsafe { libc::sigaction(signo, std::ptr::null(), &raw mut old) } != 0 {
        return Disposition::Taken;
    }
    match old.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        h if h == on_interrupt as *const () as usize => Disposition::Ours,
        _ => Disposition::Taken,
    }
}

fn install(signo: i32) -> bool {
    // SAFETY: as above.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = on_interrupt as *const () as usize;
    // No SA_RESTART: the point is that the call returns -EINTR. The mask is of no account, the body
    // is empty.
    new.sa_flags = 0;
    // SAFETY: the handler is a function of this library that touches nothing, for any thread at any
    // instruction.
    unsafe { libc::sigaction(signo, &raw const new, std::ptr::null_mut()) == 0 }
}

/// The number of the signal that interrupts workers, with our handler in place when this returns;
/// None when every candidate is taken.
pub fn reserve() -> Option<i32> {
    let current = SIGNO.load(Ordering::Relaxed);
    if current != 0 && usable(current) {
        return Some(current);
    }
    let max = libc::SIGRTMAX();
    let found = (max - OFFSET_LAST..=max - OFFSET_FIRST)
        .rev()
        .find(|&n| n >= libc::SIGRTMIN() && usable(n));
    // Two threads that choose at once find the same first free number, since each installs what it
    // finds.
    SIGNO.store(found.unwrap_or(0), Ordering::Relaxed);
    found
}

fn usable(signo: i32) -> bool {
    match disposition(signo) {
        Disposition::Ours => true,
        Disposition::Default => install(signo),
        Disposition::Taken => false,
    }
}

/// That number without looking at its disposition, 0 when there is none.
pub fn current() -> i32 {
    SIGNO.load(Ordering::Relaxed)
}

/// The signal mask of a worker: everything blocked but `signo`, SIGSYS and glibc's own two.
///
/// SIGSYS is raised by the thread's own system call, where interception is by seccomp; blocked it
/// would be death. 32 and 33 carry pthread_cancel and setuid(2) across threads: setuid in the
/// program waits until every thread has answered.
pub(crate) fn worker_mask(signo: i32) -> SigSet {
    let open = sigbit(libc::SIGSYS) | sigbit(32) | sigbit(33);
    !(open | if signo == 0 { 0 } else { sigbit(signo) })
}
