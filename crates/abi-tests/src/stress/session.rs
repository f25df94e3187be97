//! One ring's life: made, enabled, kept busy, emptied or left behind, closed; and its books.
#![allow(unsafe_code)]

use super::beat::Beat;
use super::work::{Kind, Things, cancel_all};
use super::world::{Live, World, lock};
use crate::res::{Res, err};
use crate::ring::{Done, Ring, params};
use crate::sqe::SqeExt;
use soloring_abi::{GeteventsArg, Timespec, raw};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// User data of a message: this bit, the number of the ring it is for, and its own number.
pub const MESSAGE: u64 = 1 << 63;
pub const MESSAGE_RING: u32 = 32;
/// A message to a ring that may be closed meanwhile: it can find another ring under its number.
pub const MESSAGE_ASTRAY: u64 = 1 << 62;

/// How many requests a ring may have in flight. More than its completion queue holds.
const IN_FLIGHT_MAX: usize = 200;
const ENTRIES: u32 = 64;
/// How long an emptied ring may take to hand over its last completion.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Requests in flight, and what came of the others.
#[derive(Default)]
struct Book {
    next: u64,
    in_flight: HashMap<u64, Kind>,
    messages: HashSet<u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Book {
    fn count(&mut self, name: &'static str, n: u64) {
        *self.counts.entry(name).or_default() += n;
    }

    fn enter(&mut self, world: &World, live: &Live, done: Done) {
        if done.ud & MESSAGE != 0 {
            let own = (done.ud & !(MESSAGE | MESSAGE_ASTRAY)) >> MESSAGE_RING == live.id;
            if !own && done.ud & MESSAGE_ASTRAY != 0 {
                return self.count("messages for a ring that is gone", 1);
            }
            if !own || !self.messages.insert(done.ud) {
                world.wrong(format!("ring {}: message twice or misled: {done:?}", live.id));
            }
            return self.count("messages received", 1);
        }
        match self.in_flight.remove(&done.ud) {
            None => {
                world.wrong(format!("ring {}: second or nobody's completion: {done:?}", live.id))
            }
            Some(kind) if !kind.may_give(done.res) || done.more() => {
                world.wrong(format!("ring {}: {kind:?} gave {done:?}", live.id));
            }
            Some(kind) => self.count(kind.name(), 1),
        }
    }

    fn reap(&mut self, world: &World, live: &Live, ring: &Ring<'_>) -> usize {
        let mut n = 0;
        while let Some(done) = ring.pop() {
            self.enter(world, live, done);
            n += 1;
        }
        n
    }
}

/// A ring and its books on the way to another thread.
struct Handed<'a> {
    ring: Ring<'a>,
    live: Arc<Live>,
    book: Book,
}

// SAFETY: the thread that sends it has no other copy and does not touch the ring's memory any more.
unsafe impl Send for Handed<'_> {}

/// Makes and uses one ring after the other until the run ends.
pub fn run(world: &World, beat: &Beat, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut things = Things::new();
    let mut number = seed << 20;
    while !world.stopped() {
        number += 1;
        one(world, beat, &mut rng, &mut things, number & 0x3fff_ffff);
    }
    // `Things` frees nothing: requests of abandoned rings may still name its memory and files.
}

fn one(world: &World, beat: &Beat, rng: &mut fastrand::Rng, things: &mut Things, id: u64) {
    let mut flags = raw::IORING_SETUP_SINGLE_ISSUER;
    match rng.u32(..5) {
        0..2 => flags |= raw::IORING_SETUP_DEFER_TASKRUN,
        2 => flags |= raw::IORING_SETUP_COOP_TASKRUN | raw::IORING_SETUP_TASKRUN_FLAG,
        _ => {}
    }
    let disabled = rng.u32(..3) == 0;
    let abandon = world.plan.abandon && rng.u32(..4) == 0;
    let exact = rng.u32(..4) != 0;
    let make = |flags| make(world, flags, id, exact);
    beat.at("making a ring");
    // A disabled ring is made by this thread and enabled by its submitter-to-be.
    let made = disabled.then(|| make(flags | raw::IORING_SETUP_R_DISABLED));
    let left: Mutex<Option<Handed<'_>>> = Mutex::new(None);
    std::thread::scope(|s| {
        let (left, rng) = (&left, rng.fork());
        let submitter = s.spawn(move || {
            let mut rng = rng;
            let mut h = made.unwrap_or_else(|| make(flags));
            if disabled {
                enable(world, beat, &mut rng, &h);
            }
            busy(world, beat, &mut rng, things, &mut h);
            if abandon {
                *lock(left) = Some(h);
            } else {
                drain(world, beat, &mut h);
                close(world, beat, h);
            }
        });
        if abandon {
            let h = loop {
                if let Some(h) = lock(left).take() {
                    break h;
                }
                if submitter.is_finished() && lock(left).is_none() {
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            take_over(world, beat, h);
        }
    });
}

fn make<'a>(world: &'a World, flags: u32, id: u64, exact: bool) -> Handed<'a> {
    let ring = Ring::build(&world.abi, ENTRIES, params(flags));
    let live = Arc::new(Live {
        fd: ring.fd,
        id,
        defer: flags & raw::IORING_SETUP_DEFER_TASKRUN != 0,
        exact,
        enabled: AtomicBool::new(flags & raw::IORING_SETUP_R_DISABLED == 0),
        gate: RwLock::new(true),
        sent: AtomicU64::new(0),
    });
    world.show(&live);
    let mut book = Book::default();
    book.count("rings", 1);
    Handed { ring, live, book }
}

