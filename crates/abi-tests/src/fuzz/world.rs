//! What the entries of one side may name: files of many kinds, and rings.

use super::kinds;
use super::pages::Pages;
use crate::backend::Abi;
use crate::families::bufring;
use crate::ring::{Done, Ring, params};
use crate::sqe::{self, SqeExt, nop};
use crate::sys;
use fastrand::Rng;
use soloring_abi::raw::{self, io_uring_register_op as reg};
use soloring_abi::{Params, SyncCancelReg, extra};
use soloring_engine::uapi;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What kind of ring a world has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Plain,
    SubmitAll,
    /// Completions of 16 and 32 bytes.
    Mixed,
    Wide,
    /// Entries of 128 bytes.
    Long,
    NoArray,
    /// The CQ is almost full before each batch.
    Full,
    FullMixed,
    Disabled,
    SqPoll,
    IoPoll,
}

impl Shape {
    pub fn choose(rng: &mut Rng) -> Shape {
        use Shape::{
            Disabled, Full, FullMixed, IoPoll, Long, Mixed, NoArray, Plain, SqPoll, SubmitAll, Wide,
        };
        let odd = [Mixed, Wide, Long, NoArray, Full, Full, FullMixed, Disabled, SqPoll, IoPoll];
        match rng.u8(..4) {
            0 | 1 => Plain,
            2 => SubmitAll,
            _ => odd[rng.usize(..odd.len())],
        }
    }

    fn is_full(self) -> bool {
        matches!(self, Shape::Full | Shape::FullMixed)
    }

    fn flags(self) -> u32 {
        match self {
            Shape::Plain => 0,
            Shape::SubmitAll => raw::IORING_SETUP_SUBMIT_ALL,
            Shape::Mixed => extra::IORING_SETUP_CQE_MIXED,
            Shape::Wide => raw::IORING_SETUP_CQE32,
            Shape::Long => raw::IORING_SETUP_SQE128,
            Shape::NoArray => raw::IORING_SETUP_NO_SQARRAY,
            Shape::Full => raw::IORING_SETUP_CQSIZE,
            Shape::FullMixed => raw::IORING_SETUP_CQSIZE | extra::IORING_SETUP_CQE_MIXED,
            Shape::Disabled => raw::IORING_SETUP_R_DISABLED,
            Shape::SqPoll => raw::IORING_SETUP_SQPOLL | raw::IORING_SETUP_SUBMIT_ALL,
            Shape::IoPoll => raw::IORING_SETUP_IOPOLL,
        }
    }
}

/// Completions that stand in the CQ of a [`Shape::Full`] before each batch; there is room for one more.
const CROWD: u32 = 7;
const ENTRIES: u32 = 8;
/// How long a ring's own thread is given to take what is submitted.
const TAKING_MAX: Duration = Duration::from_millis(500);

/// A ring with resources, and files. Both sides make them in the same order.
pub struct World<'a> {
    /// The other end of the empty pipe; -1 once it is closed.
    pub empty_writer: i32,
    shape: Shape,
    pub ring: Ring<'a>,
    pub other: Ring<'a>,
    pub files: Vec<(&'static str, i32)>,
    dir: tempfile::TempDir,
    /// Descriptors that were open when the world was complete.
    known: BTreeSet<i32>,
}

/// Names of what an entry may close.
pub const VICTIM: &str = "victim";

/// Descriptors below the range of our rings.
fn open_fds() -> BTreeSet<i32> {
    let limit = uapi::fd_base();
    let all = std::fs::read_dir("/proc/self/fd").expect("a list of descriptors");
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|fd| *fd < limit && sys::is_open(*fd)).collect()
}

