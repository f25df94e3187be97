//! RECV and RECVMSG with provided buffers: one, one after the other (multishot), many at once (bundles).
//!
//! A receive takes a buffer only when it is filled; sends, which take theirs before, stand in `netsend.rs`.
#![allow(unsafe_code)]

use super::sockio::{self, DONTWAIT, WAITALL, how};
use super::{Attempt, Outcome};
use crate::arm::LASTS;
use crate::creds::sys_as;
use crate::kbuf::BUNDLE_MAX;
use crate::req::{AsyncData, MsgData, Req, flag};
use crate::state::State;
use crate::sys;
use crate::usercopy;
use soloring_abi::raw::{
    IORING_CQE_F_BUF_MORE, IORING_CQE_F_SOCK_NONEMPTY, IORING_RECVSEND_BUNDLE,
};
use soloring_abi::{Errno, IoVec, sqe_flags};

/// Receives in a row for one request before the others get their turn, as in the kernel.
const ROUNDS_MAX: u32 = 32;
/// Buffers that a bundle tries first: most receives fill no more, and preparing them costs.
const FIRST_TRY: usize = 8;

/// Whether the buffer is still to be chosen.
#[inline]
pub fn chooses(req: &Req) -> bool {
    req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 && req.cqe_flags == 0
}

pub fn is_bundle(req: &Req) -> bool {
    how(req) & IORING_RECVSEND_BUNDLE != 0
}

/// Whether the socket is a stream, where "nothing more" can be told and parts can be put together.
fn is_stream(req: &mut Req) -> bool {
    if !req.has(flag::STREAM_SOCKET | flag::MESSAGE_SOCKET) {
        let stream = sockio::socket_kind(req.fd()) == Some(libc::SOCK_STREAM);
        req.flags |= if stream { flag::STREAM_SOCKET } else { flag::MESSAGE_SOCKET };
    }
    req.has(flag::STREAM_SOCKET)
}

fn readable(req: &Req) -> bool {
    sys::poll_now(req.fd(), libc::POLLIN) != 0
}

