//! The three system calls and what else a program does with a ring's descriptor.
//!
//! All functions return what the system call returns: a value, or -errno. None touches `errno`, and all
//! may be called from a SIGSYS handler at a system-call instruction.
#![allow(unsafe_code)]

use crate::ctx::Ctx;
use crate::enter::{Call, check_flags, enter, enter_busy};
use crate::region::OFF_REGION;
use crate::register::{Arg, check_opcode, register, register_blind};
use crate::registry;
use crate::ringfds;
use crate::{
    clone, closes, counts, exit, facts, fds, inspect, ringtable, setup, shared, softlimit, sys,
};
use soloring_abi::{Errno, Params, raw};
use soloring_lock::LockStats;
use soloring_ringmem::{OFF_CQ_RING, OFF_SQ_RING, OFF_SQES};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use crate::inspect::{Inspection, Place, Queue, Request};
pub use crate::usercopy::set_program_frames;

/// `IORING_OFF_MMAP_MASK`.
const OFF_MASK: u64 = 0xf800_0000;

fn ret(result: Result<i32, Errno>) -> isize {
    match result {
        Ok(v) => v as isize,
        Err(e) => e.neg() as isize,
    }
}

/// io_uring_setup(2). The descriptor is close-on-exec and at least [`fd_base`].
///
/// # Safety
/// `params` is checked, not trusted; what the program's SQEs will point to is the program's business,
/// as with the kernel's ring. With IORING_SETUP_NO_MMAP the memory named must be the program's to give.
pub unsafe fn io_uring_setup(entries: u32, params: *mut Params) -> isize {
    counts::note_call();
    ret(setup::setup(entries, params as u64))
}

/// What `fd` is when it is no ring: EBADF when it is not open (or ours), EOPNOTSUPP otherwise.
#[cold]
fn not_a_ring(fd: i32) -> Errno {
    if !fds::is_private(fd) && sys::is_open(fd) { Errno::EOPNOTSUPP } else { Errno::EBADF }
}

/// io_uring_enter(2).
///
/// # Safety
/// As for [`io_uring_setup`]: entries in the ring are requests of the program.
pub unsafe fn io_uring_enter(
    fd: u32,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: *const c_void,
    argsz: usize,
) -> isize {
    let call = Call { to_submit, min_complete, flags, arg: arg as u64, argsz };
    if call.is_plain()
        && let Some(id) = fds::ring_id(fd as i32)
        && let Some(result) =
            registry::with_cached(id, |ctx| enter_busy(ctx, call).map(|n| n as i32))
    {
        return ret(result);
    }
    enter_other(fd, call)
}

/// Any call of io_uring_enter.
#[inline(never)]
fn enter_other(fd: u32, call: Call) -> isize {
    let flags = call.flags;
    if let Err(e) = check_flags(flags) {
        return e.neg() as isize;
    }
    let id = match flags & raw::IORING_ENTER_REGISTERED_RING {
        0 => fds::ring_id(fd as i32).ok_or_else(|| not_a_ring(fd as i32)),
        _ => ringtable::id_at(fd),
    };
    let id = match id {
        Ok(id) => id,
        Err(e) => return e.neg() as isize,
    };
    match registry::with_id(id, |ctx| enter(ctx, call).map(|n| n as i32)) {
        Some(result) => ret(result),
        None if registry::is_interrupted() => Errno::EBUSY.neg() as isize,
        // Closed since its id was read.
        None => Errno::EBADF.neg() as isize,
    }
}

/// io_uring_register(2).
///
/// # Safety
/// Registered buffers are the program's to give; everything else is checked.
pub unsafe fn io_uring_register(fd: u32, opcode: u32, arg: *mut c_void, nr_args: u32) -> isize {
    const USE_REGISTERED: u32 =
        raw::io_uring_register_op::IORING_REGISTER_USE_REGISTERED_RING as u32;
    const RING_FDS: u32 = raw::io_uring_register_op::IORING_REGISTER_RING_FDS as u32;
    const CLONE_BUFFERS: u32 = raw::io_uring_register_op::IORING_REGISTER_CLONE_BUFFERS as u32;
    const UNREG_RING_FDS: u32 = raw::io_uring_register_op::IORING_UNREGISTER_RING_FDS as u32;
    counts::note_call();
    let registered = opcode & USE_REGISTERED != 0;
    let opcode = opcode & !USE_REGISTERED;
    if let Err(e) = check_opcode(opcode) {
        return e.neg() as isize;
    }
    let arg = Arg { at: arg as u64, nr: nr_args };
    if fd == u32::MAX && !registered {
        return ret(register_blind(opcode, arg));
    }
    let call = |ctx: &Arc<Ctx>| match opcode {
        RING_FDS => ringfds::register(ctx, arg),
        UNREG_RING_FDS => ringfds::unregister(ctx, arg),
        CLONE_BUFFERS => clone::clone_buffers(ctx, arg),
        _ => register(ctx, opcode, arg),
    };
    if registered {
        return ret(ringtable::with(fd, call).and_then(|r| r));
    }
    match registry::with(fd as i32, call) {
        Some(result) => ret(result),
        None if registry::is_interrupted() => Errno::EBUSY.neg() as isize,
        None => not_a_ring(fd as i32).neg() as isize,
    }
}

