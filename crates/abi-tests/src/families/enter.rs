//! io_uring_enter: arguments, waiting, timeouts, signals, whose thread may call.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, ms, nop, poll_add, timeout};
use crate::sys;
use libc::{EBADF, EBADFD, EEXIST, EFAULT, EINTR, EINVAL, EOPNOTSUPP, ETIME};
use soloring_abi::{GeteventsArg, Timespec, raw};
use std::time::{Duration, Instant};

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const EXT_ARG: u32 = raw::IORING_ENTER_EXT_ARG;
const ABS: u32 = raw::IORING_ENTER_ABS_TIMER;
const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const DEFER: u32 = raw::IORING_SETUP_DEFER_TASKRUN;
const R_DISABLED: u32 = raw::IORING_SETUP_R_DISABLED;

fn arg(ts: Option<&Timespec>) -> GeteventsArg {
    let ts = ts.map_or(0, |ts| std::ptr::from_ref(ts) as u64);
    GeteventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts }
}

fn enter_ext(ring: &Ring, submit: u32, min: u32, flags: u32, arg: &GeteventsArg) -> Res {
    let at = std::ptr::from_ref(arg).cast();
    ring.abi.enter_arg(ring.fd, submit, min, flags | EXT_ARG, at, size_of::<GeteventsArg>())
}

fn bad_descriptors(abi: &Abi) {
    for flags in [0, GETEVENTS] {
        check_eq!(abi.enter(-1, 0, 0, flags), err(EBADF), "-1");
        check_eq!(abi.enter(sys::unused_fd(), 1, 0, flags), err(EBADF), "unused");
        check_eq!(abi.enter(i32::MIN, 1, 0, flags), err(EBADF), "negative");
        check_eq!(abi.enter(0, 1, 0, flags), err(EOPNOTSUPP), "standard input");
        check_eq!(abi.enter(sys::pipe().0, 0, 0, flags), err(EOPNOTSUPP), "a pipe");
        check_eq!(abi.enter(sys::eventfd(0, 0), 0, 0, flags), err(EOPNOTSUPP), "an eventfd");
    }
}

fn unknown_flags_come_first(abi: &Abi) {
    let ring = Ring::build(abi, 4, params(0));
    for bit in 8..32 {
        check_eq!(ring.enter(0, 0, 1 << bit), err(EINVAL), "flag bit {bit}");
        check_eq!(ring.enter(0, 0, GETEVENTS | 1 << bit), err(EINVAL), "flag bit {bit}");
    }
    check_eq!(abi.enter(-1, 0, 0, 1 << 31), err(EINVAL), "with a bad descriptor");
}

fn nothing_to_do_returns_at_once(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    check_eq!(ring.enter(0, 0, 0), Res(0));
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0), "GETEVENTS for none");
    check_eq!(ring.enter(0, 5, 0), Res(0), "min_complete without GETEVENTS");
    check_eq!(ring.enter(7, 0, 0), Res(0), "to_submit with an empty SQ");
}

fn to_submit_is_bounded_by_what_is_there(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    ring.push_all(&[nop().ud(1), nop().ud(2), nop().ud(3)]);
    check_eq!(ring.enter(1, 0, 0), Res(1), "one of three");
    check_eq!(ring.pending(), 2);
    check_eq!(ring.enter(1000, 0, 0), Res(2), "more than there are");
    check_eq!(ring.enter(u32::MAX, 0, 0), Res(0), "none left");
    check_eq!(ring.results(3).len(), 3);
}

fn submit_and_wait_in_one_call(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push_all(&[nop().ud(1), nop().ud(2)]);
    check_eq!(ring.enter(2, 2, GETEVENTS), Res(2));
    check_eq!(ring.cq_ready(), 2);
    // Completions that are already there count.
    check_eq!(ring.enter(0, 2, GETEVENTS), Res(0));
}

fn min_complete_is_capped_by_the_cq(abi: &Abi) {
    let mut ring = Ring::new(abi, 2);
    for _ in 0..2 {
        ring.submit_all(&[nop(), nop()]);
    }
    check_eq!(ring.params.cq_entries, 4);
    check_eq!(ring.enter(0, 1000, GETEVENTS), Res(0), "a full CQ is enough");
}

fn waits_until_enough_completed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let pipes = [sys::pipe(), sys::pipe()];
    ring.push_all(&pipes.map(|(r, _)| poll_add(r, libc::POLLIN as u32)));
    std::thread::scope(|s| {
        s.spawn(|| {
            for (_, w) in pipes {
                std::thread::sleep(Duration::from_millis(20));
                sys::write(w, b"x");
            }
        });
        check_eq!(ring.enter(2, 2, GETEVENTS), Res(2));
        check_eq!(ring.cq_ready(), 2);
    });
}

