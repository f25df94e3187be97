//! One attempt at a send or receive on a socket, and what its result means.
//!
//! Always with MSG_DONTWAIT; MSG_WAITALL is kept here, by going on when the socket is ready again.
#![allow(unsafe_code)]

use super::{Attempt, Outcome};
use crate::creds::sys_as;
use crate::ops::sock::read_addr;
use crate::req::{AsyncData, MsgData, Req, flag};
use crate::sys::{MAX_RW_COUNT, sys};
use crate::{lent, usercopy};
use soloring_abi::{Errno, IoVec, Opcode, raw, sqe_flags};
use std::mem::offset_of;

pub const DONTWAIT: u32 = libc::MSG_DONTWAIT as u32;
pub const WAITALL: u32 = libc::MSG_WAITALL as u32;
pub const NOSIGNAL: u32 = libc::MSG_NOSIGNAL as u32;
pub const POLLOUT: u32 = libc::POLLOUT as u32;
const UIO_MAXIOV: u64 = 1024;

/// `sqe->ioprio`, which for these operations holds `IORING_RECVSEND_*` and the like.
pub fn how(req: &Req) -> u32 {
    req.sqe.ioprio as u32
}

pub fn poll_first(req: &Req, attempt: Attempt) -> bool {
    attempt == Attempt::First
        && how(req) & raw::IORING_RECVSEND_POLL_FIRST != 0
        && !req.has(flag::NOWAIT)
}

/// The poll events that a receive waits for.
pub fn receive_events(req: &Req) -> u32 {
    // The error queue is announced by POLLERR, which needs no asking.
    if req.sqe.op_flags & libc::MSG_ERRQUEUE as u32 != 0 {
        return libc::POLLPRI as u32;
    }
    // One that goes on wants to know whether the end stands behind the data.
    let end = if req.has(flag::MULTISHOT) { libc::EPOLLRDHUP } else { 0 };
    (libc::EPOLLIN | end) as u32
}

pub fn read_iov(addr: u64, count: u64) -> Result<Vec<IoVec>, Errno> {
    if count > UIO_MAXIOV {
        return Err(Errno::EMSGSIZE);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    usercopy::read_vectors(addr, count as usize)
}

pub fn stable_msg(req: &mut Req) -> Result<(), Errno> {
    let hdr: libc::msghdr = usercopy::read(req.sqe.addr)?;
    let send =
        matches!(Opcode::from_raw(req.sqe.opcode), Some(Opcode::Sendmsg | Opcode::SendmsgZc));
    let chooses = req.sqe.flags & sqe_flags::BUFFER_SELECT != 0;
    if !hdr.msg_name.is_null() && (hdr.msg_namelen as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    if req.has(flag::MULTISHOT) {
        let before = 16 + hdr.msg_controllen as u64 + hdr.msg_namelen as u64;
        let fits = i32::try_from(hdr.msg_namelen).is_ok() && i32::try_from(before).is_ok();
        if !fits {
            return Err(Errno::EOVERFLOW);
        }
    }
    // The address is read before the vector: so are their errors.
    let mut name_copy = Vec::new();
    if send && !hdr.msg_name.is_null() && hdr.msg_namelen != 0 {
        let len = hdr.msg_namelen.min(128);
        let a = read_addr(hdr.msg_name as u64, len as u64)?;
        name_copy = a.bytes[..len as usize].to_vec();
    }
    let iov = if chooses {
        req.sqe.len = chosen_limit(&hdr)?;
        Vec::with_capacity(1)
    } else {
        read_iov(hdr.msg_iov as u64, hdr.msg_iovlen as u64)?
    };
    let msg = MsgData {
        name: hdr.msg_name as u64,
        name_len: hdr.msg_namelen,
        control: hdr.msg_control as u64,
        control_len: hdr.msg_controllen as u64,
        iov,
        name_copy,
    };
    req.data = AsyncData::Msg(Box::new(msg));
    req.flags |= flag::STABLE;
    Ok(())
}

/// With a provided buffer, of a header's vector only the length of its one element counts: the most
/// bytes to receive, 0 for no limit.
fn chosen_limit(hdr: &libc::msghdr) -> Result<u32, Errno> {
    match hdr.msg_iovlen {
        0 => Ok(0),
        1 => {
            let iov: IoVec = usercopy::read(hdr.msg_iov as u64)?;
            Ok(iov.len.min(i32::MAX as u64) as u32)
        }
        n if n as u64 > UIO_MAXIOV => Err(Errno::EMSGSIZE),
        _ => Err(Errno::EINVAL),
    }
}

pub fn msg_stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::LENT) {
        lent::take(req, stable_msg)
    } else if req.has(flag::STABLE) {
        Ok(())
    } else {
        stable_msg(req)
    }
}

