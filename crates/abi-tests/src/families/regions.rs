//! REGISTER_MEM_REGION, and waits whose arguments lie in it (ENTER_EXT_ARG_REG).

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop};
use crate::sys;
use libc::{EBUSY, EFAULT, EINVAL, ENOMEM, ETIME};
use soloring_abi::raw;
use std::time::{Duration, Instant};

const REGION: u32 = raw::io_uring_register_op::IORING_REGISTER_MEM_REGION as u32;
const ENABLE: u32 = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
const DISABLED: u32 = raw::IORING_SETUP_R_DISABLED;
const WAIT: u32 = raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG;
const BY_REGION: u32 = WAIT | raw::IORING_ENTER_EXT_ARG_REG;
/// `IORING_MEM_REGION_TYPE_USER`, `IORING_MEM_REGION_REG_WAIT_ARG`, `IORING_REG_WAIT_TS`.
const USER: u64 = 1;
const WAIT_ARG: u64 = 1;
const HAS_TIME: u64 = 1 << 32;
/// Where a region of the ring's own memory is mapped.
const OFFSET: u64 = 0x2000_0000;
const PAGE: usize = 4096;

/// `struct io_uring_region_desc`: address, size, flags with id, offset, four reserved words.
type Desc = [u64; 8];

fn desc(memory: u64, size: usize) -> Desc {
    [memory, size as u64, u64::from(memory != 0) * USER, 0, 0, 0, 0, 0]
}

/// Registers with `struct io_uring_mem_region_reg`: description, flags, two reserved words.
fn register(ring: &Ring, desc: &mut Desc, flags: u64) -> Res {
    let reg = [desc.as_mut_ptr() as u64, flags, 0, 0];
    ring.register(REGION, reg.as_ptr(), 1)
}

/// A ring with a page of the program's for its waits.
fn with_waits(abi: &Abi, memory: *mut u8) -> Ring<'_> {
    let ring = Ring::with_flags(abi, 8, DISABLED);
    let mut d = desc(memory as u64, PAGE);
    check_eq!(register(&ring, &mut d, WAIT_ARG), Res(0));
    check_eq!(ring.register(ENABLE, std::ptr::null::<u8>(), 0), Res(0));
    ring
}

/// `struct io_uring_reg_wait`: seconds, nanoseconds, shortest wait with flags, signal mask, its size.
fn fill(memory: *mut u8, at: usize, words: [u64; 8]) {
    let bytes = words.map(u64::to_ne_bytes).concat();
    sys::poke(memory as usize + at, &bytes);
}

fn wait(ring: &Ring, n: u32, at: usize, size: usize) -> Res {
    ring.abi.enter_arg(ring.fd, 0, n, BY_REGION, at as *const _, size)
}

fn arguments(abi: &Abi) {
    let page = sys::buffer(PAGE).as_ptr() as u64;
    let good = desc(page, PAGE);
    let change = |at: usize, word: u64| {
        let mut d = good;
        d[at] = word;
        d
    };
    for (what, mut d, want) in [
        ("no memory", change(0, 0), err(EFAULT)),
        ("memory, and not said so", change(2, 0), err(EFAULT)),
        ("flags", change(2, USER | 2), err(EINVAL)),
        ("an id", change(2, USER | 1 << 32), err(EINVAL)),
        ("size 0", change(1, 0), err(EINVAL)),
        ("half a page", change(1, 2048), err(EINVAL)),
        ("inside a page", change(0, page + 8), err(EINVAL)),
        ("an offset", change(3, OFFSET), err(EINVAL)),
        ("reserved", change(4, 1), err(EINVAL)),
        ("reserved", change(7, 1), err(EINVAL)),
        ("memory that is not there", change(0, sys::forbidden_page()), err(EFAULT)),
        ("memory that is read only", change(0, sys::read_only_page()), err(EFAULT)),
        ("good", good, Res(0)),
    ] {
        let ring = Ring::build(abi, 8, params(0));
        check_eq!(register(&ring, &mut d, 0), want, "{what}");
        if want == Res(0) {
            check_eq!(register(&ring, &mut d, 0), err(EBUSY), "again");
        }
    }
    let ring = Ring::build(abi, 8, params(DISABLED));
    let mut d = good;
    check_eq!(register(&ring, &mut d, 2), err(EINVAL), "flags");
    let reg = [d.as_mut_ptr() as u64, WAIT_ARG, 1, 0];
    check_eq!(ring.register(REGION, reg.as_ptr(), 1), err(EINVAL), "reserved");
    check_eq!(ring.register(REGION, reg.as_ptr(), 0), err(EINVAL), "count 0");
    check_eq!(ring.register(REGION, sys::BAD, 1), err(EFAULT), "bad pointer");
    check_eq!(ring.register(REGION, std::ptr::null::<u8>(), 1), err(EINVAL), "no pointer");
    check_eq!(ring.register(REGION, [0u64; 4].as_ptr(), 1), err(EFAULT), "no description");
    check_eq!(register(&ring, &mut d, WAIT_ARG), Res(0), "for waits, on a disabled ring");
    let ring = Ring::build(abi, 8, params(0));
    check_eq!(register(&ring, &mut d, WAIT_ARG), err(EINVAL), "for waits, on an enabled one");
}

