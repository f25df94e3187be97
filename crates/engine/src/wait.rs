//! Waiting for completions: one thread (the leader) sleeps on the ring's epoll instance, others follow.
//!
//! Nothing sleeps with the ring lock held: the guard is given up before and taken again after.
#![allow(unsafe_code)]

use crate::ctx::Ctx;
use crate::issue::run_ready;
use crate::notify::{flush, refresh_ring_fd, tell_followers};
use crate::state::{Follower, State};
use crate::sys::{self, sys};
use crate::{fds, procs, reactor, taskwork};
use soloring_abi::Errno;
use soloring_abi::raw::{IORING_SETUP_TASKRUN_FLAG, IORING_SQ_TASKRUN};
use soloring_lock::Guard;

/// How long and for what a thread waits. Times in nanoseconds on the ring's wait clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitFor {
    pub min_complete: u32,
    /// Absolute deadline.
    pub deadline: Option<u64>,
    /// Return with whatever is there once this has passed (min_wait).
    pub min_wait: Option<u64>,
    /// Signal mask for the sleep.
    pub sigmask: Option<u64>,
}

struct Progress {
    target: u64,
    start_tail: u64,
    timeouts: u64,
    min_wait: Option<u64>,
}

impl Progress {
    fn satisfied(&self, st: &State) -> bool {
        st.cq.tail() >= self.target || st.cq.timeouts != self.timeouts
    }
}

/// Runs task work and publishes; looks at the epoll instance when there is reason to, and always without
/// a target.
///
/// Nor does it look while the completions are short of `target`: then the caller goes to sleep on the epoll
/// instance, which is a look at it.
pub fn make_progress(st: &mut State, target: Option<u64>) {
    if !st.ready.is_empty() {
        run_ready(st);
    }
    taskwork::run(st);
    let armed = st.armed > 0 || st.punted > 0;
    st.skipped_polls += 1;
    let look =
        target.is_none_or(|target| st.cq.tail() >= target && (st.recheck || st.skipped_polls >= 8));
    if armed && look {
        st.skipped_polls = 0;
        st.recheck = false;
        taskwork::poll_events(st);
        taskwork::run(st);
    }
    st.cq.flush_overflow(&st.rings);
    flush(st);
}

/// GETEVENTS: runs what can be run and waits for `w.min_complete` completions.
///
/// # Errors
/// EINTR when a signal handler ran, ETIME, EBADR never (overflow loses nothing); 0 when any completion
/// is there.
pub fn wait<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    w: &WaitFor,
) -> (Guard<'a, State>, Result<(), Errno>) {
    let st = &mut *guard;
    if st.setup_has(IORING_SETUP_TASKRUN_FLAG) && st.rings.sq_flags() & IORING_SQ_TASKRUN != 0 {
        st.rings.sq_flags_clear(IORING_SQ_TASKRUN);
    }
    let wanted = w.min_complete.min(st.rings.layout().cq_entries);
    flush(st);
    let missing = wanted.saturating_sub(st.cq.ready(&st.rings));
    let target = st.cq.tail() + missing as u64;
    make_progress(st, (wanted > 0).then_some(target));
    let ready = st.cq.ready(&st.rings);
    if ready >= wanted {
        return (guard, Ok(()));
    }
    let mut progress = Progress {
        target: st.cq.tail() + (wanted - ready) as u64,
        start_tail: st.cq.tail(),
        timeouts: st.cq.timeouts,
        min_wait: w.min_wait,
    };
    let result = loop {
        let timeout = match next_timeout(&guard, w, &mut progress) {
            Ok(timeout) => timeout,
            Err(e) => {
                // Who cannot sleep still gets what is there.
                if guard.recheck {
                    make_progress(&mut guard, None);
                }
                break if progress.satisfied(&guard) { Ok(()) } else { Err(e) };
            }
        };
        if timeout.satisfied {
            break Ok(());
        }
        let (back, slept) = if guard.leader.present {
            follow(ctx, guard, w, &progress, timeout.user_ns)
        } else {
            lead(ctx, guard, w, &progress, timeout)
        };
        guard = back;
        let st = &mut *guard;
        if let Err(Errno::EINTR) = slept {
            make_progress(st, Some(0));
            break Err(Errno::EINTR);
        }
        make_progress(st, Some(progress.target));
        if progress.satisfied(st) {
            break Ok(());
        }
        if let Err(e) = slept {
            break Err(e);
        }
    };
    hand_over(&mut guard);
    let any = guard.cq.ready(&guard.rings) > 0;
    (guard, if any { Ok(()) } else { result })
}

struct Timeout {
    satisfied: bool,
    /// Nanoseconds until the wait itself ends; `None` for ever.
    user_ns: Option<u64>,
}

/// How long this thread may sleep, from its own deadlines.
fn next_timeout(st: &State, w: &WaitFor, p: &mut Progress) -> Result<Timeout, Errno> {
    if w.deadline.is_none() && w.min_wait.is_none() {
        return Ok(Timeout { satisfied: false, user_ns: None });
    }
    let now = sys::now_ns(st.wait_clock);
    if let Some(min) = p.min_wait {
        if now < min {
            return Ok(Timeout { satisfied: false, user_ns: Some(min - now) });
        }
        // The batch had its time: anything will do from here on.
        p.min_wait = None;
        p.target = p.start_tail + 1;
        if p.satisfied(st) || st.cq.ready(&st.rings) > 0 {
            return Ok(Timeout { satisfied: true, user_ns: None });
        }
    }
    match w.deadline {
        Some(at) if now < at => Ok(Timeout { satisfied: false, user_ns: Some(at - now) }),
        // The end, or there is none and it was at the minimum.
        _ => Err(Errno::ETIME),
    }
}

