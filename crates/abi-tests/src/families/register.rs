//! io_uring_register: arguments, PROBE, ENABLE_RINGS, EVENTFD, RING_FDS, worker limits.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, ms, nop, poll_add, timeout};
use crate::sys;
use libc::{EBADF, EBADFD, EBUSY, EEXIST, EFAULT, EINVAL, ENXIO, EOPNOTSUPP};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, RsrcUpdate2, raw};
use std::time::{Duration, Instant};

const PROBE: u32 = reg::IORING_REGISTER_PROBE as u32;
const ENABLE: u32 = reg::IORING_REGISTER_ENABLE_RINGS as u32;
const EVENTFD: u32 = reg::IORING_REGISTER_EVENTFD as u32;
const EVENTFD_ASYNC: u32 = reg::IORING_REGISTER_EVENTFD_ASYNC as u32;
const UNREGISTER_EVENTFD: u32 = reg::IORING_UNREGISTER_EVENTFD as u32;
const RING_FDS: u32 = reg::IORING_REGISTER_RING_FDS as u32;
const UNREGISTER_RING_FDS: u32 = reg::IORING_UNREGISTER_RING_FDS as u32;
const WORKERS: u32 = reg::IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
const AFFINITY: u32 = reg::IORING_REGISTER_IOWQ_AFF as u32;
const PERSONALITY: u32 = reg::IORING_REGISTER_PERSONALITY as u32;
const UNREGISTER_PERSONALITY: u32 = reg::IORING_UNREGISTER_PERSONALITY as u32;
const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;

const NULL: *const u8 = std::ptr::null();

fn bad_descriptors(abi: &Abi) {
    for opcode in [PROBE, ENABLE, EVENTFD, RING_FDS] {
        // -1 is for the few operations that need no ring; these do.
        check_eq!(abi.register(-1, opcode, NULL, 0), err(EINVAL), "-1");
        check_eq!(abi.register(-2, opcode, NULL, 0), err(EBADF), "-2");
        check_eq!(abi.register(sys::unused_fd(), opcode, NULL, 0), err(EBADF), "unused");
        check_eq!(abi.register(0, opcode, NULL, 0), err(EOPNOTSUPP), "standard input");
        check_eq!(abi.register(sys::pipe().0, opcode, NULL, 0), err(EOPNOTSUPP), "a pipe");
    }
}

fn unknown_operations(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    for opcode in [36, 37, 100, 0x7fff_ffff] {
        check_eq!(ring.register(opcode, NULL, 0), err(EINVAL), "opcode {opcode}");
        check_eq!(
            abi.register(-1, opcode, NULL, 0),
            err(EINVAL),
            "opcode {opcode}, bad descriptor"
        );
    }
    let registered = raw::io_uring_register_op::IORING_REGISTER_USE_REGISTERED_RING as u32;
    check_eq!(abi.register(0, registered | PROBE, NULL, 0), err(EBADF), "no registered ring");
}

/// A probe with room for `n` operations.
fn probe(n: usize) -> Vec<u8> {
    vec![0; 16 + 8 * n]
}

fn probe_tells_the_operations(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let mut p = probe(256);
    check_eq!(ring.register(PROBE, p.as_mut_ptr(), 256), Res(0));
    check_eq!(p[0], Opcode::Pipe as u8, "last operation");
    check_eq!(p[1], Opcode::Pipe as u8 + 1, "operations filled in");
    for op in Opcode::ALL {
        let at = 16 + 8 * *op as usize;
        check_eq!(p[at], *op as u8, "number of {op:?}");
        let supported = u16::from_ne_bytes([p[at + 2], p[at + 3]]) & 1 == 1;
        check!(supported || !must_be_there(*op), "{op:?} is missing");
    }
    check!(p[16 + 8 * 63..].iter().all(|b| *b == 0), "beyond the last operation");
}

/// The operations of this project's first stage; the kernel has them all.
fn must_be_there(op: Opcode) -> bool {
    use Opcode::*;
    [
        Nop,
        Readv,
        Writev,
        Fsync,
        ReadFixed,
        WriteFixed,
        PollAdd,
        PollRemove,
        Sendmsg,
        Recvmsg,
        Timeout,
        TimeoutRemove,
        Accept,
        AsyncCancel,
        LinkTimeout,
        Connect,
        Openat,
        Close,
        Statx,
        Read,
        Write,
        Send,
        Recv,
        Openat2,
        Shutdown,
        Socket,
        Bind,
        Listen,
    ]
    .contains(&op)
}