/// The smaller of two limits, of which 0 means none.
fn tighter(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

/// What one receive of a multishot request came to.
enum Shot {
    /// `res`, `cqe->flags`; whether the buffers were full; whether the request ends with it.
    Got {
        res: i32,
        cflags: u32,
        full: bool,
        last: bool,
    },
    Blocked,
    NoBuffers,
    /// No more after this: end of the stream, or an error.
    End {
        res: i32,
        cflags: u32,
    },
}

impl Shot {
    fn failed(req: &mut Req, e: Errno) -> Shot {
        match e {
            Errno::EAGAIN if !req.has(flag::NOWAIT) => Shot::Blocked,
            Errno::EINTR => Shot::Blocked,
            e => {
                req.flags |= flag::FAIL;
                Shot::End { res: e.neg(), cflags: 0 }
            }
        }
    }
}

fn no_buffers(req: &mut Req) -> Outcome {
    req.flags |= flag::FAIL;
    // The socket comes before its buffer.
    let no_socket = sockio::socket_option(req.fd(), libc::SO_TYPE).err();
    Outcome::err(no_socket.unwrap_or(Errno::ENOBUFS))
}

/// Repeats `take` until nothing is there, the completions do not fit, or it is the others' turn.
///
/// Whether more is there after a full buffer is only known from the next attempt: that completion is
/// held back until then.
fn shots(
    st: &mut State,
    req: &mut Req,
    attempt: Attempt,
    take: fn(&mut State, &mut Req) -> Shot,
) -> Outcome {
    let user_data = req.sqe.user_data;
    // Data, and no end or error behind it: those belong to the same turn.
    let only_data = attempt == Attempt::Ready(libc::EPOLLIN as u32 | LASTS);
    let mut held: Option<(i32, u32)> = None;
    let mut rounds = 0;
    loop {
        match take(st, req) {
            Shot::Got { res, cflags, full, last } => {
                if let Some((res, cflags)) = held.take() {
                    // There was room for two when it was held back.
                    st.post_more(user_data, res, cflags | IORING_CQE_F_SOCK_NONEMPTY);
                }
                if last {
                    return Outcome::Done(res, cflags);
                }
                rounds += 1;
                let full = full && is_stream(req);
                // A bundle's length is what it may take in a turn.
                let share = is_bundle(req) && req.sqe.len != 0 && res as u32 >= req.sqe.len;
                let others_turn = share || rounds == ROUNDS_MAX;
                if full && !others_turn && st.cq.room(&st.rings) >= 2 {
                    held = Some((res, cflags));
                    continue;
                }
                let nonempty = full && readable(req);
                let cflags = cflags | if nonempty { IORING_CQE_F_SOCK_NONEMPTY } else { 0 };
                if !st.post_more(user_data, res, cflags) {
                    return Outcome::Done(res, cflags);
                }
                if others_turn {
                    return requeue(req);
                }
                // All there was, most likely; if not, it is told again.
                if only_data && !full && is_stream(req) {
                    return Outcome::Arm(sockio::receive_events(req));
                }
            }
            Shot::Blocked => {
                return match held {
                    Some((res, cflags)) if !st.post_more(user_data, res, cflags) => {
                        Outcome::Done(res, cflags)
                    }
                    _ => Outcome::Arm(sockio::receive_events(req)),
                };
            }
            Shot::NoBuffers => return out_of_buffers(st, req, attempt, held, rounds),
            Shot::End { res, cflags } => {
                if let Some((res, cflags)) = held
                    && !st.post_more(user_data, res, cflags)
                {
                    return Outcome::Done(res, cflags);
                }
                return Outcome::Done(res, cflags);
            }
        }
    }
}

/// -ENOBUFS is only said when there is something that wants a buffer, or at the first attempt.
#[cold]
fn out_of_buffers(
    st: &mut State,
    req: &mut Req,
    attempt: Attempt,
    held: Option<(i32, u32)>,
    rounds: u32,
) -> Outcome {
    let first = rounds == 0 && attempt == Attempt::First;
    // With messages it cannot be told, and the kernel tries.
    let wanted = first || rounds > 0 && !is_stream(req) || readable(req);
    if let Some((res, cflags)) = held {
        let cflags = cflags | if wanted { IORING_CQE_F_SOCK_NONEMPTY } else { 0 };
        if !st.post_more(req.sqe.user_data, res, cflags) {
            return Outcome::Done(res, cflags);
        }
    }
    if wanted { no_buffers(req) } else { Outcome::Arm(sockio::receive_events(req)) }
}

/// Lets the others go first: as readiness is told in order, the end of that queue is the place to wait.
#[cold]
fn requeue(req: &mut Req) -> Outcome {
    req.flags |= flag::REQUEUE;
    Outcome::Arm(sockio::receive_events(req))
}

// ---- RECV

/// RECV that chooses its buffer now.
pub fn recv(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.has(flag::MULTISHOT) {
        let take = if is_bundle(req) { bundle_shot } else { recv_shot };
        return shots(st, req, attempt, take);
    }
    if is_bundle(req) {
        return match bundle_shot(st, req) {
            Shot::Got { res, cflags, .. } | Shot::End { res, cflags } => Outcome::Done(res, cflags),
            Shot::Blocked => Outcome::Arm(sockio::receive_events(req)),
            Shot::NoBuffers => out_of_buffers(st, req, attempt, None, 0),
        };
    }
    let group = req.sqe.buf_index;
    let Some(buf) = st.kbuf.peek(group, req.sqe.len) else {
        return out_of_buffers(st, req, attempt, None, 0);
    };
    let got = receive(req, buf.addr, buf.len);
    let min = if req.sqe.op_flags & WAITALL != 0 { buf.len as usize } else { 0 };
    match got {
        Ok(n) if n < min && n > 0 && sockio::continues(req) => {
            // It goes on filling this buffer, which nobody else must get meanwhile.
            req.cqe_flags = st.kbuf.take(group);
            (req.sqe.addr, req.sqe.len) = (buf.addr, buf.len);
            req.done = n as u32;
            sockio::go_on(req, sockio::receive_events(req))
        }
        Ok(n) => {
            if n < min {
                req.flags |= flag::FAIL;
            }
            let cflags =
                if n > 0 { st.kbuf.commit(group, n.min(buf.len as usize) as u64) } else { 0 };
            Outcome::Done(n as i32, cflags)
        }
        Err(e) => match Shot::failed(req, e) {
            Shot::Blocked => Outcome::Arm(sockio::receive_events(req)),
            _ => Outcome::err(e),
        },
    }
}

fn receive(req: &Req, addr: u64, len: u32) -> Result<usize, Errno> {
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer, which it provided for this.
    unsafe { sys_as!(req, recvfrom, req.fd(), addr, len, flags, 0usize, 0usize) }
}

/// Counts `n` received bytes against the total limit (`sqe->optlen`). True when it is reached.
fn reaches_total(req: &mut Req, n: usize) -> bool {
    if req.sqe.file_index == 0 {
        return false;
    }
    req.sqe.file_index = req.sqe.file_index.saturating_sub(n as u32);
    req.sqe.file_index == 0
}

fn recv_shot(st: &mut State, req: &mut Req) -> Shot {
    let group = req.sqe.buf_index;
    // The total (`optlen`) does not cut a receive, it only ends the request.
    let Some(buf) = st.kbuf.peek(group, req.sqe.len) else { return Shot::NoBuffers };
    match receive(req, buf.addr, buf.len) {
        Ok(0) => Shot::End { res: 0, cflags: 0 },
        Ok(n) => {
            let cflags = st.kbuf.commit(group, n.min(buf.len as usize) as u64);
            let last = reaches_total(req, n);
            Shot::Got { res: n as i32, cflags, full: n >= buf.len as usize, last }
        }
        Err(e) => Shot::failed(req, e),
    }
}

// ---- RECV, bundles

/// A header for `iov` alone.
pub fn vector_header(iov: &[IoVec]) -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers, for which zero is a value.
    let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
    hdr.msg_iov = iov.as_ptr() as *mut _;
    hdr.msg_iovlen = iov.len() as _;
    hdr
}