fn enable(world: &World, beat: &Beat, rng: &mut fastrand::Rng, h: &Handed<'_>) {
    beat.at("enabling");
    std::thread::sleep(Duration::from_micros(rng.u64(..800)));
    let enable = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
    let res = h.ring.register(enable, std::ptr::null::<u8>(), 0);
    if res != Res(0) {
        world.wrong(format!("ring {}: ENABLE_RINGS = {res}", h.live.id));
    }
    // Release: pairs with the foreigners' acquire: who sees it must be refused.
    h.live.enabled.store(true, Ordering::Release);
}

/// Submits and reaps for a while.
fn busy(
    world: &World,
    beat: &Beat,
    rng: &mut fastrand::Rng,
    things: &mut Things,
    h: &mut Handed<'_>,
) {
    beat.at("registering files");
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    let res = h.ring.register(files, things.files().as_ptr(), 1);
    if res != Res(0) {
        world.wrong(format!("ring {}: registering files = {res}", h.live.id));
    }
    for _ in 0..rng.u32(1..200) {
        if world.stopped() {
            return;
        }
        let Handed { ring, book, .. } = &mut *h;
        for _ in 0..rng.u32(..12) {
            if book.in_flight.len() >= IN_FLIGHT_MAX || ring.pending() + 4 > ENTRIES {
                break;
            }
            let target = book.next.saturating_sub(rng.u64(..64));
            things.ask(rng, target, |sqe, kind| {
                book.next += 1;
                book.in_flight.insert(book.next, kind);
                ring.push(sqe.ud(book.next));
            });
        }
        let n = ring.pending();
        beat.at("submitting");
        let wait = rng.u32(..3);
        let res = enter(&h.ring, n, wait, wait > 0, Duration::from_micros(rng.u64(..1500)));
        if res != Res(n as i64) && !(n == 0 && wait > 0 && res == err(libc::ETIME)) {
            world.wrong(format!("ring {}: submitting {n} gave {res}", h.live.id));
        }
        h.book.count("submitted", n as u64);
        things.stir(rng);
        h.book.reap(world, &h.live, &h.ring);
    }
}

/// `enter`, waiting for at most `limit`.
pub fn enter(ring: &Ring<'_>, n: u32, min: u32, events: bool, limit: Duration) -> Res {
    let ts = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos() as i64 };
    let ts = std::ptr::from_ref(&ts) as u64;
    let arg = GeteventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts };
    let getevents = if events { raw::IORING_ENTER_GETEVENTS } else { 0 };
    let flags = getevents | raw::IORING_ENTER_EXT_ARG;
    let arg = std::ptr::from_ref(&arg).cast();
    ring.abi.enter_arg(ring.fd, n, min, flags, arg, size_of::<GeteventsArg>())
}

/// Cancels what is in flight and waits until all of it has completed.
fn drain(world: &World, beat: &Beat, h: &mut Handed<'_>) {
    let end = Instant::now() + DRAIN_LIMIT;
    while !h.book.in_flight.is_empty() {
        if Instant::now() > end {
            let lost: Vec<_> = h.book.in_flight.iter().take(8).collect();
            let n = h.book.in_flight.len();
            return world.wrong(format!("ring {}: {n} completions lost: {lost:?}", h.live.id));
        }
        beat.at("emptying");
        let Handed { ring, book, .. } = &mut *h;
        book.next += 1;
        book.in_flight.insert(book.next, Kind::CancelAll);
        ring.push(cancel_all().ud(book.next));
        book.count("submitted", 1);
        // One for the cancellation itself, one for something that it ended: what a worker cannot be called
        // back from takes its time.
        let res = enter(ring, 1, 2, true, Duration::from_millis(5));
        if res != Res(1) {
            world.wrong(format!("ring {}: cancelling gave {res}", h.live.id));
        }
        h.book.reap(world, &h.live, &h.ring);
    }
}

/// The submitter has left, or is about to, with requests in flight; another thread ends the ring.
fn take_over(world: &World, beat: &Beat, mut h: Handed<'_>) {
    for _ in 0..3 {
        beat.at("reaping an abandoned ring");
        let res = enter(&h.ring, 0, 1, true, Duration::from_millis(1));
        let good = match h.live.defer {
            true => res == err(libc::EEXIST),
            false => res == Res(0) || res == err(libc::ETIME),
        };
        if !good {
            world.wrong(format!("ring {}: waiting in an abandoned ring = {res}", h.live.id));
        }
        h.book.reap(world, &h.live, &h.ring);
    }
    h.book.count("rings abandoned", 1);
    close(world, beat, h);
}

/// Closes a ring and compares its books with the senders'.
fn close(world: &World, beat: &Beat, mut h: Handed<'_>) {
    beat.at("waiting for the foreigners");
    world.hide(&h.live);
    if h.live.exact {
        *h.live.gate.write().unwrap_or_else(PoisonError::into_inner) = false;
        if h.book.in_flight.is_empty() {
            settle(world, beat, &mut h);
        }
    }
    let left = h.book.in_flight.len() as u64;
    h.book.count("ended with their ring", left);
    beat.at("closing");
    drop(h.ring);
    world.add(&h.book.counts);
}

/// Nobody sends any more and nothing is in flight: all messages must be there, and no more.
fn settle(world: &World, beat: &Beat, h: &mut Handed<'_>) {
    let sent = h.live.sent.load(Ordering::Relaxed);
    let end = Instant::now() + DRAIN_LIMIT;
    loop {
        beat.at("collecting messages");
        enter(&h.ring, 0, 1, true, Duration::from_micros(200));
        let quiet = h.book.reap(world, &h.live, &h.ring) == 0;
        let received = h.book.messages.len() as u64;
        if quiet && (received == sent || Instant::now() > end) {
            if received != sent {
                world.wrong(format!("ring {}: {sent} messages, {received} came", h.live.id));
            }
            return;
        }
    }
}