fn probed_operations_are_known_and_others_not(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 4, raw::IORING_SETUP_SUBMIT_ALL);
    let mut p = probe(256);
    check_eq!(ring.register(PROBE, p.as_mut_ptr(), 256), Res(0));
    for op in Opcode::ALL {
        let at = 16 + 8 * *op as usize;
        if u16::from_ne_bytes([p[at + 2], p[at + 3]]) & 1 == 0 {
            let sqe = sqe::op(*op, -1, 0, 0, 0);
            let res = ring.res(sqe);
            check_in!(res, [err(EINVAL), err(EOPNOTSUPP)], "{op:?}, not offered");
        }
    }
}

fn probe_checks_its_arguments(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let mut p = probe(256);
    check_eq!(ring.register(PROBE, p.as_ptr(), 257), err(EINVAL), "257 operations");
    check_eq!(ring.register(PROBE, NULL, 256), err(EINVAL), "null");
    check_eq!(ring.register(PROBE, sys::BAD, 256), err(EFAULT), "bad pointer");
    for room in [0, 1, 3, 255] {
        let mut p = probe(256);
        check_eq!(ring.register(PROBE, p.as_mut_ptr(), room as u32), Res(0), "room for {room}");
        check_eq!(p[1] as usize, room.min(63), "operations filled in, of {room}");
        check!(p[16 + 8 * room..].iter().all(|b| *b == 0), "written over the end, {room}");
    }
    for at in [0, 1, 5, 15, 16, 20, 40] {
        let mut p = probe(256);
        p[at] = 1;
        check_eq!(ring.register(PROBE, p.as_ptr(), 256), err(EINVAL), "byte {at} not zero");
    }
    p.clear();
    let read_only = sys::read_only_page() as *const u8;
    check_eq!(ring.register(PROBE, read_only, 256), err(EFAULT), "read-only");
}

fn enable_rings(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    check_eq!(ring.register(ENABLE, NULL, 0), err(EBADFD), "not disabled");
    let mut ring = Ring::with_flags(abi, 4, raw::IORING_SETUP_R_DISABLED);
    check_eq!(ring.register(ENABLE, NULL, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(ENABLE, sys::BAD, 0), err(EINVAL), "argument");
    ring.push(nop());
    check_eq!(ring.submit(), err(EBADFD), "still disabled");
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0));
    check_eq!(ring.register(ENABLE, NULL, 0), err(EBADFD), "twice");
    check_eq!(ring.submit(), Res(1));
}

fn disabled_rings_can_be_prepared(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 4, raw::IORING_SETUP_R_DISABLED);
    let mut p = probe(64);
    check_eq!(ring.register(PROBE, p.as_mut_ptr(), 64), Res(0), "PROBE");
    let files = reg::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [0].as_ptr(), 1), Res(0), "FILES");
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0), "EVENTFD");
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0));
    check_eq!(ring.res(nop()), Res(0));
}

fn an_index_that_cannot_be_told_is_given_back(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    // struct io_uring_rsrc_update: any slot, reserved, the ring.
    let words = [u32::MAX, 0, ring.fd as u32, 0];
    let page = sys::read_only(&words.map(u32::to_ne_bytes).concat());
    for _ in 0..20 {
        check_eq!(ring.register(RING_FDS, page.as_ptr(), 1), err(EFAULT), "read-only");
    }
    let mut entry = [u32::MAX, 0, ring.fd as u32, 0];
    check_eq!(ring.register(RING_FDS, entry.as_mut_ptr(), 1), Res(1));
    check_eq!(entry[0], 0, "the first index is free");
}

fn eventfd_counts_completions(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    for _ in 0..3 {
        ring.res(nop());
    }
    let inline = sys::eventfd_count(event);
    check!((1..=3).contains(&inline), "{inline} signals of 3 inline completions");
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, 1)]);
    ring.enter(0, 0, GETEVENTS);
    check_eq!(sys::eventfd_count(event), 0, "nothing completed");
    sys::write(w, b"x");
    ring.wait();
    // A ring with deferred task work signals the work as well as the completion.
    check_in!(sys::eventfd_count(event), [1, 2], "one armed request completed");
}

fn eventfd_wakes_a_program_that_only_waits_for_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, 0);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    let t = ms(20);
    ring.submit_all(&[timeout(&t, 0, 0).ud(1)]);
    let mut count = [0; 8];
    check_eq!(sys::read(event, &mut count), Res(8), "blocking read of the eventfd");
    ring.enter(0, 0, GETEVENTS);
    check_eq!(ring.pop().map(|d| d.res), Some(err(libc::ETIME)));
}

