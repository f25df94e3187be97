//! REGISTER_SYNC_CANCEL: cancel, and wait until what a worker was running is gone.
#![allow(unsafe_code)]

use super::arg::{Arg, lock_for_register};
use crate::cancel::{Criteria, cancel, resolve_file};
use crate::ctx::Ctx;
use crate::ops::cancel::FLAGS;
use crate::state::State;
use crate::sys::{self, sys};
use crate::wait::make_progress;
use crate::{procs, usercopy};
use soloring_abi::{Errno, SyncCancelReg};

/// How often to look whether an interrupted worker let go. Nanoseconds.
const RETRY_NS: u64 = 200_000;

/// # Errors
/// EINVAL, EFAULT, EBADF for the argument; ENOENT when nothing matches; ETIME when a worker did not let
/// go in time; EINTR.
pub fn sync_cancel(ctx: &Ctx, opcode: u32, arg: Arg) -> Result<i32, Errno> {
    let mut guard = lock_for_register(ctx, opcode)?;
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    let reg: SyncCancelReg = usercopy::read(arg.at)?;
    if reg.flags & !FLAGS != 0 || reg.pad.iter().any(|b| *b != 0) || reg.pad2 != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let mut criteria = Criteria {
        flags: reg.flags,
        user_data: reg.addr,
        fd: reg.fd,
        opcode: reg.opcode,
        file: -1,
    };
    resolve_file(&guard, &mut criteria)?;
    let first = cancel(&mut guard, &criteria);
    advance(ctx, &mut guard);
    if first != Errno::EALREADY.neg() {
        return if first < 0 { Err(Errno(-first)) } else { Ok(first) };
    }
    let forever = reg.timeout.tv_sec == -1 && reg.timeout.tv_nsec == -1;
    let limit = (reg.timeout.tv_sec.max(0) as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(reg.timeout.tv_nsec.max(0) as u64);
    let deadline = sys::now_ns(libc::CLOCK_MONOTONIC).saturating_add(limit);
    // Requests that were told to stop no longer match: wait for them to leave.
    while guard.slab.indices().any(|slot| {
        criteria.matches(guard.slab.get(slot))
            && guard.slab.get(slot).has(crate::req::flag::INTERRUPTED)
    }) {
        if !forever && sys::now_ns(libc::CLOCK_MONOTONIC) >= deadline {
            return Err(Errno::ETIME);
        }
        drop(guard);
        soloring_lock::assert_may_block();
        let pause = [0u64, RETRY_NS];
        // SAFETY: reads one timespec from our stack.
        unsafe { sys!(nanosleep, pause.as_ptr(), 0usize) }?;
        guard = lock_for_register(ctx, opcode)?;
        advance(ctx, &mut guard);
    }
    Ok(0)
}

/// Runs what can be run; the program may close its descriptors afterwards.
fn advance(ctx: &Ctx, st: &mut State) {
    let _ = procs::enter(ctx, st);
    make_progress(st, Some(0));
    procs::leave(st);
    st.watches.hold_all(&mut st.slab);
}
