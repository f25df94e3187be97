//! ABI tests of io_uring: one source, run against the kernel's ring and against ours.
//!
//! The kernel is the specification. A case is written against the kernel first and must pass there;
//! then the same function runs on soloring, unchanged. What two rings may answer differently
//! (because a completion races) is accepted as a set of values, never as "anything".
//!
//! Each case runs in a child process of its own (see [`runner`]): a crash, a hang or a leaked
//! descriptor stays in that case, cases may close descriptors and catch signals as they like, and
//! an alarm ends each of them.
//!
//! Layers, lower never imports higher:
//! [`res`] and [`trace`] (values, record) -> [`backend`] (two sides of one trait) -> [`ring`], [`sqe`],
//! [`sys`] (helpers) -> [`case`] (a case and its modes) -> [`families`] (the cases) -> [`runner`].
//! [`fuzz`] makes its cases up.

#[macro_use]
pub mod trace;
pub mod backend;
#[macro_use]
pub mod case;
pub mod families;
pub mod fuzz;
pub mod gaps;
pub mod matrix;
pub mod res;
pub mod ring;
pub mod runner;
pub mod sqe;
pub mod stress;
pub mod sys;
