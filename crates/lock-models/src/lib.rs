//! Model checking of the ring lock: its real source under loom, and the schemes tried before it.
//!
//! `real` includes the source files of `soloring-lock` over loom's atomics; `history` and `parking`
//! are small models of the schemes of the public discussion; `scenario` plays the situations that broke
//! them with each. `soloring verify` prints the table.

mod biased;
mod history;
pub mod lock_scenario;
mod parking;
pub mod real;
pub mod scenario;
pub mod scheme;
pub mod table;
mod task;
pub mod trace;
