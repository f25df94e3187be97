//! `io_uring_setup` and `io_uring_enter` with bad arguments.

use super::mismatch::Mismatch;
use super::numbers::{number, one_in, pick};
use super::pages::{PAGE, Pages, put};
use crate::backend::{Abi, Kernel};
use crate::res::Res;
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop};
use crate::sys;
use fastrand::Rng;
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Params, extra, raw};
use std::cell::RefCell;

/// Calls of one seed.
const CALLS: usize = 200;

/// Ring flags that change nothing about which arguments are good.
const SETUP_FLAGS: &[u32] = &[
    0,
    raw::IORING_SETUP_CQSIZE,
    raw::IORING_SETUP_CLAMP,
    raw::IORING_SETUP_R_DISABLED,
    raw::IORING_SETUP_SINGLE_ISSUER,
    raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN,
    raw::IORING_SETUP_COOP_TASKRUN | raw::IORING_SETUP_TASKRUN_FLAG,
    raw::IORING_SETUP_TASKRUN_FLAG,
    raw::IORING_SETUP_DEFER_TASKRUN,
    raw::IORING_SETUP_SQE128,
    raw::IORING_SETUP_CQE32,
    extra::IORING_SETUP_CQE_MIXED,
    raw::IORING_SETUP_NO_SQARRAY,
    raw::IORING_SETUP_NO_MMAP,
    raw::IORING_SETUP_NO_MMAP | raw::IORING_SETUP_REGISTERED_FD_ONLY,
    raw::IORING_SETUP_REGISTERED_FD_ONLY,
    raw::IORING_SETUP_ATTACH_WQ,
    raw::IORING_SETUP_IOPOLL,
    raw::IORING_SETUP_IOPOLL | raw::IORING_SETUP_HYBRID_IOPOLL,
    raw::IORING_SETUP_HYBRID_IOPOLL,
    raw::IORING_SETUP_SQ_AFF,
    raw::IORING_SETUP_SQPOLL,
    raw::IORING_SETUP_SQPOLL | raw::IORING_SETUP_SQ_AFF,
];

/// Room for rings of a few entries, with enough behind it that nobody may touch.
fn ring_memory() -> u64 {
    let at = sys::map(16 << 20, 0);
    sys::map_over(at as u64, 16 * PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    at as u64
}

/// All of a parameter block in words, but for what is offered.
fn block(p: &Params) -> String {
    let mut p = *p;
    p.features = 0;
    if p.flags & raw::IORING_SETUP_SQPOLL != 0 {
        // On purpose: see the README.
        p.flags &= !raw::IORING_SETUP_SINGLE_ISSUER;
    }
    format!("{p:x?}")
}

/// Where the answers to the same calls differ, each with the call in words.
fn compare(
    abi: &Abi,
    play: impl Fn(&Abi) -> Vec<(String, String)>,
    rest_follows: bool,
) -> Vec<Mismatch> {
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let ours = play(abi);
    let theirs = play(&kernel);
    let differing = ours.into_iter().zip(theirs).filter(|((_, a), (_, b))| a != b);
    let all = differing.map(|((input, ours), (_, theirs))| {
        let kind =
            format!("{}: kernel {theirs}, got {ours}", input.split('(').next().unwrap_or(""));
        Mismatch::new(kind, input)
    });
    if rest_follows { all.take(1).collect() } else { all.collect() }
}

pub fn setup_mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    let pages = RefCell::new(Pages::new(b"file\0".to_vec()));
    let memory = ring_memory();
    compare(abi, |abi| setups(abi, &mut pages.borrow_mut(), memory, seed), false)
}

fn setups(abi: &Abi, pages: &mut Pages, memory: u64, seed: u64) -> Vec<(String, String)> {
    let mut rng = Rng::with_seed(seed);
    let base = Ring::build(abi, 1, params(0));
    let mut once = |_| {
        pages.refresh(&[]);
        setup_once(abi, &mut rng, pages, memory, base.fd)
    };
    (0..CALLS).map(&mut once).collect()
}

