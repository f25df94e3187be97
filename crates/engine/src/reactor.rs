//! The reactor: one thread that serves rings while their program does not call in.
//!
//! A ring without DEFER_TASKRUN promises completions that appear by themselves. While a thread of the
//! program waits in `enter`, that thread does the work and the reactor stands back; otherwise the ring's
//! epoll instance is watched here, one-shot, and the reactor takes the ring lock as a foreign locker.
//! For a ring with DEFER_TASKRUN it only says that there is work (eventfd, ring descriptor, SQ_TASKRUN).
#![allow(unsafe_code)]

use crate::ctx::Ctx;
use crate::notify::{SELF_TOLD_NS, flush, tell_by_eventfd, tell_of_files};
use crate::state::{State, Watch};
use crate::sys::{self, sys};
use crate::{fds, procs, registry, taskwork};
use soloring_abi::Errno;
use soloring_abi::raw::{IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_TASKRUN_FLAG};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The reactor's epoll instance; -1 while there is no reactor in this process.
static EPFD: AtomicI32 = AtomicI32::new(-1);
static START: Mutex<()> = Mutex::new(());

const ONE_SHOT: u32 = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;

fn epfd() -> Result<i32, Errno> {
    // Acquire: pairs with the release below; the descriptor exists once it is seen.
    let fd = EPFD.load(Ordering::Acquire);
    if fd >= 0 {
        return Ok(fd);
    }
    let _one = hold();
    let fd = EPFD.load(Ordering::Relaxed);
    if fd >= 0 {
        return Ok(fd);
    }
    let fd = fds::make_private(sys::epoll_create()?)?;
    if let Err(e) = spawn_quiet("iou-reactor".into(), move || serve(fd)) {
        // The next call tries again.
        fds::close_private(fd);
        return Err(e);
    }
    // Release: pairs with the acquire above.
    EPFD.store(fd, Ordering::Release);
    Ok(fd)
}

/// A thread that takes none of the program's signals.
///
/// # Errors
/// EAGAIN when no thread can be had.
pub fn spawn_quiet(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Errno> {
    // Not SIGSYS, which interception needs, nor the C library's own 32 and 33.
    let (all, mut old) = (!(0b111u64 << 30), 0u64);
    // SAFETY: reads and writes one 64-bit mask on our stack.
    let _ = unsafe { sys!(rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut old, 8) };
    let spawned = std::thread::Builder::new().name(name).stack_size(512 << 10).spawn(body);
    // SAFETY: reads one 64-bit mask on our stack.
    let _ = unsafe { sys!(rt_sigprocmask, libc::SIG_SETMASK, &raw const old, 0usize, 8) };
    spawned.map(drop).map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EAGAIN)))
}

/// Keeps everyone else from starting a reactor; for the length of a fork.
pub fn hold() -> MutexGuard<'static, ()> {
    START.lock().unwrap_or_else(|e| e.into_inner())
}

/// In a forked child: there is no reactor thread, and the epoll instance is the parent's.
pub fn reset_after_fork() {
    let fd = EPFD.swap(-1, Ordering::Relaxed);
    fds::close_private(fd);
}

/// Whether a ring has to be watched while nobody waits in it.
fn wants_watch(st: &State) -> bool {
    if st.armed == 0 && st.punted == 0 && st.timers.is_empty() {
        return false;
    }
    !st.setup_has(IORING_SETUP_DEFER_TASKRUN)
        || st.setup_has(IORING_SETUP_TASKRUN_FLAG)
        || st.eventfd.is_some()
        || st.shared.is_watched()
}

/// Called as a thread leaves the ring to the program: hands the ring to the reactor if it needs one.
#[inline]
pub fn watch(st: &mut State, id: u64) {
    if st.watch == Watch::Off && wants_watch(st) {
        start_watch(st, id);
    } else if st.watch == Watch::On && !st.timers.is_empty() {
        for which in 0..3 {
            taskwork::program_timerfd(st, which);
        }
    }
}

