//! A request: the copied SQE and what the engine adds to it while it is in flight.

use crate::creds::Creds;
use crate::futexwait::FutexWait;
use crate::opdata::{Input, XattrData};
use crate::resources::{FixedBuf, FixedFile};
use soloring_abi::{IoVec, Sqe};
use std::ffi::CString;
use std::sync::Arc;

/// "No request" in a slot index.
pub const NIL: u32 = u32::MAX;

/// Bits of [`Req::flags`]: what happened to a request so far.
pub mod flag {
    /// Its result breaks the link chain.
    pub const FAIL: u32 = 1 << 0;
    /// A failed CQE_SKIP request: the CQEs of the rest of its chain are skipped too.
    pub const SKIP_LINK_CQES: u32 = 1 << 1;
    /// No CQE for this request (success of CQE_SKIP_SUCCESS, or told so by its chain).
    pub const SKIP_CQE: u32 = 1 << 2;
    /// A LINK_TIMEOUT follows and is not armed yet.
    pub const ARM_LTIMEOUT: u32 = 1 << 3;
    /// A LINK_TIMEOUT follows and its timer runs.
    pub const HAS_LTIMEOUT: u32 = 1 << 4;
    /// Takes the slow way: drain queue or worker.
    pub const FORCE_ASYNC: u32 = 1 << 5;
    /// Waits until everything before it is complete.
    pub const DRAIN: u32 = 1 << 6;
    /// A failing result does not count as failure (TIMEOUT with ETIME_SUCCESS).
    pub const NO_FAIL: u32 = 1 << 7;
    /// -EAGAIN goes to the program instead of arming or punting.
    pub const NOWAIT: u32 = 1 << 8;
    /// The file takes no offset (pipe, socket): reads and writes use the current position.
    pub const STREAM: u32 = 1 << 9;
    /// Posts more than one completion.
    pub const MULTISHOT: u32 = 1 << 10;
    /// Left for a worker by the submission that is still going on.
    pub const QUEUED: u32 = 1 << 11;
    /// Already waited for readiness once.
    pub const POLLED: u32 = 1 << 12;
    /// Pointers of the SQE were copied; `data` holds what they pointed to.
    pub const STABLE: u32 = 1 << 13;
    /// Links of a failed chain count as plain links (no hardlink survives it).
    pub const NO_HARDLINK: u32 = 1 << 14;
    /// `res` is the result; it only waits for task work to post it.
    pub const LATER: u32 = 1 << 18;
    /// IOSQE_ASYNC: not inline, on a worker where the operation can block one.
    pub const FORCE_WORKER: u32 = 1 << 19;
    /// CONNECT was repeated after -ECONNABORTED.
    pub const RETRIED: u32 = 1 << 20;
    /// Waits for a child or a futex, with nothing that its worker could lose: cancelled at once, and counted.
    pub const WAITS: u32 = 1 << 21;
    /// CONNECT was started; what is left is to ask for its result.
    pub const IN_PROGRESS: u32 = 1 << 17;
    /// A worker did the blocking part; `issue` finishes it under the lock.
    pub const REISSUE: u32 = 1 << 16;
    /// A bundle has used the last buffer that was there: it ends with this part.
    pub const LAST_BUFFERS: u32 = 1 << 24;
    /// When it waits again, it goes behind everything else that is ready now.
    pub const REQUEUE: u32 = 1 << 27;
    /// A second CQE follows the last one: the notification of a zero-copy send.
    pub const NOTIF: u32 = 1 << 28;
    /// Its first attempt follows its checks in the same submission, with nothing in between.
    pub const PLAIN: u32 = 1 << 22;
    /// What the SQE points to stands in the program's memory until the first attempt (`lent.rs`).
    pub const LENT: u32 = 1 << 23;
    /// What was lent could not be read: the request fails as if its checks had found that.
    pub const UNPREPARED: u32 = 1 << 29;
    /// The file is known to be storage.
    pub const STORAGE: u32 = 1 << 30;
    /// The socket is known to be a stream.
    pub const STREAM_SOCKET: u32 = 1 << 25;
    /// The socket is known to keep messages apart.
    pub const MESSAGE_SOCKET: u32 = 1 << 26;
    /// A worker carries it out just now, whose interruption is this request's.
    pub const ON_WORKER: u32 = 1 << 31;
    /// The worker of this request was told to stop.
    pub const INTERRUPTED: u32 = 1 << 15;
}

/// What an operation copied out of the program's memory, or must keep beyond its inline attempt.
#[derive(Debug, Default)]
pub enum AsyncData {
    #[default]
    None,
    /// Vectored reads and writes: the vector, advanced as bytes are transferred.
    Iov(Vec<IoVec>),
    /// SENDMSG and RECVMSG.
    Msg(Box<MsgData>),
    /// Socket address of CONNECT, BIND, SEND.
    Addr(Box<AddrData>),
    /// A path, and the second argument that goes with it.
    Path(CString),
    /// Two paths; the second is empty for operations with one.
    Paths(Box<(CString, CString)>),
    Xattr(Box<XattrData>),
    /// SPLICE and TEE.
    Splice(Box<Input>),
    /// FUTEX_WAIT and FUTEX_WAITV: shared with the worker.
    Futex(Arc<FutexWait>),
    /// EPOLL_CTL: events and data.
    Event(u32, u64),
    /// OPENAT2: the path and the `open_how` bytes.
    OpenHow(Box<(CString, OpenHow)>),
    /// TIMEOUT and LINK_TIMEOUT.
    Timeout(TimeoutData),
    /// MSG_RING on a worker: id of the target ring.
    Target(u64),
}

