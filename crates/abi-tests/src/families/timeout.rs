//! TIMEOUT and TIMEOUT_REMOVE: clocks, counts, repetition, removal, change.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{
    SqeExt, link_timeout, ms, nop, poll_add, timeout, timeout_remove, timeout_update,
};
use crate::sys;
use libc::{ECANCELED, EFAULT, EINVAL, ENOENT, ETIME};
use soloring_abi::{Timespec, raw};
use std::time::{Duration, Instant};

const ABS: u32 = raw::IORING_TIMEOUT_ABS;
const BOOT: u32 = raw::IORING_TIMEOUT_BOOTTIME;
const REAL: u32 = raw::IORING_TIMEOUT_REALTIME;
const MULTI: u32 = raw::IORING_TIMEOUT_MULTISHOT;
const SUCCESS: u32 = raw::IORING_TIMEOUT_ETIME_SUCCESS;
const UPDATE: u32 = raw::IORING_TIMEOUT_UPDATE;
const LINK_UPDATE: u32 = raw::IORING_LINK_TIMEOUT_UPDATE;

/// A moment `after` milliseconds from now on a clock.
fn moment(clock: i32, after: i64) -> Timespec {
    let ns = sys::clock_ns(clock) + after * 1_000_000;
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

fn fires_not_early(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for flags in [0, BOOT, REAL, SUCCESS] {
        let t = ms(25);
        let start = Instant::now();
        check_eq!(ring.res(timeout(&t, 0, flags)), err(ETIME), "flags {flags:#x}");
        check!(start.elapsed() >= Duration::from_millis(25), "early with flags {flags:#x}");
    }
    for t in [ms(0), Timespec { tv_sec: 0, tv_nsec: 1 }] {
        check_eq!(ring.res(timeout(&t, 0, 0)), err(ETIME), "at once");
    }
}

fn absolute_by_clock(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for (flags, clock) in
        [(0, libc::CLOCK_MONOTONIC), (BOOT, libc::CLOCK_BOOTTIME), (REAL, libc::CLOCK_REALTIME)]
    {
        let t = moment(clock, 25);
        check_eq!(ring.res(timeout(&t, 0, ABS | flags)), err(ETIME), "flags {flags:#x}");
        let late = moment(clock, 0);
        check!((late.tv_sec, late.tv_nsec) >= (t.tv_sec, t.tv_nsec), "early by {flags:#x}");
        let past = moment(clock, -1000);
        check_eq!(ring.res(timeout(&past, 0, ABS | flags)), err(ETIME), "past, {flags:#x}");
    }
}

fn several_fire_in_their_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let spans = [ms(60), ms(20), ms(40), ms(1)];
    let sqes: Vec<_> =
        spans.iter().enumerate().map(|(i, t)| timeout(t, 0, 0).ud(i as u64)).collect();
    ring.submit_all(&sqes);
    check_eq!(ring.wait_n(4).iter().map(|d| d.ud).collect::<Vec<_>>(), [3, 1, 2, 0]);
}

fn the_time_may_be_gone_after_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let mut t = ms(20);
    ring.submit_all(&[timeout(&t, 0, 0)]);
    t.tv_sec = -1;
    check_eq!(ring.wait().res, err(ETIME));
    check_eq!(t.tv_sec, -1);
}

fn bad_flags(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let t = ms(5);
    for flags in
        [UPDATE, LINK_UPDATE, BOOT | REAL, MULTI | ABS, 1 << 7, 1 << 31, u32::MAX, ABS | 1 << 10]
    {
        check_eq!(ring.res(timeout(&t, 0, flags)), err(EINVAL), "flags {flags:#x}");
    }
}

fn the_count_has_32_bits(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let soon = ms(1);
    let limit = crate::sqe::link_timeout(&soon, 0).with(|s| s.off = 1 << 40).ud(2);
    ring.submit_all(&[nop().link().ud(1), limit]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, err(libc::ECANCELED))], "no count at all");
    check_eq!(ring.res(timeout(&soon, 1 << 40, 0)), err(libc::ETIME));
}

fn bad_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let t = ms(5);
    for (what, sqe, want) in [
        ("len 0", timeout(&t, 0, 0).with(|s| s.len = 0), EINVAL),
        ("len 2", timeout(&t, 0, 0).with(|s| s.len = 2), EINVAL),
        ("null", timeout(&t, 0, 0).with(|s| s.addr = 0), EFAULT),
        ("pointer 1", timeout(&t, 0, 0).with(|s| s.addr = 1), EFAULT),
        ("forbidden", timeout(&t, 0, 0).with(|s| s.addr = sys::forbidden_page()), EFAULT),
    ] {
        check_eq!(ring.res(sqe), err(want), "{what}");
    }
    for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (i64::MIN, 0), (1, -5)] {
        let t = Timespec { tv_sec, tv_nsec };
        check_eq!(ring.res(timeout(&t, 0, 0)), err(EINVAL), "{tv_sec} s {tv_nsec} ns");
    }
}

