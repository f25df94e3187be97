//! Everybody else: threads that are no ring's submitter and use it all the same.

use super::beat::Beat;
use super::session::{MESSAGE, MESSAGE_ASTRAY, MESSAGE_RING};
use super::work;
use super::world::{Live, World};
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop};
use crate::sys;
use libc::{EBADF, EBADFD, EBUSY, EEXIST, ENXIO, EOPNOTSUPP, EOVERFLOW, ETIME};
use soloring_abi::{GeteventsArg, Timespec, raw};
use soloring_engine::uapi;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

type Counts = BTreeMap<&'static str, u64>;

fn count(counts: &mut Counts, name: &'static str) {
    *counts.entry(name).or_default() += 1;
}

/// Visits the submitters' rings until the run ends.
pub fn run(world: &World, beat: &Beat, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::new();
    let mut own = Ring::build(&world.abi, 8, params(0));
    let memory = [sys::iovec(sys::buffer(4096))];
    let talks = can_talk(world);
    if !talks {
        count(&mut counts, "MSG_RING is refused here: senders without messages");
    }
    // Every sender numbers its messages by itself: 16 of them, 2^28 messages each.
    let (sender, mut number) = ((seed % 16) << 28, 0u64);
    while !world.stopped() {
        beat.at("looking for a ring");
        let Some(live) = world.any_ring(&mut rng) else {
            std::thread::yield_now();
            continue;
        };
        let gate = live.exact.then(|| live.gate.read().unwrap_or_else(PoisonError::into_inner));
        if gate.as_ref().is_some_and(|open| !**open) {
            continue;
        }
        // Acquire: pairs with the release after ENABLE_RINGS: from here on the ring must refuse us.
        let enabled = live.enabled.load(Ordering::Acquire);
        match rng.u32(..6) {
            0 | 1 => {
                beat.at("waiting in a foreign ring");
                let res = wait(world, &live, rng.u64(..600));
                let refused = [err(EEXIST), err(EEXIST)];
                let good = if live.defer { refused } else { [Res(0), err(ETIME)] };
                judge(world, &live, enabled, "GETEVENTS", res, &good);
                count(&mut counts, "foreign waits");
            }
            2 if live.exact => {
                beat.at("submitting to a foreign ring");
                let res = world.abi.enter(live.fd, 1, 0, 0);
                judge(world, &live, enabled, "submitting", res, &[err(EEXIST)]);
                count(&mut counts, "foreign submissions, refused");
            }
            2 | 3 => {
                beat.at("registering with a foreign ring");
                let res = register(world, &live, &mut rng, &memory);
                judge(world, &live, enabled, "registering", res, &[err(EEXIST)]);
                let refused = res == err(EEXIST);
                count(
                    &mut counts,
                    if refused { "registrations refused" } else { "registrations let in" },
                );
            }
            4 if talks => {
                beat.at("sending a message");
                number += 1;
                let astray = if live.exact { 0 } else { MESSAGE_ASTRAY };
                let ud =
                    MESSAGE | astray | live.id << MESSAGE_RING | sender | (number & 0xfff_ffff);
                let res = send(&mut own, &live, ud);
                judge(world, &live, enabled, "a message", res, &[Res(0), err(EOVERFLOW)]);
                if res == Res(0) {
                    live.sent.fetch_add(1, Ordering::Relaxed);
                    count(&mut counts, "messages sent");
                }
            }
            _ => {
                beat.at("polling a foreign ring");
                world.abi.poll(live.fd, libc::POLLIN, 0);
                count(&mut counts, "foreign polls");
            }
        }
    }
    own.leave_open();
    world.add(&counts);
}

/// Whether rings here carry out MSG_RING.
fn can_talk(world: &World) -> bool {
    let mut from = Ring::build(&world.abi, 4, params(0));
    let to = Ring::build(&world.abi, 4, params(0));
    from.res(work::message(to.fd, 1)) == Res(0)
}

/// Checks a result against what an enabled ring may give. A ring that was not enabled yet when the call
/// began may let a registration in, or say that it is disabled; one that is being closed may be gone,
/// and its number another's.
fn judge(world: &World, live: &Live, enabled: bool, what: &str, res: Res, good: &[Res]) {
    let early = [err(EBADFD), err(EEXIST), err(EBUSY), err(ENXIO), Res(0), err(ETIME)];
    let gone = [err(EBADF), err(EOPNOTSUPP), err(EOVERFLOW)];
    let fine = good.contains(&res)
        || ((!enabled || !live.exact) && early.contains(&res))
        || (!live.exact && gone.contains(&res));
    if !fine {
        world.wrong(format!(
            "ring {}: {what} from another thread gave {res} (defer={} exact={} enabled={enabled})",
            live.id, live.defer, live.exact
        ));
    }
}

