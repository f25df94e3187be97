//! io_uring_enter: submit, run task work, wait.

use crate::ctx::Ctx;
use crate::notify::{flush, notify, publish, refresh_ring_fd};
use crate::state::{State, Watch};
use crate::submit::{submit, submit_here};
use crate::wait::{WaitFor, make_progress, wait};
use crate::{exit, procs, reactor, sqpoll, sys, usercopy};
use soloring_abi::{Errno, GeteventsArg, Timespec, raw};
use soloring_lock::{Guard, current_thread};

pub const FLAGS: u32 = raw::IORING_ENTER_GETEVENTS
    | raw::IORING_ENTER_SQ_WAKEUP
    | raw::IORING_ENTER_SQ_WAIT
    | raw::IORING_ENTER_EXT_ARG
    | raw::IORING_ENTER_REGISTERED_RING
    | raw::IORING_ENTER_EXT_ARG_REG
    | raw::IORING_ENTER_ABS_TIMER
    | raw::IORING_ENTER_NO_IOWAIT;

/// The argument block lies in the ring's region.
const EXT_ARG_REG: u32 = raw::IORING_ENTER_EXT_ARG | raw::IORING_ENTER_EXT_ARG_REG;

/// The arguments of a call, but for the ring.
#[derive(Clone, Copy)]
pub struct Call {
    pub to_submit: u32,
    pub min_complete: u32,
    pub flags: u32,
    pub arg: u64,
    pub argsz: usize,
}

impl Call {
    fn wants_events(&self) -> bool {
        self.flags & raw::IORING_ENTER_GETEVENTS != 0
    }

    /// Whether this is a call for [`enter_busy`].
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.flags & !raw::IORING_ENTER_GETEVENTS == 0 && self.arg == 0 && self.to_submit > 0
    }
}

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
/// argument block; EINTR, ETIME from the wait; EOWNERDEAD when the SQ thread has ended with the process that
/// made the ring; EBUSY when a signal handler interrupted this very ring.
#[inline(never)]
pub fn enter(ctx: &Ctx, call: Call) -> Result<u32, Errno> {
    let Ok(guard) = ctx.lock.lock() else { return Err(Errno::EBUSY) };
    enter_locked(ctx, guard, call)
}

/// As [`enter`], for a call that submits and has no argument and no flags but GETEVENTS: in few steps for the
/// busy ring, on which nothing waits and everything that was asked for is done at once.
///
/// # Errors
/// As [`enter`].
#[inline(always)]
pub fn enter_busy(ctx: &Ctx, call: Call) -> Result<u32, Errno> {
    let Ok(mut guard) = ctx.lock.lock() else { return Err(Errno::EBUSY) };
    if !guard.is_calm() || check_submitter(&guard).is_err() {
        return enter_locked(ctx, guard, call);
    }
    let st = &mut *guard;
    let submitted = submit_here(st, call.to_submit);
    let wanted = if call.flags != 0 { call.min_complete.max(1) } else { 0 };
    if submitted == call.to_submit && st.is_settled() && st.cq.ready(&st.rings) >= wanted {
        publish(st);
        if st.shared.is_quiet() {
            guard.unlock();
            return Ok(submitted);
        }
        notify(st);
    }
    after_submission(ctx, guard, call, submitted)
}

/// What is left to do once something was submitted: completions, and perhaps a wait for them.
#[inline(never)]
fn after_submission<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    call: Call,
    submitted: u32,
) -> Result<u32, Errno> {
    flush(&mut guard);
    look_for_events(ctx, guard, call, submitted)
}

#[inline(never)]
fn enter_locked<'a>(ctx: &'a Ctx, mut guard: Guard<'a, State>, call: Call) -> Result<u32, Errno> {
    if guard.setup_has(raw::IORING_SETUP_R_DISABLED) {
        return Err(Errno::EBADFD);
    }
    procs::enter(ctx, &mut guard)?;
    let mut submitted = 0;
    if let Some(thread) = &ctx.sq_thread {
        // Another process's thread has the completions that did not fit, too.
        let overflown = call.wants_events()
            && guard.rings.sq_flags() & raw::IORING_SQ_CQ_OVERFLOW != 0
            && !thread.is_here();
        procs::leave(&mut guard);
        drop(guard);
        if thread.is_gone() {
            return Err(Errno::EOWNERDEAD);
        }
        if overflown || call.flags & raw::IORING_ENTER_SQ_WAKEUP != 0 {
            thread.wake();
        }
        if call.flags & raw::IORING_ENTER_SQ_WAIT != 0 {
            sqpoll::wait_for_room(thread, ctx)?;
        }
        let Ok(again) = ctx.lock.lock() else { return Err(Errno::EBUSY) };
        guard = again;
        procs::enter(ctx, &mut guard)?;
        submitted = call.to_submit;
    } else if call.to_submit > 0 {
        if let Err(e) = check_submitter(&guard) {
            procs::leave(&mut guard);
            return Err(e);
        }
        submitted = submit(&mut guard, call.to_submit);
        flush(&mut guard);
    }
    look_for_events(ctx, guard, call, submitted)
}

/// Waits if that was asked for, and leaves the ring in order.
fn look_for_events<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    call: Call,
    submitted: u32,
) -> Result<u32, Errno> {
    if call.wants_events() && submitted == call.to_submit {
        // Everything that was asked for is there, nothing else to do.
        let content =
            || guard.is_quiet() && guard.cq.ready(&guard.rings) >= call.min_complete.max(1);
        if call.arg == 0 && call.flags & EXT_ARG_REG == 0 && content() {
            if guard.needs_care() {
                leave(ctx, &mut guard);
            }
            return Ok(submitted);
        }
        let w = wait_for(&guard, call);
        return wait_slow(ctx, guard, submitted, w);
    }
    if guard.recheck && !guard.setup_has(raw::IORING_SETUP_DEFER_TASKRUN) {
        make_progress(&mut guard, None);
    }
    leave(ctx, &mut guard);
    Ok(submitted)
}