fn a_count_of_completions_ends_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    ring.submit_all(&[timeout(&t, 2, 0).ud(7)]);
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(ring.wait().ud, 1);
    check!(ring.quiet(), "after one of two");
    ring.submit_all(&[nop().ud(2)]);
    check_eq!(ring.results(2), [(2, Res(0)), (7, Res(0))]);
}

fn a_count_reached_in_the_same_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    ring.submit_all(&[timeout(&t, 3, 0).ud(7), nop().ud(1), nop().ud(2), nop().ud(3)]);
    check_eq!(ring.results(4), [(1, Res(0)), (2, Res(0)), (3, Res(0)), (7, Res(0))]);
    ring.submit_all(&[nop().ud(1), timeout(&t, 1, 0).ud(7), nop().ud(2)]);
    check_eq!(ring.results(3), [(1, Res(0)), (2, Res(0)), (7, Res(0))]);
}

fn a_count_that_is_not_reached(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(30);
    ring.submit_all(&[timeout(&t, 5, 0).ud(7), nop().ud(1)]);
    check_eq!(ring.results(2), [(1, Res(0)), (7, err(ETIME))]);
}

fn counts_in_mixed_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    ring.submit_all(&[timeout(&t, 3, 0).ud(13), timeout(&t, 1, 0).ud(11)]);
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(ring.results(2), [(1, Res(0)), (11, Res(0))], "the smaller count");
    ring.submit_all(&[nop().ud(2)]);
    check_eq!(ring.wait().ud, 2);
    // A timeout that ended does not count for the others.
    check!(ring.quiet(), "the larger count ended after two completions");
    ring.submit_all(&[nop().ud(3)]);
    check_eq!(ring.results(2), [(3, Res(0)), (13, Res(0))], "the larger count");
}

fn a_count_leaves_out_what_came_before(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    for i in 0..5 {
        ring.submit_all(&[nop().ud(i)]);
    }
    ring.wait_n(5);
    ring.submit_all(&[timeout(&t, 1, 0).ud(7)]);
    check!(ring.quiet(), "counted earlier completions");
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(ring.results(2), [(1, Res(0)), (7, Res(0))]);
}

fn multishot_repeats(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(10);
    ring.submit_all(&[timeout(&t, 3, MULTI).ud(1)]);
    for i in 0..3 {
        let done = ring.wait();
        check_eq!(done.res, err(ETIME), "shot {i}");
        check_eq!(done.more(), i < 2, "IORING_CQE_F_MORE of shot {i}");
    }
    check!(ring.quiet(), "a fourth shot");
}

fn multishot_without_end_until_removed(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(5);
    ring.submit_all(&[timeout(&t, 0, MULTI).ud(1)]);
    for i in 0..5 {
        let done = ring.wait();
        check_eq!((done.ud, done.res, done.more()), (1, err(ETIME), true), "shot {i}");
    }
    ring.submit_all(&[timeout_remove(1).ud(2)]);
    let end = Instant::now() + Duration::from_secs(5);
    let (mut removed, mut ended) = (None, None);
    while (removed.is_none() || ended.is_none()) && Instant::now() < end {
        let done = ring.wait();
        match (done.ud, done.more()) {
            (2, _) => removed = Some(done.res),
            (_, false) => ended = Some(done.res),
            _ => {}
        }
    }
    check_eq!(removed, Some(Res(0)), "the removal");
    check_eq!(ended, Some(err(ECANCELED)), "the timeout");
}

fn removal(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    check_eq!(ring.res(timeout_remove(1)), err(ENOENT), "nothing there");
    ring.submit_all(&[timeout(&t, 0, 0).ud(1)]);
    check_eq!(ring.res(timeout_remove(2)), err(ENOENT), "another user data");
    ring.submit_all(&[timeout_remove(1).ud(3)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (3, Res(0))]);
    check_eq!(ring.res(timeout_remove(1)), err(ENOENT), "removed already");
    ring.submit_all(&[timeout(&t, 5, 0).ud(1)]);
    ring.submit_all(&[timeout_remove(1).ud(3)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (3, Res(0))], "one with a count");
}

fn removal_takes_one_of_several(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(60_000);
    ring.submit_all(&[timeout(&t, 0, 0).ud(1), timeout(&t, 0, 0).ud(1)]);
    ring.submit_all(&[timeout_remove(1).ud(3)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (3, Res(0))]);
    check!(ring.quiet(), "both were removed");
}