/// Checks a message in prep, or leaves that to an attempt that follows at once.
pub fn msg_prep(req: &mut Req) -> Result<(), Errno> {
    if may_lend(req) {
        req.flags |= flag::LENT;
        return Ok(());
    }
    stable_msg(req)
}

/// Whether the first attempt is likely to be all, and needs nothing of what it is given.
pub fn may_lend(req: &Req) -> bool {
    req.has(flag::PLAIN) && how(req) == 0 && req.sqe.op_flags & WAITALL == 0 && lent::is_possible()
}

/// An integer socket option; ENOTSOCK, EBADF.
pub fn socket_option(fd: i32, name: i32) -> Result<i32, Errno> {
    let (mut value, mut len) = (0i32, 4u32);
    // SAFETY: writes one int and one length on our stack.
    unsafe { sys!(getsockopt, fd, libc::SOL_SOCKET, name, &raw mut value, &raw mut len) }
        .map(|_| value)
}

/// SOCK_STREAM and so on; `None` for what is no socket.
pub fn socket_kind(fd: i32) -> Option<i32> {
    socket_option(fd, libc::SO_TYPE).ok()
}

/// Whether a partial transfer on this socket is continued for MSG_WAITALL.
pub fn continues(req: &Req) -> bool {
    req.sqe.op_flags & WAITALL != 0
        && matches!(socket_kind(req.fd()), Some(libc::SOCK_STREAM | libc::SOCK_SEQPACKET))
}

/// The rest is waited for. What was only looked at is still there, and looked at again, as in the kernel.
pub fn go_on(req: &mut Req, events: u32) -> Outcome {
    if req.sqe.op_flags & libc::MSG_PEEK as u32 != 0 {
        req.flags |= flag::REQUEUE;
    }
    Outcome::Arm(events)
}

/// What one attempt's result means: finished, or wait for `events` and go on.
fn settle(req: &mut Req, result: Result<usize, Errno>, wanted: u64, events: u32) -> Outcome {
    let min = if req.sqe.op_flags & WAITALL != 0 { wanted } else { 0 };
    match result {
        Ok(n) if (n as u64) < min && n > 0 && continues(req) => {
            advance(req, n as u64);
            go_on(req, events)
        }
        Ok(n) => {
            if (n as u64) < min {
                req.flags |= flag::FAIL;
            }
            Outcome::Done((req.done as u64 + n as u64) as i32, 0)
        }
        Err(Errno::EAGAIN) if !req.has(flag::NOWAIT) => Outcome::Arm(events),
        Err(Errno::EINTR) => Outcome::Arm(events),
        Err(e) => {
            req.flags |= flag::FAIL;
            if req.done > 0 { Outcome::Done(req.done as i32, 0) } else { Outcome::err(e) }
        }
    }
}

/// Counts `n` transferred bytes and drops them from the front of a copied vector.
pub fn advance(req: &mut Req, mut n: u64) {
    req.done += n as u32;
    if let AsyncData::Msg(msg) = &mut req.data {
        for v in &mut msg.iov {
            let step = n.min(v.len);
            v.base += step;
            v.len -= step;
            n -= step;
        }
        msg.control = 0;
        msg.control_len = 0;
    }
}

/// Address and length of a single buffer, less what was transferred already.
fn single(req: &Req) -> (u64, u64) {
    let done = req.done as u64;
    (req.sqe.addr + done, (req.sqe.len as u64).min(MAX_RW_COUNT) - done)
}