fn setup_once(abi: &Abi, rng: &mut Rng, pages: &Pages, memory: u64, base: i32) -> (String, String) {
    let entries = match rng.u8(..4) {
        0 => number(rng) as u32,
        1 => pick(rng, &[0, 32767, 32768, 32769, 65536, 1 << 31, u32::MAX]),
        _ => rng.u32(1..20),
    };
    let mut p = params(0);
    for _ in 0..rng.usize(..4) {
        p.flags |= pick(rng, SETUP_FLAGS);
    }
    if one_in(rng, 12) {
        p.flags |= 1 << rng.u8(..32);
    }
    if p.flags & raw::IORING_SETUP_SQPOLL != 0 && !one_in(rng, 8) {
        // Threads are dear.
        p.flags &= !(raw::IORING_SETUP_SQPOLL | raw::IORING_SETUP_SQ_AFF);
    }
    p.cq_entries = pick(rng, &[0, 1, 2, 8, 32, 64, 65536, 65537, u32::MAX, 1 << 31]);
    let closed = sys::unused_fd() as u32;
    p.wq_fd = pick(rng, &[base as u32, 0, closed, u32::MAX, i32::MIN as u32]);
    let attached = p.wq_fd == base as u32;
    p.sq_thread_cpu = pick(rng, &[0, 0, 1, 9999, u32::MAX, i32::MAX as u32]);
    p.sq_thread_idle = number(rng) as u32;
    let somewhere = |rng: &mut Rng| match rng.u8(..3) {
        0 => pages.addresses[rng.usize(..pages.addresses.len())].1,
        _ => memory + pick(rng, &[0, 8, 1, 0, 8]) * PAGE as u64 + pick(rng, &[0, 0, 0, 64]),
    };
    (p.sq_off.user_addr, p.cq_off.user_addr) = (somewhere(rng), somewhere(rng));
    let mut odd = String::new();
    if one_in(rng, 8) {
        let value = number(rng);
        odd = format!(" odd={value:#x}");
        match rng.u8(..9) {
            0 => p.resv[rng.usize(..3)] = value as u32,
            1 => p.features = value as u32,
            2 => p.sq_off.resv1 = value as u32,
            3 => p.cq_off.resv1 = value as u32,
            4 => p.sq_entries = value as u32,
            5 => p.sq_off.head = value as u32,
            6 => p.cq_off.flags = value as u32,
            7 => p.sq_off.dropped = value as u32,
            _ => p.cq_off.cqes = value as u32,
        }
    }
    let bad = one_in(rng, 10).then(|| pages.addresses[rng.usize(..pages.addresses.len())].1);
    let cq_entries = p.cq_entries;
    let text = format!(
        "setup({entries}, flags={:#x} cq={cq_entries} wq_fd={} cpu={} sq={} cq={}{odd} at={})",
        p.flags,
        if attached { "a ring".into() } else { (p.wq_fd as i32).to_string() },
        p.sq_thread_cpu,
        p.sq_off.user_addr.wrapping_sub(memory) as i64,
        p.cq_off.user_addr.wrapping_sub(memory) as i64,
        bad.map_or("good".into(), |at| pages.name(at)),
    );
    let flags = p.flags;
    let res = match bad {
        Some(at) => abi.setup_at(entries, at as *mut Params),
        None => abi.setup_at(entries, &mut p),
    };
    if res.is_err() {
        return (text, format!("{res}"));
    }
    if attached {
        p.wq_fd = 0;
    }
    let mut answer = format!("ok {}", block(&p));
    if bad.is_some() {
        // Zeroes are good parameters, too.
        answer = "ok".into();
    }
    if bad.is_some() || flags & raw::IORING_SETUP_REGISTERED_FD_ONLY == 0 {
        abi.close(res.0 as i32);
    } else {
        answer.push_str(&format!(" index {res}"));
        let update = [res.0 as u64, 0];
        let gone = reg::IORING_UNREGISTER_RING_FDS as u32 | USE_REGISTERED;
        answer.push_str(&format!(" {}", abi.register(res.0 as i32, gone, &update, 1)));
    }
    (text, answer)
}

