//! Worker threads for requests that must block (io-wq).
//!
//! A [`Wq`] belongs to one ring, or is shared by several through its `Arc`. It costs no thread until
//! work is queued. The engine hands it boxed [`Work`]; a worker runs it and enqueues a completion.
//!
//! # What the program can observe, and where it comes from
//!
//! | | here | Linux 6.18 |
//! |---|---|---|
//! | classes and default limits | bounded min(SQ entries, 4 per CPU), unbounded RLIMIT_NPROC | the same, but taken by a thread's first ring for all its rings |
//! | what a limit counts | works that run | threads, idle ones included |
//! | MAX_WORKERS: 0, above RLIMIT_NPROC | unchanged, RLIMIT_NPROC | the same |
//! | affinity: default, CPUs that the machine cannot have, empty mask | the creating thread's, ignored, accepted | the same |
//! | affinity: workers that exist | bound at once | as they were, until idle |
//! | affinity: a CPU outside the cpuset | EINVAL | EINVAL |
//! | idle workers | all leave after 5 s | all but one leave after 5 s |
//! | one hash | one at a time, in order | the same |
//! | thread name | `iou-wrk-PID` | `iou-wrk-TID` of the thread that submitted |
//! | no thread to be had | what runs goes on; with no worker at all, `Work::failed` gets the errno | the request ends with -ECANCELED |
//! | forked child | empty pool, same limits, no affinity | the same |
//!
//! # What a worker must not do to the program
//!
//! It runs none of its signal handlers: every signal is blocked from the thread's first instruction,
//! but the one reserved for interruption (`signal.rs` says which, and what happens when the program
//! wants it), SIGSYS, and glibc's own two. It writes no errno of the program's threads. It never
//! holds up `setuid` or `fork`.
//!
//! # Cancellation
//!
//! Queued work is taken out and its [`Work::cancelled`] called by the canceller. Running work is
//! marked and its thread signalled until it asks [`Interrupt::cancelled`] or ends; the canceller
//! does not wait. A work sees -EINTR only with `cancelled()` true, or for a reason outside this
//! library (a debugger, a stop and continue): then it repeats the call.
//!
//! What is not interrupted: disk sleeps, as everywhere; and work that runs while the program takes
//! the reserved signal for itself. With RLIMIT_SIGPENDING used up it is interrupted late.
//!
//! # Contracts
//!
//! - [`Wq::enqueue`], [`Wq::cancel`] and [`Wq::shutdown`] wait for nothing but a mutex that is held
//!   for some hundred nanoseconds; [`Wq::queue`] and [`Wq::kick`] at times also for the creation of
//!   one thread. They may be called with the ring's lock held; `kick` is better called after it.
//! - No lock of the pool is held while a work or a callback runs.
//! - They must not be entered from a signal handler that interrupted one of them on the same thread
//!   and pool: the mutex is not re-entrant. The engine answers -EBUSY before it comes to that.
//! - After a fork, [`Wq::reset_after_fork`] comes before anything else in the child.
//! - Threads that have left the common descriptor table (`unshare(CLONE_FILES)`) are not served
//!   properly: a worker sees the table of the thread that created it.

mod affinity;
mod interrupt;
mod park;
mod prims;
mod signal;
mod state;
mod sys;
mod thread;
mod work;
mod worker;
mod wq;

pub use interrupt::Interrupt;
pub use signal::{current as interrupt_signal_in_use, reserve as interrupt_signal};
pub use work::{CancelOutcome, Class, Ticket, Work};
pub use wq::{Config, Stats, Wq};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod test_rig;
#[cfg(test)]
mod wq_tests;
