//! SQPOLL: a thread that submits for its rings, so that the program need not call in.
//!
//! The thread serves all rings that were attached to it (ATTACH_WQ). It takes each ring's lock like any
//! other thread, submits what is in the SQ and runs task work. After `idle` without any of both it says
//! NEED_WAKEUP and sleeps until an enter with SQ_WAKEUP; the reactor looks after its rings meanwhile.
//! What a forked child puts into the shared ring is a request of this thread's process, as with the kernel.
#![allow(unsafe_code)]

use crate::ctx::Ctx;
use crate::notify::flush;
use crate::sqthread::{SqThread, futex_wait};
use crate::submit::submit;
use crate::sys::{self, sys};
use crate::wait::make_progress;
use crate::{procs, reactor, registry};
use soloring_abi::Errno;
use soloring_abi::raw::{IORING_SETUP_R_DISABLED, IORING_SQ_NEED_WAKEUP};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries taken from one ring at a time when several share the thread, as in the kernel.
const SHARED_BATCH: u32 = 8;

/// Starts a thread. `idle_ms` 0 means one second; `cpu` pins it.
///
/// # Errors
/// EAGAIN when no thread can be had; ENOMEM; EINVAL for a CPU that this process may not run on.
pub fn start(idle_ms: u32, cpu: Option<u32>) -> Result<Arc<SqThread>, Errno> {
    if let Some(cpu) = cpu {
        check_cpu(cpu)?;
    }
    let thread = Arc::new(SqThread::new(idle_ms)?);
    let its_own = Arc::clone(&thread);
    reactor::spawn_quiet(format!("iou-sqp-{}", std::process::id()), move || {
        if let Some(cpu) = cpu {
            pin(cpu);
        }
        its_own.live(|| serve(&its_own));
    })?;
    Ok(thread)
}

/// How often a process that waits for another's thread looks whether it is still there.
const ALIVE_NS: u64 = 100_000_000;

/// IORING_ENTER_SQ_WAIT: until the SQ of `ctx` has room.
///
/// # Errors
/// EINTR when a signal handler ran; EOWNERDEAD when the thread has ended.
pub fn wait_for_room(thread: &SqThread, ctx: &Ctx) -> Result<(), Errno> {
    let words = thread.words();
    loop {
        // Acquire: pairs with the release in `note_progress`.
        let seen = words.progress.load(Ordering::Acquire);
        {
            let Ok(st) = ctx.lock.lock() else { return Err(Errno::EBUSY) };
            let used = st.rings.sq_tail().wrapping_sub(st.rings.sq_head());
            if used < st.rings.layout().sq_entries || st.dying {
                return Ok(());
            }
        }
        if thread.is_gone() {
            return Err(Errno::EOWNERDEAD);
        }
        if words.asleep.load(Ordering::Relaxed) {
            thread.wake();
        }
        soloring_lock::assert_may_block();
        match futex_wait(&words.progress, seen, Some(ALIVE_NS)) {
            Ok(()) | Err(Errno::ETIMEDOUT) => {}
            Err(e) => return Err(e),
        }
    }
}

fn serve(thread: &SqThread) {
    let mut idle_since = sys::now_ns(libc::CLOCK_MONOTONIC);
    loop {
        // Acquire: pairs with the release in `wake`; what was asked for before is seen after. Before the look
        // at the rings: one that comes or goes after that look wakes a sleep that has not begun yet.
        let seen = thread.words().wakeups.load(Ordering::Acquire);
        let ids = thread.rings().clone();
        // The first ring is attached right after the thread was started.
        if ids.is_empty() && seen != 0 {
            return;
        }
        let mut busy = false;
        let shared = ids.len() > 1;
        for id in &ids {
            let Some(ctx) = registry::by_id(*id) else { continue };
            busy |= serve_ring(thread, &ctx, shared);
        }
        let now = sys::now_ns(libc::CLOCK_MONOTONIC);
        if busy {
            idle_since = now;
        } else if now.saturating_sub(idle_since) >= thread.idle_ns {
            sleep(thread, &ids, seen);
            idle_since = sys::now_ns(libc::CLOCK_MONOTONIC);
        } else {
            // SAFETY: no memory involved.
            let _ = unsafe { sys!(sched_yield) };
        }
    }
}

