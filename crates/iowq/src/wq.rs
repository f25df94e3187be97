//! The pool as the engine sees it.
#![allow(unsafe_code)]

use crate::interrupt::Raise;
use crate::state::{Call, Found};
use crate::sys::ErrnoGuard;
use crate::work::{CancelOutcome, Class, Ticket, Work};
use crate::worker::{Pool, Totals, add};
use crate::{affinity, sys};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What a pool is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Most works that run at once, by class; at least 1 each.
    pub limit: [u32; 2],
    /// How long a worker without work stays.
    pub idle_timeout: Duration,
}

impl Config {
    /// The kernel's defaults for a ring: bounded min(sq_entries, 4 per CPU), unbounded
    /// RLIMIT_NPROC; idle workers stay 5 s.
    pub fn for_ring(sq_entries: u32) -> Self {
        let _errno = ErrnoGuard::new();
        Self {
            limit: [sq_entries.min(4 * cpus_online()), nproc_limit()],
            idle_timeout: Duration::from_secs(5),
        }
    }
}

fn cpus_online() -> u32 {
    // Read once: it opens a file, and rings are made often.
    static ONLINE: OnceLock<u32> = OnceLock::new();
    // SAFETY: sysconf has no preconditions.
    *ONLINE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as u32)
}

fn nproc_limit() -> u32 {
    // The kernel keeps these limits as an int.
    sys::rlimit_nproc().min(i32::MAX as u64) as u32
}

/// Momentary and running numbers of one pool.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Workers that exist or are being created.
    pub workers: u32,
    /// Of these, asleep.
    pub idle: u32,
    /// Works running, by class.
    pub running: [u32; 2],
    /// Works that wait for a worker or for their class's limit, by class.
    pub ready: [u32; 2],
    /// Works that wait for another with the same hash.
    pub behind_hash: u32,
    /// Works queued since the pool was made.
    pub queued: u64,
    /// Works taken up by workers since the pool was made.
    pub started: u64,
    pub workers_created: u64,
    /// Attempts to create a worker that the system refused.
    pub workers_failed: u64,
    /// Running works that were signalled. Repetitions are not counted.
    pub interrupts: u64,
    /// Works whose `run` panicked.
    pub panics: u64,
}

/// A pool of workers: one per ring, or shared by several. Costs no thread until work is queued.
///
/// Dropping the last handle shuts it down, running works interrupted.
pub struct Wq {
    /// From `Arc::into_raw`; replaced only by `reset_after_fork`, which leaks what it replaces, so
    /// a load may be used as long as `self` lives.
    pool: AtomicPtr<Pool>,
}

impl Wq {
    pub fn new(config: Config) -> Arc<Self> {
        let limit = config.limit.map(|n| n.max(1));
        let pool = Arc::new(Pool::new(limit, config.idle_timeout));
        Arc::new(Self { pool: AtomicPtr::new(Arc::into_raw(pool).cast_mut()) })
    }

