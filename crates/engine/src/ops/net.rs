//! SEND, RECV, SENDMSG, RECVMSG, SEND_ZC, SENDMSG_ZC: always with MSG_DONTWAIT, waiting by readiness.
//!
//! What provided buffers and multishot add stands in `netbuf.rs`.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, netbuf, rw};
use crate::ops::sock::read_addr;
use crate::req::{AsyncData, MsgData, Req, flag};
use crate::state::State;
use crate::sys::sys;
use crate::usercopy;
use soloring_abi::{Errno, IoVec, Opcode, raw, sqe_flags};

const NET: OpDef = OpDef { needs_file: true, ioprio: true, pollable: true, ..BASE };

pub const SEND: OpDef = OpDef { prep: send_prep, issue: send_issue, buffer_select: true, ..NET };
pub const SENDMSG: OpDef =
    OpDef { prep: sendmsg_prep, issue: sendmsg_issue, stabilise: msg_stabilise, ..NET };
pub const RECV: OpDef = OpDef { prep: recv_prep, issue: recv_issue, buffer_select: true, ..NET };
pub const RECVMSG: OpDef = OpDef {
    prep: recv_prep,
    issue: recvmsg_issue,
    stabilise: msg_stabilise,
    buffer_select: true,
    ..NET
};
pub const SEND_ZC: OpDef = OpDef { prep: send_zc_prep, issue: zc_issue, ..NET };
pub const SENDMSG_ZC: OpDef = OpDef { prep: sendmsg_zc_prep, issue: zc_issue, ..NET };

pub const DONTWAIT: u32 = libc::MSG_DONTWAIT as u32;
pub const WAITALL: u32 = libc::MSG_WAITALL as u32;
pub const NOSIGNAL: u32 = libc::MSG_NOSIGNAL as u32;
const POLLOUT: u32 = libc::POLLOUT as u32;
const UIO_MAXIOV: u64 = 1024;
const ZC_FLAGS: u32 = raw::IORING_RECVSEND_POLL_FIRST
    | raw::IORING_RECVSEND_FIXED_BUF
    | raw::IORING_SEND_ZC_REPORT_USAGE
    | raw::IORING_SEND_VECTORIZED;

/// `sqe->ioprio`, which for these operations holds `IORING_RECVSEND_*` and the like.
pub fn how(req: &Req) -> u32 {
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

/// The poll events that a receive waits for.
pub fn receive_events(req: &Req) -> u32 {
    // The error queue is announced by POLLERR, which needs no asking.
    let errors = req.sqe.op_flags & libc::MSG_ERRQUEUE as u32 != 0;
    (if errors { libc::POLLPRI } else { libc::POLLIN }) as u32
}

fn send_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let bundle = how(req) & raw::IORING_RECVSEND_BUNDLE != 0;
    let known =
        raw::IORING_RECVSEND_POLL_FIRST | raw::IORING_SEND_VECTORIZED | raw::IORING_RECVSEND_BUNDLE;
    if how(req) & !known != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    if bundle {
        req.sqe.op_flags |= WAITALL;
    }
    send_setup(req)
}

/// Copies destination and vector of a send.
fn send_setup(req: &mut Req) -> Result<(), Errno> {
    let addr_len = req.sqe.file_index & 0xffff;
    if req.sqe.file_index >> 16 != 0 {
        return Err(Errno::EINVAL);
    }
    let chooses = req.sqe.flags & sqe_flags::BUFFER_SELECT != 0;
    let vectored = how(req) & raw::IORING_SEND_VECTORIZED != 0 && !chooses;
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
    let known =
        raw::IORING_RECVSEND_POLL_FIRST | raw::IORING_RECV_MULTISHOT | raw::IORING_RECVSEND_BUNDLE;
    if req.sqe.off != 0 || how(req) & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let message = req.sqe.opcode == Opcode::Recvmsg as u8;
    if how(req) & raw::IORING_RECV_MULTISHOT != 0 {
        let chooses = req.sqe.flags & sqe_flags::BUFFER_SELECT != 0;
        // `optlen` limits the sum of all receives, of plain data only.
        let optlen = req.sqe.file_index;
        if !chooses || req.sqe.op_flags & WAITALL != 0 || message && optlen != 0 {
            return Err(Errno::EINVAL);
        }
        req.flags |= flag::MULTISHOT;
    } else if req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    if message && how(req) & raw::IORING_RECVSEND_BUNDLE != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    if message { stable_msg(req) } else { Ok(()) }
}

