//! Completion: the CQE, the rest of the link chain, the drain queue.
//!
//! Nothing here issues a request. What may run next is put on `State::ready`, for the driver.

use crate::req::{File, NIL, Req, flag};
use crate::slab::Where;
use crate::state::State;
use soloring_abi::{Errno, Opcode, raw, sqe_flags};

/// Marks a request as failed: its chain breaks, and a skipped CQE is posted after all.
pub fn set_fail(req: &mut Req) {
    req.flags |= flag::FAIL;
    if req.has(flag::SKIP_CQE) {
        req.flags = req.flags & !flag::SKIP_CQE | flag::SKIP_LINK_CQES;
    }
}

fn post(st: &mut State, req: &Req, res: i32, cflags: u32, extra: [u64; 2]) {
    if !req.has(flag::SKIP_CQE) {
        let flags = cflags | req.cqe_flags;
        let cqe = soloring_abi::Cqe { user_data: req.sqe.user_data, res, flags };
        st.cq.post(&st.rings, cqe, extra);
    }
    if req.has(flag::NOTIF) {
        post_notification(st, req);
    }
}

/// The second completion of a zero-copy send: the data was copied, so the buffer is free at once.
#[cold]
fn post_notification(st: &mut State, req: &Req) {
    let report = req.sqe.ioprio as u32 & raw::IORING_SEND_ZC_REPORT_USAGE != 0;
    let usage = if report { raw::IORING_NOTIF_USAGE_ZC_COPIED } else { 0 };
    st.post(req.sqe.user_data, usage as i32, raw::IORING_CQE_F_NOTIF);
}

/// Completes a request for good. `slot` is its reserved slot when it had one.
pub fn complete(st: &mut State, slot: Option<u32>, req: Req, res: i32, cflags: u32) {
    complete_big(st, slot, req, res, cflags, [0; 2]);
}

/// As [`complete`], with the second half of a 32-byte CQE.
pub fn complete_big(
    st: &mut State,
    slot: Option<u32>,
    mut req: Req,
    mut res: i32,
    cflags: u32,
    extra: [u64; 2],
) {
    if res < 0 && req.done > 0 {
        // What was transferred before the error (or the cancel) is told instead; it counts as failed.
        res = req.done as i32;
        req.flags |= flag::FAIL;
    }
    if res < 0 && !req.has(flag::NO_FAIL) || req.has(flag::FAIL) {
        set_fail(&mut req);
    }
    post(st, &req, res, cflags, extra);
    st.release_resources(slot, &mut req);
    if req.next != NIL {
        finish_chain(st, &mut req);
    }
    if let Some(slot) = slot {
        st.slab.release(slot);
    }
    if st.drain_active {
        queue_deferred(st);
    }
}

/// Completes a request that stands alone (no chain behind it): a link timeout, a cancelled link.
fn complete_alone(st: &mut State, slot: u32, res: i32) {
    let mut req = st.take(slot);
    post(st, &req, res, 0, [0; 2]);
    st.release_resources(Some(slot), &mut req);
    st.slab.release(slot);
}

/// Completes a request that was done inline, straight from the SQ: it has no slot, no chain, and holds
/// nothing but perhaps its copied arguments. What is drained behind it is the caller's to look at.
#[inline(always)]
pub fn complete_inline(st: &mut State, req: &mut Req, res: i32, cflags: u32) {
    debug_assert!(req.next == NIL && !matches!(req.file, File::Own(_)));
    if req.has(flag::SKIP_CQE | flag::NOTIF | flag::UNPREPARED) {
        return complete_inline_slow(st, req, res, cflags);
    }
    let flags = cflags | req.cqe_flags;
    let cqe = soloring_abi::Cqe { user_data: req.sqe.user_data, res, flags };
    st.cq.post_small(&st.rings, cqe);
}

#[cold]
fn complete_inline_slow(st: &mut State, req: &mut Req, res: i32, cflags: u32) {
    if req.has(flag::UNPREPARED) {
        st.stop_submission();
    }
    complete(st, None, std::mem::take(req), res, cflags);
}