/// Sleeps on the ring's epoll instance.
fn lead<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    w: &WaitFor,
    p: &Progress,
    timeout: Timeout,
) -> (Guard<'a, State>, Result<(), Errno>) {
    let st = &mut *guard;
    if st.watches.has_unheld() {
        // Who is ready already need not hold a file. The others must: while this thread sleeps, another one
        // may close what they wait on.
        if taskwork::poll_events(st) > 0 {
            return (guard, Ok(()));
        }
        st.watches.hold_all(&mut st.slab);
    }
    reactor::unwatch(st, ctx.id);
    st.leader.present = true;
    st.leader.asleep = true;
    st.leader.target = p.target;
    st.leader.timeouts = p.timeouts;
    let mut ns = timeout.user_ns;
    if !st.timers.is_empty() {
        if let Some(at) = st.timers.earliest(libc::CLOCK_MONOTONIC) {
            let left = at.saturating_sub(sys::now_ns(libc::CLOCK_MONOTONIC));
            ns = Some(ns.map_or(left, |n| n.min(left)));
        }
        taskwork::program_timerfd(st, 1);
        taskwork::program_timerfd(st, 2);
    }
    let epfd = st.shared.epfd;
    procs::leave(st);
    drop(guard);
    soloring_lock::assert_may_block();
    let mut events = taskwork::NO_EVENTS;
    let slept = epoll_wait_ns(epfd, &mut events, ns, w.sigmask);
    let mut guard = relock(ctx);
    let st = &mut *guard;
    st.leader.present = false;
    st.leader.asleep = false;
    if st.multi {
        // What another process has posted, it could only tell the leader.
        tell_followers(st);
    }
    match slept {
        Ok(n) => {
            st.skipped_polls = 0;
            st.recheck = n == taskwork::BATCH;
            taskwork::on_events(st, &events[..n]);
            (guard, Ok(()))
        }
        Err(e) => (guard, Err(e)),
    }
}

fn relock(ctx: &Ctx) -> Guard<'_, State> {
    let mut guard = ctx.lock.lock().expect("this thread gave the guard up before it slept");
    // Only a ring that was just inherited can fail here, and this thread has used it already.
    let _ = procs::enter(ctx, &mut guard);
    guard
}

/// epoll_pwait2, or epoll_pwait with the timeout rounded up where the kernel is older than 5.11.
fn epoll_wait_ns(
    epfd: i32,
    events: &mut taskwork::Events,
    ns: Option<u64>,
    sigmask: Option<u64>,
) -> Result<usize, Errno> {
    let mask = sigmask.as_ref().map_or(0, |m| m as *const u64 as usize);
    let spec = ns.map(|n| [n / 1_000_000_000, n % 1_000_000_000]);
    let spec_at = spec.as_ref().map_or(0, |s| s.as_ptr() as usize);
    let events_at = events.as_mut_ptr();
    // SAFETY: events, timespec and mask live on our stack for the length of the call.
    let waited = unsafe { sys!(epoll_pwait2, epfd, events_at, taskwork::BATCH, spec_at, mask, 8) };
    if waited != Err(Errno::ENOSYS) {
        return waited;
    }
    let ms = ns.map_or(-1, |n| n.div_ceil(1_000_000).min(i32::MAX as u64) as i64);
    // SAFETY: as above.
    unsafe { sys!(epoll_pwait, epfd, events_at, taskwork::BATCH, ms, mask, 8) }
}

/// Sleeps until the leader (or whoever posts) says that the target is reached or leadership is free.
fn follow<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    w: &WaitFor,
    p: &Progress,
    user_ns: Option<u64>,
) -> (Guard<'a, State>, Result<(), Errno>) {
    // A private one: the number must be nobody else's, while another thread closes or counts descriptors.
    let kept = guard.spare_eventfd.take();
    let fd = match kept.map_or_else(|| sys::eventfd().and_then(fds::make_private), Ok) {
        Ok(fd) => fd,
        Err(e) => return (guard, Err(e)),
    };
    guard.followers.push(Follower { fd, target: p.target, timeouts: p.timeouts });
    procs::leave(&mut guard);
    drop(guard);
    soloring_lock::assert_may_block();
    let mask = w.sigmask.as_ref().map_or(0, |m| m as *const u64 as usize);
    let spec = user_ns.map(|n| [n / 1_000_000_000, n % 1_000_000_000]);
    let spec_at = spec.as_ref().map_or(0, |s| s.as_ptr() as usize);
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: pollfd, timespec and mask live on our stack for the length of the call.
    let slept = unsafe { sys!(ppoll, &raw mut poll, 1, spec_at, mask, 8) };
    let mut guard = relock(ctx);
    guard.followers.retain(|f| f.fd != fd);
    if guard.spare_eventfd.is_none() {
        sys::eventfd_drain(fd);
        guard.spare_eventfd = Some(fd);
    } else {
        fds::close_private(fd);
    }
    (guard, slept.map(drop))
}

/// As this thread leaves: one of the followers becomes the leader.
fn hand_over(st: &mut State) {
    if !st.leader.present
        && let Some(next) = st.followers.first()
    {
        sys::eventfd_signal(next.fd);
    }
    refresh_ring_fd(st);
}
