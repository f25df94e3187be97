//! Streams that are received from over and over, in every way and in random order: nothing is lost, nothing
//! comes twice, and what is there is told.

use crate::backend::Abi;
use crate::families::bufring::{BufRing, INC, buffer_of, select};
use crate::res::{Res, err};
use crate::ring::{Done, Ring};
use crate::sqe::{self, SqeExt, op};
use crate::sys;
use libc::{ECANCELED, ENOBUFS, MSG_PEEK, MSG_WAITALL, SOCK_STREAM};
use soloring_abi::{Opcode, Sqe, raw};
use std::time::Duration;

/// Far above what anything takes: only what is lost reaches it.
const LIMIT: Duration = Duration::from_secs(5);
const IN: u32 = libc::POLLIN as u32;

fn pair(tcp: bool) -> (i32, i32) {
    if tcp { sys::tcp_pair() } else { sys::socketpair(SOCK_STREAM) }
}

/// Receives one message after the other, each before it is sent: attempts come to be expected in vain.
fn settle_in(ring: &mut Ring, a: i32, b: i32) {
    for i in 0..8u8 {
        let mut buf = [0; 8];
        ring.submit_all(&[sqe::recv(a, &mut buf, 0)]);
        sys::write(b, &[i; 8]);
        let done = ring.wait_within(LIMIT).expect("a message");
        check_eq!((done.res, buf), (Res(8), [i; 8]));
    }
}

fn recv_within(ring: &mut Ring, fd: i32, buf: &mut [u8], flags: i32) -> Option<Res> {
    ring.submit_all(&[sqe::recv(fd, buf, flags)]);
    ring.wait_within(LIMIT).map(|done| done.res)
}

fn what_is_there_already_is_found(abi: &Abi) {
    for tcp in [false, true] {
        let mut ring = Ring::new(abi, 8);
        let (a, b) = pair(tcp);
        settle_in(&mut ring, a, b);
        // Full receives do not show what is left; nor does anything new come for what was there.
        for round in 0..50u8 {
            sys::write(b, &[round; 24]);
            for _ in 0..3 {
                let mut buf = [0; 8];
                check_eq!(recv_within(&mut ring, a, &mut buf, 0), Some(Res(8)), "round {round}");
                check_eq!(buf, [round; 8]);
            }
        }
        // And while nobody waited.
        for round in 0..50u8 {
            sys::write(b, &[round; 3]);
            let res = ring.res(sqe::nop());
            check_eq!(res, Res(0));
            let mut buf = [0; 8];
            check_eq!(recv_within(&mut ring, a, &mut buf, 0), Some(Res(3)), "round {round}");
        }
        settle_in(&mut ring, a, b);
    }
}

fn the_end_is_told(abi: &Abi) {
    for tcp in [false, true] {
        let mut ring = Ring::new(abi, 8);
        let (a, b) = pair(tcp);
        settle_in(&mut ring, a, b);
        sys::write(b, b"the last");
        sys::close(b);
        let mut buf = [0; 8];
        check_eq!(recv_within(&mut ring, a, &mut buf, 0), Some(Res(8)));
        check_eq!(recv_within(&mut ring, a, &mut buf, 0), Some(Res(0)));
        check_eq!(recv_within(&mut ring, a, &mut buf, 0), Some(Res(0)), "again");
    }
}

fn a_buffer_that_ends_early(abi: &Abi) {
    // What does not fit because the memory ends is still there for the next one.
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    settle_in(&mut ring, a, b);
    let page = sys::guarded_page();
    let at = page.as_ptr() as u64 + 4096 - 8;
    let bad = op(Opcode::Recv, a, at, 64, 0);
    ring.submit_all(&[bad]);
    sys::write(b, b"12345678");
    check_eq!(ring.wait().res, Res(8), "as much as fits");
    for _ in 0..2 {
        sys::write(b, b"one");
        std::thread::sleep(Duration::from_millis(5));
        sys::write(b, b"two, which is too long");
        let got = ring.res(bad);
        check!(got == Res(3) || got == err(libc::EFAULT), "got {got}");
        let mut rest = 25 - if got.is_err() { 0 } else { 3 };
        while rest > 0 {
            let mut buf = [0; 64];
            let Some(Res(n @ 1..)) = recv_within(&mut ring, a, &mut buf, 0) else {
                crate::trace::fail(format!("{rest} bytes are lost"));
                return;
            };
            rest -= n;
        }
    }
}

