//! Publishing completions and telling everyone who waits for them.

use crate::complete::flush_counted;
use crate::cq::Cq;
use crate::state::State;
use crate::{eventfds, sys};
use soloring_abi::raw::{IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_TASKRUN_FLAG, IORING_SQ_TASKRUN};

/// Publishes what was posted: CQ tail, eventfd, ring descriptor, sleeping waiters.
///
/// `by_leader`: the caller is the thread that waits on the epoll instance, and is awake.
#[inline]
pub fn flush(st: &mut State) {
    if st.kick {
        st.kick = false;
        st.wq.kick();
    }
    if !st.counted.is_empty() {
        while flush_counted(st) {}
    }
    if publish(st)
        && (st.eventfd.is_some()
            || st.shared.is_watched()
            || st.leader.asleep
            || !st.followers.is_empty()
            || st.multi)
    {
        notify(st);
    }
}

/// Publishes what was posted, before anyone is looked for who wants to be told. True when there was something.
#[inline(always)]
pub fn publish(st: &mut State) -> bool {
    let new = st.cq.publish(&st.rings);
    // With the heavy fence of who begins to watch the ring descriptor.
    soloring_lock::light_fence();
    new
}

/// Tells everyone who waits for what was published.
#[cold]
pub fn notify(st: &mut State) {
    if let Some(e) = &mut st.eventfd {
        // With EVENTFD_ASYNC the completion is not one more event than the work it came from.
        let told = std::mem::take(&mut e.told);
        if !(Cq::eventfd_disabled(&st.rings) || e.async_only && (st.inline || told)) {
            sys::eventfd_signal(e.fd);
        }
    }
    if st.multi && st.ring_fd >= 0 {
        sys::eventfd_signal(st.ring_fd);
    }
    signal_ring_fd(st);
    let (tail, timeouts) = (st.cq.tail(), st.cq.timeouts);
    if st.leader.asleep && (tail >= st.leader.target || timeouts != st.leader.timeouts) {
        st.shared.wake();
    }
    tell_followers(st);
}

/// Wakes those who follow and have what they wait for.
pub fn tell_followers(st: &State) {
    let (tail, timeouts) = (st.cq.tail(), st.cq.timeouts);
    for f in &st.followers {
        if tail >= f.target || timeouts != f.timeouts {
            sys::eventfd_signal(f.fd);
        }
    }
}

/// Says that task work waits for the submitter (DEFER_TASKRUN): SQ_TASKRUN, eventfd, ring descriptor.
#[cold]
pub fn tell_submitter(st: &mut State) {
    tell_by_flag(st);
    tell_by_eventfd(st);
    signal_ring_fd(st);
}

/// As [`tell_submitter`], when files became ready. Returns whether the eventfd is among them: then it is yet
/// to be signalled, [`SELF_TOLD_NS`] from now, by [`tell_by_eventfd`].
///
/// The kernel cannot signal an eventfd from within that eventfd's wake-up, and leaves it for the end of a
/// grace period. Programs have come to see it: who reads the eventfd through the ring, and comes in for it at
/// once, finds 1 in it and not 2.
#[cold]
pub fn tell_of_files(st: &mut State) -> bool {
    let later = reads_its_eventfd(st);
    tell_by_flag(st);
    if !later {
        tell_by_eventfd(st);
    }
    signal_ring_fd(st);
    later
}

/// What the kernel's grace periods take, about: 16 to 24 ms on an idle machine and on a busy one.
pub const SELF_TOLD_NS: u64 = 20_000_000;

/// Whether a request that waited on the registered eventfd, under the number that was registered, can go on.
fn reads_its_eventfd(st: &State) -> bool {
    let Some(e) = &st.eventfd else { return false };
    let waited_on = st.watches.waited_on_as(e.number);
    waited_on.is_some_and(|file| eventfds::is_readable(e.fd) && eventfds::are_one(file, e.fd))
}

fn tell_by_flag(st: &mut State) {
    if st.setup_has(IORING_SETUP_TASKRUN_FLAG) {
        st.rings.sq_flags_set(IORING_SQ_TASKRUN);
    }
}

/// Signals the eventfd for task work that waits.
pub fn tell_by_eventfd(st: &mut State) {
    if let Some(e) = &mut st.eventfd
        && !Cq::eventfd_disabled(&st.rings)
    {
        e.told = true;
        sys::eventfd_signal(e.fd);
    }
}

/// Makes the ring descriptor readable for a program that watches it. Every time, not only when it was not:
/// an edge-triggered watcher waits for the next edge.
pub fn signal_ring_fd(st: &mut State) {
    if st.shared.is_watched() && st.ring_fd >= 0 {
        sys::eventfd_signal(st.ring_fd);
        st.fd_signalled = true;
    }
}

/// Brings the ring descriptor's readiness in line with the CQ after the program took completions.
pub fn refresh_ring_fd(st: &mut State) {
    // Task work that only the submitter may run counts as something to come in for.
    let work = st.setup_has(IORING_SETUP_DEFER_TASKRUN) && st.shared.has_work();
    if st.fd_signalled && st.cq.ready(&st.rings) == 0 && !st.cq.has_overflow() && !work {
        sys::eventfd_drain(st.ring_fd);
        st.fd_signalled = false;
    } else if st.shared.is_watched() && !st.fd_signalled && (work || st.cq.ready(&st.rings) > 0) {
        signal_ring_fd(st);
    }
}
