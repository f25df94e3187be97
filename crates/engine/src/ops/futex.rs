//! FUTEX_WAIT, FUTEX_WAKE and FUTEX_WAITV.

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::futexwait::{self, FutexWait, SIZE_MASK, SIZE_U32, Target, VALID, VECTOR_MAX};
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::{sys, usercopy};
use soloring_abi::Errno;
use soloring_iowq::{Class, Interrupt};
use std::sync::Arc;

/// IOSQE_ASYNC makes no difference: the values are compared at once, a worker sleeps in any case.
const WAIT: OpDef =
    OpDef { issue: wait_issue, run, punted: Some(punted), has_run: true, pollable: true, ..BASE };

pub const FUTEX_WAIT: OpDef = OpDef { prep: wait_prep, ..WAIT };
pub const FUTEX_WAITV: OpDef = OpDef { prep: waitv_prep, ..WAIT };
pub const FUTEX_WAKE: OpDef = OpDef { prep: one_prep, issue: wake_issue, ..BASE };

/// FUTEX_BITSET_MATCH_ANY.
const ANY: u32 = u32::MAX;

/// Only futexes of 32 bits exist; their values have no more.
fn check(flags: u32, numbers: &[u64]) -> Result<(), Errno> {
    let known = flags & !VALID == 0 && flags & SIZE_MASK == SIZE_U32;
    if !known || numbers.iter().any(|n| *n > u32::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn one_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    let unused = [sqe.len as u64, sqe.op_flags as u64, sqe.buf_index as u64, sqe.file_index as u64];
    must_be_zero(&unused)?;
    check(sqe.fd as u32, &[sqe.off, sqe.addr3])
}

fn keep(req: &mut Req, wait: FutexWait) {
    req.data = AsyncData::Futex(Arc::new(wait));
    req.flags |= flag::STABLE;
}

fn wait_prep(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    one_prep(st, req)?;
    let sqe = &req.sqe;
    let target = Target { addr: sqe.addr, value: sqe.off as u32, flags: sqe.fd as u32 };
    let mask = sqe.addr3 as u32;
    keep(req, FutexWait::new(vec![target], mask, false));
    Ok(())
}

fn waitv_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.fd as u64,
        sqe.buf_index as u64,
        sqe.file_index as u64,
        sqe.off,
        sqe.op_flags as u64,
        sqe.addr3,
    ])?;
    if sqe.len == 0 || sqe.len > VECTOR_MAX {
        return Err(Errno::EINVAL);
    }
    // struct futex_waitv: value, address, flags, and padding that must be zero.
    let entries = usercopy::read_vec::<[u64; 3]>(sqe.addr, sqe.len as usize)?;
    let targets = entries.into_iter().map(|[value, addr, flags]| {
        must_be_zero(&[flags >> 32])?;
        check(flags as u32, &[value])?;
        Ok(Target { addr, value: value as u32, flags: flags as u32 })
    });
    let targets = targets.collect::<Result<Vec<_>, Errno>>()?;
    keep(req, FutexWait::new(targets, ANY, true));
    Ok(())
}

fn kept(req: &Req) -> &Arc<FutexWait> {
    match &req.data {
        AsyncData::Futex(wait) => wait,
        _ => unreachable!("prep put it there"),
    }
}

fn wait_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    if req.sqe.opcode == soloring_abi::Opcode::FutexWait as u8 && req.sqe.addr3 == 0 {
        return Outcome::err(Errno::EINVAL);
    }
    if let Err(e) = kept(req).compare() {
        return Outcome::err(e);
    }
    req.flags |= flag::WAITS;
    Outcome::Punt(Class::Unbounded)
}

fn run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    kept(req).sleep(interrupt)
}

fn punted(stub: &Req, full: &dyn Fn() -> bool) -> Result<(), Errno> {
    kept(stub).settle(full)
}

fn wake_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let sqe = &req.sqe;
    let woken = futexwait::wake(sqe.addr, sqe.off as i32, sqe.addr3 as u32, sqe.fd as u32);
    Outcome::Done(sys::as_res(woken), 0)
}
