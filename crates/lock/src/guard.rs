//! The proof that the lock is held, and the only way to the value inside.
#![allow(unsafe_code)]

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

/// A change of owner that was asked for by a guard which does not hold the mutex.
enum Wish {
    None,
    Bias(ThreadToken),
    Unbias,
}

/// Exclusive access to what is inside a [`CtxLock`]; releases it when dropped. Bound to its thread.
pub struct Guard<'a, T> {
    lock: &'a CtxLock<T>,
    value: ManuallyDrop<ValueAccess<T>>,
    mode: Mode,
    slot: usize,
    wish: Wish,
    /// Release must happen on the thread that acquired: `busy` has one writer.
    not_send: PhantomData<*mut ()>,
}

impl<'a, T> Guard<'a, T> {
    #[inline(always)]
    pub(crate) fn new(
        lock: &'a CtxLock<T>,
        mode: Mode,
        slot: usize,
        value: ValueAccess<T>,
    ) -> Self {
        note_held(1);
        Guard {
            lock,
            value: ManuallyDrop::new(value),
            mode,
            slot,
            wish: Wish::None,
            not_send: PhantomData,
        }
    }

    /// How the lock is held.
    #[inline]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Records `owner` as the lock's owner: from the release of this guard on, its acquisitions take
    /// the biased path. A guard that is itself [`Mode::BiasedOwner`] hands over at its release.
    /// The lock stays a mutex (and `owner` is recorded for the statistics only) when it is
    /// forced to be one, without `membarrier`, or when two other threads have been its owners
    /// already.
    pub fn bias_to(&mut self, owner: ThreadToken) {
        if self.mode == Mode::BiasedOwner {
            self.wish =
                if self.lock.owner() == Some(owner) { Wish::None } else { Wish::Bias(owner) };
        } else {
            self.mode = self.lock.rebias(self.mode, Some(owner));
        }
    }

    /// Forgets the owner: from the release of this guard on the lock is a mutex.
    pub fn unbias(&mut self) {
        if self.mode == Mode::BiasedOwner {
            self.wish = Wish::Unbias;
        } else {
            self.mode = self.lock.rebias(self.mode, None);
        }
    }

    #[inline(always)]
    fn release(&mut self) {
        // SAFETY: called once, by `drop`; nobody uses the access afterwards. It ends before the
        // lock is released, so at no time two of them exist.
        unsafe { ManuallyDrop::drop(&mut self.value) };
        self.lock.unlock(self.mode, self.slot);
        note_held(-1);
    }

    /// The owner's own change of owner: the bias word is the mutex holder's to write, and the owner
    /// must not wait for the mutex while it is inside. So it does so just after.
    #[cold]
    fn fulfil_wish(&mut self) {
        let owner = match self.wish {
            Wish::None => return,
            Wish::Bias(owner) => Some(owner),
            Wish::Unbias => None,
        };
        self.lock.rebias_from_outside(owner);
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.release();
        if !matches!(self.wish, Wish::None) {
            self.fulfil_wish();
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held while the guard lives, so no other reference to the value exists
        // but those borrowed from this guard.
        unsafe { &*self.value.as_ptr() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the borrow of the guard is exclusive.
        unsafe { &mut *self.value.as_ptr() }
    }
}
