//! The proof that the lock is held, and the only way to the value inside.
#![allow(unsafe_code)]

use super::bias::SlotIndex;
use super::hold::{Hold, Mode};
use super::prims::{ValueAccess, ValueCell, note_held};
use super::raw::RawLock;
use super::slot::Entered;
use super::token::ThreadToken;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// Exclusive access to what is inside a `CtxLock`; releases it when dropped. Bound to its thread.
#[must_use = "the lock is released at once"]
pub struct Guard<'a, T> {
    lock: &'a RawLock,
    cell: &'a ValueCell<T>,
    /// Of a hold by the biased path.
    entered: Entered,
    access: ManuallyDrop<ValueAccess<T>>,
    hold: Hold,
    /// Release must happen on the thread that acquired: `busy` has one writer.
    not_send: PhantomData<*mut ()>,
}

impl<'a, T> Guard<'a, T> {
    /// The caller has just acquired `lock`, as `hold` says, and `cell` is what it guards.
    #[inline(always)]
    pub(crate) fn new(
        lock: &'a RawLock,
        cell: &'a ValueCell<T>,
        hold: Hold,
        entered: Entered,
    ) -> Self {
        note_held(1);
        let access = ManuallyDrop::new(cell.access());
        Guard { lock, cell, entered, access, hold, not_send: PhantomData }
    }

    /// How the lock is held.
    #[inline]
    pub fn mode(&self) -> Mode {
        self.hold.mode()
    }

    /// Records `owner` as the lock's owner: from the release of this guard on, its acquisitions take
    /// the biased path. A guard that is itself [`Mode::BiasedOwner`] hands over at its release.
    /// The lock stays a mutex (and `owner` is recorded for the statistics only) when it is
    /// forced to be one, without `membarrier`, or when two other threads have been its owners
    /// already.
    pub fn bias_to(&mut self, owner: ThreadToken) {
        self.change_owner(Some(owner));
    }

    /// Forgets the owner: from the release of this guard on the lock is a mutex.
    pub fn unbias(&mut self) {
        self.change_owner(None);
    }

    /// The bias word is the mutex holder's to write, and an owner inside by the biased path must not
    /// wait for the mutex: its release does it, just after leaving.
    fn change_owner(&mut self, owner: Option<ThreadToken>) {
        self.hold = match self.hold {
            Hold::First | Hold::FirstWithWish => {
                self.lock.wish(SlotIndex::First, owner);
                Hold::FirstWithWish
            }
            Hold::Second | Hold::SecondWithWish => {
                self.lock.wish(SlotIndex::Second, owner);
                Hold::SecondWithWish
            }
            by_mutex => self.lock.rebias(by_mutex, owner),
        };
    }
}

impl<T> Guard<'_, T> {
    /// Releases the lock, as dropping the guard does; in line, where that is not.
    #[inline(always)]
    pub fn unlock(self) {
        ManuallyDrop::new(self).release();
    }

    /// Once, and last.
    #[inline(always)]
    fn release(&mut self) {
        // SAFETY: nobody uses the access after this. It ends before the lock is released, so at no
        // time two of them exist.
        unsafe { ManuallyDrop::drop(&mut self.access) };
        if self.hold == Hold::First {
            self.lock.leave_first(self.entered);
        } else {
            self.lock.unlock_otherwise(self.hold, self.entered);
        }
        note_held(-1);
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held while the guard lives, so no other reference to the value exists
        // but those borrowed from this guard.
        unsafe { &*self.access.as_ptr(self.cell) }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the borrow of the guard is exclusive.
        unsafe { &mut *self.access.as_ptr(self.cell) }
    }
}