fn eventfd_async_is_silent_inline(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    check_eq!(ring.register(EVENTFD_ASYNC, &event, 1), Res(0));
    ring.res(nop());
    check_eq!(sys::eventfd_count(event), 0, "an inline completion");
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).forced_async()]);
    sys::write(w, b"x");
    ring.wait();
    check!(sys::eventfd_count(event) <= 1, "at most one signal");
}

fn eventfd_can_be_disabled_in_the_ring(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    let flags = ring.word(ring.params.cq_off.flags);
    flags.store(raw::IORING_CQ_EVENTFD_DISABLED, std::sync::atomic::Ordering::Relaxed);
    ring.res(nop());
    check_eq!(sys::eventfd_count(event), 0, "disabled");
    let flags = ring.word(ring.params.cq_off.flags);
    flags.store(0, std::sync::atomic::Ordering::Relaxed);
    ring.res(nop());
    check_eq!(sys::eventfd_count(event), 1, "enabled again");
}

fn eventfd_registration_errors(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    for opcode in [EVENTFD, EVENTFD_ASYNC] {
        check_eq!(ring.register(opcode, &event, 0), err(EINVAL), "nr_args 0");
        check_eq!(ring.register(opcode, &event, 2), err(EINVAL), "nr_args 2");
        check_eq!(ring.register(opcode, sys::BAD, 1), err(EFAULT), "bad pointer");
        check_eq!(ring.register(opcode, NULL, 1), err(EFAULT), "null");
        check_eq!(ring.register(opcode, &-1, 1), err(EBADF), "-1");
        check_eq!(ring.register(opcode, &sys::unused_fd(), 1), err(EBADF), "not open");
        check_eq!(ring.register(opcode, &sys::pipe().0, 1), err(EINVAL), "a pipe");
    }
    check_eq!(ring.register(UNREGISTER_EVENTFD, NULL, 0), err(ENXIO), "none registered");
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    check_eq!(ring.register(EVENTFD, &event, 1), err(EBUSY), "twice");
    check_eq!(ring.register(EVENTFD_ASYNC, &event, 1), err(EBUSY), "twice");
    check_eq!(ring.register(UNREGISTER_EVENTFD, NULL, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(UNREGISTER_EVENTFD, &event, 0), err(EINVAL), "argument");
    check_eq!(ring.register(UNREGISTER_EVENTFD, NULL, 0), Res(0));
    check_eq!(ring.register(UNREGISTER_EVENTFD, NULL, 0), err(ENXIO), "twice");
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0), "again");
}

fn eventfd_outlives_its_descriptor(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    let other = sys::dup(event);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    sys::close(event);
    ring.res(nop());
    check_eq!(sys::eventfd_count(other), 1);
}

