//! io_uring_enter: submit, run task work, wait.

use crate::ctx::Ctx;
use crate::notify::{flush, refresh_ring_fd};
use crate::state::State;
use crate::submit::submit;
use crate::wait::{WaitFor, make_progress, wait};
use crate::{exit, procs, reactor, sys, usercopy};
use soloring_abi::{Errno, GeteventsArg, Timespec, raw};
use soloring_lock::{Guard, current_thread};

const FLAGS: u32 = raw::IORING_ENTER_GETEVENTS
    | raw::IORING_ENTER_SQ_WAKEUP
    | raw::IORING_ENTER_SQ_WAIT
    | raw::IORING_ENTER_EXT_ARG
    | raw::IORING_ENTER_REGISTERED_RING
    | raw::IORING_ENTER_ABS_TIMER
    | raw::IORING_ENTER_NO_IOWAIT;

/// Whether these flags exist.
///
/// # Errors
/// EINVAL.
pub fn check_flags(flags: u32) -> Result<(), Errno> {
    if flags & !FLAGS != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The call, once the ring is found. Returns the number of SQEs consumed, or 0 for a mere wait.
///
/// # Errors
/// EBADFD on a disabled ring; EEXIST for another thread than the submitter; EFAULT, EINVAL for a bad
/// argument block; EINTR, ETIME from the wait; EBUSY when a signal handler interrupted this very ring.
pub fn enter(
    ctx: &Ctx,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> Result<u32, Errno> {
    let mut guard = ctx.lock.lock().map_err(|_| Errno::EBUSY)?;
    if guard.setup_has(raw::IORING_SETUP_R_DISABLED) {
        return Err(Errno::EBADFD);
    }
    procs::enter(ctx, &mut guard)?;
    let (mut guard, result) = enter_locked(ctx, guard, to_submit, min_complete, flags, arg, argsz);
    procs::leave(&mut guard);
    result
}

#[inline]
fn enter_locked<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> (Guard<'a, State>, Result<u32, Errno>) {
    let mut submitted = 0;
    if to_submit > 0 {
        if let Err(e) = check_submitter(&guard) {
            return (guard, Err(e));
        }
        submitted = submit(&mut guard, to_submit);
        flush(&mut guard);
        if submitted != to_submit {
            leave(ctx, &mut guard);
            return (guard, Ok(submitted));
        }
    }
    if flags & raw::IORING_ENTER_GETEVENTS == 0 {
        if guard.recheck && !guard.setup_has(raw::IORING_SETUP_DEFER_TASKRUN) {
            make_progress(&mut guard, true);
        }
        leave(ctx, &mut guard);
        return (guard, Ok(submitted));
    }
    let (mut guard, waited) = getevents(ctx, guard, min_complete, flags, arg, argsz);
    leave(ctx, &mut guard);
    (guard, if submitted > 0 { Ok(submitted) } else { waited.map(|()| 0) })
}

/// On a SINGLE_ISSUER ring only the submitter may go on.
///
/// # Errors
/// EEXIST.
#[inline]
pub fn check_submitter(st: &State) -> Result<(), Errno> {
    if !st.setup_has(raw::IORING_SETUP_SINGLE_ISSUER) {
        return Ok(());
    }
    match st.submitter {
        Some(owner) if owner == current_thread() && !st.submitter_elsewhere => Ok(()),
        _ => Err(Errno::EEXIST),
    }
}

fn leave(ctx: &Ctx, guard: &mut Guard<'_, State>) {
    let st = &mut **guard;
    if st.shared.is_watched() {
        refresh_ring_fd(st);
    }
    if st.dying && !st.leader.present && st.ring_fd >= 0 {
        return exit::finish(ctx, st);
    }
    reactor::watch(st, ctx.id);
}

fn getevents<'a>(
    ctx: &'a Ctx,
    guard: Guard<'a, State>,
    min_complete: u32,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> (Guard<'a, State>, Result<(), Errno>) {
    let w = match wait_for(&guard, min_complete, flags, arg, argsz) {
        Ok(w) => w,
        Err(e) => return (guard, Err(e)),
    };
    if guard.setup_has(raw::IORING_SETUP_DEFER_TASKRUN) && check_submitter(&guard).is_err() {
        return (guard, Err(Errno::EEXIST));
    }
    wait(ctx, guard, &w)
}

/// Reads the argument block of a wait.
fn wait_for(
    st: &State,
    min_complete: u32,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> Result<WaitFor, Errno> {
    let mut w = WaitFor { min_complete, ..WaitFor::default() };
    let (mask_at, mask_size) = if flags & raw::IORING_ENTER_EXT_ARG != 0 {
        if argsz != size_of::<GeteventsArg>() {
            return Err(Errno::EINVAL);
        }
        let ext: GeteventsArg = usercopy::read(arg)?;
        let now = || sys::now_ns(st.wait_clock);
        if ext.min_wait_usec != 0 {
            w.min_wait = Some(now() + ext.min_wait_usec as u64 * 1000);
        }
        if ext.ts != 0 {
            let ts: Timespec = usercopy::read(ext.ts)?;
            let ns = (ts.tv_sec.max(0) as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add(ts.tv_nsec.max(0) as u64);
            let absolute = flags & raw::IORING_ENTER_ABS_TIMER != 0;
            w.deadline = Some(if absolute { ns } else { now().saturating_add(ns) });
        }
        (ext.sigmask, ext.sigmask_sz as usize)
    } else {
        (arg, argsz)
    };
    if mask_at != 0 {
        if mask_size != 8 {
            return Err(Errno::EINVAL);
        }
        w.sigmask = Some(usercopy::read(mask_at)?);
    }
    Ok(w)
}

/// IORING_REGISTER_ENABLE_RINGS: the caller becomes the submitter of a SINGLE_ISSUER ring.
///
/// # Errors
/// EBADFD when the ring is enabled already.
pub fn enable(guard: &mut Guard<'_, State>) -> Result<i32, Errno> {
    if !guard.setup_has(raw::IORING_SETUP_R_DISABLED) {
        return Err(Errno::EBADFD);
    }
    if guard.setup_has(raw::IORING_SETUP_SINGLE_ISSUER) && guard.submitter.is_none() {
        let me = current_thread();
        guard.submitter = Some(me);
        guard.bias_to(me);
    }
    guard.restricted = guard.restrictions.registered;
    guard.setup_flags &= !raw::IORING_SETUP_R_DISABLED;
    Ok(0)
}
