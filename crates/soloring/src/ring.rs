//! A ring of ours with a Rust interface, in the spirit of the `io-uring` crate.
#![allow(unsafe_code)]

use crate::builder::Builder;
use crate::completion::Completions;
use crate::entry::Entry;
use crate::memory::Memory;
use soloring_abi::{GeteventsArg, Opcode, Params, Timespec, raw};
use soloring_engine::uapi::{self, Inspection};
use std::ffi::c_void;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use raw::io_uring_register_op as register_op;

/// The submission queue is full: submit, then push again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the submission queue is full")
    }
}

impl std::error::Error for Full {}

impl From<Full> for io::Error {
    fn from(full: Full) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, full)
    }
}

/// A ring in this process: submission queue, completion queue, and what is in flight.
///
/// Dropping it closes the ring, which cancels what is in flight. It does not wait: a worker that is inside a
/// system call by then may still finish it, so the memory of such a request must outlive the call, too. Wait for
/// completions before you free buffers.
pub struct Ring {
    memory: Memory,
    fd: RawFd,
    /// Position behind the last entry pushed.
    tail: u32,
    sqpoll: bool,
}

impl Builder {
    /// Makes a ring of `entries` submission entries, rounded up to a power of two.
    ///
    /// # Errors
    /// What io_uring_setup(2) answers: EINVAL for flags or sizes that are refused, EMFILE, ENOMEM.
    pub fn build(&self, entries: u32) -> io::Result<Ring> {
        let mut params = Params {
            flags: self.flags,
            cq_entries: self.cq_entries,
            sq_thread_idle: self.sq_idle_ms,
            wq_fd: self.attach.unwrap_or(0) as u32,
            ..blank_params()
        };
        // SAFETY: `params` is a local, and no flag that a builder can set makes it name other memory.
        let fd = check(unsafe { uapi::io_uring_setup(entries, &raw mut params) })? as RawFd;
        match Memory::map(fd, &params) {
            Ok(memory) => {
                let sqpoll = params.flags & raw::IORING_SETUP_SQPOLL != 0;
                Ok(Ring { memory, fd, tail: 0, sqpoll })
            }
            Err(e) => {
                uapi::ring_close(fd);
                Err(e)
            }
        }
    }
}

fn blank_params() -> Params {
    // SAFETY: a record of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn check(result: isize) -> io::Result<u32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result as u32) }
}