/// The rest of an enter that has to look for completions, and perhaps to sleep.
#[inline(never)]
fn wait_slow<'a>(
    ctx: &'a Ctx,
    mut guard: Guard<'a, State>,
    submitted: u32,
    w: Result<WaitFor, Errno>,
) -> Result<u32, Errno> {
    let waited = match w {
        Err(e) => Err(e),
        Ok(_)
            if guard.setup_has(raw::IORING_SETUP_DEFER_TASKRUN)
                && check_submitter(&guard).is_err() =>
        {
            Err(Errno::EEXIST)
        }
        Ok(w) => {
            let (back, waited) = wait(ctx, guard, &w);
            guard = back;
            waited
        }
    };
    leave(ctx, &mut guard);
    if submitted > 0 { Ok(submitted) } else { waited.map(|()| 0) }
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

#[inline(never)]
fn leave(ctx: &Ctx, guard: &mut Guard<'_, State>) {
    let st = &mut **guard;
    // The program may close its descriptors from here on.
    st.watches.hold_all(&mut st.slab);
    procs::leave(st);
    if st.shared.is_watched() {
        refresh_ring_fd(st);
    }
    if st.dying {
        return exit::finish_if_left(ctx, st);
    }
    if st.watch != Watch::Off || st.armed + st.punted != 0 || !st.timers.is_empty() {
        reactor::watch(st, ctx.id);
    }
}

/// Times of a wait: the shortest (microseconds, 0 for none) and the longest.
fn set_times(st: &State, w: &mut WaitFor, flags: u32, min_usec: u32, ts: Option<Timespec>) {
    let now = || sys::now_ns(st.wait_clock);
    if min_usec != 0 {
        w.min_wait = Some(now() + min_usec as u64 * 1000);
    }
    if let Some(ts) = ts {
        let ns = (ts.tv_sec.max(0) as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(ts.tv_nsec.max(0) as u64);
        let absolute = flags & raw::IORING_ENTER_ABS_TIMER != 0;
        w.deadline = Some(if absolute { ns } else { now().saturating_add(ns) });
    }
}

/// The argument block of a wait that lies in the ring's region, where `arg` says: its signal mask.
fn registered_wait(
    st: &State,
    w: &mut WaitFor,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> Result<(u64, usize), Errno> {
    const HAS_TIME: u32 = raw::IORING_REG_WAIT_TS as u32;
    if argsz != size_of::<raw::io_uring_reg_wait>() {
        return Err(Errno::EINVAL);
    }
    let region = st.region.as_ref().ok_or(Errno::EFAULT)?;
    let block: raw::io_uring_reg_wait = region.wait_arg(arg)?;
    if block.flags & !HAS_TIME != 0 {
        return Err(Errno::EINVAL);
    }
    let ts = Timespec { tv_sec: block.ts.tv_sec, tv_nsec: block.ts.tv_nsec };
    let ts = (block.flags & HAS_TIME != 0).then_some(ts);
    set_times(st, w, flags, block.min_wait_usec, ts);
    Ok((block.sigmask, block.sigmask_sz as usize))
}

/// Reads the argument block of a wait.
fn wait_for(st: &State, call: Call) -> Result<WaitFor, Errno> {
    let Call { min_complete, flags, arg, argsz, .. } = call;
    let mut w = WaitFor { min_complete, ..WaitFor::default() };
    if st.setup_has(raw::IORING_SETUP_IOPOLL) {
        return reap_for(st, w, flags, arg, argsz);
    }
    let (mask_at, mask_size) = if flags & EXT_ARG_REG == EXT_ARG_REG {
        registered_wait(st, &mut w, flags, arg, argsz)?
    } else if flags & raw::IORING_ENTER_EXT_ARG != 0 {
        if argsz != size_of::<GeteventsArg>() {
            return Err(Errno::EINVAL);
        }
        let ext: GeteventsArg = usercopy::read(arg)?;
        let ts = if ext.ts != 0 { Some(usercopy::read(ext.ts)?) } else { None };
        set_times(st, &mut w, flags, ext.min_wait_usec, ts);
        (ext.sigmask, ext.sigmask_sz as usize)
    } else {
        (arg, argsz)
    };
    // The mask is for the sleep: what need not wait does not look at it.
    if mask_at != 0 && st.cq.ready(&st.rings) < min_complete {
        if mask_size != 8 {
            return Err(Errno::EINVAL);
        }
        w.sigmask = Some(usercopy::read(mask_at)?);
    }
    Ok(w)
}

/// On an IOPOLL ring the caller looks for completions of what is in flight, and never sleeps: its block is checked,
/// and no time or signal mask of it is used.
#[cold]
fn reap_for(
    st: &State,
    mut w: WaitFor,
    flags: u32,
    arg: u64,
    argsz: usize,
) -> Result<WaitFor, Errno> {
    if flags & raw::IORING_ENTER_EXT_ARG != 0 {
        if flags & raw::IORING_ENTER_EXT_ARG_REG != 0 || argsz != size_of::<GeteventsArg>() {
            return Err(Errno::EINVAL);
        }
        usercopy::read::<GeteventsArg>(arg)?;
    }
    if st.armed + st.punted == 0 {
        w.min_complete = 0;
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
    guard.shared.set_disabled(false);
    Ok(0)
}
