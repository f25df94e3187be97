//! SEND, RECV, SENDMSG, RECVMSG, SEND_ZC, SENDMSG_ZC: always with MSG_DONTWAIT, waiting by readiness.
//!
//! The attempts stand in `sockio.rs`, what provided buffers and multishot add in `netbuf.rs` and `netsend.rs`.

use super::sockio::{
    DONTWAIT, POLLOUT, WAITALL, how, may_lend, msg_prep, msg_stabilise, poll_first, read_iov,
    receive_events, receive_rest, recv_chosen, recvmsg_chosen, recvmsg_lent, send_chosen,
    send_lent, sendmsg_chosen, sendmsg_lent, socket_option, stable_msg,
};
use super::{Attempt, BASE, OpDef, Outcome, netbuf, netsend, rights, rw};
use crate::ops::sock::read_addr;
use crate::req::{AsyncData, File, MsgData, Req, flag};
use crate::state::State;
use crate::{lent, usercopy};
use soloring_abi::{Errno, IoVec, Opcode, raw, sqe_flags};

const NET: OpDef = OpDef { needs_file: true, ioprio: true, pollable: true, ..BASE };

pub const SEND: OpDef = OpDef {
    prep: send_prep,
    issue: send_issue,
    stabilise: send_stabilise,
    buffer_select: true,
    ..NET
};
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

const ZC_FLAGS: u32 = raw::IORING_RECVSEND_POLL_FIRST
    | raw::IORING_RECVSEND_FIXED_BUF
    | raw::IORING_SEND_ZC_REPORT_USAGE
    | raw::IORING_SEND_VECTORIZED;

fn note_dontwait(req: &mut Req) {
    if req.sqe.op_flags & DONTWAIT != 0 {
        req.flags |= flag::NOWAIT;
    }
}

/// A bit that only a 32-bit caller's kernel entry sets; none of the program's.
const MSG_CMSG_COMPAT: u32 = 1 << 31;

/// `len` is an int, checked before anything else.
fn check_len(req: &mut Req) -> Result<(), Errno> {
    req.sqe.op_flags &= !MSG_CMSG_COMPAT;
    if (req.sqe.len as i32) < 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// A single buffer must lie in the program's half of the address space, even an empty one.
fn check_buffer(req: &Req) -> Result<(), Errno> {
    if req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return Ok(());
    }
    usercopy::access_ok(req.sqe.addr, req.sqe.len as u64)
}

fn send_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    check_len(req)?;
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
    let to_len = req.sqe.file_index;
    if req.sqe.off != 0 && to_len <= 128 && may_lend(req) {
        req.flags |= flag::LENT;
        return check_buffer(req);
    }
    send_setup(req)
}

fn send_stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::LENT) { lent::take(req, send_setup) } else { Ok(()) }
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
    if vectored { Ok(()) } else { check_buffer(req) }
}

fn sendmsg_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    check_len(req)?;
    // A message has a vector, whether it says so or not.
    if how(req) & !(raw::IORING_RECVSEND_POLL_FIRST | raw::IORING_SEND_VECTORIZED) != 0 {
        return Err(Errno::EINVAL);
    }
    if req.sqe.off != 0 || req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    note_dontwait(req);
    // The header and its vector must be readable at submission.
    msg_prep(req)
}

fn recv_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    check_len(req)?;
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
    if message { msg_prep(req) } else { check_buffer(req) }
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
    req.sqe.op_flags &= !MSG_CMSG_COMPAT;
    if req.sqe.off != 0 || req.sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    stable_msg(req)
}

/// POLL_FIRST: the attempt is left out, but not for what is no socket.
fn arm_first(req: &mut Req, events: u32) -> Outcome {
    match socket_option(req.fd(), libc::SO_TYPE) {
        Ok(_) => Outcome::Arm(events),
        Err(e) => {
            req.flags |= flag::FAIL;
            Outcome::err(e)
        }
    }
}

fn send_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.has(flag::LENT) {
        return send_lent(req, send_setup);
    }
    if poll_first(req, attempt) {
        return arm_first(req, POLLOUT);
    }
    if req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return send_provided(st, req, attempt);
    }
    if how(req) & raw::IORING_RECVSEND_BUNDLE != 0 {
        return netsend::send_named(st, req, attempt);
    }
    send_chosen(req)
}

#[inline(never)]
fn send_provided(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if netbuf::chooses(req) {
        return netsend::send(st, req, attempt);
    }
    let outcome = send_chosen(req);
    if netsend::is_waiting_bundle(req) { netsend::resume_bundle(st, req, outcome) } else { outcome }
}

fn recv_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if poll_first(req, attempt) {
        // As in the kernel, any file will do for this one as long as it is not ready.
        return Outcome::Arm(receive_events(req));
    }
    if req.sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return recv_provided(st, req, attempt);
    }
    if attempt == Attempt::First && is_plain(req) {
        return recv_first(st, req);
    }
    recv_chosen(req)
}

/// A receive that waits when there is nothing, from a descriptor of the program's.
fn is_plain(req: &Req) -> bool {
    let flags = req.sqe.op_flags & !WAITALL;
    matches!(req.file, File::Fd(_)) && flags == 0 && how(req) == 0 && !req.has(flag::NOWAIT)
}

/// The attempt is left out where it is likely to be in vain.
fn recv_first(st: &mut State, req: &mut Req) -> Outcome {
    let fd = req.fd();
    if st.watches.expects_to_wait(fd) {
        req.flags |= flag::REQUEUE;
        st.recheck = true;
        return Outcome::Arm(receive_events(req));
    }
    let outcome = recv_chosen(req);
    st.watches.note_attempt(fd, matches!(outcome, Outcome::Arm(_)));
    outcome
}

#[inline(never)]
fn recv_provided(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if netbuf::chooses(req) {
        return netbuf::recv(st, req, attempt);
    }
    if matches!(req.data, AsyncData::Msg(_)) {
        return receive_rest(req);
    }
    recv_chosen(req)
}

fn sendmsg_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.has(flag::LENT)
        && let Some(outcome) = sendmsg_lent(req)
    {
        return outcome;
    }
    if poll_first(req, attempt) {
        return arm_first(req, POLLOUT);
    }
    if let AsyncData::Msg(msg) = &req.data
        && msg.control != 0
        && let Err(e) = rights::check(req.fd(), msg)
    {
        req.flags |= flag::FAIL;
        return Outcome::err(e);
    }
    sendmsg_chosen(req)
}

fn recvmsg_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.has(flag::LENT) {
        return recvmsg_lent(req);
    }
    if poll_first(req, attempt) {
        return arm_first(req, receive_events(req));
    }
    if netbuf::chooses(req) {
        return netbuf::recvmsg(st, req, attempt);
    }
    recvmsg_chosen(req)
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
