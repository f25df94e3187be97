//! Submission: SQEs out of the ring, checked, assembled into chains, drained, issued.

use crate::complete::{defer, fail_chain, queue_deferred, set_fail};
use crate::issue::{def_of, issue_new, issue_slot, run_ready};
use crate::ops::Attempt;
use crate::req::{NIL, Req, flag};
use crate::slab::Where;
use crate::state::State;
use soloring_abi::{Errno, Sqe, op, raw, sqe_flags};
use std::sync::Arc;

const LINK_FLAGS: u8 = sqe_flags::IO_LINK | sqe_flags::IO_HARDLINK;
const COMMON_FLAGS: u8 =
    sqe_flags::FIXED_FILE | sqe_flags::IO_LINK | sqe_flags::IO_HARDLINK | sqe_flags::ASYNC;

/// Consumes up to `to_submit` entries and returns how many were consumed.
#[inline(never)]
pub fn submit(st: &mut State, to_submit: u32) -> u32 {
    submit_here(st, to_submit)
}

/// [`submit`], without a call.
#[inline(always)]
pub fn submit_here(st: &mut State, to_submit: u32) -> u32 {
    let entries = st.rings.layout().sq_entries;
    let available = st.rings.sq_tail().wrapping_sub(st.sq_head).min(entries);
    let first = st.sq_head;
    st.sq_stop = first.wrapping_add(to_submit.min(available));
    let mut dropped = 0;
    // One request in place for everything that completes inline, kept from one submission to the next: making
    // one and dropping it costs more than a NOP.
    let mut scratch = st.scratch.take().unwrap_or_else(|| Box::new(Req::new(Sqe::default())));
    let req = &mut *scratch;
    st.inline = true;
    while st.sq_head != st.sq_stop {
        let pos = st.sq_head;
        st.sq_head = pos.wrapping_add(1);
        let Some(index) = st.rings.sqe_index(pos) else {
            st.rings.sq_dropped_inc();
            dropped = 1;
            break;
        };
        req.reset(st.rings.sqe(index));
        submit_one(st, req);
    }
    req.let_go();
    // Nothing is there to be dropped: it was taken above.
    std::mem::forget(st.scratch.replace(scratch));
    if st.link.head != NIL {
        // A chain without an end: what is there is the chain.
        let head = st.link.head;
        st.link.head = NIL;
        queue_slow(st, head);
    }
    st.rings.set_sq_head(st.sq_head);
    if !st.ready.is_empty() {
        run_ready(st);
    }
    st.sq_head.wrapping_sub(first) - dropped
}

#[inline(always)]
fn submit_one(st: &mut State, req: &mut Req) {
    let (opcode, flags) = (req.sqe.opcode, req.sqe.flags);
    st.counts.note(opcode);
    // The plain request, in few steps. What is checked here or cannot be wrong is what `init` checks.
    if opcode < op::LAST && flags & !sqe_flags::FIXED_FILE == 0 && st.takes_plain_requests() {
        let def = def_of(req);
        let no_extras = (req.sqe.ioprio == 0 || def.ioprio) && req.sqe.personality == 0;
        if no_extras && !def.always_async {
            return match (def.prep)(st, req) {
                Ok(()) if !req.has(flag::FORCE_ASYNC) => issue_new(st, req, def),
                Ok(()) => queue(st, std::mem::take(req)),
                Err(e) => fail_init(st, std::mem::take(req), e),
            };
        }
    }
    submit_other(st, req)
}

/// Whatever is not plain: part of a chain, drained, restricted, with rare flags, or wrong.
#[inline(never)]
fn submit_other(st: &mut State, req: &mut Req) {
    req.flags &= !flag::PLAIN;
    match init(st, req) {
        Ok(()) => queue(st, std::mem::take(req)),
        Err(e) => fail_init(st, std::mem::take(req), e),
    }
}

/// Checks the SQE, in the kernel's order.
fn init(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    let flags = req.sqe.flags;
    if req.sqe.opcode >= op::LAST {
        req.sqe.opcode = 0;
        return Err(Errno::EINVAL);
    }
    let def = def_of(req);
    if flags & !COMMON_FLAGS != 0 {
        init_rare_flags(st, req)?;
    }
    if st.restricted || st.drain_active || st.drain_next {
        init_restricted_or_draining(st, req)?;
    }
    if req.sqe.ioprio != 0 && !def.ioprio {
        return Err(Errno::EINVAL);
    }
    if !def.iopoll && st.setup_has(raw::IORING_SETUP_IOPOLL) {
        return Err(Errno::EINVAL);
    }
    if req.sqe.personality != 0 {
        let creds = st.personalities.get(req.sqe.personality).ok_or(Errno::EINVAL)?;
        req.creds = Some(Arc::clone(creds));
    }
    (def.prep)(st, req)?;
    if flags & sqe_flags::ASYNC != 0 {
        req.flags |= flag::FORCE_ASYNC | flag::FORCE_WORKER;
    }
    Ok(())
}

