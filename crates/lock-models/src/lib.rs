//! Model checking of the ring lock: its real source under loom, and the schemes tried before it.
//!
//! `real` includes the source files of `soloring-lock` over loom's atomics; `history` and `parking`
//! are small models of the schemes of the public discussion; `scenario` plays the situations that broke
//! them with each. `tso` is the lock's source over a
//! simulated x86, for what loom cannot know: that the heavy fence acts on the *owner's* store buffer. `soloring verify` prints the table.
// `real` and `tso` compile the lock's files once each, over different machines: that is the point.
#![allow(clippy::duplicate_mod)]

mod biased;
mod history;
pub mod lock_scenario;
mod machine;
mod parking;
pub mod real;
pub mod scenario;
pub mod scheme;
pub mod stress;
pub mod table;
mod task;
pub mod trace;
mod tso;
pub mod tso_scenario;
