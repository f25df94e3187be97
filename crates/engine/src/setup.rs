//! io_uring_setup: flags decided one by one, sizes, memory, the descriptor.

use crate::ctx::Ctx;
use crate::shared::{self, Shared};
use crate::sqthread::SqThread;
use crate::state::State;
use crate::{exit, fds, fork, registry, ringtable, sqpoll, sys, usercopy};
use soloring_abi::extra::IORING_SETUP_CQE_MIXED;
use soloring_abi::{Errno, Params, raw};
use soloring_iowq::{Config, Wq};
use soloring_lock::{CtxLock, current_thread};
use soloring_ringmem::{CqeSize, Layout, NoMmap, Rings, SqeSize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const MAX_ENTRIES: u32 = 32768;
const MAX_CQ_ENTRIES: u32 = 2 * MAX_ENTRIES;

/// The flags of Linux 6.18, all honoured. On an IOPOLL ring the program reaps by calling in, as with the
/// kernel's; that workers wait for the device instead of polling it is not visible.
pub const FLAGS: u32 = raw::IORING_SETUP_CQSIZE
    | raw::IORING_SETUP_CLAMP
    | raw::IORING_SETUP_R_DISABLED
    | raw::IORING_SETUP_SUBMIT_ALL
    | raw::IORING_SETUP_COOP_TASKRUN
    | raw::IORING_SETUP_TASKRUN_FLAG
    | raw::IORING_SETUP_SQE128
    | raw::IORING_SETUP_CQE32
    | IORING_SETUP_CQE_MIXED
    | raw::IORING_SETUP_SINGLE_ISSUER
    | raw::IORING_SETUP_DEFER_TASKRUN
    | raw::IORING_SETUP_NO_MMAP
    | raw::IORING_SETUP_REGISTERED_FD_ONLY
    | raw::IORING_SETUP_NO_SQARRAY
    | raw::IORING_SETUP_IOPOLL
    | raw::IORING_SETUP_SQPOLL
    | raw::IORING_SETUP_SQ_AFF
    | raw::IORING_SETUP_ATTACH_WQ
    | raw::IORING_SETUP_HYBRID_IOPOLL;

/// Features that hold here. Not RW_ATTR (integrity metadata needs the device), not
/// SQPOLL_NONFIXED without SQPOLL.
pub const FEATURES: u32 = raw::IORING_FEAT_SINGLE_MMAP
    | raw::IORING_FEAT_NODROP
    | raw::IORING_FEAT_SUBMIT_STABLE
    | raw::IORING_FEAT_RW_CUR_POS
    | raw::IORING_FEAT_CUR_PERSONALITY
    | raw::IORING_FEAT_FAST_POLL
    | raw::IORING_FEAT_POLL_32BITS
    | raw::IORING_FEAT_SQPOLL_NONFIXED
    | raw::IORING_FEAT_EXT_ARG
    | raw::IORING_FEAT_NATIVE_WORKERS
    | raw::IORING_FEAT_RSRC_TAGS
    | raw::IORING_FEAT_CQE_SKIP
    | raw::IORING_FEAT_LINKED_FILE
    | raw::IORING_FEAT_REG_REG_RING
    | raw::IORING_FEAT_MIN_TIMEOUT
    | raw::IORING_FEAT_RECVSEND_BUNDLE
    | raw::IORING_FEAT_NO_IOWAIT;

fn check_flags(flags: u32) -> Result<(), Errno> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |f: u32| flags & f != 0;
    if has(raw::IORING_SETUP_REGISTERED_FD_ONLY) && !has(raw::IORING_SETUP_NO_MMAP) {
        return Err(Errno::EINVAL);
    }
    if has(raw::IORING_SETUP_TASKRUN_FLAG)
        && !has(raw::IORING_SETUP_COOP_TASKRUN | raw::IORING_SETUP_DEFER_TASKRUN)
    {
        return Err(Errno::EINVAL);
    }
    // The SQ thread runs task work by itself: what says when the submitter does makes no sense with it.
    let by_submitter = raw::IORING_SETUP_COOP_TASKRUN
        | raw::IORING_SETUP_TASKRUN_FLAG
        | raw::IORING_SETUP_DEFER_TASKRUN;
    if has(raw::IORING_SETUP_SQPOLL) && has(by_submitter) {
        return Err(Errno::EINVAL);
    }
    if has(raw::IORING_SETUP_CQE32) && has(IORING_SETUP_CQE_MIXED) {
        return Err(Errno::EINVAL);
    }
    if has(raw::IORING_SETUP_HYBRID_IOPOLL) && !has(raw::IORING_SETUP_IOPOLL) {
        return Err(Errno::EINVAL);
    }
    if has(raw::IORING_SETUP_DEFER_TASKRUN) && !has(raw::IORING_SETUP_SINGLE_ISSUER) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Ring sizes as the kernel rounds and limits them.
pub fn sizes(entries: u32, p: &Params) -> Result<(u32, u32), Errno> {
    let clamp = p.flags & raw::IORING_SETUP_CLAMP != 0;
    let mut entries = entries;
    if entries == 0 {
        return Err(Errno::EINVAL);
    }
    if entries > MAX_ENTRIES {
        if !clamp {
            return Err(Errno::EINVAL);
        }
        entries = MAX_ENTRIES;
    }
    let sq = entries.next_power_of_two();
    if p.flags & raw::IORING_SETUP_CQSIZE == 0 {
        return Ok((sq, 2 * sq));
    }
    let mut cq = p.cq_entries;
    if cq == 0 {
        return Err(Errno::EINVAL);
    }
    if cq > MAX_CQ_ENTRIES {
        if !clamp {
            return Err(Errno::EINVAL);
        }
        cq = MAX_CQ_ENTRIES;
    }
    let cq = cq.next_power_of_two();
    if cq < sq {
        return Err(Errno::EINVAL);
    }
    // The larger completions must fit.
    let mixed = p.flags & IORING_SETUP_CQE_MIXED != 0;
    if mixed && cq < 2 { Err(Errno::EOVERFLOW) } else { Ok((sq, cq)) }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(fds::FIRST_RING_ID);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn layout(p: &Params) -> Layout {
    let has = |f: u32| p.flags & f != 0;
    Layout {
        sq_entries: p.sq_entries,
        cq_entries: p.cq_entries,
        sqe: if has(raw::IORING_SETUP_SQE128) { SqeSize::B128 } else { SqeSize::B64 },
        cqe: match p.flags & (raw::IORING_SETUP_CQE32 | IORING_SETUP_CQE_MIXED) {
            raw::IORING_SETUP_CQE32 => CqeSize::B32,
            IORING_SETUP_CQE_MIXED => CqeSize::Mixed,
            _ => CqeSize::B16,
        },
        sq_array: !has(raw::IORING_SETUP_NO_SQARRAY),
    }
}

pub fn rings(p: &Params, layout: Layout) -> Result<Rings, Errno> {
    if p.flags & raw::IORING_SETUP_NO_MMAP == 0 {
        return Rings::create(layout, fds::make_private);
    }
    let adopt = |addr, bytes| NoMmap::adopt(addr, bytes, fds::make_private, fds::close_private);
    let rings = adopt(p.cq_off.user_addr as usize, layout.rings_mapped())?;
    match adopt(p.sq_off.user_addr as usize, layout.sqes_mapped()) {
        Ok(sqes) => Ok(Rings::adopt(layout, rings, sqes)),
        Err(e) => {
            fds::close_private(rings.memfd());
            Err(e)
        }
    }
}

/// Says where everything lies. The addresses of memory that the program brought stay.
pub fn tell_offsets(p: &mut Params, layout: &Layout) {
    let user_addr = (p.sq_off.user_addr, p.cq_off.user_addr);
    p.sq_off = layout.sq_offsets();
    p.cq_off = layout.cq_offsets();
    if p.flags & raw::IORING_SETUP_NO_MMAP != 0 {
        (p.sq_off.user_addr, p.cq_off.user_addr) = user_addr;
    }
}

/// What a ring is made of, as far as it must be given back when the rest fails.
struct Unfinished {
    rings: Arc<Rings>,
    /// Not marked as a ring's yet; -1: none.
    ring_fd: i32,
    sq_thread: Option<Arc<SqThread>>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        exit::close_memory(&self.rings);
        if self.ring_fd >= 0 {
            sys::close(self.ring_fd);
        }
        if let Some(thread) = &self.sq_thread {
            // One that has no ring ends when it is woken.
            thread.wake();
        }
    }
}

/// Makes a ring and returns its descriptor, or (REGISTERED_FD_ONLY) its index.
///
/// # Errors
/// EFAULT for `params`; EINVAL for entries, flags and combinations that Linux 6.18 refuses;
/// EOVERFLOW for a mixed ring with room for one completion; EBUSY as [`name`] gives it; EMFILE, ENFILE, ENOMEM.
pub fn setup(entries: u32, params_at: u64) -> Result<i32, Errno> {
    soloring_lock::init();
    fork::install_hooks();
    exit::finish_interrupted();
    let mut p: Params = usercopy::read(params_at)?;
    if p.resv.iter().any(|r| *r != 0) {
        return Err(Errno::EINVAL);
    }
    check_flags(p.flags)?;
    if p.flags & raw::IORING_SETUP_SQPOLL != 0 {
        // The issuer is the SQ thread, not a task: visibly no SINGLE_ISSUER ring (the kernel series,
        // patch 3; the unpatched kernel leaves the flag set and ignores it).
        p.flags &= !raw::IORING_SETUP_SINGLE_ISSUER;
    }
    (p.sq_entries, p.cq_entries) = sizes(entries, &p)?;
    let layout = layout(&p);
    let rings = Arc::new(rings(&p, layout)?);
    let mut made = Unfinished { rings, ring_fd: -1, sq_thread: None, finished: false };
    made.ring_fd = fds::make_high(sys::eventfd()?)?;
    let shared = Arc::new(Shared::new(Arc::clone(&made.rings), made.ring_fd)?);
    let (wq, sq_thread) = threads(&p)?;
    made.sq_thread = sq_thread;
    p.features = FEATURES;
    tell_offsets(&mut p, &layout);
    usercopy::write(params_at, &p)?;
    let ctx = publish(&made, shared, &p, wq)?;
    made.finished = true;
    name(&ctx, made.ring_fd)
}

/// Gives the ring the number that the program knows it by: its descriptor, or (REGISTERED_FD_ONLY) an index
/// of the calling thread's.
///
/// # Errors
/// EBUSY when the thread has no index left; the ring is gone then.
fn name(ctx: &Arc<Ctx>, ring_fd: i32) -> Result<i32, Errno> {
    if ctx.setup_flags & raw::IORING_SETUP_REGISTERED_FD_ONLY == 0 {
        fds::mark_ring(ring_fd, ctx.id);
        return Ok(ring_fd);
    }
    sys::close(ring_fd);
    match ringtable::add(ctx, None) {
        Ok(index) => Ok(index as i32),
        Err(e) => {
            exit::put(ctx);
            Err(e)
        }
    }
}

/// The ring that ATTACH_WQ names.
///
/// # Errors
/// ENXIO for a descriptor that is not open, EINVAL for one that is no ring.
fn attached(p: &Params) -> Result<Arc<Ctx>, Errno> {
    let fd = p.wq_fd as i32;
    let Some(id) = fds::ring_id(fd) else {
        let open = !fds::is_private(fd) && sys::is_open(fd);
        return Err(if open { Errno::EINVAL } else { Errno::ENXIO });
    };
    registry::by_id(id).ok_or(Errno::ENXIO)
}

/// Worker pool and SQ thread: of its own, or shared with the ring that ATTACH_WQ names.
fn threads(p: &Params) -> Result<(Arc<Wq>, Option<Arc<SqThread>>), Errno> {
    let has = |f: u32| p.flags & f != 0;
    let attached = if has(raw::IORING_SETUP_ATTACH_WQ) { Some(attached(p)?) } else { None };
    if has(raw::IORING_SETUP_SQ_AFF) && !has(raw::IORING_SETUP_SQPOLL) {
        // Said as late as this: the ring to attach to and the memory are looked at before.
        return Err(Errno::EINVAL);
    }
    let wq = match &attached {
        Some(ctx) => Arc::clone(&ctx.wq),
        None => Wq::new(Config::for_ring(p.sq_entries)),
    };
    if !has(raw::IORING_SETUP_SQPOLL) {
        return Ok((wq, None));
    }
    if let Some(ctx) = attached {
        let thread = ctx.sq_thread.clone().ok_or(Errno::EINVAL)?;
        // Another process's thread cannot be shared, a thread of our own takes its place.
        if thread.is_here() {
            return Ok((wq, Some(thread)));
        }
    }
    let cpu = has(raw::IORING_SETUP_SQ_AFF).then_some(p.sq_thread_cpu);
    Ok((wq, Some(sqpoll::start(p.sq_thread_idle, cpu)?)))
}

/// # Errors
/// EBUSY in a signal handler that interrupted the making or the end of a ring.
fn publish(
    made: &Unfinished,
    shared: Arc<Shared>,
    p: &Params,
    wq: Arc<Wq>,
) -> Result<Arc<Ctx>, Errno> {
    let id = next_id();
    let rings = Arc::clone(&made.rings);
    let mut state = State::new(id, Arc::clone(&shared), Arc::clone(&wq), rings, p.flags);
    state.ring_fd = shared.ring_fd;
    let ctx = Arc::new(Ctx {
        id,
        lock: CtxLock::new(state),
        sq_thread: made.sq_thread.clone(),
        wq,
        open_fds: AtomicU32::new(1),
        setup_flags: p.flags,
    });
    shared.set_disabled(p.flags & raw::IORING_SETUP_R_DISABLED != 0);
    let single = p.flags & raw::IORING_SETUP_SINGLE_ISSUER != 0;
    if single && p.flags & raw::IORING_SETUP_R_DISABLED == 0 {
        let mut st = ctx.lock.lock().expect("nobody else knows this ring yet");
        st.submitter = Some(current_thread());
        st.bias_to(current_thread());
    }
    shared::publish(id, &shared);
    registry::insert(Arc::clone(&ctx))?;
    if let Some(thread) = &made.sq_thread {
        thread.attach(id);
    }
    Ok(ctx)
}