const USE_REGISTERED: u32 = reg::IORING_REGISTER_USE_REGISTERED_RING as u32;

pub fn enter_mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    // What waits for ever is interrupted, on both sides.
    sys::catch(libc::SIGALRM);
    let mut found = Vec::new();
    for round in 0..4 {
        let seed = seed * 4 + round;
        let twice = [(); 2].map(|()| compare(abi, |abi| enters(abi, seed), true));
        if twice[0] == twice[1] {
            found.extend(twice.into_iter().flatten().take(1));
        }
    }
    found
}

const ENTER_FLAGS: &[u32] = &[
    0,
    raw::IORING_ENTER_GETEVENTS,
    raw::IORING_ENTER_GETEVENTS,
    raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG,
    raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG,
    raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG | raw::IORING_ENTER_EXT_ARG_REG,
    raw::IORING_ENTER_EXT_ARG,
    raw::IORING_ENTER_EXT_ARG_REG,
    raw::IORING_ENTER_SQ_WAKEUP,
    raw::IORING_ENTER_SQ_WAIT,
    raw::IORING_ENTER_REGISTERED_RING,
    raw::IORING_ENTER_ABS_TIMER,
    raw::IORING_ENTER_NO_IOWAIT,
];

fn enters(abi: &Abi, seed: u64) -> Vec<(String, String)> {
    let mut rng = Rng::with_seed(seed);
    let mut pages = Pages::new(b"file\0".to_vec());
    let setup = pick(
        &mut rng,
        &[
            abi.mode_flags,
            abi.mode_flags | raw::IORING_SETUP_R_DISABLED,
            abi.mode_flags | raw::IORING_SETUP_IOPOLL,
            abi.mode_flags | raw::IORING_SETUP_SUBMIT_ALL,
            raw::IORING_SETUP_SINGLE_ISSUER,
        ],
    );
    let mut ring = Ring::build(abi, 4, params(setup));
    let ring_fds = reg::IORING_REGISTER_RING_FDS as u32;
    let registered = rng.bool().then(|| {
        let update = [u32::MAX as u64, ring.fd as u64];
        ring.register(ring_fds, &update, 1);
        update[0] as i32
    });
    let others = [
        ("-1", -1),
        ("unused", sys::unused_fd()),
        ("min", i32::MIN),
        ("eventfd", sys::eventfd(0, 0)),
        ("path", sys::open("/", libc::O_PATH)),
        ("dir", sys::open("/", libc::O_DIRECTORY)),
    ];
    let closed = {
        let gone = Ring::build(abi, 1, params(0));
        gone.fd
    };
    let mut all = Vec::new();
    for _ in 0..12 {
        // From here on: how long earlier calls took does not matter.
        sys::interrupt_every(6);
        all.push(enter_once(abi, &mut rng, &mut pages, &mut ring, registered, &others, closed));
    }
    sys::interrupt_every(0);
    if let Some(slot) = registered {
        let gone = reg::IORING_UNREGISTER_RING_FDS as u32;
        ring.register(gone, &[slot as u64, 0], 1);
    }
    for (_, fd) in others.iter().filter(|(_, fd)| sys::is_open(*fd)) {
        sys::close(*fd);
    }
    all
}

