//! The name of a thread: a number that is never used twice in the life of a process.

use std::num::NonZeroU64;

/// Names one thread of this process. Thread ids of the kernel are reused, these numbers are not, so
/// a lock that remembers a thread that has exited can never mistake another one for it.
/// After `fork` the only thread of the child has the number of the thread that forked.
///
/// Kept shifted, with the low `SHIFT` bits free: the lock words put flags there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadToken(NonZeroU64);

impl ThreadToken {
    /// How many low bits of [`ThreadToken::bits`] are always 0.
    pub(crate) const SHIFT: u32 = 8;

    /// The token with this number; `None`: 0, which is nobody's.
    #[inline]
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        debug_assert!(number >> (64 - Self::SHIFT) == 0);
        NonZeroU64::new(number << Self::SHIFT).map(Self)
    }

    /// The token with these bits; `None`: 0, which is nobody's.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// For lock words.
    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0.get()
    }

    /// The number, for messages and logs.
    #[inline]
    pub fn get(self) -> u64 {
        self.0.get() >> Self::SHIFT
    }
}