fn a_timeout_that_fires_ends_the_wait(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let t = ms(20);
    ring.push(timeout(&t, 0, 0).ud(1));
    let start = Instant::now();
    check_eq!(ring.enter(1, 3, GETEVENTS), Res(1), "one of three");
    check!(start.elapsed() >= Duration::from_millis(20), "returned early");
    check_eq!(ring.cq_ready(), 1);
}

fn disabled_ring_refuses(abi: &Abi) {
    for flags in [R_DISABLED, R_DISABLED | SINGLE, R_DISABLED | SINGLE | DEFER] {
        let mut ring = Ring::build(abi, 4, params(flags));
        ring.push(nop().ud(1));
        check_eq!(ring.enter(1, 0, 0), err(EBADFD), "flags {flags:#x}");
        check_eq!(ring.enter(0, 0, 0), err(EBADFD), "flags {flags:#x}");
        check_eq!(ring.enter(0, 0, GETEVENTS), err(EBADFD), "flags {flags:#x}");
        check_eq!(ring.enter(0, 0, 1 << 30), err(EINVAL), "flags {flags:#x}");
        check_eq!(
            ring.register(
                raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32,
                std::ptr::null::<u8>(),
                0
            ),
            Res(0),
            "enable"
        );
        check_eq!(ring.enter(1, 1, GETEVENTS), Res(1), "enabled");
    }
}

fn ext_arg_size_is_checked(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let a = arg(None);
    let at = std::ptr::from_ref(&a).cast();
    ring.submit_all(&[nop()]);
    for size in [0, 1, 8, 16, 23, 25, 64] {
        let res = abi.enter_arg(ring.fd, 0, 1, GETEVENTS | EXT_ARG, at, size);
        check_eq!(res, err(EINVAL), "size {size}");
    }
    check_eq!(abi.enter_arg(ring.fd, 0, 1, GETEVENTS | EXT_ARG, at, 24), Res(0));
}

fn ext_arg_size_does_not_matter_without_getevents(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    for size in [0, 7, 24] {
        check_eq!(
            abi.enter_arg(ring.fd, 0, 0, EXT_ARG, std::ptr::null(), size),
            Res(0),
            "size {size}"
        );
    }
}

fn bad_ext_arg_pointers(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let forbidden = sys::forbidden_page();
    for at in [1, forbidden, 0xffff_8000_0000_0000] {
        let res = abi.enter_arg(ring.fd, 0, 1, GETEVENTS | EXT_ARG, at as *const _, 24);
        check_eq!(res, err(EFAULT), "argument");
        let mut a = arg(None);
        a.ts = at;
        check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(EFAULT), "timespec");
        let mut a = arg(None);
        (a.sigmask, a.sigmask_sz) = (at, 8);
        check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(EFAULT), "sigmask");
    }
    // What was submitted counts more than the failure to wait.
    ring.push(nop());
    let res = abi.enter_arg(ring.fd, 1, 1, GETEVENTS | EXT_ARG, forbidden as *const _, 24);
    check_eq!(res, Res(1), "submitted, then a bad argument");
    check_eq!(ring.wait().res, Res(0));
}

fn bad_timespecs(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    for (tv_sec, tv_nsec, want) in
        [(0, 0, err(ETIME)), (0, 1, err(ETIME)), (0, 2_000_000, err(ETIME))]
    {
        let ts = Timespec { tv_sec, tv_nsec };
        let res = enter_ext(&ring, 0, 1, GETEVENTS, &arg(Some(&ts)));
        check_eq!(res, want, "{tv_sec} s {tv_nsec} ns");
    }
}

fn wait_ends_with_etime(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let start = Instant::now();
    check_eq!(ring.wait_for(1, Duration::from_millis(30)), err(ETIME));
    check!(start.elapsed() >= Duration::from_millis(30), "returned early");
    // One is there, two are wanted: having something to show is success.
    ring.submit_all(&[nop()]);
    let start = Instant::now();
    check_eq!(ring.wait_for(2, Duration::from_millis(30)), Res(0), "one of two");
    check!(start.elapsed() >= Duration::from_millis(30), "returned early");
    check_eq!(ring.wait_for(1, Duration::from_millis(10)), Res(0), "one of one");
    check_eq!(ring.wait_for(0, Duration::from_millis(10)), Res(0), "none wanted");
}

fn submitting_hides_etime(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    ring.push(nop());
    let ts = ms(10);
    check_eq!(enter_ext(&ring, 1, 2, GETEVENTS, &arg(Some(&ts))), Res(1));
}

