//! Waiting for readiness: a request joins the watch of its file.

use crate::fds;
use crate::req::{File, NIL, Req, flag};
use crate::slab::Where;
use crate::state::State;
use crate::waiters::Kind;
use crate::watch::{DOUBTS, How, close_notified};
use soloring_abi::{Errno, Opcode, raw, sqe_flags};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Always reported, wanted or not.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// Set in the events of an attempt: what it leaves is told again without any edge.
pub const LASTS: u32 = libc::EPOLLEXCLUSIVE as u32;

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
    let kind = kind_of(req, events);
    let edges = kind == Kind::Edges;
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
            let (ours, announced) = (is_ours(st, req), is_announced(st, req));
            // A reader whose number has to be asked for each time gains nothing by a level.
            let level = kind == Kind::Repeated || kind == Kind::Reader && (ours || announced);
            let how = How { tried, ours, announced, level };
            let watch = st.watches.attach(epfd, fd, events, how, &mut st.slab)?;
            hold_watched(st, watch, req)?;
            watch
        }
        Err(e) => return Err(e),
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

/// Whether the file keeps its number until its closing is announced. Not where a look at the epoll instance
/// is told to the program, which would hear of our own clock.
fn is_announced(st: &State, req: &Req) -> bool {
    let told = || {
        st.setup_has(raw::IORING_SETUP_DEFER_TASKRUN)
            && (st.setup_has(raw::IORING_SETUP_TASKRUN_FLAG)
                || st.eventfd.is_some()
                || st.shared.is_watched())
    };
    close_notified() && matches!(req.file, File::Fd(fd) if fd < fds::base()) && !told()
}

fn kind_of(req: &Req, events: u32) -> Kind {
    const ELSEWHERE: u32 = (libc::MSG_OOB | libc::MSG_ERRQUEUE) as u32;
    let op = req.sqe.opcode;
    let is = |o: Opcode| op == o as u8;
    let multishot = req.has(flag::MULTISHOT);
    if is(Opcode::PollAdd) && multishot {
        return Kind::Edges;
    }
    let recv = is(Opcode::Recv) || is(Opcode::Recvmsg);
    let read = is(Opcode::Read) || is(Opcode::Readv) || is(Opcode::ReadFixed);
    let reads = recv && req.sqe.op_flags & ELSEWHERE == 0 || read || is(Opcode::Accept);
    match events & !(libc::EPOLLRDHUP as u32) == libc::EPOLLIN as u32 && reads {
        true if !multishot => Kind::Reader,
        true if recv => Kind::Repeated,
        _ => Kind::Other,
    }
}

/// Calls `issue` for the waiters that an event of the epoll instance concerns, oldest first.
pub fn wake(st: &mut State, data: u64, events: u32, issue: fn(&mut State, u32, u32)) {
    let epfd = st.shared.epfd;
    if data == DOUBTS {
        return st.watches.settle_doubts(epfd);
    }
    let Some(watch) = st.watches.named(epfd, data) else { return };
    let mut slot = st.watches.first(watch);
    let (mut drained, mut useful) = (false, false);
    while slot != NIL && !(drained && st.watches.only_readers(watch)) {
        let next = st.watches.next(watch, slot);
        let (wanted, reader) = st.watches.interest(slot);
        let concerned = events & (wanted | ALWAYS) != 0 && !(drained && reader);
        if concerned && st.slab.at(slot) == Where::Armed {
            let before = (st.slab.get(slot).done, st.cq.tail());
            let lasts = if st.watches.is_level(watch) { LASTS } else { 0 };
            issue(st, slot, events | lasts);
            let waits = st.watches.is_waiting(watch, slot) && st.slab.at(slot) == Where::Armed;
            let idle = waits && (st.slab.get(slot).done, st.cq.tail()) == before;
            drained |= idle && reader;
            useful |= !idle;
        }
        // Issuing a request only ever takes out that request.
        slot = next;
    }
    if !useful && st.watches.is_level(watch) {
        st.watches.level_was_useless(epfd, watch);
    }
}

/// Keeps a registered file (and its tag) alive for a request that outlives its attempt.
pub fn hold_file(st: &State, req: &mut Req) {
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 && req.held_file.is_none() {
        let node = st.files.as_ref().and_then(|t| t.get(req.sqe.fd as u32));
        req.held_file = node.map(|n| Arc::clone(&n.item));
    }
}