/// What becomes of the requests linked behind one that is done.
fn finish_chain(st: &mut State, req: &mut Req) {
    if req.has(flag::ARM_LTIMEOUT | flag::HAS_LTIMEOUT) {
        req.flags &= !(flag::ARM_LTIMEOUT | flag::HAS_LTIMEOUT);
        let timeout = req.next;
        if st.slab.get(timeout).sqe.opcode == Opcode::LinkTimeout as u8 {
            req.next = st.slab.get(timeout).next;
            st.slab.get_mut(timeout).next = NIL;
            complete_alone(st, timeout, Errno::ECANCELED.neg());
        }
    }
    let hard = req.sqe.flags & sqe_flags::IO_HARDLINK != 0 && !req.has(flag::NO_HARDLINK);
    if req.has(flag::FAIL) && !hard {
        let skip = req.has(flag::SKIP_LINK_CQES);
        fail_links(st, req.next, skip);
        req.next = NIL;
    }
    if req.next != NIL {
        st.slab.set_at(req.next, Where::Ready);
        st.ready.push_back(req.next);
        req.next = NIL;
    }
}

/// Posts -ECANCELED (or its own error) for every request of a broken chain.
fn fail_links(st: &mut State, mut slot: u32, skip_cqes: bool) {
    while slot != NIL {
        let req = st.slab.get_mut(slot);
        let res = if req.has(flag::FAIL) { req.res } else { Errno::ECANCELED.neg() };
        if skip_cqes {
            req.flags |= flag::SKIP_CQE;
        } else {
            req.flags &= !flag::SKIP_CQE;
        }
        // It was never issued: its completion announces nothing.
        req.cqe_flags = 0;
        let next = std::mem::replace(&mut req.next, NIL);
        complete_alone(st, slot, res);
        slot = next;
    }
}

/// Fails a whole chain from its head on, none of it having been issued. Every request posts its own
/// error if it has one, -ECANCELED otherwise, whether it was hard-linked or not.
pub fn fail_chain(st: &mut State, slot: u32) {
    let mut req = st.take(slot);
    let res = if req.has(flag::FAIL) { req.res } else { Errno::ECANCELED.neg() };
    req.flags |= flag::NO_HARDLINK | flag::FAIL;
    complete(st, Some(slot), req, res, 0);
}

/// Number of requests in the chain that starts at `slot`.
fn chain_len(st: &State, mut slot: u32) -> usize {
    let mut n = 0;
    while slot != NIL {
        n += 1;
        slot = st.slab.get(slot).next;
    }
    n
}

/// Puts a request (with its chain) on the drain queue.
pub fn defer(st: &mut State, slot: u32) {
    let drain = st.slab.get(slot).sqe.flags & sqe_flags::IO_DRAIN != 0;
    st.slab.set_at(slot, Where::Deferred);
    st.drained += chain_len(st, slot);
    st.deferred.push_back(slot);
    queue_deferred(st);
    if !drain && st.deferred.is_empty() {
        st.drain_active = false;
    }
}

/// Lets deferred requests go as far as everything before them is complete.
pub fn queue_deferred(st: &mut State) {
    let mut drain_seen = false;
    let mut first = true;
    while let Some(&slot) = st.deferred.front() {
        drain_seen |= st.slab.get(slot).has(flag::DRAIN)
            || st.slab.get(slot).sqe.flags & sqe_flags::IO_DRAIN != 0;
        if (drain_seen || first) && st.slab.in_flight() != st.drained {
            return;
        }
        st.deferred.pop_front();
        st.drained -= chain_len(st, slot);
        st.slab.set_at(slot, Where::Ready);
        st.ready.push_back(slot);
        first = false;
    }
}

/// Fires counted timeouts whose completions have arrived. Returns true when one fired.
pub fn flush_counted(st: &mut State) -> bool {
    let mut fired = false;
    while let Some(&(target, slot)) = st.counted.first() {
        if st.cq.timeout_seq() < target {
            break;
        }
        let req = st.take(slot);
        st.cq.timeouts += 1;
        complete(st, Some(slot), req, 0, 0);
        fired = true;
    }
    fired
}

/// Flags that a request's stub in the slab owns while a worker has the request itself.
pub const CHAIN_FLAGS: u32 = flag::ARM_LTIMEOUT | flag::HAS_LTIMEOUT | flag::INTERRUPTED;