/// The caller tells descriptors of ours from the program's by their number alone: from now on, rings are only made
/// with numbers from [`fd_base`] on, and set-up is -EMFILE where there are none left.
pub fn only_high_numbers() {
    fds::only_high_numbers();
}

/// The soft RLIMIT_NOFILE that the program is to see where the kernel says `soft` and `hard`: ours is raised for the
/// length of a duplication.
pub fn soft_limit_told(soft: u64, hard: u64) -> u64 {
    softlimit::told(fds::base(), soft, hard)
}

/// The program has set its soft RLIMIT_NOFILE.
pub fn note_soft_limit(soft: u64) {
    softlimit::note(soft);
}

/// First descriptor number of ours, fixed for the life of the process tree.
pub fn fd_base() -> i32 {
    fds::base()
}

/// Whether `fd` is a ring's descriptor.
pub fn is_ring_fd(fd: i32) -> bool {
    fds::ring_id(fd).is_some()
}

/// Whether `fd` is ours and not a ring: for the program it does not exist.
pub fn is_private_fd(fd: i32) -> bool {
    fds::is_private(fd)
}

/// mmap(2) on a ring descriptor; `None` when `fd` is none.
///
/// # Safety
/// As mmap(2): MAP_FIXED replaces the program's pages.
pub unsafe fn ring_mmap(
    addr: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    off: i64,
) -> Option<isize> {
    registry::with(fd, |ctx| {
        let Ok(st) = ctx.lock.lock() else { return Errno::EBUSY.neg() as isize };
        // The lock is kept to the end: a resize in between would take the memory file away.
        let rings = &st.rings;
        if off & 4095 != 0 {
            return Errno::EINVAL.neg() as isize;
        }
        if off as u64 & OFF_MASK == raw::IORING_OFF_PBUF_RING as u64 {
            let group = (off as u64 & !OFF_MASK) >> raw::IORING_OFF_PBUF_SHIFT;
            let mapping = u16::try_from(group).ok().and_then(|group| st.kbuf.mapping(group));
            let Some(mapping) = mapping else { return Errno::ENOMEM.neg() as isize };
            // SAFETY: passed on from the caller.
            return match unsafe { mapping.map_for_program(addr, len, prot, flags, 0) } {
                Ok(at) => at as isize,
                Err(e) => e.neg() as isize,
            };
        }
        if off as u64 & OFF_MASK == OFF_REGION {
            let mapping = st.region.as_ref().and_then(|region| region.mapping());
            let Some(mapping) = mapping else { return Errno::ENOMEM.neg() as isize };
            // The whole of it, or more.
            if len > 0 && len.div_ceil(4096) * 4096 < mapping.bytes() {
                return Errno::EFAULT.neg() as isize;
            }
            // SAFETY: passed on from the caller.
            return match unsafe { mapping.map_for_program(addr, len, prot, flags, 0) } {
                Ok(at) => at as isize,
                Err(e) => e.neg() as isize,
            };
        }
        // Bits 27 to 31 choose the area, the others mean nothing. The errno are those of Linux 6.18.
        let at = match off as u64 & OFF_MASK {
            OFF_SQ_RING | OFF_CQ_RING => 0,
            OFF_SQES if len > 0 && len.div_ceil(4096) * 4096 < rings.layout().sqes_mapped() => {
                return Errno::EFAULT.neg() as isize;
            }
            OFF_SQES => rings.layout().rings_mapped() as u64,
            _ => return Errno::ENOMEM.neg() as isize,
        };
        if ctx.setup_flags & raw::IORING_SETUP_NO_MMAP != 0 {
            return Errno::ENOMEM.neg() as isize;
        }
        // SAFETY: passed on from the caller.
        match unsafe { rings.mapping().map_for_program(addr, len, prot, flags, at) } {
            Ok(at) => at as isize,
            Err(e) => e.neg() as isize,
        }
    })
}

