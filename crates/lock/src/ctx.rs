//! The ring lock: a value inside, and the only way to it.
#![allow(unsafe_code)]

use super::guard::Guard;
use super::hold::{Hold, Reentered};
use super::policy::Policy;
use super::prims::{ValueCell, mutex_forced, prepare};
use super::raw::RawLock;
use super::slot::Entered;
use super::stats::LockStats;
use super::token::ThreadToken;

/// Marks a branch as seldom taken.
#[cold]
fn unlikely() {}

/// A value that is only reachable through a [`Guard`], and the lock that hands guards out.
#[derive(Debug)]
#[repr(C)]
pub struct CtxLock<T> {
    raw: RawLock,
    value: ValueCell<T>,
}

// SAFETY: the lock hands out one guard at a time (the argument is in LOCKING.md, the check is the
// model), so sharing the lock only ever moves exclusive access to the value between threads.
unsafe impl<T: Send> Sync for CtxLock<T> {}

impl<T> CtxLock<T> {
    /// A lock without an owner: a mutex until [`Guard::bias_to`] is called.
    pub fn new(value: T) -> Self {
        Self::new_in(value, Policy::Auto)
    }

    /// As [`CtxLock::new`], with a say in whether it may ever be biased. The environment variable
    /// `SOLORING_LOCK=mutex`, read once per process, forces every lock to be a mutex.
    pub fn new_in(value: T, policy: Policy) -> Self {
        prepare();
        let forced = policy == Policy::ForceMutex || mutex_forced();
        Self { raw: RawLock::new(forced), value: ValueCell::new(value) }
    }

    /// Locks, waiting as long as another thread is inside.
    #[inline]
    pub fn lock(&self) -> Result<Guard<'_, T>, Reentered> {
        if let Some(entered) = self.raw.enter_first()? {
            return Ok(self.guard(Hold::First, entered));
        }
        unlikely();
        let (hold, entered) = self.raw.lock_otherwise()?;
        Ok(self.guard(hold, entered))
    }

    /// Locks if that needs no waiting. `None`: another thread is inside.
    #[inline]
    pub fn try_lock(&self) -> Result<Option<Guard<'_, T>>, Reentered> {
        if let Some(entered) = self.raw.enter_first()? {
            return Ok(Some(self.guard(Hold::First, entered)));
        }
        unlikely();
        Ok(self.raw.try_lock_otherwise()?.map(|(hold, entered)| self.guard(hold, entered)))
    }

    /// Locks two different locks in the order of their addresses, so that two threads with the same
    /// pair cannot wait for each other. [`Reentered`] also when both are the same lock.
    #[allow(clippy::type_complexity)]
    pub fn lock_two<'a>(
        a: &'a Self,
        b: &'a Self,
    ) -> Result<(Guard<'a, T>, Guard<'a, T>), Reentered> {
        match (a as *const Self).cmp(&(b as *const Self)) {
            std::cmp::Ordering::Less => {
                let first = a.lock()?;
                Ok((first, b.lock()?))
            }
            std::cmp::Ordering::Greater => {
                let first = b.lock()?;
                Ok((a.lock()?, first))
            }
            std::cmp::Ordering::Equal => Err(Reentered),
        }
    }

    /// The recorded owner, whether the bias is in force at the moment or not.
    pub fn owner(&self) -> Option<ThreadToken> {
        self.raw.owner()
    }

    /// Counts so far. Takes no lock.
    pub fn stats(&self) -> LockStats {
        self.raw.stats()
    }

    /// The value, without locking: nobody else can be inside.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// In the child after `fork`: makes the lock free and unbiased, whatever the parent's other
    /// threads were doing with it. The recorded owner is forgotten unless it is the calling thread,
    /// to whom [`Guard::bias_to`] must be said again.
    ///
    /// # Safety
    /// The calling thread is the only one of its process, it holds no guard of this lock, and the
    /// caller has a plan for a value that another thread of the parent may have left half changed.
    pub unsafe fn reset_after_fork(&self) {
        self.raw.reset_after_fork();
    }

    /// In a forked child: the counts of [`CtxLock::stats`] begin at zero again.
    pub fn forget_counts(&self) {
        self.raw.forget_counts();
    }

    #[inline(always)]
    fn guard(&self, hold: Hold, entered: Entered) -> Guard<'_, T> {
        Guard::new(&self.raw, &self.value, hold, entered)
    }
}
