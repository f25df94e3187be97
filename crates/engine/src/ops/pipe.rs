//! PIPE, with ordinary and with direct descriptors.
#![allow(unsafe_code)]

use super::fs::close_fixed;
use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, wants_alloc};
use crate::creds::sys_as;
use crate::req::Req;
use crate::state::State;
use crate::sys;
use crate::{fds, usercopy};
use soloring_abi::Errno;

pub const PIPE: OpDef = OpDef { prep, issue, ..BASE };

/// O_NOTIFICATION_PIPE is O_EXCL.
const FLAGS: u32 = (libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_EXCL) as u32;

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.fd as u64, sqe.off, sqe.addr3])?;
    let into_slots = sqe.file_index != 0;
    if sqe.op_flags & !FLAGS != 0 || into_slots && sqe.op_flags & libc::O_CLOEXEC as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two descriptors to our stack.
    if let Err(e) = unsafe { sys_as!(req, pipe2, ends.as_mut_ptr(), req.sqe.op_flags) } {
        return Outcome::err(e);
    }
    let done = if req.sqe.file_index == 0 {
        hand_out(req.sqe.addr, ends)
    } else {
        put_into_slots(st, req, ends)
    };
    done.map(|()| 0).into()
}

fn write_pair(at: u64, pair: [i32; 2]) -> Result<(), Errno> {
    usercopy::write(at, &pair.map(|n| n as u32))
}

fn hand_out(at: u64, ends: [i32; 2]) -> Result<(), Errno> {
    write_pair(at, ends).inspect_err(|_| ends.into_iter().for_each(sys::close))
}

/// Both ends, or none. An error takes what was put into a slot out again; what was there before is gone.
fn put_into_slots(st: &mut State, req: &Req, ends: [i32; 2]) -> Result<(), Errno> {
    let first = req.sqe.file_index;
    let alloc = wants_alloc(first);
    let [read, write] = ends;
    let read = install(st, read, first).inspect_err(|_| sys::close(write))?;
    let second = if alloc { first } else { first + 1 };
    let written = install(st, write, second).and_then(|write| {
        write_pair(req.sqe.addr, [read as i32, write as i32])
            .inspect_err(|_| _ = close_fixed(st, write))
    });
    written.inspect_err(|_| _ = close_fixed(st, read))
}

/// Puts one end into the slot that `file_index` names, or a free one; returns the slot.
fn install(st: &mut State, low: i32, file_index: u32) -> Result<u32, Errno> {
    let high = fds::make_private(low)?;
    let found = st.install_file(high, file_index)?;
    Ok(if wants_alloc(file_index) { found as u32 } else { file_index - 1 })
}
