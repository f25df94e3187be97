//! The name of a thread: a number that is never used twice in the life of a process.

use std::num::NonZeroU64;

/// Names one thread of this process. Thread ids of the kernel are reused, these numbers are not, so
/// a lock that remembers a thread that has exited can never mistake another one for it.
/// After `fork` the only thread of the child has the number of the thread that forked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadToken(NonZeroU64);

impl ThreadToken {
    /// Numbers must stay below this: the lock words keep them beside two flag bits.
    pub const LIMIT: u64 = 1 << 62;

    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// The number itself, for messages and logs.
    #[inline]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}