fn receive_vector(req: &Req, iov: &[IoVec]) -> Result<usize, Errno> {
    let mut hdr = vector_header(iov);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: header and vector are ours; the kernel checks the program's buffers.
    unsafe { sys_as!(req, recvmsg, req.fd(), &raw mut hdr, flags) }
}

/// How many of the buffers `n` bytes fill, the last one perhaps in part.
fn touched(iov: &[IoVec], n: u64) -> usize {
    let mut left = n;
    for (i, v) in iov.iter().enumerate() {
        if left <= v.len {
            return i + 1;
        }
        left -= v.len;
    }
    iov.len()
}

fn bundle_shot(st: &mut State, req: &mut Req) -> Shot {
    let group = req.sqe.buf_index;
    let limit = tighter(req.sqe.len, req.sqe.file_index);
    let mut iov = [IoVec::default(); FIRST_TRY];
    let Some(mapped) = st.kbuf.map(group, limit as u64, &mut iov) else { return Shot::NoBuffers };
    let iov = &mut iov[..mapped.count];
    let n = match receive_vector(req, iov) {
        Ok(0) => return Shot::End { res: 0, cflags: 0 },
        Ok(n) => (n as u64).min(mapped.bytes),
        Err(e) => return Shot::failed(req, e),
    };
    let mut cflags = st.kbuf.commit_many(group, n, touched(iov, n));
    let mut full = n == mapped.bytes;
    let mut total = n;
    let under_limit = limit == 0 || total < limit as u64;
    if full && !mapped.cut && under_limit && is_stream(req) {
        let rest = if limit == 0 { 0 } else { limit as u64 - total };
        (total, full) = more_of_bundle(st, req, rest, total, &mut cflags);
    }
    if total < mapped.bytes && req.sqe.op_flags & WAITALL != 0 && sockio::continues(req) {
        keep_rest(req, iov, total, cflags);
        return Shot::Blocked;
    }
    let last = reaches_total(req, total as usize) || st.kbuf.ends_within(group, 0);
    Shot::Got { res: total as i32, cflags, full, last }
}

/// The first buffers were filled: as many more as there are, added to the same completion.
#[cold]
fn more_of_bundle(
    st: &mut State,
    req: &mut Req,
    limit: u64,
    total: u64,
    cflags: &mut u32,
) -> (u64, bool) {
    let group = req.sqe.buf_index;
    let mut iov = [IoVec::default(); BUNDLE_MAX];
    let Some(mapped) = st.kbuf.map(group, limit, &mut iov) else { return (total, true) };
    if mapped.cut && mapped.count == 1 && !st.kbuf.is_incremental(group) {
        // A buffer that the limit cuts is left for the next completion.
        return (total, true);
    }
    match receive_vector(req, &iov[..mapped.count]) {
        Ok(n) if n > 0 => {
            let n = (n as u64).min(mapped.bytes);
            let count = touched(&iov[..mapped.count], n);
            let flags = st.kbuf.commit_many(group, n, count);
            *cflags = *cflags & !IORING_CQE_F_BUF_MORE | flags & IORING_CQE_F_BUF_MORE;
            (total + n, n == mapped.bytes)
        }
        _ => (total, false),
    }
}

