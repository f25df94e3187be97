//! The proof that the lock is held, and the only way to the value inside.
#![allow(unsafe_code)]

use super::bias::SlotIndex;
use super::ctx::CtxLock;
use super::prims::{ValueAccess, note_held};
use super::token::ThreadToken;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// How a guard holds its lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By the mutex; the lock is not biased to anybody.
    Mutex,
    /// By the owner's biased path.
    BiasedOwner,
    /// By the mutex, the owner's path closed: a foreign locker.
    BiasedForeign,
    /// By the mutex, taken by the owner itself because its biased path was closed.
    OwnerMutex,
}

/// The mode with what the release needs to know. Small, so that a guard travels in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    Mutex,
    OwnerMutex,
    BiasedForeign,
    /// By the biased path, with this slot.
    Owner(SlotIndex),
    /// The same, and the slot says what becomes of the bias at the release.
    OwnerWithWish(SlotIndex),
}

/// Exclusive access to what is inside a [`CtxLock`]; releases it when dropped. Bound to its thread.
#[must_use = "the lock is released at once"]
pub struct Guard<'a, T> {
    lock: &'a CtxLock<T>,
    access: ManuallyDrop<ValueAccess<T>>,
    hold: Hold,
    /// Release must happen on the thread that acquired: `busy` has one writer.
    not_send: PhantomData<*mut ()>,
}

impl<'a, T> Guard<'a, T> {
    #[inline(always)]
    pub(crate) fn new(lock: &'a CtxLock<T>, hold: Hold, access: ValueAccess<T>) -> Self {
        note_held(1);
        Guard { lock, access: ManuallyDrop::new(access), hold, not_send: PhantomData }
    }

    /// How the lock is held.
    #[inline]
    pub fn mode(&self) -> Mode {
        match self.hold {
            Hold::Mutex => Mode::Mutex,
            Hold::OwnerMutex => Mode::OwnerMutex,
            Hold::BiasedForeign => Mode::BiasedForeign,
            Hold::Owner(_) | Hold::OwnerWithWish(_) => Mode::BiasedOwner,
        }
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
            Hold::Owner(slot) | Hold::OwnerWithWish(slot) => {
                self.lock.wish(slot, owner);
                Hold::OwnerWithWish(slot)
            }
            by_mutex => self.lock.rebias(by_mutex, owner),
        };
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: nobody uses the access after this. It ends before the lock is released, so at no
        // time two of them exist.
        unsafe { ManuallyDrop::drop(&mut self.access) };
        match self.hold {
            Hold::Owner(slot) => self.lock.leave_biased(slot),
            Hold::OwnerWithWish(slot) => self.lock.leave_with_wish(slot),
            by_mutex => self.lock.unlock_by_mutex(by_mutex),
        }
        note_held(-1);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held while the guard lives, so no other reference to the value exists
        // but those borrowed from this guard.
        unsafe { &*self.access.as_ptr(self.lock.cell()) }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the borrow of the guard is exclusive.
        unsafe { &mut *self.access.as_ptr(self.lock.cell()) }
    }
}
