//! URING_CMD TX_TIMESTAMP: when a socket's packets went out.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Done, Ring};
use crate::sqe::{SqeExt, cancel, op};
use crate::sys;
use libc::{ECANCELED, EINVAL, SO_TIMESTAMPING, SOL_SOCKET};
use soloring_abi::extra::{IORING_CQE_F_32, IORING_SETUP_CQE_MIXED};
use soloring_abi::{Opcode, Sqe, raw};

const CQE32: u32 = raw::IORING_SETUP_CQE32;
const TX_TIMESTAMP: u64 = 4;
const MORE: u32 = raw::IORING_CQE_F_MORE;
/// SOF_TIMESTAMPING_*: when a packet leaves the software, and when it enters the queue.
const SENT: i32 = 1 << 1;
const QUEUED: i32 = 1 << 8;
const SOFTWARE: i32 = 1 << 4;
const OPT_ID: i32 = 1 << 7;
const OPT_TSONLY: i32 = 1 << 11;
/// SCM_TSTAMP_SND and SCM_TSTAMP_SCHED, as the completion has them.
const OF_SENT: u32 = 0;
const OF_QUEUED: u32 = 1 << raw::IORING_TIMESTAMP_TYPE_SHIFT;

/// A socket with timestamps of these kinds, connected to another, which comes with it.
fn stamped(kinds: i32) -> (i32, i32) {
    let socket = || {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
        let port = socket.local_addr().expect("bound").port();
        (socket, port)
    };
    let (from, (to, port)) = (socket().0, socket());
    from.connect(("127.0.0.1", port)).expect("loopback");
    let from = sys::keep(from);
    sys::setsockopt(from, SOL_SOCKET, SO_TIMESTAMPING, kinds);
    (from, sys::keep(to))
}

fn command(fd: i32) -> Sqe {
    op(Opcode::UringCmd, fd, 0, 0, TX_TIMESTAMP)
}

/// Checks a timestamp of the last seconds.
fn is_stamp(done: &Done, ud: u64, key: i64, flags: u32) {
    check_eq!((done.ud, done.res, done.flags), (ud, Res(key), flags));
    let at = done.extra[0] as i64 * 1_000_000_000 + done.extra[1] as i64;
    let age = sys::clock_ns(libc::CLOCK_REALTIME) - at;
    check!((0..10_000_000_000).contains(&age), "{age} ns old");
}

fn stamps_come_as_they_are_made(abi: &Abi) {
    for (flag, size) in [(CQE32, 0), (IORING_SETUP_CQE_MIXED, IORING_CQE_F_32)] {
        let mut ring = Ring::with_flags(abi, 8, flag);
        let (fd, _to) = stamped(SENT | SOFTWARE | OPT_ID | OPT_TSONLY);
        // Two wait, and one comes later.
        sys::write(fd, b"one");
        sys::write(fd, b"two");
        ring.submit_all(&[command(fd).ud(1)]);
        is_stamp(&ring.wait(), 1, 0, MORE | OF_SENT | size);
        is_stamp(&ring.wait(), 1, 1, MORE | OF_SENT | size);
        sys::write(fd, b"three");
        is_stamp(&ring.wait(), 1, 2, MORE | OF_SENT | size);
        check!(ring.quiet(), "three in all");
        ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
        let mut end = [ring.wait(), ring.wait()];
        end.sort_by_key(|d| d.ud);
        check_eq!((end[0].ud, end[0].res, end[0].flags), (1, err(ECANCELED), 0));
        check_eq!((end[1].ud, end[1].res), (2, Res(0)));
    }
}

fn kinds_are_told_apart(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, CQE32);
    let (fd, _to) = stamped(SENT | QUEUED | SOFTWARE | OPT_ID | OPT_TSONLY);
    ring.submit_all(&[command(fd).ud(1)]);
    sys::write(fd, b"one");
    is_stamp(&ring.wait(), 1, 0, MORE | OF_QUEUED);
    is_stamp(&ring.wait(), 1, 0, MORE | OF_SENT);
    check!(ring.quiet(), "two in all");
}

fn stamps_that_are_not_asked_for_or_come_with_data_stay(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, CQE32);
    for kinds in [SENT | OPT_ID | OPT_TSONLY, SENT | SOFTWARE | OPT_ID] {
        let (fd, _to) = stamped(kinds);
        ring.submit_all(&[command(fd).ud(1)]);
        sys::write(fd, b"one");
        check!(ring.quiet(), "kinds {kinds:#x}");
        sys::close(fd);
        ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
    }
}

fn a_ring_of_small_completions_has_no_room(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (fd, _to) = stamped(SENT | SOFTWARE | OPT_ID | OPT_TSONLY);
    check_eq!(ring.res(command(fd)), err(EINVAL));
}

fn more_than_the_ring_holds(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 2, CQE32);
    let (fd, _to) = stamped(SENT | SOFTWARE | OPT_ID | OPT_TSONLY);
    (0..6).for_each(|_| check_eq!(sys::write(fd, b"x"), Res(1)));
    ring.submit_all(&[command(fd).ud(1)]);
    for key in 0..4 {
        is_stamp(&ring.wait(), 1, key, MORE | OF_SENT);
    }
    // What did not fit waits in the socket, for the next one at the latest.
    sys::write(fd, b"x");
    for key in 4..7 {
        is_stamp(&ring.wait(), 1, key, MORE | OF_SENT);
    }
}

fn forced_async(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, CQE32);
    let (fd, _to) = stamped(SENT | SOFTWARE | OPT_ID | OPT_TSONLY);
    ring.submit_all(&[command(fd).ud(1).forced_async()]);
    sys::write(fd, b"one");
    is_stamp(&ring.wait(), 1, 0, MORE | OF_SENT);
}

family!["stamps", modes;
    stamps_come_as_they_are_made,
    kinds_are_told_apart,
    stamps_that_are_not_asked_for_or_come_with_data_stay,
    a_ring_of_small_completions_has_no_room,
    more_than_the_ring_holds,
    forced_async,
];