fn nothing_for_this_one(abi: &Abi) {
    // Ready, and yet there is nothing to receive: it waits, and takes what comes.
    const TIMESTAMPING: i32 = libc::SO_TIMESTAMPING;
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    settle_in(&mut ring, a, b);
    // Times of sending, which go to the error queue: transmission, software, by identifier.
    sys::setsockopt(a, libc::SOL_SOCKET, TIMESTAMPING, 1 << 1 | 1 << 4 | 1 << 7);
    sys::write(a, b"timed");
    std::thread::sleep(Duration::from_millis(5));
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0)]);
    check!(ring.quiet(), "early");
    check!(ring.quiet(), "early");
    sys::write(b, b"data");
    check_eq!(ring.wait_within(LIMIT).map(|d| d.res), Some(Res(4)));
    settle_in(&mut ring, a, b);
}

fn a_low_water_mark(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    settle_in(&mut ring, a, b);
    sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 16);
    let mut buf = [0; 64];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0)]);
    check!(ring.quiet(), "early");
    sys::write(b, &[1; 16]);
    check_eq!(ring.wait_within(LIMIT).map(|d| d.res), Some(Res(16)));
    sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1);
    settle_in(&mut ring, a, b);
}

fn others_on_the_same_file(abi: &Abi) {
    for tcp in [false, true] {
        let mut ring = Ring::new(abi, 16);
        let (a, b) = pair(tcp);
        settle_in(&mut ring, a, b);
        let mut buf = [0; 8];
        // A poll joins, and one that is satisfied at once, and a receive beside a multishot poll.
        ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1), sqe::poll_add(a, IN).ud(2)]);
        check_eq!(
            ring.res(sqe::poll_add(a, libc::POLLOUT as u32).ud(3)),
            Res(libc::POLLOUT as i64)
        );
        check!(ring.quiet(), "early");
        sys::write(b, b"data");
        let mut seen = [ring.wait_within(LIMIT), ring.wait_within(LIMIT)].map(|d| d.map(|d| d.ud));
        seen.sort();
        check_eq!(seen, [Some(1), Some(2)]);
        settle_in(&mut ring, a, b);
        ring.submit_all(&[sqe::poll_multi(a, IN).ud(4)]);
        ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
        check!(ring.quiet(), "early");
        for _ in 0..3 {
            sys::write(b, b"data");
            let mut received = false;
            while !received {
                let Some(done) = ring.wait_within(LIMIT) else { break };
                received = done.ud == 1;
            }
            check!(received, "the receive beside a multishot poll");
            ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
        }
        ring.submit_all(&[sqe::cancel(4, -1, 0).ud(9), sqe::cancel(1, -1, 0).ud(10)]);
        let mut ended = 0;
        while let Some(done) = ring.wait_within(Duration::from_millis(40)) {
            ended += (done.res == err(ECANCELED)) as u32;
        }
        check_eq!(ended, 2);
        settle_in(&mut ring, a, b);
    }
}

fn closed_without_a_word(abi: &Abi) {
    // A number that comes to name another file, again and again, and nobody says so.
    let mut ring = Ring::new(abi, 8);
    for round in 0..20 {
        let (a, b) = sys::tcp_pair();
        settle_in(&mut ring, a, b);
        check_eq!(sys::close_silently(a), Res(0), "round {round}");
        sys::close_silently(b);
    }
}

fn closed_while_another_receives(abi: &Abi) {
    // The number is announced, used once more, and only then closed.
    for _ in 0..5 {
        let mut ring = Ring::new(abi, 8);
        let (a, b) = sys::tcp_pair();
        settle_in(&mut ring, a, b);
        sys::announce(a);
        settle_in(&mut ring, a, b);
        sys::close_silently(a);
        sys::close(b);
        let (a, b) = sys::tcp_pair();
        settle_in(&mut ring, a, b);
        sys::close(a);
        sys::close(b);
    }
}

/// Buffers of one connection, of so many bytes each.
const BUFFERS: u16 = 32;
const BUFFER: usize = 48;

