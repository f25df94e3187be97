//! MSG_RING: a completion, or a registered file, for another ring.

use super::{Attempt, BASE, OpDef, Outcome};
use crate::deliver::{self, Attempted, Parcel, Target};
use crate::notify;
use crate::req::{AsyncData, Req};
use crate::resources::FixedFile;
use crate::shared::TaskWork;
use crate::state::State;
use soloring_abi::{Cqe, Errno, Sqe, raw, sqe_flags};
use soloring_iowq::{Class, Interrupt};
use std::sync::Arc;

const DATA: u64 = raw::io_uring_msg_ring_flags::IORING_MSG_DATA as u64;
const SEND_FD: u64 = raw::io_uring_msg_ring_flags::IORING_MSG_SEND_FD as u64;
const CQE_SKIP: u32 = raw::IORING_MSG_RING_CQE_SKIP;
const FLAGS_PASS: u32 = raw::IORING_MSG_RING_FLAGS_PASS;

pub const MSG_RING: OpDef =
    OpDef { prep, issue, run, iopoll: true, has_run: true, block_when: never, ..BASE };

/// The attempt comes first in any case: it needs the sender's lock.
fn never(_: &Req) -> bool {
    false
}

fn check(sqe: &Sqe) -> Result<(), Errno> {
    let known = sqe.op_flags & !(CQE_SKIP | FLAGS_PASS) == 0;
    if sqe.buf_index != 0 || sqe.personality != 0 || !known { Err(Errno::EINVAL) } else { Ok(()) }
}

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    check(&req.sqe)
}

/// The completion that IORING_MSG_DATA asks for.
///
/// # Errors
/// EINVAL for fields that it does not use; EBADFD while the target is disabled.
fn message(sqe: &Sqe, to: &Target) -> Result<Cqe, Errno> {
    let pass = sqe.op_flags & FLAGS_PASS != 0;
    if sqe.addr3 as u32 != 0 || sqe.op_flags & !FLAGS_PASS != 0 || !pass && sqe.file_index != 0 {
        return Err(Errno::EINVAL);
    }
    if to.shared.is_disabled() {
        return Err(Errno::EBADFD);
    }
    let flags = if pass { sqe.file_index } else { 0 };
    Ok(Cqe { user_data: sqe.off, res: sqe.len as i32, flags })
}

fn issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 {
        // Rings are never in the table.
        let slot = st.files.as_ref().and_then(|t| t.get(req.sqe.fd as u32));
        return Outcome::err(if slot.is_some() { Errno::EBADFD } else { Errno::EBADF });
    }
    let sent = deliver::target(req.sqe.fd).and_then(|to| match req.sqe.addr as u32 as u64 {
        DATA => send_data(st, req, &to),
        SEND_FD => send_file(st, req, &to),
        _ => Err(Errno::EINVAL),
    });
    sent.unwrap_or_else(Outcome::err)
}

fn send_data(st: &mut State, req: &mut Req, to: &Target) -> Result<Outcome, Errno> {
    let cqe = message(&req.sqe, to)?;
    if Arc::ptr_eq(&st.shared, &to.shared) {
        if !st.setup_has(raw::IORING_SETUP_DEFER_TASKRUN) {
            st.post(cqe.user_data, cqe.res, cqe.flags);
        } else if st.shared.push(TaskWork::Message { cqe }) {
            notify::tell_submitter(st);
        }
        return Ok(Outcome::Done(0, 0));
    }
    match deliver::try_send(to, cqe) {
        Attempted::Done(()) => Ok(Outcome::Done(0, 0)),
        Attempted::Busy => {
            req.data = AsyncData::Target(to.ctx.id);
            Ok(Outcome::Punt(Class::Unbounded))
        }
    }
}

fn parcel(req: &Req, file: Arc<FixedFile>) -> Parcel {
    Parcel {
        file,
        slot_plus_one: req.sqe.file_index,
        user_data: req.sqe.off,
        silent: req.sqe.op_flags & CQE_SKIP != 0,
    }
}

fn send_file(st: &mut State, req: &mut Req, to: &Target) -> Result<Outcome, Errno> {
    if req.sqe.len != 0 || Arc::ptr_eq(&st.shared, &to.shared) {
        return Err(Errno::EINVAL);
    }
    if to.shared.is_disabled() {
        return Err(Errno::EBADFD);
    }
    let node = st.files.as_ref().and_then(|t| t.get(req.sqe.addr3 as u32)).ok_or(Errno::EBADF)?;
    let file = Arc::clone(&node.item);
    match deliver::try_install(to, &parcel(req, Arc::clone(&file))) {
        Attempted::Done(result) => Ok(result.into()),
        Attempted::Busy => {
            req.held_file = Some(file);
            req.data = AsyncData::Target(to.ctx.id);
            Ok(Outcome::Punt(Class::Unbounded))
        }
    }
}

/// On a worker, which holds no lock and may wait for the target's.
fn run(req: &mut Req, _: &Interrupt) -> i32 {
    let AsyncData::Target(id) = req.data else { return Errno::EINVAL.neg() };
    // A ring that was closed meanwhile takes the message with it, as in the kernel.
    let Some(to) = deliver::by_id(id) else { return 0 };
    if let Some(file) = req.held_file.clone() {
        return deliver::install(&to, &parcel(req, file)).unwrap_or_else(Errno::neg);
    }
    // One ring's messages were left in order already, unless other processes share the target.
    let later = to.shared.is_multi().then(|| message(&req.sqe, &to));
    match later.transpose() {
        Ok(cqe) => {
            deliver::send(&to, cqe);
            0
        }
        Err(e) => e.neg(),
    }
}

/// IORING_REGISTER_SEND_MSG_RING: a message without a ring to send it from.
///
/// # Errors
/// EINVAL for anything but IORING_MSG_DATA; EBADF, EBADFD for the target.
pub fn send_sync(sqe: &Sqe) -> Result<i32, Errno> {
    check(sqe)?;
    if sqe.addr as u32 as u64 != DATA {
        return Err(Errno::EINVAL);
    }
    let to = deliver::target(sqe.fd)?;
    let cqe = message(sqe, &to)?;
    deliver::send(&to, Some(cqe));
    Ok(0)
}
