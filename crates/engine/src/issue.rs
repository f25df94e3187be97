//! The driver: issues a request and acts on the outcome.
//!
//! inline attempt -> done | armed for readiness | punted to a worker | timer started.

use crate::arm::arm;
use crate::cancel::withdraw;
use crate::complete::{complete, complete_big, complete_inline};
use crate::fds;
use crate::ops::{Attempt, OpDef, Outcome, begun, poll, rw, timeout};
use crate::optable::definition;
use crate::punt::punt;
use crate::req::{File, Req, flag};
use crate::slab::Where;
use crate::state::State;
use soloring_abi::extra::{IORING_CQE_F_32, IORING_SETUP_CQE_MIXED};
use soloring_abi::{Errno, Opcode, sqe_flags};
use soloring_iowq::Class;

#[inline]
pub fn def_of(req: &Req) -> &'static OpDef {
    definition(req.sqe.opcode)
}

/// Resolves `sqe->fd`, at the moment the request is issued (FEAT_LINKED_FILE).
///
/// # Errors
/// EBADF for an empty slot and for descriptors that the program does not own.
#[inline]
fn resolve_file(st: &State, req: &mut Req) -> Result<(), Errno> {
    if req.file != File::None {
        return Ok(());
    }
    let fd = req.sqe.fd;
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 {
        let node = st.files.as_ref().and_then(|t| t.get(fd as u32)).ok_or(Errno::EBADF)?;
        let (kind, direct) = (node.item.kind, node.item.direct);
        req.file = File::Fixed { fd: node.item.fd, storage: kind.is_storage(), direct };
        return Ok(());
    }
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    req.file = File::Fd(if fd < fds::base() { fd } else { high_fd(st, req.sqe.opcode, fd)? });
    Ok(())
}

/// Numbers from our range on: what is private does not exist, and of a ring only readiness is the eventfd's that
/// stands for it. To any other operation it is a file without methods, as an epoll instance is.
#[cold]
fn high_fd(st: &State, opcode: u8, fd: i32) -> Result<i32, Errno> {
    if fds::is_private(fd) {
        return Err(Errno::EBADF);
    }
    let Some(id) = fds::ring_id(fd) else { return Ok(fd) };
    match Opcode::from_raw(opcode) {
        Some(Opcode::PollAdd) => {
            crate::shared::watch_ring(id);
            Ok(fd)
        }
        Some(Opcode::EpollCtl | Opcode::EpollWait) => Err(Errno::EINVAL),
        _ => Ok(st.shared.epfd),
    }
}

/// Issues a request that has no slot yet: the common case, straight from the SQ. `req` stays the
/// caller's to use again.
#[inline(always)]
pub fn issue_new(st: &mut State, req: &mut Req, def: &'static OpDef) {
    if def.needs_file
        && let Err(e) = resolve_file(st, req)
    {
        return fail_unresolved(st, req, def, e);
    }
    match (def.issue)(st, req, Attempt::First) {
        Outcome::Done(res, cflags) => complete_inline(st, req, res, cflags),
        outcome => issue_new_slow(st, req, outcome),
    }
}

/// There is no such file. What the request lent would have been looked at before.
#[cold]
fn fail_unresolved(st: &mut State, req: &mut Req, def: &'static OpDef, e: Errno) {
    let unread = if req.has(flag::LENT) { (def.stabilise)(req).err() } else { None };
    if unread.is_some() {
        req.flags |= flag::UNPREPARED;
    }
    complete_inline(st, req, unread.unwrap_or(e).neg(), 0);
}

#[inline(never)]
fn issue_new_slow(st: &mut State, req: &mut Req, outcome: Outcome) {
    let slot = st.slab.insert(Req::default(), Where::Out);
    act(st, slot, std::mem::take(req), outcome);
}

/// Issues the request in `slot` (again).
pub fn issue_slot(st: &mut State, slot: u32, attempt: Attempt) {
    let mut req = st.take(slot);
    if req.has(flag::LATER) {
        let res = req.res;
        return complete(st, Some(slot), req, res, 0);
    }
    let def = def_of(&req);
    if def.needs_file
        && let Err(e) = resolve_file(st, &mut req)
    {
        return complete(st, Some(slot), req, e.neg(), 0);
    }
    // An operation that always takes a worker says so, and which, when it is issued.
    if attempt == Attempt::First && req.has(flag::FORCE_WORKER) && !def.always_async {
        if let Some(outcome) = begun::by_worker(&mut req) {
            return act(st, slot, req, outcome);
        }
        let class = if def.iopoll { Class::Bounded } else { Class::Unbounded };
        // What can be polled is tried and armed instead of blocking a worker, as io-wq does.
        if !def.pollable && def.has_run && (def.block_when)(&req) {
            if let Err(e) = rw::select_for_worker(st, &mut req) {
                return complete(st, Some(slot), req, e.neg(), 0);
            }
            req.flags &= !flag::FORCE_WORKER;
            return act(st, slot, req, Outcome::Punt(class));
        }
    }
    let outcome = (def.issue)(st, &mut req, attempt);
    act(st, slot, req, outcome);
}

