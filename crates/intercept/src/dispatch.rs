//! What each caught system call does: one function for the signal handler, the rewritten call sites and
//! the interposed `syscall()`.
//!
//! Contract: arguments and result are those of the raw system call (`-errno`, never `errno`); nothing
//! here allocates or takes a lock of its own, because it runs inside signal handlers and in children
//! of `vfork`, which share the memory of a parent whose rings they must not touch.
#![allow(unsafe_code)]

use crate::raw::{self, Args};
use crate::{sigaction, stack, sweep};
use soloring_engine::uapi;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use syscalls::Sysno;

const EBADF: isize = -(libc::EBADF as isize);
const EINVAL: isize = -(libc::EINVAL as isize);

/// The process whose rings live in this memory; kept right across `fork` by [`note_fork`].
static OWNER_PID: AtomicI32 = AtomicI32::new(0);
static RINGS_MADE: AtomicBool = AtomicBool::new(false);

pub(crate) fn note_fork() {
    OWNER_PID.store(raw::getpid(), Relaxed);
}

/// Whether this is a child that only borrows its parent's memory (`vfork`, `posix_spawn`): its
/// descriptor table is its own, the ring registry is not.
pub fn borrowed_memory() -> bool {
    OWNER_PID.load(Relaxed) != raw::getpid()
}

/// Whether `nr` may name a ring and must come here.
#[inline]
pub fn catches(nr: usize) -> bool {
    (425..=427).contains(&nr)
}

/// Whether `fd` can only be one of ours or a stray descriptor of the program above the base.
#[inline]
pub fn high_fd(fd: i32) -> bool {
    fd >= uapi::fd_base()
}

/// The program is about to close `fd`, or to have the number name something else. A child that borrows its
/// parent's memory closes a copy of its own.
#[inline]
pub fn note_close(fd: i32) {
    uapi::forget_file_flags();
    if uapi::is_waited_on(fd) && !borrowed_memory() {
        uapi::note_close(fd);
    }
}

/// As [`note_close`] for all descriptors from `first` to `last`.
pub fn note_close_range(first: u32, last: u32) {
    if rings_made() && !borrowed_memory() {
        uapi::note_close_range(first, last);
    }
}

/// Carries out one caught system call.
///
/// # Safety
/// `args` are the registers with which the program issued system call `nr`; pointers in them are the
/// program's to pass.
pub unsafe fn dispatch(nr: usize, args: &Args) -> isize {
    let a = *args;
    let Some(sysno) = Sysno::new(nr) else { return -(libc::ENOSYS as isize) };
    // SAFETY: each arm passes on the program's own arguments in the order of that call's registers.
    unsafe {
        match sysno {
            Sysno::io_uring_setup => setup(a[0] as u32, a[1] as *mut _),
            Sysno::io_uring_enter => enter(&a),
            Sysno::io_uring_register => {
                uapi::io_uring_register(a[0] as u32, a[1] as u32, a[2] as *mut _, a[3] as u32)
            }
            Sysno::mmap => mmap(a),
            Sysno::close => close(a[0] as i32),
            Sysno::dup => dup(a[0] as i32),
            Sysno::dup2 => dup3(a[0] as i32, a[1] as i32, 0, true),
            Sysno::dup3 => dup3(a[0] as i32, a[1] as i32, a[2] as i32, false),
            Sysno::fcntl => fcntl(a[0] as i32, a[1] as i32, a[2]),
            Sysno::epoll_ctl => epoll_ctl(a),
            Sysno::close_range => {
                let (first, last, flags) = (a[0] as u32, a[1] as u32, a[2] as u32);
                sweep::close_range(first, last, flags, note_close_range, close_unless_private)
            }
            Sysno::rt_sigaction => sigaction::raw_rt_sigaction(a),
            Sysno::rt_sigprocmask => sigprocmask(a),
            _ => raw::any(nr, a),
        }
    }
}

/// [`dispatch`] in the form that [`stack::run`] wants.
pub(crate) unsafe extern "C" fn work(call: *mut stack::Call) {
    // SAFETY: `stack::run` passes a live call of this thread, with the program's registers.
    unsafe {
        // The one that busy programs make, without a look at what it could be else.
        (*call).ret = if (*call).nr == Sysno::io_uring_enter as usize {
            enter(&(*call).args)
        } else {
            dispatch((*call).nr, &(*call).args)
        };
    }
}

/// One of the three ring calls, made through a C library function rather than stopped: on our stack.
///
/// # Safety
/// As [`dispatch`].
pub unsafe fn ring_call(nr: usize, args: Args) -> isize {
    let mut call = stack::Call { nr, args, ret: 0, stopped_at: 0 };
    // SAFETY: as the caller promises.
    unsafe { stack::run(&mut call, work) };
    call.ret
}

fn close_unless_private(fd: i32) {
    if !uapi::is_private_fd(fd) {
        close(fd);
    }
}

/// Whether this process, or the one that it was forked from, has ever made a ring. Until then, what a
/// program hands to the C library is none of our business and is not looked into.
pub fn rings_made() -> bool {
    RINGS_MADE.load(Relaxed)
}

