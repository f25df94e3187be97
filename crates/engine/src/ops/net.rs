//! SEND, RECV, SENDMSG, RECVMSG: always with MSG_DONTWAIT, waiting by readiness.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome};
use crate::ops::sock::read_addr;
use crate::req::{AsyncData, MsgData, Req, flag};
use crate::state::State;
use crate::sys::sys;
use crate::usercopy;
use soloring_abi::{Errno, IoVec, Opcode, raw};

const NET: OpDef = OpDef { needs_file: true, ioprio: true, pollable: true, ..BASE };

pub const SEND: OpDef = OpDef { prep: send_prep, issue: send_issue, ..NET };
pub const SENDMSG: OpDef =
    OpDef { prep: sendmsg_prep, issue: sendmsg_issue, stabilise: msg_stabilise, ..NET };
pub const RECV: OpDef = OpDef { prep: recv_prep, issue: recv_issue, ..NET };
pub const RECVMSG: OpDef =
    OpDef { prep: recv_prep, issue: recvmsg_issue, stabilise: msg_stabilise, ..NET };

const DONTWAIT: u32 = libc::MSG_DONTWAIT as u32;
const WAITALL: u32 = libc::MSG_WAITALL as u32;
const NOSIGNAL: u32 = libc::MSG_NOSIGNAL as u32;
const POLLIN: u32 = libc::POLLIN as u32;
const POLLOUT: u32 = libc::POLLOUT as u32;
const UIO_MAXIOV: u64 = 1024;

fn how(req: &Req) -> u32 {
    req.sqe.ioprio as u32
}

fn poll_first(req: &Req, attempt: Attempt) -> bool {
    attempt == Attempt::First
        && how(req) & raw::IORING_RECVSEND_POLL_FIRST != 0
        && !req.has(flag::NOWAIT)
}

fn note_dontwait(req: &mut Req) {
    if req.sqe.op_flags & DONTWAIT != 0 {
        req.flags |= flag::NOWAIT;
    }
}

fn send_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let known = raw::IORING_RECVSEND_POLL_FIRST | raw::IORING_SEND_VECTORIZED;
    if how(req) & !known != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    let addr_len = req.sqe.file_index & 0xffff;
    if req.sqe.file_index >> 16 != 0 {
        return Err(Errno::EINVAL);
    }
    let vectored = how(req) & raw::IORING_SEND_VECTORIZED != 0;
    if req.sqe.off != 0 || vectored {
        let mut msg = MsgData::default();
        if req.sqe.off != 0 {
            let a = read_addr(req.sqe.off, addr_len as u64)?;
            msg.name_copy = a.bytes[..a.len as usize].to_vec();
        }
        msg.iov = if vectored {
            read_iov(req.sqe.addr, req.sqe.len as u64)?
        } else {
            vec![IoVec { base: req.sqe.addr, len: req.sqe.len as u64 }]
        };
        req.data = AsyncData::Msg(Box::new(msg));
        req.flags |= flag::STABLE;
    }
    Ok(())
}

fn sendmsg_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    if how(req) & !raw::IORING_RECVSEND_POLL_FIRST != 0 {
        return Err(Errno::EINVAL);
    }
    if req.sqe.off != 0 || req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    // The header and its vector must be readable at submission.
    stable_msg(req)
}

fn recv_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let known = raw::IORING_RECVSEND_POLL_FIRST;
    if req.sqe.off != 0 || how(req) & !known != 0 || req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    if req.sqe.opcode == Opcode::Recvmsg as u8 { stable_msg(req) } else { Ok(()) }
}