impl Ring {
    /// A ring without flags, of `entries` submission entries.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(entries: u32) -> io::Result<Ring> {
        Ring::builder().build(entries)
    }

    /// A ring with flags.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The ring at this moment: queues, requests in flight, lock statistics. For other threads there is
    /// [`crate::inspect`].
    pub fn inspect(&self) -> Inspection {
        let seen = uapi::inspect(self.fd).and_then(Result::ok);
        seen.expect("the ring is open, and nothing of it runs on this thread")
    }

    /// Entries that can be pushed before the next submission.
    pub fn space(&self) -> u32 {
        self.memory.sq_entries() - self.queued()
    }

    /// Entries that were pushed and not consumed yet.
    pub fn queued(&self) -> u32 {
        self.tail.wrapping_sub(self.memory.sq_head())
    }

    /// Puts an entry on the submission queue. Nothing happens to it before one of the calls that submit (with SQPOLL
    /// too: they also make it visible to the thread that submits).
    ///
    /// # Errors
    /// [`Full`].
    ///
    /// # Safety
    /// What the entry points to must be valid for what the operation does with it, and stay so
    /// - until the request's (last) completion has been taken, for memory that data is read from or written to;
    /// - until the entry has been consumed by a submission, for what is copied then: paths, socket addresses,
    ///   timespecs, vectors and message headers. With SQPOLL that is when [`Ring::queued`] is 0.
    ///
    /// Descriptors may be closed once the entry has been consumed. Dropping the ring does not shorten any of this.
    pub unsafe fn push(&mut self, entry: impl Into<Entry>) -> Result<(), Full> {
        if self.space() == 0 {
            return Err(Full);
        }
        self.memory.write_entry(self.tail, entry.into().0);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Submits everything that was pushed. Returns how many entries were consumed.
    ///
    /// # Errors
    /// What io_uring_enter(2) answers: EBADFD on a disabled ring, EEXIST for a thread that is not the submitter.
    pub fn submit(&mut self) -> io::Result<usize> {
        self.enter(0, None)
    }

    /// Submits everything, and waits until `want` completions are there, taken or not.
    ///
    /// # Errors
    /// As [`Ring::submit`]; EINTR when a signal handler ran.
    pub fn submit_and_wait(&mut self, want: u32) -> io::Result<usize> {
        self.enter(want, None)
    }

    /// As [`Ring::submit_and_wait`], for at most `limit`.
    ///
    /// # Errors
    /// As [`Ring::submit_and_wait`]; `TimedOut` when nothing was submitted and the time passed without a completion.
    pub fn wait_timeout(&mut self, want: u32, limit: Duration) -> io::Result<usize> {
        self.enter(want, Some(limit))
    }

    fn enter(&mut self, want: u32, limit: Option<Duration>) -> io::Result<usize> {
        self.memory.set_sq_tail(self.tail);
        let queued = self.queued();
        let mut flags = 0;
        if want > 0 || limit.is_some() {
            flags |= raw::IORING_ENTER_GETEVENTS;
        }
        if self.sqpoll {
            // SeqCst: pairs with the submitting thread's, between its NEED_WAKEUP and its last look at the tail.
            fence(Ordering::SeqCst);
            if self.memory.sq_flags() & raw::IORING_SQ_NEED_WAKEUP != 0 {
                flags |= raw::IORING_ENTER_SQ_WAKEUP;
            }
        }
        // Overflowed completions come back, and deferred work runs, only when asked for.
        let waiting = raw::IORING_SQ_CQ_OVERFLOW | raw::IORING_SQ_TASKRUN;
        if self.memory.sq_flags() & waiting != 0 {
            flags |= raw::IORING_ENTER_GETEVENTS;
        }
        if flags == 0 && (self.sqpoll || queued == 0) {
            return Ok(queued as usize);
        }
        let result = match limit {
            None => self.call(queued, want, flags, std::ptr::null(), 0),
            Some(limit) => {
                let ts = Timespec {
                    tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(limit.subsec_nanos()),
                };
                let arg = GeteventsArg {
                    sigmask: 0,
                    sigmask_sz: 0,
                    min_wait_usec: 0,
                    ts: &raw const ts as u64,
                };
                let flags = flags | raw::IORING_ENTER_EXT_ARG;
                self.call(queued, want, flags, (&raw const arg).cast(), size_of_val(&arg))
            }
        };
        match result {
            Ok(n) => Ok(n as usize),
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => Err(io::ErrorKind::TimedOut.into()),
            Err(e) => Err(e),
        }
    }

    fn call(
        &self,
        submit: u32,
        want: u32,
        flags: u32,
        arg: *const c_void,
        size: usize,
    ) -> io::Result<u32> {
        // SAFETY: whoever pushed the entries vouched for them; the argument is a local of `enter`.
        check(unsafe { uapi::io_uring_enter(self.fd as u32, submit, want, flags, arg, size) })
    }

    /// The completions that are there. On a DEFER_TASKRUN ring they are made inside the calls that wait.
    pub fn completions(&mut self) -> Completions<'_> {
        Completions::new(&mut self.memory)
    }

    /// Runs what is due and brings overflowed completions back, without waiting.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn get_events(&mut self) -> io::Result<()> {
        self.call(0, 0, raw::IORING_ENTER_GETEVENTS, std::ptr::null(), 0).map(drop)
    }

    /// Whether the operation is carried out here.
    pub fn supports(&self, op: Opcode) -> bool {
        // struct io_uring_probe: 16 bytes, then 8 for each operation, the flags in its bytes 2 and 3.
        let mut probe = [0u64; 2 + 256];
        let at = probe.as_mut_ptr().cast();
        let nr = op as u32 + 1;
        if self.register(register_op::IORING_REGISTER_PROBE, at, nr).is_err() {
            return false;
        }
        let flags = (probe[2 + op as usize] >> 16) as u16;
        u32::from(flags) & raw::IO_URING_OP_SUPPORTED != 0
    }

    fn register(&self, op: register_op, arg: *mut c_void, nr: u32) -> io::Result<u32> {
        // SAFETY: each caller below passes an argument of `op`'s shape with `nr` elements; buffers are the
        // business of `register_buffers`.
        check(unsafe { uapi::io_uring_register(self.fd as u32, op as u32, arg, nr) })
    }

    /// Enables a ring that was made `disabled()`; on a SINGLE_ISSUER ring the caller becomes the submitter.
    ///
    /// # Errors
    /// EBADFD when it is enabled already.
    pub fn enable(&self) -> io::Result<()> {
        self.register(register_op::IORING_REGISTER_ENABLE_RINGS, std::ptr::null_mut(), 0).map(drop)
    }

    /// Registers files, to be named by their index with [`Entry::fixed_file`]; -1 leaves a slot empty. The ring has
    /// duplicates of its own: the descriptors may be closed.
    ///
    /// # Errors
    /// EBUSY when files are registered already, EBADF, EMFILE.
    pub fn register_files(&self, files: &[RawFd]) -> io::Result<()> {
        let at = files.as_ptr().cast_mut().cast();
        self.register(register_op::IORING_REGISTER_FILES, at, files.len() as u32).map(drop)
    }

    /// # Errors
    /// ENXIO when no files are registered.
    pub fn unregister_files(&self) -> io::Result<()> {
        let op = register_op::IORING_UNREGISTER_FILES;
        self.register(op, std::ptr::null_mut(), 0).map(drop)
    }

    /// Registers buffers for [`crate::entry::read_fixed`] and [`crate::entry::write_fixed`].
    ///
    /// # Errors
    /// EBUSY when buffers are registered already, EFAULT, EINVAL.
    ///
    /// # Safety
    /// The buffers stay valid, and nothing else uses them while a request does, until they are unregistered or the
    /// ring is dropped, and every request that names them has completed.
    pub unsafe fn register_buffers(&self, buffers: &[IoSliceMut<'_>]) -> io::Result<()> {
        // `IoSliceMut` has the layout of `struct iovec`.
        let at = buffers.as_ptr().cast_mut().cast();
        self.register(register_op::IORING_REGISTER_BUFFERS, at, buffers.len() as u32).map(drop)
    }

    /// # Errors
    /// ENXIO when no buffers are registered.
    pub fn unregister_buffers(&self) -> io::Result<()> {
        let op = register_op::IORING_UNREGISTER_BUFFERS;
        self.register(op, std::ptr::null_mut(), 0).map(drop)
    }

    /// Has an eventfd signalled for completions.
    ///
    /// # Errors
    /// EBUSY when one is registered already, EINVAL when it is no eventfd, EBADF.
    pub fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        let mut fd = eventfd;
        let at = (&raw mut fd).cast();
        self.register(register_op::IORING_REGISTER_EVENTFD, at, 1).map(drop)
    }

    /// # Errors
    /// ENXIO when none is registered.
    pub fn unregister_eventfd(&self) -> io::Result<()> {
        let op = register_op::IORING_UNREGISTER_EVENTFD;
        self.register(op, std::ptr::null_mut(), 0).map(drop)
    }

    /// The ring's descriptor for poll(2) and epoll(7): from now on it is kept readable while completions wait.
    ///
    /// What was taken meanwhile leaves it readable until the ring is entered, or [`crate::refresh_readiness`] is
    /// called: do that before sleeping. (Under [`crate::install`] or `soloring run` it happens by itself.)
    pub fn pollable_fd(&self) -> RawFd {
        uapi::note_polled(self.fd);
        self.fd
    }
}

impl AsRawFd for Ring {
    /// The ring's descriptor, for the calls of [`crate::raw`]. Do not read, write or close it.
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        uapi::ring_close(self.fd);
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.fd).field("queued", &self.queued()).finish()
    }
}
