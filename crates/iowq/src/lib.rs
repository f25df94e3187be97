//! Worker threads for requests that must block (io-wq): two classes with a limit each, hashed serialisation, interruption.

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
pub use work::{CancelOutcome, Class, Ticket, Work};
pub use wq::{Config, Stats, Wq};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod test_rig;
#[cfg(test)]
mod wq_tests;
