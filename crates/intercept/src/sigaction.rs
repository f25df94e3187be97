//! SIGSYS as the program sees it: its own action and blocked bit, kept here while ours stay in force.
//!
//! A stopped system call whose signal is blocked or has no handler kills the process, so the real
//! action of SIGSYS is always ours and the signal is never really blocked; the program reads back what
//! it set. Signals other than SIGSYS are only touched by taking SIGSYS out of their masks.
#![allow(unsafe_code)]

use crate::raw::{self, Args};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use syscalls::Sysno;

/// `struct kernel_sigaction` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct KernelAction {
    pub handler: usize,
    pub flags: u64,
    pub restorer: usize,
    pub mask: u64,
}

/// The bit of SIGSYS in a kernel signal mask.
pub const SIGSYS_BIT: u64 = 1 << (libc::SIGSYS - 1);

/// The program's action for SIGSYS. Three words, not one: a program that sets it from two threads at
/// once gets one of the two per word, which no program can rely on anyway.
struct Virtual {
    handler: AtomicUsize,
    flags: AtomicU64,
    mask: AtomicU64,
}
static VIRTUAL: Virtual = Virtual {
    handler: AtomicUsize::new(libc::SIG_DFL),
    flags: AtomicU64::new(0),
    mask: AtomicU64::new(0),
};

/// What the program believes its SIGSYS action to be.
pub fn program_action() -> KernelAction {
    KernelAction {
        handler: VIRTUAL.handler.load(Relaxed),
        flags: VIRTUAL.flags.load(Relaxed),
        restorer: 0,
        mask: VIRTUAL.mask.load(Relaxed),
    }
}

/// Records the program's SIGSYS action and returns the one before.
pub fn set_program_action(new: KernelAction) -> KernelAction {
    KernelAction {
        handler: VIRTUAL.handler.swap(new.handler, Relaxed),
        flags: VIRTUAL.flags.swap(new.flags, Relaxed),
        restorer: 0,
        mask: VIRTUAL.mask.swap(new.mask, Relaxed),
    }
}

/// `rt_sigaction(SIGSYS, ..)` that the filter stopped. A bad pointer is the kernel's EFAULT: the
/// structures are moved by a call that can fail.
///
/// # Safety
/// `a` are the registers of the program's call.
pub(crate) unsafe fn raw_rt_sigaction(a: Args) -> isize {
    if a[3] != 8 {
        return -(libc::EINVAL as isize);
    }
    let mut new = KernelAction::default();
    if a[1] != 0 && !copy(&raw mut new as usize, a[1], Sysno::process_vm_readv) {
        return -(libc::EFAULT as isize);
    }
    let old = if a[1] != 0 { set_program_action(new) } else { program_action() };
    if a[2] != 0 && !copy(&raw const old as usize, a[2], Sysno::process_vm_writev) {
        return -(libc::EFAULT as isize);
    }
    0
}

/// Copies one [`KernelAction`] between our memory and the program's; false when it is not there.
fn copy(ours: usize, theirs: usize, nr: Sysno) -> bool {
    let len = size_of::<KernelAction>();
    let local = libc::iovec { iov_base: ours as *mut _, iov_len: len };
    let remote = libc::iovec { iov_base: theirs as *mut _, iov_len: len };
    let args =
        [raw::getpid() as usize, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
    // SAFETY: our side is a live KernelAction; the program's side is checked by the kernel.
    unsafe { raw::any(nr.id() as usize, args) == len as isize }
}

/// Installs `action` for SIGSYS for real, past the filter.
///
/// # Errors
/// `-errno` of the system call.
pub(crate) fn set_real(action: &KernelAction) -> isize {
    let args = [libc::SIGSYS as usize, &raw const *action as usize, 0, 8, 0];
    // SAFETY: `action` is a complete kernel sigaction whose handler and restorer are functions of ours.
    unsafe { raw::marked(Sysno::rt_sigaction, args) }
}

/// Changes this thread's blocked signals: `how` as in `rt_sigprocmask`. Returns the mask before.
pub(crate) fn change_mask(how: i32, mask: u64) -> u64 {
    let mut old = 0u64;
    let args = [how as usize, &raw const mask as usize, &raw mut old as usize, 8, 0, 0];
    // SAFETY: both masks are live eight-byte words.
    unsafe { raw::any(Sysno::rt_sigprocmask.id() as usize, args) };
    old
}
