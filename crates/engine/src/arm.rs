//! Waiting for readiness: a request joins the watch of its file.

use crate::fds;
use crate::req::{File, NIL, Req, flag};
use crate::slab::Where;
use crate::state::State;
use crate::watch::{How, Kind, close_notified};
use soloring_abi::{Errno, Opcode, raw, sqe_flags};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Always reported, wanted or not.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// Has a request that was taken out of `slot` wait for `events`, and stores it there.
///
/// It stays with its watch over re-issues: an edge after the attempt that saw -EAGAIN wakes it again.
///
/// # Errors
/// EPERM when the file cannot be polled, EMFILE, ENOMEM; the request comes back.
#[expect(clippy::result_large_err, reason = "the request comes back, and boxing it would allocate")]
pub fn arm(st: &mut State, slot: u32, mut req: Req, events: u32) -> Result<(), (Req, Errno)> {
    let joined = if req.has(flag::POLLED) {
        rejoin(st, slot, &req, events)
    } else {
        hold_file(st, &mut req);
        join(st, slot, &mut req, events)
    };
    if let Err(e) = joined {
        return Err((req, e));
    }
    req.flags &= !flag::REQUEUE;
    st.slab.put(slot, req, Where::Armed);
    st.index(slot);
    st.armed += 1;
    Ok(())
}

/// With REQUEUE what is ready now is told again, after what is told already.
fn rejoin(st: &mut State, slot: u32, req: &Req, events: u32) -> Result<(), Errno> {
    st.watches.change(st.shared.epfd, slot, events)?;
    if req.has(flag::REQUEUE) {
        st.recheck = true;
        return st.watches.again(st.shared.epfd, slot);
    }
    Ok(())
}

fn join(st: &mut State, slot: u32, req: &mut Req, events: u32) -> Result<(), Errno> {
    let epfd = st.shared.epfd;
    let fd = req.fd();
    let edges = req.sqe.opcode == Opcode::PollAdd as u8 && req.has(flag::MULTISHOT);
    let alone = if st.watches.is_taken(fd, edges) {
        st.watches.attach_alone(epfd, fd, events)
    } else {
        Err(Errno::EINVAL)
    };
    let watch = match alone {
        Ok(watch) => {
            req.file = File::Fd(st.watches.duplicate(watch).expect("lone watches have one"));
            watch
        }
        // EINVAL: need not be alone, or epoll takes no more entries for this file.
        Err(Errno::EINVAL) => {
            // POLL_FIRST, which is in ioprio, multishot polls and REQUEUE: readiness has to be asked for.
            let tried = req.sqe.ioprio == 0 && !edges && !req.has(flag::REQUEUE);
            let how = How { tried, ours: is_ours(st, req) };
            let watch = st.watches.attach(epfd, fd, events, how, &mut st.slab)?;
            hold_watched(st, watch, req)?;
            watch
        }
        Err(e) => return Err(e),
    };
    let kind = match edges {
        true => Kind::Edges,
        false if is_reader(req, events) => Kind::Reader,
        false => Kind::Other,
    };
    st.watches.enlist(watch, slot, events, kind);
    req.flags |= flag::POLLED;
    st.recheck |= req.has(flag::MULTISHOT);
    Ok(())
}

/// A registered file that was attached here before: its number is ours and has named it ever since.
fn is_ours(st: &State, req: &Req) -> bool {
    let Some(file) = &req.held_file else { return false };
    let epfd = st.shared.epfd;
    matches!(req.file, File::Fixed { .. }) && file.watched.swap(epfd, Ordering::Relaxed) == epfd
}

/// Sees to it that the request's file outlives the program's descriptor.
fn hold_watched(st: &mut State, watch: u32, req: &mut Req) -> Result<(), Errno> {
    // Registered files and duplicates of its own are held by the request.
    let File::Fd(fd) = req.file else { return Ok(()) };
    if let Some(dup) = st.watches.duplicate(watch) {
        req.file = File::Fd(dup);
        return Ok(());
    }
    let is_ring = fd >= fds::base();
    if is_ring || !close_notified() && !st.setup_has(raw::IORING_SETUP_DEFER_TASKRUN) {
        // The program may run, and close it, while we are still here.
        req.file = File::Fd(st.watches.hold(watch, &mut st.slab)?);
    } else if !close_notified() {
        st.watches.hold_later(watch);
    }
    Ok(())
}

/// Whether the request takes what is there to read: when it finds nothing, nobody else would.
fn is_reader(req: &Req, events: u32) -> bool {
    const ELSEWHERE: u32 = (libc::MSG_OOB | libc::MSG_ERRQUEUE) as u32;
    let op = req.sqe.opcode;
    let is = |o: Opcode| op == o as u8;
    let recv = is(Opcode::Recv) || is(Opcode::Recvmsg);
    let read = is(Opcode::Read) || is(Opcode::Readv) || is(Opcode::ReadFixed);
    events == libc::EPOLLIN as u32
        && !req.has(flag::MULTISHOT)
        && (recv && req.sqe.op_flags & ELSEWHERE == 0 || read || is(Opcode::Accept))
}

/// Calls `issue` for the waiters that an event of the epoll instance concerns, oldest first.
pub fn wake(st: &mut State, data: u64, events: u32, issue: fn(&mut State, u32, u32)) {
    let Some(watch) = st.watches.named(st.shared.epfd, data) else { return };
    let mut slot = st.watches.first(watch);
    let mut drained = false;
    while slot != NIL {
        let next = st.watches.next(watch, slot);
        let (wanted, reader) = st.watches.interest(slot);
        let concerned = events & (wanted | ALWAYS) != 0 && !(drained && reader);
        if concerned && st.slab.at(slot) == Where::Armed {
            let done = st.slab.get(slot).done;
            issue(st, slot, events);
            let nothing = reader
                && st.watches.is_waiting(watch, slot)
                && st.slab.at(slot) == Where::Armed
                && st.slab.get(slot).done == done;
            drained |= nothing;
        }
        if drained && st.watches.only_readers(watch) {
            return;
        }
        // Issuing a request only ever takes out that request.
        slot = next;
    }
}

/// Keeps a registered file (and its tag) alive for a request that outlives its attempt.
pub fn hold_file(st: &State, req: &mut Req) {
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 && req.held_file.is_none() {
        let node = st.files.as_ref().and_then(|t| t.get(req.sqe.fd as u32));
        req.held_file = node.map(|n| Arc::clone(&n.item));
    }
}