impl<'a> World<'a> {
    pub fn shaped(abi: &'a Abi, pages: &mut Pages, shape: Shape) -> World<'a> {
        let mut wanted = params(shape.flags() | abi.mode_flags);
        if shape == Shape::SqPoll {
            (wanted.flags, wanted.sq_thread_idle) = (shape.flags(), 20);
        }
        if shape.is_full() {
            wanted.cq_entries = ENTRIES;
        }
        let mut world = World::with(abi, pages, wanted);
        world.shape = shape;
        if shape == Shape::Disabled {
            let enable = reg::IORING_REGISTER_ENABLE_RINGS as u32;
            world.ring.register(enable, std::ptr::null::<u8>(), 0);
        }
        world
    }

    pub fn new(abi: &'a Abi, pages: &mut Pages, setup_flags: u32) -> World<'a> {
        World::with(abi, pages, params(abi.mode_flags | setup_flags))
    }

    fn with(abi: &'a Abi, pages: &mut Pages, wanted: Params) -> World<'a> {
        let dir = sys::tempdir();
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
        std::env::set_current_dir(dir.path()).expect("a directory of our own");
        let (r, w) = sys::pipe();
        sys::write(w, b"some data in a pipe, enough for a few reads");
        let (empty, empty_writer) = sys::pipe();
        let (_r, full) = sys::pipe();
        sys::fill(full);
        let (stream, peer) = sys::socketpair(libc::SOCK_STREAM);
        sys::write(peer, b"some data in a socket, enough for a few receives");
        let (datagram, datagram_peer) = sys::socketpair(libc::SOCK_DGRAM);
        sys::write(datagram_peer, b"a datagram");
        sys::write(datagram_peer, b"and another");
        std::fs::write(path("file"), b"a file's contents").expect("a file");
        let mut files = vec![
            ("-1", -1),
            ("unused", sys::unused_fd()),
            ("file", sys::open(&path("file"), libc::O_RDWR)),
            ("file r", sys::open(&path("file"), libc::O_RDONLY)),
            ("file w", sys::open(&path("file"), libc::O_WRONLY)),
            ("file path", sys::open(&path("file"), libc::O_PATH)),
            ("append", sys::open(&path("log"), libc::O_RDWR | libc::O_CREAT | libc::O_APPEND)),
            ("memfd", sys::memory_file(100)),
            ("dir", sys::open(&path("."), libc::O_DIRECTORY)),
            ("null", sys::open("/dev/null", libc::O_RDWR)),
            ("zero", sys::open("/dev/zero", libc::O_RDWR)),
            ("pipe r", r),
            ("pipe w", w),
            ("empty pipe", empty),
            ("full pipe", full),
            ("stream", stream),
            ("peer", peer),
            ("datagram", datagram),
            ("unconnected", sys::tcp_socket()),
            ("listener", sys::tcp_listener().0),
            ("eventfd", sys::eventfd(3, 0)),
            ("eventfd nonblock", sys::eventfd(0, libc::EFD_NONBLOCK)),
            ("timerfd", sys::timerfd()),
            ("epoll", sys::epoll()),
        ];
        files.extend(kinds::all());
        // The same numbers on both sides.
        for ((_, fd), number) in files.iter_mut().skip(2).zip(200..) {
            sys::dup2(*fd, number);
            sys::close(std::mem::replace(fd, number));
        }
        let mut ring = Ring::build(abi, ENTRIES, wanted);
        let mut other = Ring::build(abi, 4, params(abi.mode_flags));
        for ring in [&mut ring, &mut other] {
            // Away from the small numbers that entries may hold.
            if abi.is_kernel() {
                let far = sys::fcntl(ring.fd, libc::F_DUPFD, 5000);
                sys::close(std::mem::replace(&mut ring.fd, far.0 as i32));
            }
        }
        files.push(("ring", ring.fd));
        files.push(("other ring", other.fd));
        let victim = sys::eventfd(0, 0);
        sys::dup2(victim, 300);
        sys::close(victim);
        files.push((VICTIM, 300));
        let shape = Shape::Plain;
        let known = BTreeSet::new();
        let mut world = World { empty_writer, shape, ring, other, files, dir, known };
        pages.refresh(&world.list());
        world.register(pages);
        world.known = open_fds();
        world
    }

    fn register(&mut self, pages: &Pages) {
        let scratch = pages.scratch.as_ptr() as u64;
        let buffers = [
            libc::iovec { iov_base: scratch as *mut _, iov_len: 4096 },
            libc::iovec { iov_base: (scratch + 100) as *mut _, iov_len: 10 },
            libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
        ];
        self.ring.register(reg::IORING_REGISTER_BUFFERS as u32, buffers.as_ptr(), 3);
        let files: Vec<i32> =
            ["file", "pipe r", "-1", "null", "stream", "eventfd", "dir", "pipe w"]
                .map(|name| self.fd(name))
                .to_vec();
        self.ring.register(reg::IORING_REGISTER_FILES as u32, files.as_ptr(), files.len() as u32);
        // Group 1 has a few buffers, group 2 is a ring with none, group 3 is made by entries.
        let provide = bufring::provide(scratch + 200, 16, 4, 1, 0);
        let runs = raw::IORING_SETUP_R_DISABLED | raw::IORING_SETUP_IOPOLL;
        if self.ring.params.flags & runs == 0 {
            self.ring.push(provide);
            self.submit(1);
            self.ring.wait();
        }
        let memory = sys::guarded_page().as_ptr() as u64;
        self.ring.register(bufring::REGISTER, &bufring::reg(memory, 4, 2, 0), 1);
    }

    /// Fills the CQ until there is room for one more, if that is this world's way.
    pub fn crowd(&mut self) {
        if self.shape.is_full() {
            self.ring.push_all(&[nop().ud(3); CROWD as usize]);
            self.ring.submit();
        }
    }

    /// Submits what was pushed, in at most `times` calls. Returns their results.
    pub fn submit(&mut self, times: usize) -> String {
        if self.ring.params.flags & raw::IORING_SETUP_SQPOLL != 0 {
            let begun = Instant::now();
            while self.ring.pending() > 0 && begun.elapsed() < TAKING_MAX {
                self.ring.enter(self.ring.pending(), 0, raw::IORING_ENTER_SQ_WAKEUP);
                std::thread::sleep(Duration::from_micros(200));
            }
            return format!("{} left", self.ring.pending());
        }
        let mut results = Vec::new();
        for _ in 0..times {
            if self.ring.pending() > 0 {
                results.push(self.ring.submit().to_string());
            }
        }
        results.join(" ")
    }

    /// The next completion, if it comes in time.
    pub fn next(&self, limit: Duration) -> Option<Done> {
        if self.shape != Shape::IoPoll {
            return self.ring.wait_within(limit);
        }
        // Never to wait: such a ring does it by asking the device again and again.
        let begun = Instant::now();
        while begun.elapsed() < limit {
            self.ring.enter(0, 0, raw::IORING_ENTER_GETEVENTS);
            if let Some(done) = self.ring.pop() {
                return Some(done);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        None
    }

    /// Cancels what is in flight. The cancellation's own completion has user data 2.
    pub fn cancel_by_entry(&mut self) {
        if self.ring.pending() < ENTRIES && self.shape != Shape::IoPoll {
            let all = raw::IORING_ASYNC_CANCEL_ANY | raw::IORING_ASYNC_CANCEL_ALL;
            self.ring.push(sqe::cancel(0, -1, all).ud(2));
            self.submit(1);
        }
    }

    pub fn cancel_by_call(&mut self) {
        let soon = raw::__kernel_timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let wanted = SyncCancelReg {
            addr: 0,
            fd: -1,
            flags: raw::IORING_ASYNC_CANCEL_ANY | raw::IORING_ASYNC_CANCEL_ALL,
            timeout: soon,
            opcode: 0,
            pad: [0; 7],
            pad2: [0; 3],
        };
        self.ring.register(reg::IORING_REGISTER_SYNC_CANCEL as u32, &wanted, 1);
    }

    /// The ring's words that are not a matter of timing.
    pub fn words(&self) -> String {
        let timing = raw::IORING_SQ_TASKRUN | raw::IORING_SQ_NEED_WAKEUP;
        let words =
            (self.ring.sq_dropped(), self.ring.cq_overflow(), self.ring.sq_flags() & !timing);
        format!("{words:?}")
    }

    pub fn fd(&self, name: &str) -> i32 {
        self.files.iter().find(|(n, _)| *n == name).expect("a known name").1
    }

    /// The descriptors that lists of them hold: all but the rings, whose numbers differ.
    pub fn list(&self) -> Vec<i32> {
        [-1, self.fd("file"), self.fd("null"), self.fd("pipe r"), -2, 9999, self.fd("eventfd")]
            .into()
    }

    /// Closes what entries made, and makes again what they closed.
    pub fn sweep(&mut self) {
        for fd in open_fds().difference(&self.known) {
            sys::close(*fd);
        }
        let victim = self.fd(VICTIM);
        let new = sys::eventfd(0, 0);
        sys::dup2(new, victim);
        sys::close(new);
    }

    /// The name of a descriptor, or the number.
    pub fn name(&self, fd: i32) -> String {
        let known = self.files.iter().find(|(_, f)| *f == fd);
        known.map_or_else(|| fd.to_string(), |(name, _)| name.to_string())
    }

    pub fn close(self, before: &BTreeSet<i32>) {
        let World { ring, other, dir, .. } = self;
        drop(ring);
        drop(other);
        for fd in open_fds().difference(before) {
            sys::close(*fd);
        }
        std::env::set_current_dir("/").expect("the root");
        drop(dir);
    }

    /// Whether a request of this ring is with a buffer group.
    pub const GROUPS: &'static [u16] = &[1, 1, 2, 3, 0, u16::MAX];
}

/// Descriptors to keep when a world ends.
pub fn open_now() -> BTreeSet<i32> {
    open_fds()
}

/// Bits of [`raw::IORING_CQE_F_SOCK_NONEMPTY`]: told by fewer operations here, on purpose.
pub const HINTS: u32 = raw::IORING_CQE_F_SOCK_NONEMPTY;