fn absolute_deadline(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let at = sys::clock_ns(libc::CLOCK_MONOTONIC) + 30_000_000;
    let ts = Timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
    check_eq!(enter_ext(&ring, 0, 1, GETEVENTS | ABS, &arg(Some(&ts))), err(ETIME));
    check!(sys::clock_ns(libc::CLOCK_MONOTONIC) >= at, "before the deadline");
    let past = Timespec { tv_sec: 0, tv_nsec: 1 };
    check_eq!(enter_ext(&ring, 0, 1, GETEVENTS | ABS, &arg(Some(&past))), err(ETIME), "past");
}

fn min_wait_returns_with_what_came(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.submit_all(&[nop()]);
    let long = ms(4000);
    let mut a = arg(Some(&long));
    a.min_wait_usec = 20_000;
    let start = Instant::now();
    check_eq!(enter_ext(&ring, 0, 4, GETEVENTS, &a), Res(0), "one of four after the minimum");
    check!(start.elapsed() >= Duration::from_millis(20), "before the minimum wait");
    check!(start.elapsed() < Duration::from_secs(3), "at the long timeout");
}

fn min_wait_then_waits_for_the_first(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let t = ms(80);
    let start = Instant::now();
    ring.submit_all(&[timeout(&t, 0, 0).ud(1)]);
    let long = ms(4000);
    let mut a = arg(Some(&long));
    a.min_wait_usec = 10_000;
    check_eq!(enter_ext(&ring, 0, 4, GETEVENTS, &a), Res(0));
    check!(start.elapsed() >= Duration::from_millis(75), "before the first completion");
    check!(start.elapsed() < Duration::from_secs(3), "at the long timeout");
    check_eq!(ring.cq_ready(), 1);
}

/// As before, with a completion that is none of a TIMEOUT: that would end any wait.
fn min_wait_then_waits_for_a_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, libc::POLLIN as u32)]);
    let long = ms(30_000);
    let mut a = arg(Some(&long));
    a.min_wait_usec = 5_000;
    let start = Instant::now();
    let me = sys::thread_id();
    std::thread::scope(|s| {
        s.spawn(move || {
            sys::until_asleep(me);
            // Beyond the minimum.
            std::thread::sleep(Duration::from_millis(60));
            sys::write(w, b"x");
        });
        check_eq!(enter_ext(&ring, 0, 4, GETEVENTS, &a), Res(0), "the first of four");
    });
    check!(start.elapsed() < Duration::from_secs(20), "at the long timeout");
    check_eq!(ring.cq_ready(), 1);
}

fn min_wait_alone_is_the_end(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut a = arg(None);
    a.min_wait_usec = 5_000;
    for wanted in [1, 4] {
        check_eq!(enter_ext(&ring, 0, wanted, GETEVENTS, &a), err(ETIME), "nothing came");
    }
    ring.submit_all(&[nop()]);
    check_eq!(enter_ext(&ring, 0, 4, GETEVENTS, &a), Res(0), "one of four");
}

fn min_wait_with_nothing_at_all(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let total = ms(40);
    let mut a = arg(Some(&total));
    a.min_wait_usec = 5_000;
    check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(ETIME));
}

fn sigmask_size_is_checked(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let set = sys::sigset(&[]);
    let at = (&raw const set) as u64;
    for size in [1, 4, 7, 9, 16, 128] {
        let mut a = arg(None);
        (a.sigmask, a.sigmask_sz) = (at, size);
        check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(EINVAL), "EXT_ARG, size {size}");
        let res = abi.enter_arg(ring.fd, 0, 1, GETEVENTS, at as *const _, size as usize);
        check_eq!(res, err(EINVAL), "plain, size {size}");
    }
    // A null mask needs no size.
    let zero = ms(0);
    let mut a = arg(Some(&zero));
    a.sigmask_sz = 5;
    check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(ETIME), "null mask");
}

fn sigmask_is_for_those_who_wait(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let enter = |min| abi.enter_arg(ring.fd, 0, min, GETEVENTS, std::ptr::without_provenance(1), 5);
    check_eq!(enter(0), Res(0), "no completion asked for");
    check_eq!(enter(1), err(EINVAL), "one asked for");
    ring.submit_all(&[nop()]);
    let enter = |min| abi.enter_arg(ring.fd, 0, min, GETEVENTS, std::ptr::without_provenance(1), 5);
    check_eq!(enter(1), Res(0), "and there");
    check_eq!(enter(2), err(EINVAL), "and one more");
}