#[inline(always)]
unsafe fn enter(a: &Args) -> isize {
    let [fd, to_submit, min_complete, flags] = [a[0], a[1], a[2], a[3]].map(|word| word as u32);
    // SAFETY: the program's own arguments.
    unsafe { uapi::io_uring_enter(fd, to_submit, min_complete, flags, a[4] as *const _, a[5]) }
}

unsafe fn setup(entries: u32, params: *mut soloring_abi::Params) -> isize {
    // SAFETY: the program's own arguments.
    let ret = unsafe { uapi::io_uring_setup(entries, params) };
    if ret >= 0 {
        RINGS_MADE.store(true, Relaxed);
    }
    ret
}

unsafe fn mmap(a: Args) -> isize {
    let (flags, fd) = (a[3] as i32, a[4] as i32);
    if flags & libc::MAP_ANONYMOUS == 0 {
        // SAFETY: the program's own request for a mapping.
        let ring = unsafe { uapi::ring_mmap(a[0], a[1], a[2] as i32, flags, fd, a[5] as i64) };
        if let Some(ret) = ring {
            return ret;
        }
        if uapi::is_private_fd(fd) {
            return EBADF;
        }
    }
    // SAFETY: not a ring: the mapping the program asked for, as it asked for it.
    unsafe { raw::marked_mmap(a) }
}

/// Closes one descriptor of the program; ours that are no rings answer EBADF and stay open.
fn close(fd: i32) -> isize {
    if high_fd(fd)
        && !borrowed_memory()
        && let Some(ret) = uapi::ring_close(fd)
    {
        return ret;
    }
    note_close(fd);
    // SAFETY: the program closes a descriptor that is not ours, or a borrowed-memory child its own copy.
    unsafe { raw::marked(Sysno::close, [fd as usize, 0, 0, 0, 0]) }
}

fn dup(fd: i32) -> isize {
    if uapi::is_private_fd(fd) {
        return EBADF;
    }
    if let Some(ret) = uapi::ring_dup(fd, 0, false) {
        return ret;
    }
    // SAFETY: duplicates a descriptor of the program.
    unsafe { raw::marked(Sysno::dup, [fd as usize, 0, 0, 0, 0]) }
}

/// `dup2` and `dup3`. A duplicate of a ring can only lie above the base, so a ring as `old` is refused
/// with EINVAL: no number below the base could be recognised as a ring again.
fn dup3(old: i32, new: i32, flags: i32, dup2: bool) -> isize {
    if uapi::is_private_fd(old) || uapi::is_private_fd(new) {
        return EBADF;
    }
    if uapi::is_ring_fd(old) {
        return if dup2 && old == new { new as isize } else { EINVAL };
    }
    let nr = if dup2 { Sysno::dup2 } else { Sysno::dup3 };
    // The old descriptor must be good before the ring at the new number is given up.
    // SAFETY: F_GETFD takes no pointer.
    let good =
        unsafe { raw::marked(Sysno::fcntl, [old as usize, libc::F_GETFD as usize, 0, 0, 0]) };
    if good >= 0 && uapi::is_ring_fd(new) && flags & !libc::O_CLOEXEC == 0 {
        close(new);
    } else if good >= 0 && old != new {
        note_close(new);
    }
    // SAFETY: duplicates a descriptor of the program onto a number of the program.
    unsafe { raw::marked(nr, [old as usize, new as usize, flags as usize, 0, 0]) }
}

fn fcntl(fd: i32, cmd: i32, arg: usize) -> isize {
    if uapi::is_private_fd(fd) {
        return EBADF;
    }
    if matches!(cmd, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        let min = arg as i32;
        if min < 0 {
            return EINVAL;
        }
        if let Some(ret) = uapi::ring_dup(fd, min, cmd == libc::F_DUPFD_CLOEXEC) {
            return ret;
        }
    }
    // SAFETY: the program's own fcntl; a pointer argument is its own.
    unsafe { raw::marked(Sysno::fcntl, [fd as usize, cmd as usize, arg, 0, 0]) }
}

/// A rewritten site that changes the mask: as asked, and SIGSYS open again after it. Two calls rather
/// than a changed set, so that a bad pointer stays the kernel's to refuse.
unsafe fn sigprocmask(a: Args) -> isize {
    // SAFETY: the program's own call.
    let ret = unsafe { raw::any(Sysno::rt_sigprocmask.id() as usize, a) };
    if ret == 0 && a[1] != 0 && a[0] as i32 != libc::SIG_UNBLOCK {
        sigaction::change_mask(libc::SIG_UNBLOCK, sigaction::SIGSYS_BIT);
    }
    ret
}

unsafe fn epoll_ctl(a: Args) -> isize {
    let (epfd, fd) = (a[0] as i32, a[2] as i32);
    if uapi::is_private_fd(epfd) || uapi::is_private_fd(fd) {
        return EBADF;
    }
    if uapi::is_ring_fd(fd) {
        uapi::note_polled(fd);
    }
    // SAFETY: the program's own epoll_ctl; the event pointer is its own.
    unsafe { raw::marked(Sysno::epoll_ctl, [a[0], a[1], a[2], a[3], 0]) }
}