/// Checks what both zero-copy sends share. From here on there is a notification, errors included.
fn zc_prep(req: &mut Req) -> Result<(), Errno> {
    if req.sqe.pad2 != 0 || req.sqe.addr3 != 0 || req.has(flag::SKIP_CQE) {
        return Err(Errno::EINVAL);
    }
    req.cqe_flags = raw::IORING_CQE_F_MORE;
    req.flags |= flag::NOTIF;
    if how(req) & !ZC_FLAGS != 0 {
        // No usage report either: what asked for it does not count.
        req.sqe.ioprio = 0;
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    Ok(())
}

fn send_zc_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    zc_prep(req)?;
    const FIXED_VECTOR: u32 = raw::IORING_RECVSEND_FIXED_BUF | raw::IORING_SEND_VECTORIZED;
    if how(req) & FIXED_VECTOR == FIXED_VECTOR {
        return Err(Errno::EINVAL);
    }
    send_setup(req)
}

fn sendmsg_zc_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    zc_prep(req)?;
    if req.sqe.off != 0 || req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    stable_msg(req)
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
    let iov = if chooses {
        req.sqe.len = chosen_limit(&hdr)?;
        Vec::with_capacity(1)
    } else {
        read_iov(hdr.msg_iov as u64, hdr.msg_iovlen as u64)?
    };
    let mut msg = MsgData {
        name: hdr.msg_name as u64,
        name_len: hdr.msg_namelen,
        control: hdr.msg_control as u64,
        control_len: hdr.msg_controllen as u64,
        iov,
        name_copy: Vec::new(),
    };
    if send && !hdr.msg_name.is_null() && hdr.msg_namelen != 0 {
        let len = hdr.msg_namelen.min(128);
        let a = read_addr(msg.name, len as u64)?;
        msg.name_copy = a.bytes[..len as usize].to_vec();
    }
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
        _ => Err(Errno::EINVAL),
    }
}

fn msg_stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::STABLE) { Ok(()) } else { stable_msg(req) }
}

/// An integer socket option; ENOTSOCK, EBADF.
fn socket_option(fd: i32, name: i32) -> Result<i32, Errno> {
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
    (req.sqe.addr + done, (req.sqe.len as u64).min(0x7fff_f000) - done)
}

fn send_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLOUT);
    }
    if req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return send_provided(st, req);
    }
    send_chosen(req)
}

#[inline(never)]
fn send_provided(st: &mut State, req: &mut Req) -> Outcome {
    if netbuf::chooses(req) {
        return netbuf::send(st, req);
    }
    let outcome = send_chosen(req);
    if netbuf::is_waiting_bundle(req) { netbuf::resume_bundle(st, req, outcome) } else { outcome }
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
    let sent = unsafe { sys!(sendto, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, sent, len, POLLOUT)
}

fn recv_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(receive_events(req));
    }
    if req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return recv_provided(st, req, attempt);
    }
    recv_chosen(req)
}

#[inline(never)]
fn recv_provided(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if netbuf::chooses(req) {
        return netbuf::recv(st, req, attempt);
    }
    if let AsyncData::Msg(msg) = &req.data {
        // The rest of a bundle.
        let (mut hdr, len) = (header(msg), total(msg));
        let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
        // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
        let got = unsafe { sys!(recvmsg, req.fd(), &raw mut hdr, flags) };
        return settle(req, got, len, receive_events(req));
    }
    recv_chosen(req)
}