/// One attempt with the buffer that the request names.
#[inline]
pub fn send_chosen(req: &mut Req) -> Outcome {
    if matches!(req.data, AsyncData::Msg(_)) {
        return sendmsg_chosen(req);
    }
    let (addr, len) = single(req);
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer and only reads it.
    let sent = unsafe { sys_as!(req, sendto, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, sent, len, POLLOUT)
}

#[inline]
pub fn recv_chosen(req: &mut Req) -> Outcome {
    let (addr, len) = single(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer, which it handed over for this.
    let got = unsafe { sys_as!(req, recvfrom, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, got, len, receive_events(req))
}

/// A header for the call: our vector, the program's name and control buffers.
pub fn header(msg: &MsgData) -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers, for which zero is a value.
    let mut hdr: libc::msghdr = unsafe { std::mem::zeroed() };
    if msg.name_copy.is_empty() {
        hdr.msg_name = msg.name as *mut _;
        hdr.msg_namelen = msg.name_len;
    } else {
        hdr.msg_name = msg.name_copy.as_ptr() as *mut _;
        hdr.msg_namelen = msg.name_copy.len() as u32;
    }
    hdr.msg_iov = msg.iov.as_ptr() as *mut _;
    hdr.msg_iovlen = msg.iov.len() as _;
    hdr.msg_control = msg.control as *mut _;
    hdr.msg_controllen = msg.control_len as _;
    hdr
}

pub fn total(msg: &MsgData) -> u64 {
    msg.iov.iter().map(|v| v.len).sum()
}

fn message(req: &Req) -> (libc::msghdr, u64) {
    match &req.data {
        AsyncData::Msg(msg) => (header(msg), total(msg)),
        _ => unreachable!("copied in prep"),
    }
}

pub fn sendmsg_chosen(req: &mut Req) -> Outcome {
    let (hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let sent = unsafe { sys_as!(req, sendmsg, req.fd(), &raw const hdr, flags) };
    settle(req, sent, len, POLLOUT)
}

/// What became of an attempt with lent memory: an error is looked at again with `copy` of what was lent.
pub fn settle_lent(
    req: &mut Req,
    result: Result<usize, Errno>,
    copy: fn(&mut Req) -> Result<(), Errno>,
    events: u32,
) -> Outcome {
    match result {
        Ok(n) => Outcome::Done(n as i32, 0),
        Err(e) => match lent::take(req, copy) {
            Ok(()) => settle(req, Err(e), 0, events),
            Err(unread) => Outcome::err(unread),
        },
    }
}

/// One attempt with the program's own header. `None`: it was copied, since it has more than a vector and a name.
pub fn sendmsg_lent(req: &mut Req) -> Option<Outcome> {
    // Address and length of the control data are two words in a row, as those of a vector.
    let control = req.sqe.addr.wrapping_add(offset_of!(libc::msghdr, msg_control) as u64);
    if lent::bytes(control, 1) != Some(0) {
        return lent::take(req, stable_msg).err().map(Outcome::err);
    }
    let flags = req.sqe.op_flags | DONTWAIT | NOSIGNAL;
    // SAFETY: the kernel checks the header and all that it names, and only reads it.
    let sent = unsafe { sys_as!(req, sendmsg, req.fd(), req.sqe.addr, flags) };
    Some(settle_lent(req, sent, stable_msg, POLLOUT))
}

/// One attempt with the destination where the program has it.
pub fn send_lent(req: &mut Req, copy: fn(&mut Req) -> Result<(), Errno>) -> Outcome {
    let (addr, len) = single(req);
    let (to, to_len) = (req.sqe.off, req.sqe.file_index & 0xffff);
    let flags = req.sqe.op_flags | DONTWAIT | NOSIGNAL;
    // SAFETY: the kernel checks the program's buffer and address, and only reads them.
    let sent = unsafe { sys_as!(req, sendto, req.fd(), addr, len, flags, to, to_len) };
    settle_lent(req, sent, copy, POLLOUT)
}

/// One attempt with the program's own header.
pub fn recvmsg_lent(req: &mut Req) -> Outcome {
    let flags = req.sqe.op_flags | DONTWAIT;
    // SAFETY: the kernel checks the header and all that it names, which the program handed over for this.
    let got = unsafe { sys_as!(req, recvmsg, req.fd(), req.sqe.addr, flags) };
    let events = receive_events(req);
    settle_lent(req, got, stable_msg, events)
}

/// One attempt with the vector that the request has.
pub fn recvmsg_chosen(req: &mut Req) -> Outcome {
    let (mut hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let got = unsafe { sys_as!(req, recvmsg, req.fd(), &raw mut hdr, flags) };
    if got.is_ok()
        && let Err(e) = write_back(req.sqe.addr, &hdr)
    {
        return Outcome::err(e);
    }
    settle(req, got, len, receive_events(req))
}

/// What recvmsg(2) returns in the program's header: name length, control length, flags.
fn write_back(at: u64, hdr: &libc::msghdr) -> Result<(), Errno> {
    let part = |local: usize, offset: usize, len: usize| usercopy::Part {
        local,
        remote: at + offset as u64,
        len,
    };
    usercopy::write_parts(&[
        part(&raw const hdr.msg_namelen as usize, offset_of!(libc::msghdr, msg_namelen), 4),
        part(&raw const hdr.msg_controllen as usize, offset_of!(libc::msghdr, msg_controllen), 8),
        part(&raw const hdr.msg_flags as usize, offset_of!(libc::msghdr, msg_flags), 4),
    ])
}

/// Goes on with a receive of plain data into several buffers: a bundle with MSG_WAITALL.
pub fn receive_rest(req: &mut Req) -> Outcome {
    let (mut hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let got = unsafe { sys_as!(req, recvmsg, req.fd(), &raw mut hdr, flags) };
    settle(req, got, len, receive_events(req))
}