fn enter_once(
    abi: &Abi,
    rng: &mut Rng,
    pages: &mut Pages,
    ring: &mut Ring,
    registered: Option<i32>,
    others: &[(&str, i32)],
    closed: i32,
) -> (String, String) {
    pages.refresh(&[]);
    for i in 0..rng.u32(..3) {
        if ring.pending() < 4 {
            let entry = if one_in(rng, 5) { nop().with(|s| s.ioprio = 1) } else { nop() };
            ring.push(entry.ud(i as u64));
        }
    }
    let mut flags = pick(rng, ENTER_FLAGS) | pick(rng, ENTER_FLAGS);
    if one_in(rng, 10) {
        flags |= 1 << rng.u8(..32);
    }
    let (mut name, mut fd) = ("ring".to_string(), ring.fd);
    if flags & raw::IORING_ENTER_REGISTERED_RING != 0 {
        fd = match registered {
            Some(slot) if rng.bool() => slot,
            _ => pick(rng, &[0, 1, 15, 16, 17, -1, i32::MIN, 1 << 16]),
        };
        name = format!("index {fd}");
    } else if one_in(rng, 6) {
        let other = pick(rng, others);
        (name, fd) = (other.0.to_string(), other.1);
        if one_in(rng, 4) {
            (name, fd) = ("closed ring".into(), closed);
        }
    }
    let to_submit = if rng.bool() { rng.u32(..6) } else { number(rng) as u32 };
    // Not as a negative number: Linux 6.18 then takes whatever wakes it for enough.
    let min_complete = if rng.bool() { rng.u32(..3) } else { number(rng) as u32 & i32::MAX as u32 };
    let place = |rng: &mut Rng| pages.addresses[rng.usize(..pages.addresses.len())].1;
    let (mut arg, mut size) = (0, 0);
    let mut block = [0u64; 3];
    if flags & raw::IORING_ENTER_EXT_ARG != 0 && !one_in(rng, 4) {
        let at = pages.table.as_ptr() as u64;
        let time = pick(rng, &[0, 1, 2, 3]);
        let any_size = number(rng);
        block = match time {
            0 => [0, 0, 0],
            1 => [0, 0, pages.scratch.as_ptr() as u64],
            2 => [place(rng), pick(rng, &[8, 0, 7, 16, any_size]), 0],
            _ => [place(rng), pick(rng, &[8, any_size]), place(rng)],
        };
        if one_in(rng, 4) {
            block[1] |= (rng.u64(..3000)) << 32;
            // Not with a time beyond all clocks, whose sum with the present is before it in the kernel.
            let beyond = [&*pages.vectors, &*pages.message, &*pages.text];
            if beyond.iter().any(|page| page.as_ptr_range().contains(&(block[2] as *const u8))) {
                block[2] = pages.scratch.as_ptr() as u64;
            }
        }
        put(pages.table, &block);
        (arg, size) = (at, 24);
        if one_in(rng, 8) {
            arg = at + 4088;
        }
    } else if rng.bool() {
        let any = number(rng);
        (arg, size) = (place(rng), pick(rng, &[0, 8, 7, 24, 64, 1 << 32, any]));
    }
    if one_in(rng, 10) {
        size = pick(rng, &[0, 1, 8, 16, 23, 25, 32, 64, 128, u64::MAX]);
    }
    pages.unmask_alarm();
    let text = format!(
        "enter({name}, submit={to_submit:#x}, min={min_complete:#x}, flags={flags:#x}, arg={} [{}, {:#x}, {}], \
         size={size:#x}) pending={}",
        pages.name(arg),
        pages.name(block[0]),
        block[1],
        pages.name(block[2]),
        ring.pending()
    );
    let res = abi.enter_arg(fd, to_submit, min_complete, flags, arg as *const _, size as usize);
    let mut answer = format!("{res} pending={}", ring.pending());
    while let Some(done) = ring.pop() {
        answer.push_str(&format!(" {}={}", done.ud, done.res));
    }
    if ring.pending() > 3 || one_in(rng, 6) {
        let res: Res = ring.submit();
        answer.push_str(&format!(" then {res}"));
        while let Some(done) = ring.pop() {
            answer.push_str(&format!(" {}={}", done.ud, done.res));
        }
    }
    (text, answer)
}