fn read_iov(addr: u64, count: u64) -> Result<Vec<IoVec>, Errno> {
    if count > UIO_MAXIOV {
        return Err(Errno::EMSGSIZE);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let iov = usercopy::read_vec::<IoVec>(addr, count as usize)?;
    if iov.iter().any(|v| v.len > isize::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    Ok(iov)
}

fn stable_msg(req: &mut Req) -> Result<(), Errno> {
    let hdr: libc::msghdr = usercopy::read(req.sqe.addr)?;
    let send = req.sqe.opcode == Opcode::Sendmsg as u8;
    let mut msg = MsgData {
        name: hdr.msg_name as u64,
        name_len: hdr.msg_namelen,
        control: hdr.msg_control as u64,
        control_len: hdr.msg_controllen as u64,
        iov: read_iov(hdr.msg_iov as u64, hdr.msg_iovlen as u64)?,
        name_copy: Vec::new(),
    };
    if hdr.msg_namelen as i32 != 0 && (hdr.msg_namelen as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    if send && !hdr.msg_name.is_null() && hdr.msg_namelen != 0 {
        let len = hdr.msg_namelen.min(128);
        let a = read_addr(msg.name, len as u64)?;
        msg.name_copy = a.bytes[..len as usize].to_vec();
    }
    req.data = AsyncData::Msg(Box::new(msg));
    req.flags |= flag::STABLE;
    Ok(())
}

fn msg_stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::STABLE) { Ok(()) } else { stable_msg(req) }
}

/// Whether a partial transfer on this socket is continued for MSG_WAITALL.
fn continues(req: &Req) -> bool {
    if req.sqe.op_flags & WAITALL == 0 {
        return false;
    }
    let (mut kind, mut len) = (0i32, 4u32);
    // SAFETY: writes one int and one length on our stack.
    let got = unsafe {
        sys!(getsockopt, req.fd(), libc::SOL_SOCKET, libc::SO_TYPE, &raw mut kind, &raw mut len)
    };
    got.is_ok() && (kind == libc::SOCK_STREAM || kind == libc::SOCK_SEQPACKET)
}

/// What one attempt's result means: finished, or wait for `events` and go on.
fn settle(req: &mut Req, result: Result<usize, Errno>, wanted: u64, events: u32) -> Outcome {
    let min = if req.sqe.op_flags & WAITALL != 0 { wanted } else { 0 };
    match result {
        Ok(n) if (n as u64) < min && n > 0 && continues(req) => {
            advance(req, n as u64);
            Outcome::Arm(events)
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

fn advance(req: &mut Req, mut n: u64) {
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
    (req.sqe.addr + done, (req.sqe.len as u64).min(0x7fff_f000) - done)
}

fn send_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if matches!(req.data, AsyncData::Msg(_)) {
        return sendmsg_issue(st, req, attempt);
    }
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLOUT);
    }
    let (addr, len) = single(req);
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer and only reads it.
    let sent = unsafe { sys!(sendto, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, sent, len, POLLOUT)
}

fn recv_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLIN);
    }
    let (addr, len) = single(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer, which it handed over for this.
    let got = unsafe { sys!(recvfrom, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, got, len, POLLIN)
}

/// A header for the call: our vector, the program's name and control buffers.
fn header(msg: &MsgData) -> libc::msghdr {
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

fn message(req: &Req) -> (libc::msghdr, u64) {
    match &req.data {
        AsyncData::Msg(msg) => (header(msg), msg.iov.iter().map(|v| v.len).sum()),
        _ => unreachable!("copied in prep"),
    }
}

fn sendmsg_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLOUT);
    }
    let (hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let sent = unsafe { sys!(sendmsg, req.fd(), &raw const hdr, flags) };
    settle(req, sent, len, POLLOUT)
}

fn recvmsg_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLIN);
    }
    let (mut hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let got = unsafe { sys!(recvmsg, req.fd(), &raw mut hdr, flags) };
    if got.is_ok() {
        if let Err(e) = write_back(req.sqe.addr, &hdr) {
            return Outcome::err(e);
        }
    }
    settle(req, got, len, POLLIN)
}

/// What recvmsg(2) returns in the program's header: name length, control length, flags.
fn write_back(at: u64, hdr: &libc::msghdr) -> Result<(), Errno> {
    use std::mem::offset_of;
    usercopy::write(at + offset_of!(libc::msghdr, msg_namelen) as u64, &hdr.msg_namelen)?;
    let control_len = hdr.msg_controllen as u64;
    usercopy::write(at + offset_of!(libc::msghdr, msg_controllen) as u64, &control_len)?;
    usercopy::write(at + offset_of!(libc::msghdr, msg_flags) as u64, &hdr.msg_flags)
}