fn counter_of(eventfd: i32) -> u64 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{eventfd}")).unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
    line.and_then(|count| u64::from_str_radix(count.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// Task work that the eventfd's own wake-up brings about is signalled there as well, but later: the kernel waits
/// for a grace period, of 16 ms and more. Who comes in before reads what was signalled first, and that alone.
fn eventfd_that_the_ring_reads_itself(abi: &Abi) {
    for by_completion in [false, true].repeat(10) {
        let mut ring = Ring::new(abi, 8);
        let event = sys::eventfd(0, 0);
        check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
        let mut count = [0; 8];
        ring.submit_all(&[sqe::read(event, &mut count, 0).ud(1)]);
        let begun = Instant::now();
        if by_completion {
            check_eq!(ring.run(nop().ud(2)).ud, 2);
        } else {
            sys::write(event, &1u64.to_ne_bytes());
        }
        // Time for another thread to say what it should not.
        std::thread::sleep(Duration::from_micros(300));
        check_eq!(ring.wait().ud, 1);
        if begun.elapsed() < Duration::from_millis(5) {
            check_eq!(u64::from_ne_bytes(count), 1, "by a completion: {by_completion}");
        }
    }
    let mut ring = Ring::new(abi, 8);
    let event = sys::eventfd(0, 0);
    check_eq!(ring.register(EVENTFD, &event, 1), Res(0));
    let mut count = [0; 8];
    ring.submit_all(&[sqe::read(event, &mut count, 0).ud(1)]);
    sys::write(event, &1u64.to_ne_bytes());
    if ring.has(raw::IORING_SETUP_DEFER_TASKRUN) {
        let end = Instant::now() + Duration::from_secs(5);
        while counter_of(event) != 2 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        check_eq!(counter_of(event), 2, "work that waits is told in the end");
    }
    check_eq!(ring.wait().ud, 1);
}

fn update(offset: u32, data: u64) -> [RsrcUpdate2; 1] {
    [RsrcUpdate2 { offset, resv: 0, data, tags: 0, nr: 0, resv2: 0 }]
}

/// The 16 bytes that RING_FDS takes: offset, reserved, descriptor.
fn ring_fd(offset: u32, data: u64) -> Vec<u64> {
    let u = update(offset, data);
    vec![u[0].offset as u64, u[0].data]
}

fn ring_descriptors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut u = ring_fd(u32::MAX, ring.fd as u64);
    check_eq!(ring.register(RING_FDS, u.as_mut_ptr(), 1), Res(1));
    check_eq!(u[0] as u32, 0, "the index that was chosen");
    let registered = raw::IORING_ENTER_REGISTERED_RING;
    ring.push(nop().ud(3));
    check_eq!(abi.enter(0, 1, 1, registered | GETEVENTS), Res(1), "enter by index");
    check_eq!(ring.pop().map(|d| d.ud), Some(3));
    check_eq!(abi.enter(1, 0, 0, registered), err(EBADF), "another index");
    let use_registered = 1u32 << 31;
    let mut p = probe(64);
    check_eq!(abi.register(0, use_registered | PROBE, p.as_mut_ptr(), 64), Res(0), "by index");
    let un = ring_fd(0, 0);
    check_eq!(ring.register(UNREGISTER_RING_FDS, un.as_ptr(), 1), Res(1));
    check_eq!(abi.enter(0, 0, 0, registered), err(EBADF), "after unregistering");
}

fn ring_descriptor_errors(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let fd = ring.fd as u64;
    let good = ring_fd(3, fd);
    check_eq!(ring.register(RING_FDS, good.as_ptr(), 0), err(EINVAL), "nr_args 0");
    check_eq!(ring.register(RING_FDS, good.as_ptr(), 17), err(EINVAL), "nr_args 17");
    check_eq!(ring.register(RING_FDS, sys::BAD, 1), err(EFAULT), "bad pointer");
    for (what, u, want) in [
        ("index 16", ring_fd(16, fd), EINVAL),
        ("reserved", vec![1 << 32 | 3, fd], EINVAL),
        ("bad descriptor", ring_fd(3, sys::unused_fd() as u64), EBADF),
        ("not a ring", ring_fd(3, sys::pipe().0 as u64), EOPNOTSUPP),
    ] {
        check_eq!(ring.register(RING_FDS, u.as_ptr(), 1), err(want), "{what}");
    }
    check_eq!(ring.register(RING_FDS, good.as_ptr(), 1), Res(1), "index 3");
    check_eq!(ring.register(RING_FDS, good.as_ptr(), 1), err(EBUSY), "index 3 again");
    for (what, u, want) in [
        ("index 16", ring_fd(16, 0), EINVAL),
        ("reserved", vec![1 << 32 | 3, 0], EINVAL),
        ("data", ring_fd(3, 1), EINVAL),
    ] {
        check_eq!(ring.register(UNREGISTER_RING_FDS, u.as_ptr(), 1), err(want), "un: {what}");
    }
    let empty = ring_fd(5, 0);
    check_eq!(ring.register(UNREGISTER_RING_FDS, empty.as_ptr(), 1), Res(1), "an empty index");
}

fn ring_descriptors_belong_to_the_thread(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(0));
    let mut u = ring_fd(u32::MAX, ring.fd as u64);
    check_eq!(ring.register(RING_FDS, u.as_mut_ptr(), 1), Res(1));
    let registered = raw::IORING_ENTER_REGISTERED_RING;
    check_eq!(abi.enter(0, 0, 0, registered), Res(0), "here");
    std::thread::scope(|s| {
        s.spawn(|| {
            check_in!(abi.enter(0, 0, 0, registered), [err(EINVAL), err(EBADF)], "elsewhere");
        });
    });
}

fn worker_limits(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let mut limits = [0u32; 2];
    check_eq!(ring.register(WORKERS, limits.as_mut_ptr(), 2), Res(0), "reading");
    check!(limits[0] > 0 && limits[1] > 0, "limits {limits:?}");
    let before = limits;
    let mut limits = [3u32, 5];
    check_eq!(ring.register(WORKERS, limits.as_mut_ptr(), 2), Res(0), "setting");
    check_eq!(limits, before, "the former limits");
    let mut limits = [0u32, 7];
    check_eq!(ring.register(WORKERS, limits.as_mut_ptr(), 2), Res(0), "setting one");
    check_eq!(limits, [3, 5], "the former limits");
    let mut limits = [0u32; 2];
    check_eq!(ring.register(WORKERS, limits.as_mut_ptr(), 2), Res(0));
    check_eq!(limits, [3, 7], "zero leaves a limit alone");
    for nr in [0, 1, 3] {
        check_eq!(ring.register(WORKERS, limits.as_ptr(), nr), err(EINVAL), "nr_args {nr}");
    }
    check_eq!(ring.register(WORKERS, NULL, 2), err(EINVAL), "null");
    check_eq!(ring.register(WORKERS, sys::BAD, 2), err(EFAULT), "bad pointer");
    let huge = [u32::MAX, 1];
    check_eq!(ring.register(WORKERS, huge.as_ptr(), 2), err(EINVAL), "a huge limit");
}