/// More than one piece of the page allocator's is not to be had; that much may not be there.
fn how_much_the_ring_has_itself(abi: &Abi) {
    for (size, want) in [
        (PAGE, Res(0)),
        (1 << 16, Res(0)),
        ((4 << 20) + PAGE, err(ENOMEM)),
        (6 << 20, err(ENOMEM)),
        (1 << 30, err(ENOMEM)),
        (0x7fff_ffff << 12, err(ENOMEM)),
        (1 << 43, err(libc::E2BIG)),
    ] {
        let ring = Ring::build(abi, 8, params(0));
        check_eq!(register(&ring, &mut desc(0, size), 0), want, "{size:#x}");
    }
}

fn waits_take_their_arguments_from_it(abi: &Abi) {
    let at = sys::buffer(PAGE).as_mut_ptr();
    let mut ring = with_waits(abi, at);
    fill(at, 64, [0, 30_000_000, HAS_TIME, 0, 0, 0, 0, 0]);
    let begun = Instant::now();
    check_eq!(wait(&ring, 1, 64, 64), err(ETIME), "thirty milliseconds");
    check!(begun.elapsed() >= Duration::from_millis(30), "{:?}", begun.elapsed());
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(wait(&ring, 1, 64, 64), Res(0), "one is there");
    check_eq!(wait(&ring, 2, 64, 64), Res(0), "one of two when time is up");
    check_eq!(ring.pop().map(|d| d.ud), Some(1));
    // No time, with the time not said to be there.
    fill(at, 64, [0, 30_000_000, 0, 0, 0, 0, 0, 0]);
    ring.submit_all(&[nop().ud(2)]);
    check_eq!(wait(&ring, 1, 64, 64), Res(0));
}

fn what_a_wait_may_say(abi: &Abi) {
    let at = sys::buffer(2 * PAGE).as_mut_ptr();
    let ring = with_waits(abi, at);
    let short = [0, 1_000_000, HAS_TIME, 0, 0, 0, 0, 0];
    // Not the last place: there Linux 6.18 looks at the first.
    for offset in [0, 8, 64, PAGE - 72] {
        fill(at, offset, short);
        check_eq!(wait(&ring, 1, offset, 64), err(ETIME), "at {offset}");
    }
    for offset in [1, 4, PAGE - 63, PAGE - 56, PAGE, usize::MAX - 7, usize::MAX - 63] {
        check_eq!(wait(&ring, 1, offset, 64), err(EFAULT), "at {offset:#x}");
    }
    for size in [0, 63, 65, 24] {
        check_eq!(wait(&ring, 1, 0, size), err(EINVAL), "size {size}");
    }
    fill(at, 0, [0, 1_000_000, HAS_TIME << 1, 0, 0, 0, 0, 0]);
    check_eq!(wait(&ring, 1, 0, 64), err(EINVAL), "flags");
    fill(at, 0, [0, 1_000_000, HAS_TIME, at as u64, 1, 0, 0, 0]);
    check_eq!(wait(&ring, 1, 0, 64), err(EINVAL), "a mask of one byte");
    fill(at, 0, [0, 1_000_000, HAS_TIME, 100, 8, 0, 0, 0]);
    check_eq!(wait(&ring, 1, 0, 64), err(EFAULT), "a mask that is not there");
    // Padding means nothing.
    fill(at, 0, [0, 1_000_000, HAS_TIME, 0, 1 << 32, 1, 1, 1]);
    check_eq!(wait(&ring, 1, 0, 64), err(ETIME), "padding");
}

fn rings_without_one(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    check_eq!(wait(&ring, 1, 0, 64), err(EFAULT), "none");
    check_eq!(wait(&ring, 0, 0, 64), err(EFAULT), "none, and nothing to wait for");
    let mut d = desc(sys::buffer(PAGE).as_ptr() as u64, PAGE);
    check_eq!(register(&ring, &mut d, 0), Res(0));
    check_eq!(wait(&ring, 1, 0, 64), err(EFAULT), "one that is not for waits");
    // Without EXT_ARG the flag means nothing.
    let flags = raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG_REG;
    check_eq!(abi.enter(ring.fd, 0, 0, flags), Res(0));
}

fn memory_of_the_ring(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, DISABLED);
    check_eq!(abi.mmap(ring.fd, PAGE, OFFSET as i64), err(ENOMEM), "before");
    let mut d = desc(0, 2 * PAGE);
    check_eq!(register(&ring, &mut d, WAIT_ARG), Res(0));
    check_eq!(d, [0, 2 * PAGE as u64, 0, OFFSET, 0, 0, 0, 0]);
    check_eq!(ring.register(ENABLE, std::ptr::null::<u8>(), 0), Res(0));
    check_eq!(abi.mmap(ring.fd, PAGE, OFFSET as i64), err(EFAULT), "half of it");
    let at = abi.mmap(ring.fd, 2 * PAGE, OFFSET as i64);
    assert!(!at.is_err(), "mmap = {at}");
    let at = at.0 as usize as *mut u8;
    fill(at, PAGE, [0, 1_000_000, HAS_TIME, 0, 0, 0, 0, 0]);
    check_eq!(wait(&ring, 1, PAGE, 64), err(ETIME));
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(wait(&ring, 1, PAGE, 64), Res(0));
}

family!["regions", modes;
    arguments,
    how_much_the_ring_has_itself,
    waits_take_their_arguments_from_it,
    what_a_wait_may_say,
    rings_without_one,
    memory_of_the_ring,
];
