//! The proof that the lock is held, and the only way to the value inside.
#![allow(unsafe_code)]

use super::bias::SlotIndex;
use super::ctx::CtxLock;
use super::prims::{ValueAccess, note_held};
use super::slot::Entered;
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

/// How the lock is to be released. One byte: what out-of-line code returns must not make the inlined
/// owner's path keep its guard in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// By the mutex; nobody owns the lock.
    Unbiased,
    /// By the mutex; the owner holds it, its path closed.
    OwnerMutex,
    /// By the mutex; a foreign locker holds it, the owner's path closed.
    Foreign,
    /// By the biased path, with the first slot.
    First,
    /// By the biased path, with the second slot.
    Second,
    /// As `First`, and the slot says what becomes of the bias at the release.
    FirstWithWish,
    /// As `Second`, the same.
    SecondWithWish,
}

/// Exclusive access to what is inside a [`CtxLock`]; releases it when dropped. Bound to its thread.
#[must_use = "the lock is released at once"]
pub struct Guard<'a, T> {
    lock: &'a CtxLock<T>,
    /// Of a hold by the biased path.
    entered: Entered,
    access: ManuallyDrop<ValueAccess<T>>,
    hold: Hold,
    /// Release must happen on the thread that acquired: `busy` has one writer.
    not_send: PhantomData<*mut ()>,
}

impl<'a, T> Guard<'a, T> {
    #[inline(always)]
    pub(crate) fn new(
        lock: &'a CtxLock<T>,
        hold: Hold,
        entered: Entered,
        access: ValueAccess<T>,
    ) -> Self {
        note_held(1);
        let access = ManuallyDrop::new(access);
        Guard { lock, entered, access, hold, not_send: PhantomData }
    }

    /// How the lock is held.
    #[inline]
    pub fn mode(&self) -> Mode {
        match self.hold {
            Hold::Unbiased => Mode::Mutex,
            Hold::OwnerMutex => Mode::OwnerMutex,
            Hold::Foreign => Mode::BiasedForeign,
            _ => Mode::BiasedOwner,
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

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
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