fn init_rare_flags(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    let flags = req.sqe.flags;
    if flags & !sqe_flags::ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & sqe_flags::BUFFER_SELECT != 0 && !def_of(req).buffer_select {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & sqe_flags::CQE_SKIP_SUCCESS != 0 {
        st.drain_disabled = true;
        req.flags |= flag::SKIP_CQE;
    }
    if flags & sqe_flags::IO_DRAIN != 0 {
        if st.drain_disabled {
            return Err(Errno::EOPNOTSUPP);
        }
        req.flags |= flag::DRAIN;
        st.drain_active = true;
        if st.link.head != NIL {
            // A drain inside a chain drains the chain's head, and whatever follows the chain.
            st.slab.get_mut(st.link.head).flags |=
                flag::DRAIN | flag::FORCE_ASYNC | flag::FORCE_WORKER;
            st.drain_next = true;
        }
    }
    Ok(())
}

#[cold]
fn init_restricted_or_draining(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    if st.restricted {
        let r = &st.restrictions;
        let flags = req.sqe.flags;
        let allowed = r.sqe_ops >> req.sqe.opcode & 1 != 0
            && flags & r.sqe_flags_required == r.sqe_flags_required
            && flags & !(r.sqe_flags_allowed | r.sqe_flags_required) == 0;
        if !allowed {
            return Err(Errno::EACCES);
        }
    }
    // What is drained, and what comes behind it, is carried out as if IOSQE_ASYNC were set.
    if st.drain_active {
        req.flags |= flag::FORCE_ASYNC | flag::FORCE_WORKER;
    }
    if st.drain_next && st.link.head == NIL {
        st.drain_next = false;
        st.drain_active = true;
        req.flags |= flag::DRAIN | flag::FORCE_ASYNC | flag::FORCE_WORKER;
    }
    Ok(())
}

/// Stores a request that is not issued straight away: its pointers are copied first.
fn store(st: &mut State, mut req: Req) -> u32 {
    if !req.has(flag::STABLE | flag::FAIL) {
        match (def_of(&req).stabilise)(&mut req) {
            Ok(()) => req.flags |= flag::STABLE,
            Err(e) => {
                req.res = e.neg();
                set_fail(&mut req);
            }
        }
    }
    st.slab.insert(req, Where::Linked)
}

/// Appends to the chain being assembled, or starts one, or issues.
fn queue(st: &mut State, mut req: Req) {
    let links_on = req.sqe.flags & LINK_FLAGS != 0;
    if st.link.head == NIL && !links_on && !req.has(flag::FORCE_ASYNC) {
        if !def_of(&req).always_async {
            let def = def_of(&req);
            issue_new(st, &mut req, def);
            if st.drain_active {
                queue_deferred(st);
            }
            return;
        }
        let slot = store(st, req);
        return leave_for_worker(st, slot);
    }
    let slot = store(st, req);
    if st.link.head != NIL {
        let last = st.link.last;
        st.slab.get_mut(last).next = slot;
        st.link.last = slot;
        if links_on {
            return;
        }
        let head = std::mem::replace(&mut st.link.head, NIL);
        let head_flags = st.slab.get(head).flags;
        if head_flags & (flag::FORCE_ASYNC | flag::FAIL) != 0 || st.slab.get(slot).has(flag::FAIL) {
            if st.slab.get(slot).has(flag::FAIL) {
                fail_head(st, head);
            }
            return queue_slow(st, head);
        }
        if def_of(st.slab.get(head)).always_async {
            return leave_for_worker(st, head);
        }
        // In its turn; what is linked behind it comes at the submission's end.
        issue_slot(st, head, Attempt::First);
        return;
    }
    if links_on {
        st.link.head = slot;
        st.link.last = slot;
        return;
    }
    queue_slow(st, slot);
}

fn fail_head(st: &mut State, head: u32) {
    let req = st.slab.get_mut(head);
    if !req.has(flag::FAIL) {
        req.res = Errno::ECANCELED.neg();
        set_fail(req);
    }
}

/// Failed, draining or forced asynchronous.
fn queue_slow(st: &mut State, slot: u32) {
    if st.slab.get(slot).has(flag::FAIL) {
        fail_chain(st, slot);
    } else if st.drain_active {
        defer(st, slot);
    } else {
        leave_for_worker(st, slot);
    }
}

/// Goes to a worker, or does what one would do, when the submission is through. Until then it is work that
/// nobody has begun: a cancellation behind it in the same submission finds it.
fn leave_for_worker(st: &mut State, slot: u32) {
    st.slab.get_mut(slot).flags |= flag::QUEUED;
    st.slab.set_at(slot, Where::Ready);
    st.ready.push_back(slot);
}

/// A request that failed its checks: alone it completes with the error, in a chain it fails the chain.
/// The submission ends with it, unless the chain goes on: a chain is assembled to its end before it fails.
fn fail_init(st: &mut State, mut req: Req, e: Errno) {
    let links_on = req.sqe.flags & LINK_FLAGS != 0;
    req.res = e.neg();
    if req.sqe.flags & sqe_flags::CQE_SKIP_SUCCESS != 0 {
        // Counts from the first look on, also where it was not got round to.
        req.flags |= flag::SKIP_CQE;
    }
    set_fail(&mut req);
    req.flags |= flag::STABLE;
    let slot = st.slab.insert(req, Where::Linked);
    if st.link.head != NIL {
        fail_head(st, st.link.head);
        let last = st.link.last;
        st.slab.get_mut(last).next = slot;
        st.link.last = slot;
    } else {
        st.link.head = slot;
        st.link.last = slot;
    }
    if links_on {
        return;
    }
    let head = std::mem::replace(&mut st.link.head, NIL);
    fail_chain(st, head);
    st.stop_submission();
}
