//! The threads of SQPOLL rings: which there are, where they run, when they sleep.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop};
use libc::EINVAL;
use soloring_abi::raw;
use std::time::{Duration, Instant};

const SQPOLL: u32 = raw::IORING_SETUP_SQPOLL;
const SQ_AFF: u32 = raw::IORING_SETUP_SQ_AFF;
const ATTACH: u32 = raw::IORING_SETUP_ATTACH_WQ;
const WAKEUP: u32 = raw::IORING_ENTER_SQ_WAKEUP;

/// The SQ threads of this process, by id.
fn threads() -> Vec<String> {
    let name = |id: &String| {
        let comm = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
        comm.is_ok_and(|comm| comm.starts_with("iou-sqp-"))
    };
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    tasks.flatten().map(|t| t.file_name().to_string_lossy().into_owned()).filter(name).collect()
}

/// The processors that a thread may run on, as /proc writes them.
fn processors(thread: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_string()
}

fn until(what: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn needs_wakeup(ring: &Ring) -> bool {
    ring.sq_flags() & raw::IORING_SQ_NEED_WAKEUP != 0
}

fn ring(abi: &Abi, flags: u32, idle_ms: u32, attached_to: i32, cpu: u32) -> Ring<'_> {
    let mut p = params(SQPOLL | flags);
    (p.sq_thread_idle, p.wq_fd, p.sq_thread_cpu) = (idle_ms, attached_to as u32, cpu);
    Ring::build(abi, 8, p)
}

fn works(ring: &mut Ring) -> bool {
    ring.push(nop().ud(7));
    ring.enter(1, 0, WAKEUP) == Res(1) && ring.wait().ud == 7
}

/// The processors that this process may run on.
fn allowed() -> Vec<u32> {
    let own = processors(&std::process::id().to_string());
    let bounds = own.split(',').map(|part| part.split_once('-').unwrap_or((part, part)));
    let number = |text: &str| text.parse::<u32>().expect("a list of processors");
    bounds.flat_map(|(first, last)| number(first)..=number(last)).collect()
}

fn a_thread_runs_where_it_is_asked_to(abi: &Abi) {
    for cpu in allowed() {
        let mut ring = ring(abi, SQ_AFF, 1, 0, cpu);
        check!(works(&mut ring), "processor {cpu}");
        let there = || threads().iter().any(|t| processors(t) == cpu.to_string());
        check!(until(there), "not on processor {cpu}");
        drop(ring);
        check!(until(|| threads().is_empty()), "it ends with its ring");
    }
    let mut anywhere = ring(abi, 0, 1, 0, 0);
    check!(works(&mut anywhere), "not asked for");
    let own = processors(&std::process::id().to_string());
    check_eq!(threads().iter().map(|t| processors(t)).collect::<Vec<_>>(), [own], "not asked for");
}

fn attached_rings_share_a_thread(abi: &Abi) {
    let mut first = ring(abi, 0, 1, 0, 0);
    let mut second = ring(abi, ATTACH, 1, first.fd, 0);
    let mut third = ring(abi, ATTACH, 1, second.fd, 0);
    for _ in 0..20 {
        check!(works(&mut first) && works(&mut second) && works(&mut third), "all three");
    }
    check_eq!(threads().len(), 1, "one for three");
    let mut own = ring(abi, 0, 1, 0, 0);
    check!(works(&mut own), "a thread of its own");
    check_eq!(threads().len(), 2, "and one for whom does not ask");
    drop(first);
    for _ in 0..20 {
        check!(works(&mut second) && works(&mut third), "without the ring that had it made");
    }
    drop((second, own));
    check!(works(&mut third) && until(|| threads().len() == 1), "as long as there is one");
    drop(third);
    check!(until(|| threads().is_empty()), "and no longer");
    let plain = Ring::build(abi, 8, params(0));
    let mut p = params(SQPOLL | ATTACH);
    p.wq_fd = plain.fd as u32;
    check_eq!(abi.setup(8, &mut p), err(EINVAL), "one that has none");
}

/// What several rings submit to one thread at once, all of it is taken.
fn a_shared_thread_serves_all(abi: &Abi) {
    let mut rings = vec![ring(abi, 0, 100, 0, 0)];
    for _ in 0..3 {
        rings.push(ring(abi, ATTACH, 100, rings[0].fd, 0));
    }
    for round in 0..20 {
        for ring in &mut rings {
            ring.push_all(&(0..8).map(|i| nop().ud(round * 8 + i)).collect::<Vec<_>>());
        }
        for ring in &rings {
            if needs_wakeup(ring) {
                ring.enter(8, 0, WAKEUP);
            }
            let seen: Vec<u64> = ring.wait_n(8).iter().map(|d| d.ud).collect();
            check_eq!(seen, (round * 8..round * 8 + 8).collect::<Vec<_>>());
        }
    }
}

fn the_idle_time_is_the_rings(abi: &Abi) {
    let (mut short, mut long) = (ring(abi, 0, 20, 0, 0), ring(abi, 0, 600_000, 0, 0));
    check!(works(&mut short) && works(&mut long), "both");
    for _ in 0..3 {
        check!(until(|| needs_wakeup(&short)), "asleep after its time");
        check!(works(&mut short), "woken");
        // The flag says so while it is awake: a program that finds it set makes a call for each entry.
        short.push(nop());
        short.enter(1, 0, WAKEUP);
        check!(until(|| !needs_wakeup(&short)), "awake");
        short.wait();
    }
    // Longer than the second that is taken where none is given.
    std::thread::sleep(Duration::from_millis(1300));
    check!(!needs_wakeup(&long), "awake for ten minutes");
    check!(needs_wakeup(&short), "asleep");
}

family!["sqthreads", once;
    a_thread_runs_where_it_is_asked_to,
    attached_rings_share_a_thread,
    a_shared_thread_serves_all,
    the_idle_time_is_the_rings,
];
