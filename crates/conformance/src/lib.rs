//! The liburing test suite as a judge of soloring: fetched, built, run unmodified, compared with the kernel.
//!
//! The flow is `source` (the suite's sources out of the package registry) -> `suite` (configure and
//! compile, cached) -> `runner` (one test in its own directory and process group) -> `verdict`;
//! `kernel` and `lists` hold what the verdicts are compared with, `judge` says what follows, `report` prints them.
//! `tests/liburing.rs` makes each test of the suite a named test of `cargo test`; the binary
//! `conformance` prints the table test / kernel / ours.

pub mod judge;
pub mod kernel;
pub mod leftovers;
pub mod lists;
pub mod place;
pub mod report;
pub mod runner;
pub mod schedule;
pub mod source;
pub mod suite;
pub mod verdict;
