//! One ring with a count of what it finished: pushes entries, waits, hands completions back.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use io_uring::{IoUring, cqueue, squeue};

/// A completion, with the token its request was pushed with.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub opcode: u8,
    pub token: u32,
    /// Result, or -errno.
    pub res: i32,
    /// More completions of this (multishot) request will follow.
    pub more: bool,
}

/// Which kind of ring to make: both are in wide use and take different paths underneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SINGLE_ISSUER and DEFER_TASKRUN: completions are made while this thread waits.
    Deferred,
    /// No flags: completions appear on their own.
    Plain,
}

pub struct Queue {
    ring: IoUring,
    finished: BTreeMap<u8, u64>,
    in_flight: u64,
    done: Vec<Done>,
}

impl Queue {
    /// A ring of `entries` submission entries and room for `4 * entries` completions.
    pub fn new(entries: u32, kind: Kind) -> io::Result<Queue> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries * 4);
        if kind == Kind::Deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        let ring = builder
            .build(entries)
            .map_err(|e| io::Error::new(e.kind(), format!("io_uring_setup: {e}")))?;
        Ok(Queue { ring, finished: BTreeMap::new(), in_flight: 0, done: Vec::new() })
    }

    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Requests pushed and not finished.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The user data that a request pushed with `opcode` and `token` carries: what a cancellation names.
    pub fn user_data(opcode: u8, token: u32) -> u64 {
        u64::from(opcode) << 32 | u64::from(token)
    }

    /// Queues one request; submits what is queued when the ring has no room left.
    ///
    /// # Safety
    /// What the entry points to stays valid, and is not touched where the request writes, until the
    /// request has finished.
    pub unsafe fn push(&mut self, entry: squeue::Entry, token: u32) -> io::Result<()> {
        let opcode = entry.get_opcode() as u8;
        let entry = entry.user_data(Self::user_data(opcode, token));
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: the caller vouches for the memory the entry points to.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::Error::other("submission queue is full after a submit"))?;
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what is queued without waiting: needed between the parts of a link chain, never inside.
    pub fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// Room for entries that must enter the ring in one submission (a link chain).
    pub fn reserve(&mut self, entries: usize) -> io::Result<()> {
        let queue = self.ring.submission();
        let free = queue.capacity() - queue.len();
        drop(queue);
        if free < entries {
            self.submit()?;
        }
        Ok(())
    }

    /// Submits, waits for at least `want` completions and returns all there are. Interruptions are retried.
    pub fn turn(&mut self, want: usize) -> io::Result<&[Done]> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The completion queue is full: taking entries out of it is the remedy.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => break,
                Err(e) => return Err(io::Error::new(e.kind(), format!("io_uring_enter: {e}"))),
            }
        }
        self.done.clear();
        for entry in self.ring.completion() {
            let done = Done {
                opcode: (entry.user_data() >> 32) as u8,
                token: entry.user_data() as u32,
                res: entry.result(),
                more: cqueue::more(entry.flags()),
            };
            if !done.more {
                *self.finished.entry(done.opcode).or_default() += 1;
                self.in_flight -= 1;
            }
            self.done.push(done);
        }
        Ok(&self.done)
    }

    /// Pushes one request and waits for its completion alone.
    ///
    /// # Safety
    /// As [`Queue::push`]; no other request may be in flight.
    ///
    /// # Errors
    /// The request's own error, with `what` in front.
    pub unsafe fn one(&mut self, entry: squeue::Entry, what: &str) -> io::Result<i32> {
        debug_assert_eq!(self.in_flight, 0);
        // SAFETY: passed on from the caller.
        unsafe { self.push(entry, u32::MAX)? };
        let res = self.turn(1)?.first().map_or(-libc::EAGAIN, |done| done.res);
        checked(res, what)
    }

    /// Finished requests by operation code.
    pub fn finished(&self) -> &BTreeMap<u8, u64> {
        &self.finished
    }
}

/// Turns a completion's result into a value or the error it stands for.
pub fn checked(res: i32, what: &str) -> io::Result<i32> {
    if res >= 0 {
        return Ok(res);
    }
    let e = io::Error::from_raw_os_error(-res);
    Err(io::Error::new(e.kind(), format!("{what}: {e}")))
}

/// Adds the counts of `more` to `into`.
pub fn add_counts(into: &mut BTreeMap<u8, u64>, more: &BTreeMap<u8, u64>) {
    for (opcode, count) in more {
        *into.entry(*opcode).or_default() += count;
    }
}