fn handler_interrupts_the_wait(abi: &Abi) {
    sys::catch(libc::SIGUSR1);
    let ring = Ring::new(abi, 4);
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(30));
    check_eq!(ring.enter(0, 1, GETEVENTS), err(EINTR));
    check_eq!(sys::signals_seen(), 1, "handlers run");
    helper.join().unwrap();
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(30));
    check_eq!(ring.wait_for(1, Duration::from_secs(5)), err(EINTR), "with a timeout");
    helper.join().unwrap();
}

fn a_completion_hides_eintr(abi: &Abi) {
    sys::catch(libc::SIGUSR1);
    let mut ring = Ring::new(abi, 4);
    ring.submit_all(&[nop()]);
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(30));
    check_eq!(ring.enter(0, 2, GETEVENTS), Res(0));
    check_eq!(sys::signals_seen(), 1, "handlers run");
    helper.join().unwrap();
}

fn submitting_hides_eintr(abi: &Abi) {
    sys::catch(libc::SIGUSR1);
    let mut ring = Ring::new(abi, 4);
    ring.push(nop());
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(30));
    check_eq!(ring.enter(1, 2, GETEVENTS), Res(1));
    check_eq!(sys::signals_seen(), 1, "handlers run");
    helper.join().unwrap();
}

fn sigmask_blocks_during_the_wait(abi: &Abi) {
    sys::catch(libc::SIGUSR1);
    let ring = Ring::new(abi, 4);
    let set = sys::sigset(&[libc::SIGUSR1]);
    let ts = ms(120);
    let mut a = arg(Some(&ts));
    (a.sigmask, a.sigmask_sz) = ((&raw const set) as u64, 8);
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(20));
    check_eq!(enter_ext(&ring, 0, 1, GETEVENTS, &a), err(ETIME), "blocked while waiting");
    helper.join().unwrap();
    check_eq!(sys::signals_seen(), 1, "delivered after the wait");
}

fn sigmask_unblocks_during_the_wait(abi: &Abi) {
    sys::catch(libc::SIGUSR1);
    sys::block_signal(libc::SIGUSR1, true);
    let ring = Ring::new(abi, 4);
    let set = sys::sigset(&[]);
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::from_millis(20));
    let at = (&raw const set).cast();
    check_eq!(abi.enter_arg(ring.fd, 0, 1, GETEVENTS, at, 8), err(EINTR));
    helper.join().unwrap();
    check_eq!(sys::signals_seen(), 1, "delivered during the wait");
    let helper = sys::signal_me_after(libc::SIGUSR1, Duration::ZERO);
    helper.join().unwrap();
    check_eq!(sys::signals_seen(), 1, "blocked again after the wait");
}

fn another_thread_on_a_single_issuer_ring(abi: &Abi) {
    let other = |ring: &Ring, submit, min, flags| {
        let fd = ring.fd;
        std::thread::scope(|s| s.spawn(|| abi.enter(fd, submit, min, flags)).join().unwrap())
    };
    let mut ring = Ring::build(abi, 4, params(SINGLE));
    ring.push(nop());
    check_eq!(other(&ring, 1, 0, 0), err(EEXIST), "submit");
    check_eq!(ring.pending(), 1, "nothing was taken");
    check_eq!(other(&ring, 0, 0, GETEVENTS), Res(0), "GETEVENTS");
    check_eq!(ring.enter(1, 0, 0), Res(1), "the submitter");
    check_eq!(other(&ring, 0, 1, GETEVENTS), Res(0), "waiting for what is there");

    let mut ring = Ring::build(abi, 4, params(SINGLE | DEFER));
    ring.push(nop());
    check_eq!(other(&ring, 1, 0, 0), err(EEXIST), "submit on DEFER_TASKRUN");
    check_eq!(other(&ring, 0, 0, GETEVENTS), err(EEXIST), "GETEVENTS on DEFER_TASKRUN");
    check_eq!(other(&ring, 0, 1, GETEVENTS), err(EEXIST), "waiting on DEFER_TASKRUN");
    check_eq!(ring.enter(1, 0, 0), Res(1), "the submitter");
}

fn first_enterer_of_a_disabled_single_issuer_ring_owns_it(abi: &Abi) {
    let mut ring = Ring::build(abi, 4, params(SINGLE | R_DISABLED));
    let fd = ring.fd;
    let enable = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
    std::thread::scope(|s| {
        s.spawn(|| check_eq!(abi.register(fd, enable, std::ptr::null::<u8>(), 0), Res(0)));
    });
    ring.push(nop());
    check_eq!(ring.enter(1, 0, 0), err(EEXIST), "owned by the thread that enabled it");
}