fn wait(world: &World, live: &Live, micros: u64) -> Res {
    let ts = Timespec { tv_sec: 0, tv_nsec: micros as i64 * 1000 };
    let ts = std::ptr::from_ref(&ts) as u64;
    let arg = GeteventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts };
    let flags = raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG;
    let arg = std::ptr::from_ref(&arg).cast();
    world.abi.enter_arg(live.fd, 0, 1, flags, arg, size_of::<GeteventsArg>())
}

fn register(world: &World, live: &Live, rng: &mut fastrand::Rng, memory: &[libc::iovec; 1]) -> Res {
    use raw::io_uring_register_op as op;
    let none = std::ptr::null::<u8>();
    match rng.u32(..4) {
        0 => world.abi.register(live.fd, op::IORING_REGISTER_BUFFERS as u32, memory.as_ptr(), 1),
        1 => world.abi.register(live.fd, op::IORING_UNREGISTER_BUFFERS as u32, none, 0),
        2 => world.abi.register(live.fd, op::IORING_UNREGISTER_FILES as u32, none, 0),
        _ => {
            let room = [0u64; 2 + 64];
            world.abi.register(live.fd, op::IORING_REGISTER_PROBE as u32, room.as_ptr(), 64)
        }
    }
}

fn send(own: &mut Ring<'_>, live: &Live, ud: u64) -> Res {
    own.push(work::message(live.fd, ud).ud(1));
    let res = own.submit();
    assert!(res == Res(1), "submitting a message = {res}");
    loop {
        // A message for a ring that is gone may have found this one.
        let done = own.wait();
        if done.ud == 1 {
            return done.res;
        }
    }
}

/// Makes and closes rings.
pub fn churn(world: &World, beat: &Beat, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::new();
    while !world.stopped() {
        beat.at("making and closing a ring");
        let single = raw::IORING_SETUP_SINGLE_ISSUER;
        let flags = [0, single, single | raw::IORING_SETUP_DEFER_TASKRUN][rng.usize(..3)];
        let mut ring = Ring::build(&world.abi, 8, params(flags));
        let n = rng.u64(..8);
        for ud in 1..=n {
            ring.push(nop().ud(ud));
        }
        if ring.submit() != Res(n as i64) {
            world.wrong(format!("a ring of the moment did not take {n} entries"));
        }
        let mut got = 0;
        while let Some(done) = ring.pop() {
            // A message for a ring that is gone may have found this one.
            got += u64::from(done.ud & MESSAGE == 0);
        }
        if got != n {
            world.wrong(format!("a ring of the moment: {got} of {n} completions"));
        }
        if rng.bool() {
            let other = world.abi.dup(ring.fd);
            if world.abi.close(other.0 as i32) != Res(0) {
                world.wrong(format!("closing a duplicate ({other})"));
            }
        }
        count(&mut counts, "rings of the moment");
        drop(ring);
        std::thread::sleep(Duration::from_micros(rng.u64(..500)));
    }
    world.add(&counts);
}

/// Looks into a submitter's ring: what it says must fit together, at any moment.
fn look_into(world: &World, live: &Live, counts: &mut Counts) {
    match uapi::inspect(live.fd) {
        Some(Ok(seen)) => {
            let posted = seen.cq.ours.wrapping_sub(seen.cq.tail);
            if posted > seen.cq.entries || seen.sq.ours.wrapping_sub(seen.sq.head) > seen.sq.entries
            {
                world.wrong(format!("inspection of ring {}: {seen}", live.id));
            }
            count(counts, "rings looked into");
        }
        Some(Err(e)) => world.wrong(format!("inspection of ring {}: {e:?}", live.id)),
        // It was closed meanwhile.
        None => {}
    }
}

/// Reads statistics and looks into rings. Operations must not become fewer; lock counts of a ring that is being closed may
/// lag by the acquisitions of those who are still inside.
pub fn inspect(world: &World, beat: &Beat, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::new();
    let mut ops = 0;
    while !world.stopped() {
        beat.at("reading statistics");
        if !world.abi.is_kernel() {
            let now: u64 = uapi::op_counts().iter().sum();
            if now < ops {
                world.wrong(format!("statistics: {ops} -> {now} operations"));
            }
            ops = now;
            if uapi::lock_stats().is_some_and(|s| s.acquisitions() > 0) {
                count(&mut counts, "inspections");
            }
            beat.at("looking into a ring");
            if let Some(live) = world.any_ring(&mut rng) {
                look_into(world, &live, &mut counts);
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    world.add(&counts);
}