#[inline]
fn recv_chosen(req: &mut Req) -> Outcome {
    let (addr, len) = single(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the kernel checks the program's buffer, which it handed over for this.
    let got = unsafe { sys!(recvfrom, req.fd(), addr, len, flags, 0usize, 0usize) };
    settle(req, got, len, receive_events(req))
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

fn total(msg: &MsgData) -> u64 {
    msg.iov.iter().map(|v| v.len).sum()
}

fn message(req: &Req) -> (libc::msghdr, u64) {
    match &req.data {
        AsyncData::Msg(msg) => (header(msg), total(msg)),
        _ => unreachable!("copied in prep"),
    }
}

fn sendmsg_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(POLLOUT);
    }
    sendmsg_chosen(req)
}

fn sendmsg_chosen(req: &mut Req) -> Outcome {
    let (hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT | NOSIGNAL) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let sent = unsafe { sys!(sendmsg, req.fd(), &raw const hdr, flags) };
    settle(req, sent, len, POLLOUT)
}

fn recvmsg_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        return Outcome::Arm(receive_events(req));
    }
    if netbuf::chooses(req) {
        return netbuf::recvmsg(st, req, attempt);
    }
    recvmsg_chosen(req)
}

/// One attempt with the vector that the request has.
pub fn recvmsg_chosen(req: &mut Req) -> Outcome {
    let (mut hdr, len) = message(req);
    let flags = (req.sqe.op_flags | DONTWAIT) & !WAITALL;
    // SAFETY: the header and vector are ours; the kernel checks the program's buffers.
    let got = unsafe { sys!(recvmsg, req.fd(), &raw mut hdr, flags) };
    if got.is_ok()
        && let Err(e) = write_back(req.sqe.addr, &hdr)
    {
        return Outcome::err(e);
    }
    settle(req, got, len, receive_events(req))
}

/// What recvmsg(2) returns in the program's header: name length, control length, flags.
fn write_back(at: u64, hdr: &libc::msghdr) -> Result<(), Errno> {
    use std::mem::offset_of;
    usercopy::write(at + offset_of!(libc::msghdr, msg_namelen) as u64, &hdr.msg_namelen)?;
    let control_len = hdr.msg_controllen as u64;
    usercopy::write(at + offset_of!(libc::msghdr, msg_controllen) as u64, &control_len)?;
    usercopy::write(at + offset_of!(libc::msghdr, msg_flags) as u64, &hdr.msg_flags)
}

/// A zero-copy send whose data is copied, which the notification says (REPORT_USAGE).
fn zc_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if attempt == Attempt::First
        && let Err(e) = zc_check(st, req)
    {
        req.flags |= flag::FAIL;
        return Outcome::err(e);
    }
    if poll_first(req, attempt) {
        return hold_while(st, req, Outcome::Arm(POLLOUT));
    }
    let outcome = send_chosen(req);
    hold_while(st, req, outcome)
}

/// A request that waits keeps its registered buffer.
fn hold_while(st: &State, req: &mut Req, outcome: Outcome) -> Outcome {
    let waits = matches!(outcome, Outcome::Arm(_));
    if waits && how(req) & raw::IORING_RECVSEND_FIXED_BUF != 0 {
        rw::hold_fixed(st, req);
    }
    outcome
}

/// The socket must know zero-copy, a registered buffer must hold the data.
fn zc_check(st: &State, req: &mut Req) -> Result<(), Errno> {
    const IPPROTO_MPTCP: i32 = 262;
    let protocol = socket_option(req.fd(), libc::SO_PROTOCOL);
    let known = match protocol {
        Ok(libc::IPPROTO_TCP | libc::IPPROTO_UDP | IPPROTO_MPTCP) => Ok(()),
        Ok(_) => Err(Errno::EOPNOTSUPP),
        Err(e) => Err(e),
    };
    let fixed = how(req) & raw::IORING_RECVSEND_FIXED_BUF != 0;
    // The vector of a message is looked at before the socket is.
    if req.sqe.opcode == Opcode::SendZc as u8 {
        known?;
    } else if known == Err(Errno::EBADF) {
        return known;
    }
    if fixed {
        match &req.data {
            AsyncData::Msg(msg) => rw::check_fixed_vector(st, req, &msg.iov)?,
            _ => rw::check_fixed(st, req, req.sqe.addr, req.sqe.len as u64)?,
        }
    }
    known
}