/// close(2) of a descriptor of ours: 0 for a ring, -EBADF for a private one, `None` for any other. -EBUSY in a signal
/// handler that interrupted the making, the end or the looking up of a ring: nothing was closed.
pub fn ring_close(fd: i32) -> Option<isize> {
    if fds::is_private(fd) {
        return Some(Errno::EBADF.neg() as isize);
    }
    let id = fds::ring_id(fd)?;
    if registry::is_interrupted() {
        return Some(Errno::EBUSY.neg() as isize);
    }
    if !fds::unmark(fd) {
        return Some(Errno::EBADF.neg() as isize);
    }
    sys::close(fd);
    if let Some(ctx) = registry::by_id(id) {
        exit::put(&ctx);
    }
    Some(0)
}

/// dup(2), fcntl(F_DUPFD) and dup3(2) on a ring descriptor: another descriptor of the same ring, numbered
/// high like all of ours. `None` when `fd` is no ring.
pub fn ring_dup(fd: i32, min_fd: i32, cloexec: bool) -> Option<isize> {
    let id = fds::ring_id(fd)?;
    let new = match fds::dup_from(fd, min_fd.max(fds::base())) {
        Ok(new) => new,
        Err(e) => return Some(e.neg() as isize),
    };
    if !cloexec {
        let _ = sys::fcntl(new, libc::F_SETFD, 0);
    }
    let Some(ctx) = registry::by_id(id) else {
        sys::close(new);
        return Some(Errno::EBADF.neg() as isize);
    };
    ctx.open_fds.fetch_add(1, Ordering::Relaxed);
    fds::mark_ring(new, id);
    Some(new as isize)
}

/// The program is about to watch this ring descriptor's readiness. From now on it is kept up to date.
pub fn note_polled(fd: i32) {
    if let Some(id) = fds::ring_id(fd) {
        shared::watch_ring(id);
        registry::with(fd, |ctx| {
            if let Ok(mut st) = ctx.lock.lock() {
                crate::notify::refresh_ring_fd(&mut st);
                crate::reactor::watch(&mut st, ctx.id);
            }
        });
    }
}

/// Before the program sleeps in epoll_wait, poll or select: watched ring descriptors whose completions
/// were taken without a call become not ready.
pub fn refresh_readiness() {
    for ctx in shared::watched().into_iter().filter_map(registry::by_id) {
        if let Ok(mut st) = ctx.lock.lock() {
            crate::notify::refresh_ring_fd(&mut st);
        }
    }
}

/// The program promises to announce with [`note_close`] every descriptor that it closes or replaces (close,
/// dup2, dup3, close_range, whichever way they are called). Requests that wait then hold their file without
/// a duplicate until it happens: two system calls less for each.
///
/// A close that is not announced leaves requests that wait on the descriptor without their file: they
/// may wait for ever.
pub fn set_close_notified(yes: bool) {
    crate::watch::set_close_notified(yes);
}

/// The program is about to close or replace some descriptor, whether a ring waits on it or not: what was
/// remembered of its file is asked again. [`note_close`] does this too.
#[inline]
pub fn forget_file_flags() {
    facts::forget_answers();
}

/// Whether a ring may have to be told with [`note_close`] before the program closes `fd`. One load.
#[inline]
pub fn is_waited_on(fd: i32) -> bool {
    fds::watchers(fd) != fds::Watchers::None
}

/// `fd` is about to be closed or replaced by the program. One load when no ring waits on it. Not to be
/// called in a child that borrows its parent's memory (vfork).
#[inline]
pub fn note_close(fd: i32) {
    closes::note_close(fd);
}

/// As [`note_close`] for every descriptor from `first` to `last`, both included.
pub fn note_close_range(first: u32, last: u32) {
    closes::note_close_range(first, last);
}

/// Looks into the ring behind `fd` from any thread; `None` when `fd` is no ring.
///
/// # Errors
/// EBUSY from a signal handler that interrupted this very ring.
pub fn inspect(fd: i32) -> Option<Result<Inspection, Errno>> {
    registry::with(fd, |ctx| inspect::inspect(ctx))
}

/// Operations submitted to the engine in this process so far. Takes no lock and does not allocate.
pub fn op_count() -> u64 {
    counts::sums().iter().sum()
}

/// Calls of setup and register that were answered here, the refused ones included. With [`op_count`] it
/// says whether a program's ring calls came to us at all.
pub fn call_count() -> u64 {
    counts::calls()
}

/// Operations by opcode number. Takes no lock and does not allocate.
pub fn op_counts() -> [u64; 64] {
    counts::sums()
}

/// Lock statistics summed over all rings of this process.
pub fn lock_stats() -> Option<LockStats> {
    registry::lock_stats()
}

/// As [`lock_stats`], for an exit, which may come in a signal handler that interrupted the engine: neither
/// allocates nor waits for long.
///
/// # Errors
/// EBUSY when the statistics cannot be had.
pub fn lock_stats_at_exit() -> Result<Option<LockStats>, Errno> {
    registry::lock_stats_if_free()
}
