//! What a lock costs: uncontended by its owner, and taken by a foreign thread from a busy owner.
//!
//! Measured by `soloring bench` and by `cargo bench -p soloring-lock`. The rows of one run were measured in
//! turns, so their ratios are comparable; the absolute numbers are the machine's.

mod alone;
mod busy;
mod figures;
mod subject;

pub use figures::{Alone, Busy, Figures};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of the uncontended loops, each of which takes about two milliseconds.
    pub rounds: u32,
    /// Visits of a foreign thread to each busy lock, about 160 microseconds each.
    pub visits: u32,
}

impl Scale {
    /// Six seconds in all.
    pub const FULL: Scale = Scale { rounds: 201, visits: 8_000 };
    /// One second in all.
    pub const QUICK: Scale = Scale { rounds: 41, visits: 1_000 };
}

/// Measures everything, with the calling thread as the owner of the uncontended locks.
///
/// # Errors
/// In words: a lock cannot be biased here (`SOLORING_LOCK=mutex`, or the kernel refuses membarrier).
pub fn measure(scale: Scale) -> Result<Figures, String> {
    Ok(Figures {
        alone: alone::measure(scale.rounds)?,
        busy: busy::measure(scale.visits),
        clock_ns: busy::clock_ns(),
    })
}