    pub(crate) fn pool(&self) -> PoolRef<'_> {
        // Acquire: pairs with the Release in `reset_after_fork`, so that the new pool is seen
        // filled.
        let raw = self.pool.load(Ordering::Acquire);
        // SAFETY: `raw` came from `Arc::into_raw` and is released only by `drop`, which has `&mut
        // self`. The ManuallyDrop leaves the count as it is.
        let pool = ManuallyDrop::new(unsafe { Arc::from_raw(raw) });
        PoolRef { pool, of: PhantomData }
    }

    /// Queues a work and calls a worker for it: [`Wq::enqueue`] and [`Wq::kick`] in one.
    pub fn queue(&self, work: Box<dyn Work>, class: Class, hash: Option<u64>) -> Ticket {
        self.take_in(work, class, hash, true)
    }

    /// Queues a work. Works with the same hash never run two at once, and run in the order of
    /// queueing; without a hash there is no order. After `shutdown` the work's `cancelled` is called
    /// before this returns.
    ///
    /// No worker is called: [`Wq::kick`] must follow, once for any number of works. Queueing makes no
    /// system call, so the works of one submission can be queued with the ring's lock held, and
    /// without being preempted by the worker that was called for the first of them.
    pub fn enqueue(&self, work: Box<dyn Work>, class: Class, hash: Option<u64>) -> Ticket {
        self.take_in(work, class, hash, false)
    }

    /// Wakes or creates a worker if there is work for one; it calls the next.
    ///
    /// Calls `failed` of everything queued if no worker can be created and there is none.
    pub fn kick(&self) {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let call = pool.lock().call();
        pool.carry_out(call);
    }

    fn take_in(&self, work: Box<dyn Work>, class: Class, hash: Option<u64>, kick: bool) -> Ticket {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let mut state = pool.lock();
        match state.push(work, class, hash) {
            Ok(ticket) => {
                let call = if kick { state.call() } else { Call::Nobody };
                drop(state);
                pool.carry_out(call);
                ticket
            }
            Err(work) => {
                drop(state);
                work.cancelled();
                Ticket::NONE
            }
        }
    }

    /// Cancels one work, without waiting for it.
    pub fn cancel(&self, ticket: Ticket) -> CancelOutcome {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let mut state = pool.lock();
        match state.find(ticket) {
            Found::Nothing => CancelOutcome::NotFound,
            Found::Running(worker) => {
                let raise = worker.interrupt.raise();
                drop(state);
                send(&pool, raise);
                CancelOutcome::Running
            }
            Found::Queued(work) => {
                // The next work with its hash may have become ready.
                let call = state.call();
                drop(state);
                work.cancelled();
                pool.carry_out(call);
                CancelOutcome::Removed
            }
        }
    }

    /// Sets the limits, by class, and returns the former ones: IORING_REGISTER_IOWQ_MAX_WORKERS.
    ///
    /// 0 leaves a limit as it is; more than RLIMIT_NPROC counts as RLIMIT_NPROC. What the kernel
    /// answers with -EINVAL, a number above `i32::MAX`, is the caller's to refuse.
    pub fn max_workers(&self, new: [u32; 2]) -> [u32; 2] {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let nproc = nproc_limit();
        let mut state = pool.lock();
        let former = state.limit;
        for (limit, new) in state.limit.iter_mut().zip(new) {
            if new != 0 {
                *limit = new.min(nproc);
            }
        }
        for (copy, limit) in pool.limits.iter().zip(state.limit) {
            copy.store(limit, Ordering::Relaxed);
        }
        let call = state.call();
        drop(state);
        pool.carry_out(call);
        former
    }

    /// Binds workers, present and future, to the CPUs of `mask` (bit n of byte n/8 is CPU n):
    /// IORING_REGISTER_IOWQ_AFF. None undoes it: present workers go where the calling thread may
    /// run, future ones where the thread that creates them may.
    ///
    /// As with Linux 6.18, CPUs that the machine cannot have are ignored, and an empty mask is
    /// accepted and binds nothing. Err(EINVAL): a CPU of the machine in `mask` is outside the
    /// process's cpuset; nothing has changed.
    pub fn set_affinity(&self, mask: Option<&[u8]>) -> Result<(), i32> {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        match mask {
            Some(mask) => {
                if !affinity::acceptable(mask, affinity::possible(), &affinity::allowed()?) {
                    return Err(libc::EINVAL);
                }
                pool.bind(mask, true);
            }
            None => pool.bind(&sys::sched_getaffinity(0)?, false),
        }
        Ok(())
    }

    /// No work is taken from now on; what is queued is cancelled, on this thread; what runs is
    /// interrupted if `cancel_running`. Waits for nothing. Workers leave when they have no work.
    pub fn shutdown(&self, cancel_running: bool) {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        shutdown(&pool, cancel_running);
    }

    /// Whether `shutdown` has been called.
    pub fn is_shut_down(&self) -> bool {
        let _errno = ErrnoGuard::new();
        self.pool().lock().is_closed()
    }

    /// Whether as many works of `class` run as may: one that is queued waits for one of them to end.
    pub fn is_full(&self, class: Class) -> bool {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let state = pool.lock();
        state.counts().running[class as usize] >= state.limit[class as usize]
    }

    pub fn stats(&self) -> Stats {
        let _errno = ErrnoGuard::new();
        let pool = self.pool();
        let counts = pool.lock().counts();
        let Totals { workers_created, workers_failed, interrupts, panics } = &pool.totals;
        Stats {
            workers: counts.threads,
            idle: counts.idle,
            running: counts.running,
            ready: counts.ready,
            behind_hash: counts.behind,
            queued: counts.queued,
            started: counts.started,
            workers_created: workers_created.load(Ordering::Relaxed),
            workers_failed: workers_failed.load(Ordering::Relaxed),
            interrupts: interrupts.load(Ordering::Relaxed),
            panics: panics.load(Ordering::Relaxed),
        }
    }

    /// In a forked child, before anything else is called on this pool there: it starts again,
    /// empty, with the same limits and no affinity. The parent's works are not run, cancelled or
    /// dropped, and its memory is leaked, for it may be in any state.
    pub fn reset_after_fork(&self) {
        let old = self.pool();
        // The mutex may be held by a thread that does not exist here; the limits are copies that
        // need none.
        let limit = [0, 1].map(|class: usize| old.limits[class].load(Ordering::Relaxed));
        let new = Arc::new(Pool::new(limit, old.idle_timeout));
        // Release: pairs with the Acquire in `pool`.
        self.pool.store(Arc::into_raw(new).cast_mut(), Ordering::Release);
    }
}

impl Drop for Wq {
    fn drop(&mut self) {
        let raw = *self.pool.get_mut();
        // SAFETY: as in `pool`; `&mut self` says that nobody uses a reference made there.
        let pool = unsafe { Arc::from_raw(raw) };
        if pool.pid == sys::getpid() {
            // The pool lives on in its workers until they have left.
            return shutdown(&pool, true);
        }
        // A forked child that never reset it: its state may be mid-change, and its works are the
        // parent's.
        std::mem::forget(pool);
    }
}

/// The pool, borrowed from its handle; as an `Arc`, since a worker that is created takes a share.
pub(crate) struct PoolRef<'a> {
    pool: ManuallyDrop<Arc<Pool>>,
    of: PhantomData<&'a Wq>,
}

impl Deref for PoolRef<'_> {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.pool
    }
}

fn send(pool: &Pool, raise: Option<Raise<'_>>) {
    if raise.is_some_and(Raise::send) {
        add(&pool.totals.interrupts);
    }
}

fn shutdown(pool: &Pool, cancel_running: bool) {
    let mut state = pool.lock();
    let sleepers = state.close();
    let queued = state.drain();
    let running: Vec<_> =
        if cancel_running { state.running_workers().cloned().collect() } else { Vec::new() };
    let raises: Vec<_> = running.iter().map(|worker| worker.interrupt.raise()).collect();
    drop(state);
    for raise in raises {
        send(pool, raise);
    }
    for worker in sleepers {
        worker.parker.unpark();
    }
    for work in queued {
        work.cancelled();
    }
}