/// Acts on what an attempt came to. The request was taken out of `slot`.
fn act(st: &mut State, slot: u32, mut req: Req, outcome: Outcome) {
    let def = def_of(&req);
    match outcome {
        Outcome::Done(res, cflags) => return complete(st, Some(slot), req, res, cflags),
        Outcome::DoneBig(res, extra) => {
            let mixed = st.setup_has(IORING_SETUP_CQE_MIXED);
            let size = if mixed { IORING_CQE_F_32 } else { 0 };
            return complete_big(st, Some(slot), req, res, size, extra);
        }
        _ => {}
    }
    if !req.has(flag::STABLE) {
        if let Err(e) = (def.stabilise)(&mut req) {
            if req.has(flag::UNPREPARED) {
                st.stop_submission();
            }
            return complete(st, Some(slot), req, e.neg(), 0);
        }
        req.flags |= flag::STABLE;
    }
    let stored = match outcome {
        Outcome::Arm(events) => arm(st, slot, req, events).map_err(|(r, e)| (r, e, true)),
        Outcome::Punt(class) => punt(st, slot, req, def, class).map_err(|(r, e)| (r, e, false)),
        Outcome::StartTimer => {
            timeout::start_timer(st, slot, req);
            return;
        }
        Outcome::Later(res) => {
            req.res = res;
            req.flags |= flag::LATER;
            st.slab.put(slot, req, Where::Ready);
            st.ready.push_back(slot);
            return;
        }
        Outcome::Done(..) | Outcome::DoneBig(..) => unreachable!("handled above"),
    };
    match stored {
        Ok(()) => {
            if !settle(st, slot, def) {
                return;
            }
            arm_link_timeout(st, slot);
        }
        Err((req, Errno::EPERM, true)) => not_pollable(st, slot, req, def),
        Err((req, e, _)) => complete(st, Some(slot), req, e.neg(), 0),
    }
}

/// Lets the operation see to what a worker has begun. False: the request is complete.
fn settle(st: &mut State, slot: u32, def: &'static OpDef) -> bool {
    let (Some(punted), Where::Punted(ticket)) = (def.punted, st.slab.at(slot)) else { return true };
    // Workers are called at the end of a submission otherwise.
    st.kick = false;
    st.wq.kick();
    let full = || st.wq.is_full(Class::Unbounded);
    let Err(e) = punted(st.slab.get(slot), &full) else { return true };
    if !withdraw(st, slot, ticket) {
        return true;
    }
    let req = st.take(slot);
    complete(st, Some(slot), req, e.neg(), 0);
    false
}

/// epoll does not know this kind of file: it never blocks for long, or only a worker can wait for it.
#[cold]
fn not_pollable(st: &mut State, slot: u32, mut req: Req, def: &'static OpDef) {
    if req.sqe.opcode == Opcode::PollAdd as u8 {
        let outcome = poll::always_ready(&req);
        return act(st, slot, req, outcome);
    }
    if !def.has_run {
        let multishot = req.has(flag::MULTISHOT);
        // With POLL_FIRST these have not found out yet that this is no socket, in the kernel neither.
        let first = [Opcode::Recv as u8, Opcode::Accept as u8].contains(&req.sqe.opcode);
        let other = if first { Errno::EAGAIN } else { Errno::EOPNOTSUPP };
        let e = if multishot { Errno::EBADFD } else { other };
        return complete(st, Some(slot), req, e.neg(), 0);
    }
    if let Err(e) = rw::select_for_worker(st, &mut req) {
        return complete(st, Some(slot), req, e.neg(), 0);
    }
    req.flags &= !flag::FORCE_WORKER;
    act(st, slot, req, Outcome::Punt(Class::Unbounded));
}

/// Starts the LINK_TIMEOUT behind a request that now waits.
fn arm_link_timeout(st: &mut State, slot: u32) {
    let req = st.slab.get_mut(slot);
    if !req.has(flag::ARM_LTIMEOUT) {
        return;
    }
    req.flags = req.flags & !flag::ARM_LTIMEOUT | flag::HAS_LTIMEOUT;
    let timeout_slot = req.next;
    let mut limit = st.slab.take(timeout_slot);
    limit.head = slot;
    timeout::start_timer(st, timeout_slot, limit);
}

/// Runs everything that is ready to be issued, until nothing is.
pub fn run_ready(st: &mut State) {
    while let Some(slot) = st.ready.pop_front() {
        issue_slot(st, slot, Attempt::First);
    }
}