fn work_goes_on_with_one_worker(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let limits = [1u32, 1];
    check_eq!(ring.register(WORKERS, limits.as_ptr(), 2), Res(0));
    let fd = sys::file_with(&[7; 4096]);
    let mut bufs = vec![[0u8; 64]; 64];
    let sqes: Vec<_> = bufs
        .iter_mut()
        .enumerate()
        .map(|(i, buf)| sqe::read(fd, buf, i as u64 * 64).forced_async().ud(i as u64))
        .collect();
    ring.submit_all(&sqes);
    check_eq!(ring.results(64), (0..64).map(|i| (i, Res(64))).collect::<Vec<_>>());
}

fn worker_affinity_arguments(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let mask = [1u64; 2];
    check_eq!(ring.register(AFFINITY, mask.as_ptr(), 0), err(EINVAL), "nr_args 0");
    check_eq!(ring.register(AFFINITY, NULL, 8), err(EINVAL), "null");
    let un = reg::IORING_UNREGISTER_IOWQ_AFF as u32;
    check_eq!(ring.register(un, NULL, 1), err(EINVAL), "nr_args of the way back");
}

fn personalities(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.register(PERSONALITY, NULL, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(PERSONALITY, sys::BAD, 0), err(EINVAL), "argument");
    check_eq!(ring.register(UNREGISTER_PERSONALITY, NULL, 1), err(EINVAL), "none registered");
    let id = ring.register(PERSONALITY, NULL, 0);
    check!(id.0 > 0, "personality = {id}");
    check_eq!(ring.res(nop().with(|s| s.personality = id.0 as u16)), Res(0));
    check_eq!(ring.register(UNREGISTER_PERSONALITY, NULL, id.0 as u32), Res(0));
    check_eq!(ring.res(nop().with(|s| s.personality = id.0 as u16)), err(EINVAL), "gone");
}

fn another_thread_on_a_single_issuer_ring(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(raw::IORING_SETUP_SINGLE_ISSUER));
    let fd = ring.fd;
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut p = probe(64);
            check_eq!(abi.register(fd, PROBE, p.as_mut_ptr(), 64), err(EEXIST), "PROBE");
            check_eq!(abi.register(fd, ENABLE, NULL, 0), err(EEXIST), "ENABLE_RINGS");
            check_eq!(abi.register(fd, EVENTFD, &-1, 1), err(EEXIST), "EVENTFD");
            check_eq!(abi.register(fd, 99, NULL, 0), err(EINVAL), "unknown operation");
        });
    });
    let mut p = probe(64);
    check_eq!(ring.register(PROBE, p.as_mut_ptr(), 64), Res(0), "the submitter");
    let disabled = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_R_DISABLED;
    let ring = Ring::build(abi, 8, params(disabled));
    let fd = ring.fd;
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut p = probe(64);
            check_eq!(abi.register(fd, PROBE, p.as_mut_ptr(), 64), Res(0), "a disabled ring");
        });
    });
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0), "enabled by this thread");
}

family!["register", modes;
    bad_descriptors,
    unknown_operations,
    probe_tells_the_operations,
    probed_operations_are_known_and_others_not,
    probe_checks_its_arguments,
    enable_rings,
    disabled_rings_can_be_prepared,
    an_index_that_cannot_be_told_is_given_back,
    eventfd_counts_completions,
    eventfd_wakes_a_program_that_only_waits_for_it,
    eventfd_async_is_silent_inline,
    eventfd_can_be_disabled_in_the_ring,
    eventfd_registration_errors,
    eventfd_outlives_its_descriptor,
    eventfd_that_the_ring_reads_itself,
    ring_descriptors,
    ring_descriptor_errors,
    ring_descriptors_belong_to_the_thread,
    worker_limits,
    work_goes_on_with_one_worker,
    worker_affinity_arguments,
    personalities,
    another_thread_on_a_single_issuer_ring,
];
