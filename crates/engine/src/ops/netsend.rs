//! SEND with provided buffers: one, or many at once (bundles).
//!
//! It takes its buffers before the attempt and keeps them while it waits, as what it sends must not change order.
#![allow(unsafe_code)]

use super::netbuf::{is_bundle, vector_header};
use super::sockio::{self, DONTWAIT, NOSIGNAL, POLLOUT, WAITALL};
use super::{Attempt, Outcome};
use crate::creds::sys_as;
use crate::kbuf::{BUNDLE_MAX, Mapped};
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::sys;
use soloring_abi::{Errno, IoVec, Opcode};

/// SEND that chooses its buffers now. From then on it is a send of these.
pub fn send(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if is_bundle(req) {
        return send_bundle(st, req, attempt);
    }
    let group = req.sqe.buf_index;
    // A classic buffer is sent whole, whatever the request's length.
    let limit = if st.kbuf.is_ring(group) { req.sqe.len } else { 0 };
    let Some(buf) = st.kbuf.peek(group, limit) else { return no_send_buffers(st, req) };
    (req.sqe.addr, req.sqe.len) = (buf.addr, buf.len);
    if let AsyncData::Msg(msg) = &mut req.data {
        msg.iov.clear();
        msg.iov.push(IoVec { base: buf.addr, len: buf.len as u64 });
    }
    let outcome = sockio::send_chosen(req);
    // What is no socket takes no buffer.
    if ![Outcome::err(Errno::ENOTSOCK), Outcome::err(Errno::EBADF)].contains(&outcome) {
        req.cqe_flags = st.kbuf.commit(group, buf.len as u64);
    }
    outcome
}

fn no_send_buffers(st: &State, req: &mut Req) -> Outcome {
    req.flags |= flag::FAIL;
    // The socket comes before its buffer.
    if let Err(e) = sockio::socket_option(req.fd(), libc::SO_TYPE) {
        return Outcome::err(e);
    }
    let exists = st.kbuf.get(req.sqe.buf_index).is_some();
    Outcome::err(if exists { Errno::ENOBUFS } else { Errno::ENOENT })
}

/// One part of a bundle after the other, until the buffers that were there are sent.
fn send_bundle(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    loop {
        let group = req.sqe.buf_index;
        let limit = if st.kbuf.is_ring(group) { req.sqe.len } else { 0 };
        let mut iov = [IoVec::default(); BUNDLE_MAX];
        let Some(mapped) = st.kbuf.map(group, limit as u64, &mut iov) else {
            return no_send_buffers(st, req);
        };
        let iov = &iov[..mapped.count];
        let last = is_last_part(st, group, &mapped, limit);
        let sent = send_vector(req, iov);
        if let Err(e @ (Errno::ENOTSOCK | Errno::EBADF)) = sent {
            // What is no socket takes no buffer.
            req.flags |= flag::FAIL;
            return Outcome::err(e);
        }
        let cflags = st.kbuf.commit_many(group, mapped.bytes, mapped.count);
        match sent {
            // One that had to wait ends there.
            Ok(n) if n as u64 >= mapped.bytes && attempt != Attempt::First => {
                return Outcome::Done(n as i32, cflags);
            }
            Ok(n) if n as u64 >= mapped.bytes || n == 0 => {
                if let Some(outcome) = part_sent(st, req, n as i32, cflags, last) {
                    return outcome;
                }
            }
            Ok(n) if sockio::continues(req) => {
                keep_unsent(req, iov, n as u64, cflags, last);
                return Outcome::Arm(POLLOUT);
            }
            Err(Errno::EAGAIN) if !req.has(flag::NOWAIT) => {
                keep_unsent(req, iov, 0, cflags, last);
                return Outcome::Arm(POLLOUT);
            }
            Err(Errno::EINTR) => {
                keep_unsent(req, iov, 0, cflags, last);
                return Outcome::Arm(POLLOUT);
            }
            other => {
                req.flags |= flag::FAIL;
                return Outcome::Done(sys::as_res(other), cflags);
            }
        }
    }
}

/// Whether a part takes the last buffer that is there. One that ends at its limit goes on, and may
/// find nothing.
fn is_last_part(st: &mut State, group: u16, mapped: &Mapped, limit: u32) -> bool {
    !mapped.cut && mapped.bytes != limit as u64 && st.kbuf.ends_within(group, mapped.count)
}

fn send_vector(req: &Req, iov: &[IoVec]) -> Result<usize, Errno> {
    let mut hdr = vector_header(iov);
    if let AsyncData::Msg(msg) = &req.data {
        hdr.msg_name = msg.name_copy.as_ptr() as *mut _;
        hdr.msg_namelen = msg.name_copy.len() as u32;
    }
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: header, vector and address are ours; the kernel checks the program's buffers.
    unsafe { sys_as!(req, sendmsg, req.fd(), &raw const hdr, flags) }
}

/// The buffers are taken and wait with the request.
#[cold]
fn keep_unsent(req: &mut Req, iov: &[IoVec], n: u64, cflags: u32, last: bool) {
    let mut msg = match std::mem::take(&mut req.data) {
        AsyncData::Msg(msg) => msg,
        _ => Box::default(),
    };
    msg.iov.clear();
    msg.iov.extend_from_slice(iov);
    req.data = AsyncData::Msg(msg);
    req.cqe_flags = cflags;
    req.flags |= flag::STABLE | if last { flag::LAST_BUFFERS } else { 0 };
    sockio::advance(req, n);
}

/// A part is out: the end, or the next part.
fn part_sent(st: &mut State, req: &mut Req, res: i32, cflags: u32, last: bool) -> Option<Outcome> {
    if res <= 0 || last || !st.post_more(req.sqe.user_data, res, cflags) {
        return Some(Outcome::Done(res, cflags));
    }
    // The request's length was the first part's.
    req.sqe.len = 0;
    None
}

/// Goes on with a SEND bundle that had to wait.
pub fn resume_bundle(st: &mut State, req: &mut Req, outcome: Outcome) -> Outcome {
    let Outcome::Done(res, _) = outcome else { return outcome };
    if res <= 0 || req.has(flag::FAIL) {
        return outcome;
    }
    let last = req.has(flag::LAST_BUFFERS);
    let cflags = std::mem::take(&mut req.cqe_flags);
    req.done = 0;
    req.flags &= !flag::LAST_BUFFERS;
    match part_sent(st, req, res, cflags, last) {
        Some(outcome) => outcome,
        None => send_bundle(st, req, Attempt::First),
    }
}

/// A bundle of what the request names: nothing says that this was the last, so the kernel sends once more, nothing.
#[cold]
pub fn send_named(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    let outcome = sockio::send_chosen(req);
    let Outcome::Done(res, cflags) = outcome else { return outcome };
    // One that had to wait ends there.
    if res <= 0 || attempt != Attempt::First || !st.post_more(req.sqe.user_data, res, cflags) {
        return outcome;
    }
    req.sqe.len = 0;
    if let AsyncData::Msg(msg) = &mut req.data {
        msg.iov.clear();
    }
    sockio::send_chosen(req)
}

/// Whether this is a SEND bundle that waits with its buffers.
#[inline]
pub fn is_waiting_bundle(req: &Req) -> bool {
    req.cqe_flags != 0 && is_bundle(req) && req.sqe.opcode == Opcode::Send as u8
}