fn removal_checks_its_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    for flags in [ABS, BOOT, 1 << 20, MULTI, SUCCESS] {
        let sqe = timeout_remove(1).with(|s| s.op_flags = flags);
        check_eq!(ring.res(sqe), err(EINVAL), "flags {flags:#x}");
    }
    check_eq!(ring.res(timeout_remove(1).with(|s| s.len = 1)), err(EINVAL), "len");
    check_eq!(ring.res(timeout_remove(1).with(|s| s.off = 1)), err(ENOENT), "off is not looked at");
    let (r, _) = sys::pipe();
    ring.submit_all(&[poll_add(r, 1).ud(5)]);
    check_eq!(ring.res(timeout_remove(5)), err(ENOENT), "not a timeout");
}

fn update_makes_it_earlier(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (long, short) = (ms(60_000), ms(10));
    ring.submit_all(&[timeout(&long, 0, 0).ud(1)]);
    ring.submit_all(&[timeout_update(1, &short, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ETIME)), (2, Res(0))]);
}

fn update_makes_it_later_or_absolute(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (first, later) = (ms(200), ms(400));
    let start = Instant::now();
    ring.submit_all(&[timeout(&first, 0, 0).ud(1)]);
    check_eq!(ring.res(timeout_update(1, &later, 0).ud(2)), Res(0));
    check_eq!(ring.wait().res, err(ETIME));
    check!(start.elapsed() >= Duration::from_millis(400), "early");
    let long = ms(60_000);
    ring.submit_all(&[timeout(&long, 0, 0).ud(1)]);
    let at = moment(libc::CLOCK_MONOTONIC, 10);
    ring.submit_all(&[timeout_update(1, &at, ABS).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ETIME)), (2, Res(0))], "absolute");
}

fn update_checks_its_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(10);
    check_eq!(ring.res(timeout_update(1, &t, 0)), err(ENOENT), "nothing there");
    for flags in [BOOT | REAL, MULTI, SUCCESS, 1 << 20] {
        check_eq!(ring.res(timeout_update(1, &t, flags)), err(EINVAL), "flags {flags:#x}");
    }
    let bad = timeout_update(1, &t, 0).with(|s| s.off = 1);
    check_eq!(ring.res(bad), err(EFAULT), "bad pointer");
    let negative = ms(-5);
    check_eq!(ring.res(timeout_update(1, &negative, 0)), err(EINVAL), "negative time");
    check_eq!(ring.res(timeout_update(1, &t, LINK_UPDATE)), err(ENOENT), "no link timeout");
}

fn update_of_a_link_timeout(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let (long, short) = (ms(60_000), ms(10));
    ring.submit_all(&[poll_add(r, 1).ud(1).link(), link_timeout(&long, 0).ud(2)]);
    check_eq!(ring.res(timeout_update(2, &short, 0).ud(3)), err(ENOENT), "as a plain one");
    ring.submit_all(&[timeout_update(2, &short, LINK_UPDATE).ud(3)]);
    check_eq!(ring.results(3), [(1, err(ECANCELED)), (2, err(ETIME)), (3, Res(0))]);
}

fn many_timeouts(abi: &Abi) {
    let mut ring = Ring::new(abi, 256);
    let (long, short) = (ms(60_000), ms(15));
    for round in 0..8 {
        let sqes: Vec<_> = (0..256)
            .map(|i| {
                let ud = round * 256 + i;
                timeout(if ud % 2 == 0 { &long } else { &short }, 0, 0).ud(ud)
            })
            .collect();
        ring.submit_all(&sqes);
    }
    for _ in 0..1024 {
        let done = ring.wait();
        check!(done.ud % 2 == 1 && done.res == err(ETIME), "{done:?}");
    }
    for ud in (0..2048).step_by(2) {
        ring.submit_all(&[timeout_remove(ud).ud(9999)]);
        let got = ring.results(2);
        check_eq!(got, [(ud, err(ECANCELED)), (9999, Res(0))]);
    }
}

family!["timeout", modes;
    fires_not_early,
    absolute_by_clock,
    several_fire_in_their_order,
    the_time_may_be_gone_after_submission,
    bad_flags,
    bad_fields,
    the_count_has_32_bits,
    a_count_of_completions_ends_it,
    a_count_reached_in_the_same_submission,
    a_count_that_is_not_reached,
    counts_in_mixed_order,
    a_count_leaves_out_what_came_before,
    multishot_repeats,
    multishot_without_end_until_removed,
    removal,
    removal_takes_one_of_several,
    removal_checks_its_fields,
    update_makes_it_earlier,
    update_makes_it_later_or_absolute,
    update_checks_its_fields,
    update_of_a_link_timeout,
    many_timeouts,
];
