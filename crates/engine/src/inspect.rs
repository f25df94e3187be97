//! Looking into a ring from any thread: what the kernel shows in `/proc/PID/fdinfo`, and each request in flight.
//!
//! The inspector is a foreign locker like any other: it sees one moment, and the submitter is not asked.

use crate::ctx::Ctx;
use crate::slab::Where;
use crate::state::State;
use soloring_abi::{Errno, Opcode, raw, sqe_flags};
use soloring_lock::LockStats;
use std::fmt;

/// One of the two queues. Positions count entries since the ring was made, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Entries, a power of two.
    pub entries: u32,
    /// What the consumer has told.
    pub head: u32,
    /// What the producer has told.
    pub tail: u32,
    /// How far we are: the next SQE to consume, the next CQE to post.
    pub ours: u32,
}

/// Where a request in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Waits in a chain for the request before it.
    Linked,
    /// Waits in the drain queue.
    Drained,
    /// Waits for task work.
    Ready,
    /// Waits for its file to become ready.
    Armed,
    /// With a worker, running or queued.
    Worker,
    /// Waits for a timer, or for a number of completions.
    Timer,
    /// Being issued or completed: only a signal handler on the very thread can see this.
    Issued,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub opcode: u8,
    pub user_data: u64,
    /// `sqe->fd`; an index when `fixed_file`.
    pub fd: i32,
    pub fixed_file: bool,
    pub place: Place,
}

/// A ring at one moment.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// IORING_SETUP_*, those that hold now.
    pub setup_flags: u32,
    /// A submitter is recorded (IORING_SETUP_SINGLE_ISSUER).
    pub has_submitter: bool,
    pub sq: Queue,
    pub cq: Queue,
    /// Completions that wait for room in the CQ.
    pub overflowed: usize,
    /// Registered files and buffers, as slots, empty ones included.
    pub files: usize,
    pub buffers: usize,
    /// Threads of the program that wait in enter.
    pub waiters: usize,
    /// In no particular order.
    pub requests: Vec<Request>,
    pub lock: LockStats,
}

/// Looks into a ring. Takes the ring lock, for a time that grows with the number of requests in flight.
///
/// # Errors
/// EBUSY from a signal handler that interrupted this very ring.
pub fn inspect(ctx: &Ctx) -> Result<Inspection, Errno> {
    let lock = ctx.lock.stats();
    let Ok(st) = ctx.lock.lock() else { return Err(Errno::EBUSY) };
    let layout = st.rings.layout();
    let sq = Queue {
        entries: layout.sq_entries,
        head: st.rings.sq_head(),
        tail: st.rings.sq_tail(),
        ours: st.sq_head,
    };
    let cq = Queue {
        entries: layout.cq_entries,
        head: st.rings.cq_head(),
        tail: st.rings.cq_tail(),
        ours: st.cq.tail() as u32,
    };
    Ok(Inspection {
        setup_flags: st.setup_flags,
        has_submitter: st.submitter.is_some(),
        sq,
        cq,
        overflowed: st.cq.overflowed(),
        files: st.files.as_ref().map_or(0, |files| files.len()),
        buffers: st.bufs.as_ref().map_or(0, |bufs| bufs.len()),
        waiters: usize::from(st.leader.present) + st.followers.len(),
        requests: requests(&st),
        lock,
    })
}

fn requests(st: &State) -> Vec<Request> {
    let of = |slot: u32| {
        let place = match st.slab.at(slot) {
            Where::Free => return None,
            Where::Out => Place::Issued,
            Where::Linked => Place::Linked,
            Where::Deferred => Place::Drained,
            Where::Ready => Place::Ready,
            Where::Armed => Place::Armed,
            Where::Punted(_) => Place::Worker,
            Where::Timer(_) => Place::Timer,
        };
        let sqe = &st.slab.get(slot).sqe;
        Some(Request {
            opcode: sqe.opcode,
            user_data: sqe.user_data,
            fd: sqe.fd,
            fixed_file: sqe.flags & sqe_flags::FIXED_FILE != 0,
            place,
        })
    };
    st.slab.indices().filter_map(of).collect()
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Opcode::from_raw(self.opcode) {
            Some(op) => write!(f, "{}", op.name())?,
            None => write!(f, "opcode {}", self.opcode)?,
        }
        let fixed = if self.fixed_file { " (registered)" } else { "" };
        let place = match self.place {
            Place::Linked => "waits for the one before it",
            Place::Drained => "waits for all before it",
            Place::Ready => "waits for task work",
            Place::Armed => "waits for its file",
            Place::Worker => "with a worker",
            Place::Timer => "waits for its time",
            Place::Issued => "being issued",
        };
        write!(f, " user_data {:#x} fd {}{fixed}: {place}", self.user_data, self.fd)
    }
}

/// In the names of the kernel's fdinfo where it has one, then the requests.
impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inspection { sq, cq, .. } = self;
        writeln!(f, "SetupFlags:\t{:#x}", self.setup_flags)?;
        if self.setup_flags & raw::IORING_SETUP_SINGLE_ISSUER != 0 {
            writeln!(f, "Submitter:\t{}", if self.has_submitter { "yes" } else { "none yet" })?;
        }
        writeln!(f, "SqMask:\t{:#x}", sq.entries - 1)?;
        writeln!(f, "SqHead:\t{}\nSqTail:\t{}\nCachedSqHead:\t{}", sq.head, sq.tail, sq.ours)?;
        writeln!(f, "CqMask:\t{:#x}", cq.entries - 1)?;
        writeln!(f, "CqHead:\t{}\nCqTail:\t{}\nCachedCqTail:\t{}", cq.head, cq.tail, cq.ours)?;
        writeln!(f, "CqOverflowed:\t{}", self.overflowed)?;
        writeln!(f, "UserFiles:\t{}\nUserBufs:\t{}", self.files, self.buffers)?;
        writeln!(f, "Waiters:\t{}\nRequests:\t{}", self.waiters, self.requests.len())?;
        self.requests.iter().try_for_each(|request| writeln!(f, "  {request}"))
    }
}
