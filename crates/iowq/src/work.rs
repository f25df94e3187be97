//! What the pool runs, and how it names a piece of work.

use crate::interrupt::Interrupt;

/// The two sorts of work, with a limit each. The numbers are the indices of
/// IORING_REGISTER_IOWQ_MAX_WORKERS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Ends in bounded time: regular files and block devices.
    Bounded = 0,
    /// May block for ever: sockets, pipes, terminals, waits.
    Unbounded = 1,
}

/// One punted request. The pool calls exactly one of the three, once.
///
/// None is called with a lock of the pool held, so each may call back into it. `cancelled` and
/// `failed` may run on the thread that is inside [`crate::Wq::cancel`], [`crate::Wq::queue`], [`crate::Wq::kick`] or
/// [`crate::Wq::shutdown`], with whatever locks that thread holds: they must do no more than
/// enqueue a completion.
pub trait Work: Send {
    /// Runs on a worker and may block. When a system call of it returns -EINTR it asks
    /// `interrupt.cancelled()`: if false it makes the call again, if true it completes as
    /// cancelled.
    fn run(self: Box<Self>, interrupt: &Interrupt);

    /// Cancelled before it ran.
    fn cancelled(self: Box<Self>);

    /// Never ran, and will not: no worker could be created (`errno`, mostly EAGAIN) and none was
    /// there.
    fn failed(self: Box<Self>, errno: i32);
}

/// Names one queued work of one pool. Never used again, short of 2^32 works through one slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(pub(crate) u64);

impl Ticket {
    /// Names nothing: what `queue` gives once the pool has been shut down.
    pub const NONE: Self = Self(0);

    /// For the engine to keep in a request without a wrapper.
    pub fn into_raw(self) -> u64 {
        self.0
    }

    /// The inverse of [`Ticket::into_raw`]; any other number is answered with NotFound.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// What [`crate::Wq::cancel`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CancelOutcome {
    /// It was still queued; its `cancelled` has been called, on this thread.
    Removed,
    /// A worker has it. It is interrupted until it ends or asks [`Interrupt::cancelled`].
    Running,
    /// It has ended, or never was; or another thread, in `shutdown` or with no worker to be had, is
    /// about to call its `cancelled` or `failed`.
    NotFound,
}
