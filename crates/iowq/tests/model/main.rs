//! The pool's own sources under shuttle's scheduler.
//!
//! Threads, futexes, signals and timers are modelled, the rest is the real code.
//!
//! Checked in every schedule: each work gets exactly one callback; nothing sleeps for ever while
//! work could run; works with one hash run one at a time and in order; no more run than the limits
//! allow; a cancel reaches a work that blocks, however it falls between the work's steps; no system
//! call is interrupted by a signal meant for an earlier work; no thread is signalled after its end.
#![allow(dead_code, unsafe_code)]

mod affinity;
mod machine;
mod prims;
mod signal;
mod sys;
mod thread;

#[path = "../../src/interrupt.rs"]
mod interrupt;
#[path = "../../src/park.rs"]
mod park;
#[path = "../../src/state.rs"]
mod state;
#[path = "../../src/work.rs"]
mod work;
#[path = "../../src/worker.rs"]
mod worker;
#[path = "../../src/wq.rs"]
mod wq;

pub use interrupt::Interrupt;
pub use work::{CancelOutcome, Class, Ticket, Work};
pub use wq::{Config, Stats, Wq};

mod scenarios;
