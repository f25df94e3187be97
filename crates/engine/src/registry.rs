//! From descriptor to ring: a table of ids, and a per-thread cache so that enter takes no lock.
#![allow(unsafe_code)]

use crate::ctx::Ctx;
use crate::{fds, sys};
use soloring_abi::Errno;
use soloring_lock::LockStats;
use std::cell::{Cell, UnsafeCell};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

/// Made without a first use that could be interrupted.
static RINGS: Mutex<Rings> = Mutex::new(Rings::new());
type Rings = BTreeMap<u64, Arc<Ctx>>;
static CLOSED: Mutex<Closed> = Mutex::new(Closed { locks: None, closing: Vec::new() });

/// What the locks of rings that are no longer in the table have counted. Taken after the table's mutex.
struct Closed {
    locks: Option<LockStats>,
    /// Out of the table and not in `locks` yet: without them a reader would see counts go backwards.
    closing: Vec<Arc<Ctx>>,
}

fn add(sum: &mut Option<LockStats>, stats: LockStats) {
    match sum {
        Some(sum) => sum.merge(&stats),
        none => *none = Some(stats),
    }
}

// How many of the two mutexes this thread holds, or is about to take.
soloring_tls::thread_word!(mod held);

/// A mutex of the registry's, held.
struct Locked<T: 'static> {
    /// Given back before the count says so.
    guard: ManuallyDrop<MutexGuard<'static, T>>,
}

impl<T> Locked<T> {
    fn new(mutex: &'static Mutex<T>) -> Self {
        held::set(held::get() + 1);
        let guard = mutex.lock().unwrap_or_else(|e| e.into_inner());
        Locked { guard: ManuallyDrop::new(guard) }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: once, and nothing uses it after this.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        held::set(held::get() - 1);
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Whether the caller is a signal handler that interrupted its own thread in here. It must not wait for the mutex, and
/// finds no ring that it does not have at hand.
pub fn is_interrupted() -> bool {
    held::get() != 0
}

/// `None`: see [`is_interrupted`].
fn rings() -> Option<Locked<Rings>> {
    (!is_interrupted()).then(|| Locked::new(&RINGS))
}

/// The caller holds the table, or [`is_interrupted`] was asked.
fn closed() -> Locked<Closed> {
    Locked::new(&CLOSED)
}

/// Proof that no other thread is inside the registry; for the length of a fork.
pub struct Held {
    _rings: Locked<Rings>,
    _closed: Locked<Closed>,
}

/// Keeps everyone else out of the registry. `None`: see [`is_interrupted`].
pub fn hold() -> Option<Held> {
    let rings = rings()?;
    Some(Held { _rings: rings, _closed: closed() })
}

/// In a forked child: it has done nothing yet.
pub fn reset_totals() {
    if is_interrupted() {
        return;
    }
    let mut closed = closed();
    closed.locks = None;
    // The parent's threads were closing them; what those had in hand is not this process's to drop.
    std::mem::forget(std::mem::take(&mut closed.closing));
}

/// # Errors
/// EBUSY: see [`is_interrupted`].
pub fn insert(ctx: Arc<Ctx>) -> Result<(), Errno> {
    rings().ok_or(Errno::EBUSY)?.insert(ctx.id, ctx);
    Ok(())
}

/// Forgets a ring whose last descriptor was closed, keeping its counts.
pub fn remove(id: u64) -> Option<Arc<Ctx>> {
    let mut rings = rings()?;
    let ctx = rings.remove(&id)?;
    closed().closing.push(Arc::clone(&ctx));
    Some(ctx)
}

/// Rings out of the table that have not come to their end yet.
pub fn closing() -> Vec<Arc<Ctx>> {
    if is_interrupted() { Vec::new() } else { closed().closing.clone() }
}

/// Adds what a closed ring's lock has counted to the sum, once. Its own counts stay as they are, for a reader
/// who has found it among those that are closing.
pub fn account_closed(id: u64, lock: LockStats) {
    if is_interrupted() {
        return;
    }
    let mut closed = closed();
    if let Some(at) = closed.closing.iter().position(|ctx| ctx.id == id) {
        closed.closing.swap_remove(at);
        add(&mut closed.locks, lock);
    }
}

/// Lock statistics of all rings that this process had; `None` without any.
pub fn lock_stats() -> Option<LockStats> {
    let rings = rings()?;
    sum_locks(&rings, &closed())
}

/// As [`lock_stats`], where the caller may be a signal handler that interrupted this very module.
///
/// # Errors
/// EBUSY when the registry was in use all the time, for some milliseconds.
pub fn lock_stats_if_free() -> Result<Option<LockStats>, Errno> {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        if let Ok(rings) = RINGS.try_lock()
            && let Ok(closed) = CLOSED.try_lock()
        {
            return Ok(sum_locks(&rings, &closed));
        }
        sys::sleep_ms(1);
    }
    Err(Errno::EBUSY)
}

fn sum_locks(rings: &Rings, closed: &Closed) -> Option<LockStats> {
    let mut sum = closed.locks;
    for ctx in rings.values().chain(&closed.closing) {
        add(&mut sum, ctx.lock.stats());
    }
    sum
}

/// All open rings.
pub fn all() -> Vec<Arc<Ctx>> {
    rings().map_or_else(Vec::new, |rings| rings.values().cloned().collect())
}

pub fn by_id(id: u64) -> Option<Arc<Ctx>> {
    rings()?.get(&id).cloned()
}

const CACHED: usize = 4;

/// A ring with its id; `None` for an unused slot.
type CachedRing = Option<(u64, Arc<Ctx>)>;

/// Rings that this thread used lately. Each slot owns a reference, so a ring that another thread closes
/// stays allocated while this thread is inside it.
struct Cache {
    /// Calls of [`with`] that this thread is inside: more than one means a signal handler came in.
    depth: Cell<u32>,
    next: Cell<usize>,
    slots: [UnsafeCell<CachedRing>; CACHED],
}

thread_local! {
    static CACHE: Cache = const {
        Cache {
            depth: Cell::new(0),
            next: Cell::new(0),
            slots: [const { UnsafeCell::new(None) }; CACHED],
        }
    };
}

// The address of this thread's `CACHE`, from its first use until it is dropped.
soloring_tls::thread_word!(mod cache_address);

impl Drop for Cache {
    fn drop(&mut self) {
        cache_address::set(0);
    }
}

impl Cache {
    #[inline(always)]
    fn find(&self, id: u64) -> Option<&Arc<Ctx>> {
        for slot in &self.slots {
            // SAFETY: slots are only written by `insert` and `forget` on this thread, and only while no
            // call of `with` holds a reference into them (`depth` is 1, and its lookup missed or is over).
            if let Some((cached, ctx)) = unsafe { &*slot.get() }
                && *cached == id
            {
                return Some(ctx);
            }
        }
        None
    }

