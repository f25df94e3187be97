//! The ways of holding the lock, and the answer to those who hold it already.

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

impl Hold {
    /// What a guard says of it.
    #[inline]
    pub(crate) fn mode(self) -> Mode {
        match self {
            Hold::Unbiased => Mode::Mutex,
            Hold::OwnerMutex => Mode::OwnerMutex,
            Hold::Foreign => Mode::BiasedForeign,
            _ => Mode::BiasedOwner,
        }
    }
}

/// The calling thread is inside this lock already: a signal handler has interrupted the holder.
/// The caller must not wait (for itself); a ring answers -EBUSY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reentered;

impl std::fmt::Display for Reentered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this thread holds the ring lock already")
    }
}

impl std::error::Error for Reentered {}
