//! An ordinary io_uring program: copies a file, serves a TCP echo, runs timers and cancellations.
//!
//! It is written against the `io-uring` crate as any program is and knows nothing of who serves its
//! ring. It checks every result itself, because a demo that cannot fail shows nothing.

mod copy;
mod echo_client;
mod echo_server;
mod part;
mod pattern;
mod queue;
mod timers;

use std::io;
use std::path::PathBuf;

pub use part::Part;

/// How much work to do. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the two files of the copy; both are removed before [`run`] returns.
    pub dir: PathBuf,
    pub copy_bytes: u64,
    pub connections: u32,
    pub round_trips: u32,
    pub timers: u32,
}

/// Opens a ring and closes it again: what a program does first, and where it stops if it is refused.
pub fn open_a_ring() -> io::Result<()> {
    io_uring::IoUring::new(8).map(drop)
}

/// Does all parts in turn and hands each to `report` as it ends.
///
/// # Errors
/// The first operation that failed, or a result that differs from what was sent or asked for.
pub fn run(options: &Options, mut report: impl FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    report(copy::run(&options.dir, options.copy_bytes)?)?;
    report(echo_client::run(options.connections, options.round_trips)?)?;
    report(timers::run(options.timers)?)
}