    /// Asks the table. `depth`: calls of [`with`] that this one is inside.
    #[cold]
    #[inline(never)]
    fn find_elsewhere(&self, id: u64, depth: u32) -> Option<Arc<Ctx>> {
        let ctx = by_id(id)?;
        if depth == 0 {
            self.insert(id, &ctx);
        }
        Some(ctx)
    }

    fn insert(&self, id: u64, ctx: &Arc<Ctx>) {
        let at = self.next.get();
        self.next.set((at + 1) % CACHED);
        // SAFETY: as in `find`; the caller is the only call of `with` on this thread and missed.
        let old = unsafe { (*self.slots[at].get()).replace((id, Arc::clone(ctx))) };
        drop(old);
    }
}

/// The ring behind a descriptor. A hit costs a few loads and compares: no lock, no read-modify-write.
///
/// `f` may run while another thread closes the ring: the context stays valid, and says it is closed.
#[inline]
pub fn with<R>(fd: i32, f: impl FnOnce(&Arc<Ctx>) -> R) -> Option<R> {
    let id = fds::ring_id(fd)?;
    with_id(id, f)
}

/// As [`with`], by the ring's id.
pub fn with_id<R>(id: u64, f: impl FnOnce(&Arc<Ctx>) -> R) -> Option<R> {
    let Some(cache) = cache() else {
        // The thread is exiting and its cache is gone.
        return by_id(id).map(|ctx| f(&ctx));
    };
    let inside = Inside::new(cache);
    match cache.find(id) {
        Some(ctx) => Some(f(ctx)),
        None => cache.find_elsewhere(id, inside.before).map(|ctx| f(&ctx)),
    }
}

/// As [`with_id`], if this thread used the ring lately.
#[inline(always)]
pub fn with_cached<R>(id: u64, f: impl FnOnce(&Arc<Ctx>) -> R) -> Option<R> {
    let cache = cache()?;
    let _inside = Inside::new(cache);
    cache.find(id).map(f)
}

/// This thread's cache; `None` once it is gone. Not to be kept beyond the call.
#[inline(always)]
fn cache<'a>() -> Option<&'a Cache> {
    let at = match cache_address::get() {
        0 => cache_at_first()?,
        at => at as *const Cache,
    };
    // SAFETY: this thread's cache, which lives until the thread's last destructors; they run on it, not
    // beside it, and `Cache` is not handed to other threads.
    Some(unsafe { &*at })
}

#[cold]
fn cache_at_first() -> Option<*const Cache> {
    let at = CACHE.try_with(std::ptr::from_ref).ok()?;
    cache_address::set(at as u64);
    Some(at)
}

/// A stay inside [`with`].
struct Inside<'a> {
    depth: &'a Cell<u32>,
    before: u32,
}

impl<'a> Inside<'a> {
    #[inline(always)]
    fn new(cache: &'a Cache) -> Self {
        let before = cache.depth.get();
        cache.depth.set(before + 1);
        Inside { depth: &cache.depth, before }
    }
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.depth.set(self.before);
    }
}

/// Drops this thread's cached reference to a ring that was closed.
pub fn forget(id: u64) {
    let _ = CACHE.try_with(|cache| {
        if cache.depth.get() != 0 {
            return;
        }
        for slot in &cache.slots {
            // SAFETY: as in `find`; no call of `with` is active on this thread.
            let slot = unsafe { &mut *slot.get() };
            if slot.as_ref().is_some_and(|(cached, _)| *cached == id) {
                *slot = None;
            }
        }
    });
}