/// One round for one ring. True when there was something to do.
fn serve_ring(thread: &SqThread, ctx: &Ctx, shared: bool) -> bool {
    let Ok(mut guard) = ctx.lock.lock() else { return false };
    let st = &mut *guard;
    if st.dying || st.inherited {
        return false;
    }
    if procs::enter(ctx, st).is_err() {
        return false;
    }
    let mut taken = 0;
    if !st.setup_has(IORING_SETUP_R_DISABLED) && st.rings.sq_tail() != st.sq_head {
        let limit = if shared { SHARED_BATCH } else { u32::MAX };
        taken = submit(st, limit);
        flush(st);
    }
    let before = st.cq.tail();
    // While another thread waits in the ring, the events are its to take.
    if st.leader.present {
        crate::taskwork::run(st);
        flush(st);
    } else {
        reactor::unwatch(st, ctx.id);
        make_progress(st, None);
    }
    let busy = taken > 0 || st.cq.tail() != before;
    procs::leave(st);
    drop(guard);
    if taken > 0 {
        thread.note_progress();
    }
    busy
}

/// Says NEED_WAKEUP on every ring, looks once more, and sleeps until there are more wake-up calls than `seen`.
fn sleep(thread: &SqThread, ids: &[u64], seen: u32) {
    let rings: Vec<Arc<Ctx>> = ids.iter().filter_map(|id| registry::by_id(*id)).collect();
    let mut pending = false;
    for ctx in &rings {
        let Ok(mut st) = ctx.lock.lock() else { continue };
        // The flag is set with a full barrier before the tail is read again: the program stores its
        // tail, fences, and reads the flag. One of the two sees the other.
        st.rings.sq_flags_set(IORING_SQ_NEED_WAKEUP);
        let enabled = !st.setup_has(IORING_SETUP_R_DISABLED);
        pending |= enabled && st.rings.sq_tail() != st.sq_head;
        if !st.leader.present && !st.dying {
            reactor::watch(&mut st, ctx.id);
        }
    }
    drop(rings);
    if !pending {
        thread.words().asleep.store(true, Ordering::Relaxed);
        soloring_lock::assert_may_block();
        let _ = futex_wait(&thread.words().wakeups, seen, None);
        thread.words().asleep.store(false, Ordering::Relaxed);
    }
    for ctx in ids.iter().filter_map(|id| registry::by_id(*id)) {
        if let Ok(st) = ctx.lock.lock() {
            st.rings.sq_flags_clear(IORING_SQ_NEED_WAKEUP);
        }
    }
}

/// Whether this process may run on `cpu`.
///
/// # Errors
/// EINVAL.
fn check_cpu(cpu: u32) -> Result<(), Errno> {
    let mut mask = [0u8; 1024];
    // SAFETY: writes at most 1024 bytes to our stack.
    let got = unsafe { sys!(sched_getaffinity, 0, mask.len(), mask.as_mut_ptr()) };
    let bytes = got.map_err(|_| Errno::EINVAL)?.min(mask.len());
    let allowed =
        mask[..bytes].get(cpu as usize / 8).is_some_and(|byte| byte >> (cpu % 8) & 1 != 0);
    if allowed { Ok(()) } else { Err(Errno::EINVAL) }
}

fn pin(cpu: u32) {
    let mut mask = [0u8; 1024];
    mask[cpu as usize / 8] = 1 << (cpu % 8);
    // SAFETY: reads 1024 bytes of our stack.
    let _ = unsafe { sys!(sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
}