#[cold]
fn start_watch(st: &mut State, id: u64) {
    let Ok(ep) = epfd() else { return };
    for which in 0..3 {
        taskwork::program_timerfd(st, which);
    }
    let ring = st.shared.epfd;
    let armed = sys::epoll_ctl(ep, libc::EPOLL_CTL_MOD, ring, ONE_SHOT, id)
        .or_else(|_| sys::epoll_ctl(ep, libc::EPOLL_CTL_ADD, ring, ONE_SHOT, id));
    if armed.is_ok() {
        st.watch = Watch::On;
    }
}

/// Called as a thread starts to wait in the ring: the reactor stands back.
#[inline]
pub fn unwatch(st: &mut State, id: u64) {
    if st.watch == Watch::On {
        st.watch = Watch::Off;
        if let Ok(ep) = epfd() {
            let _ = sys::epoll_ctl(ep, libc::EPOLL_CTL_MOD, st.shared.epfd, 0, id);
        }
    }
}

fn serve(ep: i32) {
    let mut later = Later::default();
    loop {
        let mut events = taskwork::NO_EVENTS;
        soloring_lock::assert_may_block();
        let timeout_ms = later.timeout_ms();
        // SAFETY: the kernel writes at most BATCH events into our array.
        let got = unsafe {
            sys!(epoll_pwait, ep, events.as_mut_ptr(), taskwork::BATCH, timeout_ms, 0usize, 0)
        };
        match got {
            Ok(n) => {
                for event in &events[..n] {
                    let id = event.u64;
                    if let Some(ctx) = registry::by_id(id)
                        && serve_ring(&ctx)
                    {
                        later.add(id);
                    }
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        while let Some(id) = later.due() {
            if let Some(ctx) = registry::by_id(id) {
                tell_late(&ctx);
            }
        }
    }
}

/// Rings whose eventfd is to be signalled in a while, the first of them first.
#[derive(Default)]
struct Later(VecDeque<(u64, u64)>);

impl Later {
    /// As the kernel, once for all that happens until then.
    fn add(&mut self, id: u64) {
        if !self.0.iter().any(|(_, waiting)| *waiting == id) {
            self.0.push_back((sys::now_ns(libc::CLOCK_MONOTONIC) + SELF_TOLD_NS, id));
        }
    }

    /// Until the first is due, rounded up; -1 for ever.
    fn timeout_ms(&self) -> i32 {
        let Some((at, _)) = self.0.front() else { return -1 };
        at.saturating_sub(sys::now_ns(libc::CLOCK_MONOTONIC)).div_ceil(1_000_000) as i32
    }

    fn due(&mut self) -> Option<u64> {
        let (at, id) = *self.0.front()?;
        if at > sys::now_ns(libc::CLOCK_MONOTONIC) {
            return None;
        }
        self.0.pop_front();
        Some(id)
    }
}

fn tell_late(ctx: &Ctx) {
    let Ok(mut st) = ctx.lock.lock() else { return };
    if !st.dying && !st.inherited {
        tell_by_eventfd(&mut st);
    }
}

/// Returns whether the ring's eventfd is to be signalled later.
fn serve_ring(ctx: &Ctx) -> bool {
    let Ok(mut st) = ctx.lock.lock() else { return false };
    let st = &mut *st;
    st.watch = Watch::Off;
    if st.dying || st.leader.present || st.inherited {
        return false;
    }
    if st.setup_has(IORING_SETUP_DEFER_TASKRUN) {
        // Until the submitter comes in there is nothing more to say.
        return tell_of_files(st);
    }
    if procs::enter(ctx, st).is_err() {
        return false;
    }
    taskwork::poll_events(st);
    taskwork::run(st);
    flush(st);
    procs::leave(st);
    watch(st, ctx.id);
    false
}