/// A connection and what is known of it.
struct Conn {
    a: i32,
    b: i32,
    /// Bytes written and received: byte `i` of the stream has the value `i`.
    written: usize,
    received: usize,
    /// The request that receives: its memory when it is a single one.
    waits: Option<Request>,
    polls: u32,
    bufs: BufRing,
    memory: &'static mut [u8],
    used: [usize; BUFFERS as usize],
    single: &'static mut [u8],
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Request {
    Single { peek: bool, all: usize },
    Multishot,
}

const POLL: u64 = 1 << 32;
const CANCEL: u64 = 2 << 32;

impl Conn {
    fn new(ring: &Ring, index: usize, rng: &mut fastrand::Rng) -> Conn {
        let (a, b) = pair(rng.bool());
        let flags = if rng.bool() { INC } else { 0 };
        let mut bufs = BufRing::register(ring, BUFFERS as u32, index as u16, flags);
        let memory = sys::buffer(BUFFERS as usize * BUFFER);
        for (bid, buf) in memory.chunks(BUFFER).enumerate() {
            bufs.add(buf, bid as u16);
        }
        let (used, single) = ([0; BUFFERS as usize], sys::buffer(4096));
        Conn { a, b, written: 0, received: 0, waits: None, polls: 0, bufs, memory, used, single }
    }

    fn write(&mut self, n: usize) {
        let bytes: Vec<u8> = (self.written..self.written + n).map(|i| i as u8).collect();
        check_eq!(sys::write(self.b, &bytes), Res(n as i64));
        self.written += n;
    }

    fn request(&mut self, index: usize, rng: &mut fastrand::Rng) -> Sqe {
        let multishot = rng.u8(..3) == 0;
        let len = rng.usize(1..120);
        let sqe = if multishot {
            self.waits = Some(Request::Multishot);
            let sqe = select(op(Opcode::Recv, self.a, 0, 0, 0), index as u16);
            sqe.with(|s| s.ioprio = raw::IORING_RECV_MULTISHOT as u16)
        } else {
            let (how, flags) = (rng.u8(..8), [0, 0, 0, MSG_WAITALL, MSG_PEEK][rng.usize(..5)]);
            let buf = &mut self.single[..len];
            let (sqe, flags) = match how {
                0 => (sqe::read(self.a, buf, 0), 0),
                1 => (sqe::recv(self.a, buf, flags).with(|s| s.ioprio = 1), flags),
                _ => (sqe::recv(self.a, buf, flags), flags),
            };
            let all = if flags == MSG_WAITALL { len } else { 1 };
            self.waits = Some(Request::Single { peek: flags == MSG_PEEK, all });
            sqe
        };
        sqe.ud(index as u64)
    }

    /// Whether what is there is enough for the request that waits.
    fn must_complete(&self) -> bool {
        let there = self.written - self.received;
        match self.waits {
            Some(Request::Single { all, .. }) => there >= all,
            Some(Request::Multishot) => there > 0,
            None => false,
        }
    }

    /// Checks a completion of the request against the stream.
    fn take(&mut self, done: &Done) {
        let waits = self.waits.expect("a request waits");
        if !done.more() {
            self.waits = None;
        }
        if [err(ECANCELED), err(ENOBUFS), err(libc::EINTR)].contains(&done.res) {
            return;
        }
        let n = usize::try_from(done.res.0).unwrap_or(0);
        check!(n > 0, "{waits:?} ended with {}", done.res);
        let got = match buffer_of(done) {
            None => self.single[..n].to_vec(),
            Some(bid) => {
                let (at, start) = (bid as usize, bid as usize * BUFFER + self.used[bid as usize]);
                let got = self.memory[start..start + n].to_vec();
                self.used[at] += n;
                if done.flags & raw::IORING_CQE_F_BUF_MORE == 0 {
                    self.used[at] = 0;
                    self.bufs.add(&self.memory[at * BUFFER..][..BUFFER], bid);
                }
                got
            }
        };
        let want: Vec<u8> = (self.received..self.received + n).map(|i| i as u8).collect();
        check_eq!(got, want, "{waits:?} after {} bytes", self.received);
        check!(self.received + n <= self.written, "more than was written");
        if waits != (Request::Single { peek: true, all: 1 }) {
            self.received += n;
        }
    }
}

struct Traffic<'a> {
    ring: Ring<'a>,
    conns: Vec<Conn>,
}