fn several_threads_on_a_plain_ring(abi: &Abi) {
    let mut ring = Ring::build(abi, 64, params(0));
    ring.push_all(&(0..40).map(|i| nop().ud(i)).collect::<Vec<_>>());
    let fd = ring.fd;
    let taken: i64 = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(|| abi.enter(fd, 10, 0, 0).0)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    check_eq!(taken, 40, "entries taken");
    let mut seen: Vec<u64> = ring.wait_n(40).iter().map(|d| d.ud).collect();
    seen.sort();
    check_eq!(seen, (0..40).collect::<Vec<_>>());
}

fn a_waiter_is_woken_by_another_threads_submission(abi: &Abi) {
    let mut ring = Ring::build(abi, 4, params(0));
    let fd = ring.fd;
    std::thread::scope(|s| {
        let waiter = s.spawn(|| abi.enter(fd, 0, 1, GETEVENTS));
        std::thread::sleep(Duration::from_millis(30));
        ring.submit_all(&[nop()]);
        check_eq!(waiter.join().unwrap(), Res(0));
    });
}

fn a_waiter_is_woken_by_readiness(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, libc::POLLIN as u32).ud(3)]);
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            sys::write(w, b"x");
        });
        check_eq!(ring.enter(0, 1, GETEVENTS), Res(0));
    });
    check_eq!(ring.pop().map(|d| d.res), Some(Res(libc::POLLIN as i64)));
}

fn registered_ring_needs_registration(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let flag = raw::IORING_ENTER_REGISTERED_RING;
    for index in [0, 1, 15] {
        check_eq!(abi.enter(index, 0, 0, flag), err(EBADF), "index {index}");
    }
    for index in [16, 17, 1000, -1] {
        check_eq!(abi.enter(index, 0, 0, flag), err(EINVAL), "index {index}");
    }
    drop(ring);
}

fn wakeup_flags_mean_nothing_without_sqpoll(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    check_eq!(ring.enter(0, 0, raw::IORING_ENTER_SQ_WAKEUP), Res(0));
    check_eq!(ring.enter(0, 0, raw::IORING_ENTER_SQ_WAIT), Res(0));
    check_eq!(ring.enter(0, 0, raw::IORING_ENTER_NO_IOWAIT), Res(0));
    check_eq!(ring.enter(0, 0, ABS), Res(0), "ABS_TIMER without a wait");
}

fn ext_arg_reg_needs_a_region(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let reg = raw::IORING_ENTER_EXT_ARG_REG;
    let flags = GETEVENTS | EXT_ARG | reg;
    let res = abi.enter_arg(ring.fd, 0, 1, flags, std::ptr::null(), 64);
    // A ring that has no wait regions does not know the flag.
    let want = if abi.is_kernel() { [err(EFAULT); 2] } else { [err(EFAULT), err(EINVAL)] };
    check!(want.contains(&res), "no region = {res}");
    let res = abi.enter_arg(ring.fd, 0, 1, flags, std::ptr::null(), 24);
    check_eq!(res, err(EINVAL), "another size");
}

family!["enter", modes;
    bad_descriptors,
    unknown_flags_come_first,
    nothing_to_do_returns_at_once,
    to_submit_is_bounded_by_what_is_there,
    submit_and_wait_in_one_call,
    min_complete_is_capped_by_the_cq,
    waits_until_enough_completed,
    a_timeout_that_fires_ends_the_wait,
    disabled_ring_refuses,
    ext_arg_size_is_checked,
    ext_arg_size_does_not_matter_without_getevents,
    bad_ext_arg_pointers,
    bad_timespecs,
    wait_ends_with_etime,
    submitting_hides_etime,
    absolute_deadline,
    min_wait_returns_with_what_came,
    min_wait_then_waits_for_the_first,
    min_wait_then_waits_for_a_file,
    min_wait_alone_is_the_end,
    min_wait_with_nothing_at_all,
    sigmask_size_is_checked,
    sigmask_is_for_those_who_wait,
    handler_interrupts_the_wait,
    a_completion_hides_eintr,
    submitting_hides_eintr,
    sigmask_blocks_during_the_wait,
    sigmask_unblocks_during_the_wait,
    another_thread_on_a_single_issuer_ring,
    first_enterer_of_a_disabled_single_issuer_ring_owns_it,
    several_threads_on_a_plain_ring,
    a_waiter_is_woken_by_another_threads_submission,
    a_waiter_is_woken_by_readiness,
    registered_ring_needs_registration,
    wakeup_flags_mean_nothing_without_sqpoll,
    ext_arg_reg_needs_a_region,
];