impl AsyncData {
    /// The part that the request's slot keeps while a worker has the request.
    pub fn shared_part(&self) -> AsyncData {
        match self {
            AsyncData::Futex(wait) => AsyncData::Futex(Arc::clone(wait)),
            _ => AsyncData::None,
        }
    }
}

/// The parts of `struct open_how` (Linux 5.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

/// A copied `struct msghdr`: the numbers of the program's header, and its vector.
#[derive(Debug, Default)]
pub struct MsgData {
    pub name: u64,
    pub name_len: u32,
    pub control: u64,
    pub control_len: u64,
    pub iov: Vec<IoVec>,
    /// A copied destination address (sends only); empty when there is none.
    pub name_copy: Vec<u8>,
}

/// A copied socket address.
#[derive(Debug)]
pub struct AddrData {
    pub bytes: [u8; 128],
    pub len: u32,
}

/// A parsed timeout: nanoseconds (relative or absolute) on a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutData {
    pub ns: u64,
    pub clock: i32,
    pub absolute: bool,
    /// Completion that fires a counted timeout, as a CQ sequence; 0 for a pure timeout.
    pub target_seq: u64,
    /// Remaining repeats of a multishot timeout with a count.
    pub repeats: u32,
}

/// The file that a request works on, once resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum File {
    /// Not resolved, or the operation has none.
    #[default]
    None,
    /// The program's descriptor.
    Fd(i32),
    /// A registered file: its descriptor and whether it is storage opened O_DIRECT.
    Fixed { fd: i32, storage: bool, direct: bool },
    /// A duplicate that this request owns; closed with it.
    Own(i32),
}

/// One request in flight.
#[derive(Debug, Default)]
pub struct Req {
    pub sqe: Sqe,
    pub flags: u32,
    /// Next request of the link chain, [`NIL`] at the end.
    pub next: u32,
    /// LINK_TIMEOUT only: slot of the request that it limits.
    pub head: u32,
    pub file: File,
    /// Bytes transferred by earlier attempts.
    pub done: u32,
    /// Result of a request that failed before it was issued.
    pub res: i32,
    /// `cqe->flags` of the provided buffer that this request holds (`sqe.addr` and `sqe.len` name it),
    /// and what else its last CQE must say. 0: nothing.
    pub cqe_flags: u32,
    pub data: AsyncData,
    /// Registered file and buffer kept alive by this request.
    pub held_file: Option<Arc<FixedFile>>,
    pub held_buf: Option<Arc<FixedBuf>>,
    /// Credentials to work with (`sqe->personality`); `None`: those of whoever does it.
    pub creds: Option<Arc<Creds>>,
}

// Memory per request in flight: this, the slot around it and its place in the cancel index.
const _: () = assert!(size_of::<Req>() <= 192);

impl Req {
    pub fn new(sqe: Sqe) -> Self {
        Req { sqe, next: NIL, head: NIL, ..Req::default() }
    }

    /// Makes this the request of another SQE. For the submission loop, which uses one request in place
    /// for everything that is done inline: only what an inline attempt can have left is reset.
    #[inline]
    pub fn reset(&mut self, sqe: Sqe) {
        debug_assert!(self.held_file.is_none() && self.held_buf.is_none());
        debug_assert!(self.creds.is_none());
        self.sqe = sqe;
        // Whoever finds more to it takes this back before its checks.
        self.flags = flag::PLAIN;
        self.next = NIL;
        self.head = NIL;
        self.file = File::None;
        self.done = 0;
        self.res = 0;
        self.cqe_flags = 0;
        self.let_go();
    }

    /// Drops what it still holds.
    #[inline]
    pub fn let_go(&mut self) {
        debug_assert!(self.held_file.is_none() && self.held_buf.is_none());
        if !matches!(self.data, AsyncData::None) {
            self.data = AsyncData::None;
        }
    }

    #[inline]
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether a worker carries it out just now.
    pub fn is_on_worker(&self) -> bool {
        self.has(flag::ON_WORKER)
    }

    /// Descriptor of the resolved file, -1 without one.
    #[inline]
    pub fn fd(&self) -> i32 {
        match self.file {
            File::None => -1,
            File::Fd(fd) | File::Own(fd) => fd,
            File::Fixed { fd, .. } => fd,
        }
    }

    pub fn timeout(&self) -> Option<&TimeoutData> {
        match &self.data {
            AsyncData::Timeout(t) => Some(t),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_flags_have_the_same_bit() {
        let bit = |line: &str| {
            let name = line.trim().strip_prefix("pub const ")?;
            name.split_once(": u32 = 1 << ").map(|(_, bit)| bit.to_owned())
        };
        let mut bits: Vec<String> = include_str!("req.rs").lines().filter_map(bit).collect();
        assert!(bits.len() > 20);
        let all = bits.len();
        bits.sort();
        bits.dedup();
        assert_eq!(bits.len(), all);
    }
}
