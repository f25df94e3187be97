//! What submitters ask for, and which results each kind of request may have.

use crate::res::{Res, err};
use crate::sqe::{self, SqeExt, ms, nop};
use crate::sys;
use libc::{EALREADY, ECANCELED, EINTR, ENOENT, ETIME};
use soloring_abi::{Opcode, Sqe, Timespec, raw};

/// Kinds of request, by what they may give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nop,
    Page,
    Sync,
    Poll,
    Timeout,
    LinkTimeout,
    Cancel,
    CancelAll,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nop => "completed: nop",
            Kind::Page => "completed: read, write",
            Kind::Sync => "completed: fsync",
            Kind::Poll => "completed: poll",
            Kind::Timeout => "completed: timeout",
            Kind::LinkTimeout => "completed: link timeout",
            Kind::Cancel | Kind::CancelAll => "completed: cancel",
        }
    }

    /// Whether a request of this kind may end so.
    pub fn may_give(self, res: Res) -> bool {
        let canceled = res == err(ECANCELED);
        // A worker that is interrupted gives EINTR instead.
        let stopped = canceled || res == err(EINTR);
        match self {
            Kind::Nop => res == Res(0) || canceled,
            Kind::Page => res == Res(PAGE as i64) || stopped,
            Kind::Sync => res == Res(0) || stopped,
            Kind::Poll => res == Res(1) || canceled,
            Kind::Timeout => res == err(ETIME) || canceled,
            Kind::LinkTimeout => {
                [err(ETIME), err(ENOENT), err(EALREADY)].contains(&res) || canceled
            }
            Kind::Cancel => [Res(0), err(ENOENT), err(EALREADY)].contains(&res) || canceled,
            // How many.
            Kind::CancelAll => !res.is_err() || res == err(EALREADY) || canceled,
        }
    }
}

pub const PAGE: usize = 4096;
const PAGES: usize = 16;

/// Files and memory that requests use. They outlive every ring,
/// because a worker may still use them when the ring is closed.
pub struct Things {
    file: i32,
    memory: &'static mut [u8],
    pub pipe: (i32, i32),
}

static SHORT: [Timespec; 3] =
    [Timespec { tv_sec: 0, tv_nsec: 0 }, Timespec { tv_sec: 0, tv_nsec: 300_000 }, ms(2)];
static LONG: Timespec = ms(60_000);

impl Things {
    pub fn new() -> Things {
        let file = sys::file_with(&vec![7; PAGES * PAGE]);
        let pipe = sys::pipe2(libc::O_NONBLOCK);
        Things { file, memory: sys::buffer(PAGES * PAGE), pipe }
    }

    /// For IORING_REGISTER_FILES.
    pub fn files(&self) -> [i32; 1] {
        [self.file]
    }

    /// Pushes a group of requests by `push(entry, kind)`, which numbers them. `target` is the user data
    /// of one that may still be in flight.
    pub fn ask(&mut self, rng: &mut fastrand::Rng, target: u64, mut push: impl FnMut(Sqe, Kind)) {
        let at = rng.usize(..PAGES) * PAGE;
        let (file, pipe) = (self.file, self.pipe.0);
        let short = &SHORT[rng.usize(..SHORT.len())];
        let page = &mut self.memory[at..at + PAGE];
        match rng.u32(..16) {
            0..3 => push(nop(), Kind::Nop),
            3 => {
                push(nop().link(), Kind::Nop);
                push(nop().link(), Kind::Nop);
                push(nop(), Kind::Nop);
            }
            4..6 => push(sqe::read(file, page, at as u64), Kind::Page),
            6 => push(sqe::read(file, page, at as u64).forced_async(), Kind::Page),
            7 => push(sqe::read(0, page, at as u64).fixed().forced_async(), Kind::Page),
            8 => push(sqe::write(file, page, at as u64).forced_async(), Kind::Page),
            9 => push(sqe::fsync(file, 0), Kind::Sync),
            10 | 11 => push(sqe::poll_add(pipe, libc::POLLIN as u32), Kind::Poll),
            12 => push(sqe::timeout(short, 0, 0), Kind::Timeout),
            13 => push(sqe::timeout(&LONG, 0, 0), Kind::Timeout),
            14 => push(sqe::cancel(target, -1, 0), Kind::Cancel),
            _ => {
                push(sqe::poll_add(pipe, libc::POLLIN as u32).link(), Kind::Poll);
                push(sqe::link_timeout(short, 0), Kind::LinkTimeout);
            }
        }
    }

    /// Wakes the polls, or makes the pipe empty again.
    pub fn stir(&self, rng: &mut fastrand::Rng) {
        match rng.bool() {
            true => sys::write(self.pipe.1, b"x"),
            false => sys::read(self.pipe.0, &mut [0; 64]),
        };
    }
}

/// Cancels everything in flight.
pub fn cancel_all() -> Sqe {
    sqe::cancel(0, -1, raw::IORING_ASYNC_CANCEL_ANY | raw::IORING_ASYNC_CANCEL_ALL)
}

/// MSG_RING with a message for the ring `to`.
pub fn message(to: i32, user_data: u64) -> Sqe {
    sqe::op(Opcode::MsgRing, to, 0, 17, user_data)
}