/// MSG_WAITALL on a bundle: the buffers are its own from here on, filled as data comes.
#[cold]
fn keep_rest(req: &mut Req, iov: &[IoVec], n: u64, cflags: u32) {
    req.cqe_flags = cflags;
    req.data = AsyncData::Msg(Box::new(MsgData { iov: iov.to_vec(), ..MsgData::default() }));
    sockio::advance(req, n);
}

// ---- RECVMSG

/// `struct io_uring_recvmsg_out`: what stands before name, control data and payload.
#[derive(Clone, Copy)]
#[repr(C)]
struct RecvmsgOut {
    name_len: u32,
    control_len: u32,
    payload_len: u32,
    flags: u32,
}

const OUT_BYTES: u64 = size_of::<RecvmsgOut>() as u64;

/// RECVMSG that chooses its buffer now.
pub fn recvmsg(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.has(flag::MULTISHOT) {
        return shots(st, req, attempt, recvmsg_shot);
    }
    let group = req.sqe.buf_index;
    let Some(buf) = st.kbuf.peek(group, req.sqe.len) else {
        return out_of_buffers(st, req, attempt, None, 0);
    };
    if let AsyncData::Msg(msg) = &mut req.data {
        msg.iov.clear();
        msg.iov.push(IoVec { base: buf.addr, len: buf.len as u64 });
    }
    let outcome = sockio::recvmsg_chosen(req);
    match outcome {
        Outcome::Done(res, flags) if res > 0 => {
            Outcome::Done(res, flags | st.kbuf.commit(group, (res as u64).min(buf.len as u64)))
        }
        Outcome::Arm(_) if req.done > 0 => {
            // MSG_WAITALL: it goes on filling this buffer.
            req.cqe_flags = st.kbuf.take(group);
            outcome
        }
        other => other,
    }
}

fn recvmsg_shot(st: &mut State, req: &mut Req) -> Shot {
    let group = req.sqe.buf_index;
    let Some(buf) = st.kbuf.peek(group, req.sqe.len) else { return Shot::NoBuffers };
    let AsyncData::Msg(msg) = &req.data else { unreachable!("copied in prep") };
    let (name_len, control_len) = (msg.name_len as u64, msg.control_len);
    let before = OUT_BYTES + name_len + control_len;
    if (buf.len as u64) < before {
        // The socket comes before its buffer.
        let no_socket = sockio::socket_option(req.fd(), libc::SO_TYPE).err();
        return Shot::failed(req, no_socket.unwrap_or(Errno::EFAULT));
    }
    let payload = IoVec { base: buf.addr + before, len: buf.len as u64 - before };
    let mut hdr = vector_header(std::slice::from_ref(&payload));
    if name_len > 0 {
        hdr.msg_name = (buf.addr + OUT_BYTES) as *mut _;
        hdr.msg_namelen = name_len as u32;
    }
    if control_len > 0 {
        hdr.msg_control = (buf.addr + OUT_BYTES + name_len) as *mut _;
        hdr.msg_controllen = control_len as _;
    }
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: header and vector are ours; name, control data and payload go to the program's buffer,
    // which the kernel checks.
    let got = match unsafe { sys_as!(req, recvmsg, req.fd(), &raw mut hdr, flags) } {
        Ok(n) => n as u64,
        Err(e) => return Shot::failed(req, e),
    };
    let out = RecvmsgOut {
        name_len: if name_len > 0 { hdr.msg_namelen } else { 0 },
        control_len: hdr.msg_controllen as u32,
        payload_len: got as u32,
        flags: hdr.msg_flags as u32,
    };
    let words = [
        out.name_len as u64 | (out.control_len as u64) << 32,
        out.payload_len as u64 | (out.flags as u64) << 32,
    ];
    if let Err(e) = usercopy::write(buf.addr, &words) {
        return Shot::failed(req, e);
    }
    let written = got.min(payload.len);
    let res = (before + written) as i32;
    let cflags = st.kbuf.commit(group, res as u64);
    if got == 0 {
        return Shot::End { res, cflags };
    }
    Shot::Got { res, cflags, full: written == payload.len, last: false }
}
