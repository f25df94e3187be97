//! What the entries of one side may name: files of many kinds, and rings.

use crate::backend::Abi;
use crate::families::bufring;
use crate::fuzz::pages::Pages;
use crate::ring::{Ring, params};
use crate::sys;
use soloring_abi::raw::{self, io_uring_register_op as reg};
use soloring_engine::uapi;
use std::collections::BTreeSet;

/// A ring with resources, and files. Both sides make them in the same order.
pub struct World<'a> {
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
    pub fn new(abi: &'a Abi, pages: &mut Pages, setup_flags: u32) -> World<'a> {
        let dir = sys::tempdir();
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
        std::env::set_current_dir(dir.path()).expect("a directory of our own");
        let (r, w) = sys::pipe();
        sys::write(w, b"some data in a pipe, enough for a few reads");
        let (empty, _w) = sys::pipe();
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
        // The same numbers on both sides.
        for ((_, fd), number) in files.iter_mut().skip(2).zip(200..) {
            sys::dup2(*fd, number);
            sys::close(std::mem::replace(fd, number));
        }
        let ring = Ring::build(abi, 8, params(abi.mode_flags | setup_flags));
        let other = Ring::build(abi, 4, params(abi.mode_flags));
        files.push(("ring", ring.fd));
        files.push(("other ring", other.fd));
        let victim = sys::eventfd(0, 0);
        sys::dup2(victim, 300);
        sys::close(victim);
        files.push((VICTIM, 300));
        let mut world = World { ring, other, files, dir, known: BTreeSet::new() };
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
        if self.ring.params.flags & raw::IORING_SETUP_R_DISABLED == 0 {
            self.ring.run(provide);
        }
        let memory = sys::guarded_page().as_ptr() as u64;
        self.ring.register(bufring::REGISTER, &bufring::reg(memory, 4, 2, 0), 1);
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
        if !sys::is_open(victim) {
            let new = sys::eventfd(0, 0);
            sys::dup2(new, victim);
            sys::close(new);
        }
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
