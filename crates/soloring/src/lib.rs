//! io_uring in user space: the kernel's ABI, carried out in your own process with ordinary system calls.
//!
//! For programs that need io_uring where the kernel refuses it (container profiles,
//! `kernel.io_uring_disabled`, kernels without it), and for those that must look inside a ring. x86-64 Linux.
//!
//! There are three ways to use it, from the least change to the most:
//!
//! - **No change**: `soloring run -- PROGRAM` runs an unmodified binary.
//! - **One line**: [`install`] catches the io_uring calls of the running process, whoever makes them: the
//!   `io-uring` crate, tokio-uring, monoio, liburing.
//! - **Directly**: [`Ring`] is a ring of ours with a Rust interface, [`raw`] the three calls themselves. Nothing
//!   has to be caught, so nothing is installed and a call costs what a function call costs.
//!
//! ```
//! use soloring::{Ring, entry};
//! use std::os::fd::AsRawFd;
//!
//! let file = std::fs::File::open("/proc/self/status")?;
//! let mut ring = Ring::builder().single_issuer().defer_taskrun().build(8)?;
//! let mut text = vec![0u8; 4096];
//! let read = entry::read(file.as_raw_fd(), text.as_mut_ptr(), 4096, 0).user_data(7);
//! // SAFETY: `text` stays where it is until the completion has been taken, below.
//! unsafe { ring.push(read)? };
//! ring.submit_and_wait(1)?;
//! let done = ring.completions().next().expect("one was waited for");
//! assert_eq!(done.user_data, 7);
//! text.truncate(done.result()? as usize);
//! assert!(text.starts_with(b"Name:"));
//! # std::io::Result::Ok(())
//! ```
//!
//! What works and what does not is asked with [`Ring::supports`], or `soloring probe` on the command line.

mod builder;
mod completion;
pub mod entry;
mod memory;
pub mod raw;
mod ring;

pub use builder::Builder;
pub use completion::{Completion, Completions};
pub use entry::Entry;
pub use ring::{Full, Ring};
pub use soloring_abi::Opcode;
pub use soloring_engine::uapi::{Inspection, Place, Queue, Request};
pub use soloring_intercept::{InstallError, Installed, install};
pub use soloring_lock::{LockMode, LockStats};

/// Operations that this process's rings have taken in so far. A program that must not fall back silently asserts that
/// this grows.
pub fn op_count() -> u64 {
    soloring_engine::uapi::op_count()
}

/// Promises that this program calls [`announce_close`] before it closes or replaces a descriptor that a request may wait
/// on, in whatever way it does. Then a request that waits needs no duplicate of its file: up to three system calls
/// less for each. Under `soloring run` closes are seen without this.
///
/// A close that is not announced all the same may leave the requests that wait on the descriptor waiting for ever.
pub fn announce_closes(yes: bool) {
    soloring_engine::uapi::set_close_notified(yes);
}

/// `fd` is about to be closed, or to name another file (dup2): requests that wait on it keep their file, as they do
/// with the kernel's ring. One load when none does. See [`announce_closes`].
pub fn announce_close(fd: std::os::fd::RawFd) {
    soloring_engine::uapi::note_close(fd);
}

/// Looks into the ring behind a descriptor of this process from any thread, whoever made it and whoever submits to it.
/// [`Inspection`] prints itself in the words of the kernel's `/proc/PID/fdinfo`.
///
/// # Errors
/// EBADF when `fd` is no ring of ours; EBUSY from a signal handler that interrupted this very ring.
///
/// ```
/// use soloring::{Place, Ring, entry};
/// use std::os::fd::AsRawFd;
///
/// let (reader, _writer) = std::io::pipe()?;
/// let mut ring = Ring::builder().single_issuer().defer_taskrun().build(8)?;
/// let mut byte = 0u8;
/// // SAFETY: nobody writes to the pipe before the ring is gone.
/// unsafe { ring.push(entry::read(reader.as_raw_fd(), &raw mut byte, 1, 0).user_data(9))? };
/// ring.submit()?;
/// let fd = ring.as_raw_fd();
/// let seen = std::thread::spawn(move || soloring::inspect(fd)).join().unwrap()?;
/// assert_eq!((seen.requests[0].user_data, seen.requests[0].place), (9, Place::Armed));
/// print!("{seen}");
/// # std::io::Result::Ok(())
/// ```
pub fn inspect(fd: std::os::fd::RawFd) -> std::io::Result<Inspection> {
    match soloring_engine::uapi::inspect(fd) {
        Some(Ok(seen)) => Ok(seen),
        Some(Err(e)) => Err(std::io::Error::from_raw_os_error(-e.neg())),
        None => Err(std::io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// Lock statistics, summed over all rings that this process had. `None` before the first ring. Those of one ring are in
/// its [`Inspection`].
///
/// ```
/// use soloring::{LockMode, Ring, entry};
///
/// let mut ring = Ring::builder().single_issuer().defer_taskrun().build(8)?;
/// for _ in 0..10 {
///     // SAFETY: a NOP names no memory.
///     unsafe { ring.push(entry::nop())? };
///     ring.submit_and_wait(1)?;
///     assert_eq!(ring.completions().count(), 1);
/// }
/// let lock = soloring::lock_stats().expect("there is a ring");
/// println!("by the submitter: {} without taking the lock, {} with", lock.owner_elided, lock.owner_taken);
/// println!("by others: {}, of them {} with a heavy fence", lock.foreign, lock.heavy_fences);
/// println!("the bias was given up {} times, {} ns were waited", lock.revocations, lock.waited_ns);
/// // One a call at least; and none of them took the lock, unless the process must do without membarrier.
/// assert!(lock.acquisitions() >= 10);
/// assert!(lock.mode != LockMode::Biased || lock.owner_elided >= 10);
/// # std::io::Result::Ok(())
/// ```
pub fn lock_stats() -> Option<LockStats> {
    soloring_engine::uapi::lock_stats()
}

/// To be called before sleeping in poll(2), select(2) or epoll_wait(2) on a ring's descriptor when nothing is
/// installed: makes descriptors not ready whose completions were taken meanwhile. See [`Ring::pollable_fd`].
pub fn refresh_readiness() {
    soloring_engine::uapi::refresh_readiness();
}