impl Traffic<'_> {
    fn handle(&mut self, done: Done) {
        let conn = &mut self.conns[done.ud as u32 as usize];
        match done.ud & !0xffff_ffff {
            POLL => conn.polls -= !done.more() as u32,
            CANCEL => {}
            _ => conn.take(&done),
        }
    }

    /// Until what `goal` says is so. False: it did not come about.
    fn until(&mut self, goal: impl Fn(&Conn) -> bool, index: usize) -> bool {
        self.until_within(goal, index, LIMIT)
    }

    fn until_within(
        &mut self,
        goal: impl Fn(&Conn) -> bool,
        index: usize,
        limit: Duration,
    ) -> bool {
        while !goal(&self.conns[index]) {
            let Some(done) = self.ring.wait_within(limit) else { return false };
            self.handle(done);
        }
        true
    }

    fn step(&mut self, rng: &mut fastrand::Rng) -> Result<(), String> {
        let index = rng.usize(..self.conns.len());
        let conn = &mut self.conns[index];
        match rng.u8(..16) {
            0..5 if conn.written - conn.received < 1000 => {
                let n = rng.usize(1..100);
                conn.write(n);
            }
            5..9 if conn.waits.is_none() => {
                let sqe = conn.request(index, rng);
                self.ring.submit_all(&[sqe]);
            }
            9..11 if conn.must_complete() => {
                let (before, what) = (conn.received, conn.waits);
                if !self.until(|c| c.received > before || c.waits.is_none(), index) {
                    return Err(format!("{what:?} was not told of what is there"));
                }
            }
            11 => {
                while let Some(done) = self.ring.pop() {
                    self.handle(done);
                }
            }
            12 if conn.polls < 3 => {
                conn.polls += 1;
                let (fd, multi) = (conn.a, rng.bool());
                let sqe = if multi { sqe::poll_multi(fd, IN) } else { sqe::poll_add(fd, IN) };
                self.ring.submit_all(&[sqe.ud(POLL | index as u64)]);
            }
            13 if conn.waits.is_none() && conn.written > conn.received => {
                let mut buf = vec![0; rng.usize(1..100)];
                let n = sys::read(conn.a, &mut buf).0;
                check!(n > 0, "the program's own read: {n}");
                conn.received += n.max(0) as usize;
            }
            14 => self.end(index)?,
            15 if rng.u8(..4) == 0 => {
                self.end(index)?;
                let conn = &mut self.conns[index];
                sys::close(conn.a);
                sys::close(conn.b);
                (conn.a, conn.b) = pair(rng.bool());
                (conn.written, conn.received) = (0, 0);
            }
            _ => {}
        }
        Ok(())
    }

    /// Cancels what waits on a connection.
    fn end(&mut self, index: usize) -> Result<(), String> {
        let all = raw::IORING_ASYNC_CANCEL_ALL;
        let cancel = |key: u64| sqe::cancel(key, -1, all).ud(CANCEL | index as u64);
        // A request that was woken and has not run yet may escape: once more, then.
        for _ in 0..20 {
            self.ring.submit_all(&[cancel(index as u64), cancel(POLL | index as u64)]);
            if self.until_within(|c| c.waits.is_none() && c.polls == 0, index, LIMIT / 20) {
                return Ok(());
            }
        }
        Err("a cancelled request did not end".to_string())
    }

    /// Receives all that is left.
    fn finish(&mut self, index: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
        self.end(index)?;
        while self.conns[index].received < self.conns[index].written {
            let conn = &mut self.conns[index];
            if conn.waits.is_none() {
                let sqe = conn.request(index, rng);
                self.ring.submit_all(&[sqe]);
            }
            let conn = &mut self.conns[index];
            if !conn.must_complete() {
                conn.write(128);
            }
            let (before, what) = (conn.received, conn.waits);
            if !self.until(|c| c.received > before || c.waits.is_none(), index) {
                return Err(format!("{what:?} was not told of the rest"));
            }
        }
        self.end(index)
    }
}

/// `steps` random steps with a few connections.
pub fn traffic(abi: &Abi, seed: u64, steps: u32) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let ring = Ring::new(abi, 32);
    let conns = (0..4).map(|index| Conn::new(&ring, index, &mut rng)).collect();
    let mut traffic = Traffic { ring, conns };
    let mut run = || -> Result<(), String> {
        for _ in 0..steps {
            traffic.step(&mut rng)?;
        }
        (0..4).try_for_each(|index| traffic.finish(index, &mut rng))
    };
    if let Err(what) = run() {
        crate::trace::fail(format!("seed {seed}: {what}"));
    }
}

fn random_traffic(abi: &Abi) {
    for seed in 0..6 {
        traffic(abi, seed, 1500);
    }
}

family!["streams", modes;
    what_is_there_already_is_found,
    the_end_is_told,
    a_buffer_that_ends_early,
    nothing_for_this_one,
    a_low_water_mark,
    others_on_the_same_file,
    closed_without_a_word,
    closed_while_another_receives,
    random_traffic,
];
