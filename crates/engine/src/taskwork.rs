//! Task work: events of the epoll instance, timers that are due, what workers left.
//!
//! Runs with the lock held, on the submitter, a waiter or the reactor.
#![allow(unsafe_code)]

use crate::arm::wake;
use crate::cancel::{cancel_slot, hit_result};
use crate::complete::complete;
use crate::fds;
use crate::issue::{issue_slot, run_ready};
use crate::ops::Attempt;
use crate::ops::timeout::start_timer;
use crate::punt::take_back;
use crate::req::{AsyncData, NIL, flag};
use crate::shared::{TIMER_FD, TaskWork, WAKE};
use crate::slab::Where;
use crate::state::State;
use crate::sys::{self, sys};
use crate::timers::CLOCKS;
use soloring_abi::{Errno, Opcode};

/// Events taken from the epoll instance at a time.
pub const BATCH: usize = 64;

pub type Events = [libc::epoll_event; BATCH];

pub const NO_EVENTS: Events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];

/// Re-issues the requests whose files became ready.
pub fn on_events(st: &mut State, events: &[libc::epoll_event]) {
    st.inline = false;
    for event in events {
        let data = event.u64;
        if data == WAKE || data == TIMER_FD {
            continue;
        }
        wake(st, data, event.events, |st, slot, events| {
            issue_slot(st, slot, Attempt::Ready(events));
        });
    }
    run_ready(st);
}

/// Takes what is ready without waiting. Returns the number of events.
pub fn poll_events(st: &mut State) -> usize {
    let mut total = 0;
    loop {
        let mut events = NO_EVENTS;
        // SAFETY: the kernel writes at most BATCH events into our array; timeout 0 never blocks.
        let got =
            unsafe { sys!(epoll_pwait, st.shared.epfd, events.as_mut_ptr(), BATCH, 0, 0usize, 0) };
        let n = got.unwrap_or(0);
        on_events(st, &events[..n]);
        total += n;
        // Bounded: a multishot request on a busy socket must not keep us here.
        if n < BATCH || total >= 16 * BATCH {
            return total;
        }
    }
}

/// Runs task work that other threads left, and timers that are due.
#[inline]
pub fn run(st: &mut State) {
    if st.shared.has_work() {
        run_left(st);
    }
    if !st.timers.is_empty() {
        run_timers(st);
    }
}

#[cold]
fn run_left(st: &mut State) {
    st.inline = false;
    let mut work = Vec::new();
    st.shared.clone().take(&mut work);
    for item in work {
        match item {
            TaskWork::Done { id, req, res } => {
                let Some((slot, req)) = take_back(st, id, *req) else { continue };
                if req.has(flag::REISSUE) && res >= 0 {
                    let mut req = req;
                    req.flags &= !flag::REISSUE;
                    st.slab.put(slot, req, Where::Ready);
                    issue_slot(st, slot, Attempt::Ready(0));
                } else {
                    complete(st, Some(slot), req, res, 0);
                }
            }
            TaskWork::Message { cqe } => st.post(cqe.user_data, cqe.res, cqe.flags),
        }
    }
    run_ready(st);
}

fn run_timers(st: &mut State) {
    for clock in CLOCKS {
        if st.timers.earliest(clock).is_none() {
            continue;
        }
        let now = sys::now_ns(clock);
        while let Some(slot) = st.timers.pop_due(clock, now) {
            st.inline = false;
            fire(st, slot);
        }
    }
    run_ready(st);
}

fn fire(st: &mut State, slot: u32) {
    let mut req = st.take(slot);
    if req.sqe.opcode == Opcode::LinkTimeout as u8 {
        st.slab.put(slot, req, Where::Linked);
        return fire_link_timeout(st, slot);
    }
    st.cq.timeouts += 1;
    let etime = Errno::ETIME.neg();
    if req.has(flag::MULTISHOT) {
        let counted = req.sqe.off as u32 != 0;
        let mut more = true;
        if let (true, AsyncData::Timeout(t)) = (counted, &mut req.data) {
            t.repeats -= 1;
            more = t.repeats > 0;
        }
        if more && st.post_more(req.sqe.user_data, etime, 0) {
            return start_timer(st, slot, req);
        }
    }
    complete(st, Some(slot), req, etime, 0);
}

/// The limited request is cancelled; the timeout itself reports -ETIME.
fn fire_link_timeout(st: &mut State, slot: u32) {
    let head = st.slab.get(slot).head;
    let mut limit = st.slab.take(slot);
    if head == NIL || st.slab.get(head).next != slot {
        return complete(st, Some(slot), limit, Errno::ETIME.neg(), 0);
    }
    // Out of the chain: what follows is linked to the limited request itself.
    let rest = std::mem::replace(&mut limit.next, NIL);
    let target = st.slab.get_mut(head);
    target.next = rest;
    target.flags &= !(flag::HAS_LTIMEOUT | flag::ARM_LTIMEOUT);
    let hit = hit_result(st, head);
    let res = match cancel_slot(st, head) {
        Ok(()) if hit != 0 => hit,
        Ok(()) => Errno::ETIME.neg(),
        Err(e) => e.neg(),
    };
    // Having fired is not a failure: CQE_SKIP_SUCCESS on it holds.
    limit.flags |= flag::NO_FAIL;
    complete(st, Some(slot), limit, res, 0);
}

/// Makes the ring's epoll instance wake for the timers of one clock.
///
/// The epoll timeout serves CLOCK_MONOTONIC while a thread waits; the reactor, and the other clocks,
/// need a timerfd.
pub fn program_timerfd(st: &mut State, which: usize) {
    let clock = CLOCKS[which];
    let Some(deadline) = st.timers.earliest(clock) else { return };
    if st.timer_fds[which] < 0 {
        // SAFETY: no memory involved.
        let made = unsafe { sys!(timerfd_create, clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        let Ok(fd) = made.and_then(|fd| fds::make_private(fd as i32)) else { return };
        let edge = (libc::EPOLLIN | libc::EPOLLET) as u32;
        if sys::epoll_ctl(st.shared.epfd, libc::EPOLL_CTL_ADD, fd, edge, TIMER_FD).is_err() {
            return fds::close_private(fd);
        }
        st.timer_fds[which] = fd;
    }
    if st.timer_set[which] == deadline {
        return;
    }
    st.timer_set[which] = deadline;
    let at = deadline.max(1);
    let spec = [0u64, 0, at / 1_000_000_000, at % 1_000_000_000];
    // SAFETY: reads one itimerspec (four words) from our stack.
    let _ = unsafe {
        sys!(timerfd_settime, st.timer_fds[which], libc::TFD_TIMER_ABSTIME, spec.as_ptr(), 0usize)
    };
}
