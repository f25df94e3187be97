//! Timers that must not fire early, and every way to take a request back.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{opcode, squeue, types};

use crate::part::{Part, differs};
use crate::queue::{Done, Kind, Queue, add_counts, checked};

const SHORTEST_MS: u32 = 1;
const LONGEST_MS: u32 = 120;

/// Runs `count` timers, then as many cancellations, on both kinds of ring.
pub fn run(count: u32) -> io::Result<Part> {
    let start = Instant::now();
    let mut requests = BTreeMap::new();
    let mut latest = Duration::ZERO;
    let (mut fired, mut cancelled) = (0, 0);
    for kind in [Kind::Plain, Kind::Deferred] {
        let mut queue = Queue::new(256, kind)?;
        latest = latest.max(fire(&mut queue, count)?);
        fired += count;
        cancelled += remove_timers(&mut queue, count)?;
        cancelled += cancel_receives(&mut queue, 32)?;
        link_timeouts(&mut queue)?;
        count_completions(&mut queue)?;
        add_counts(&mut requests, queue.finished());
    }
    Ok(Part {
        name: "timers".into(),
        work: format!(
            "{fired} timers of {SHORTEST_MS} to {LONGEST_MS} ms, {cancelled} requests cancelled, \
             linked timeouts, on two kinds of ring"
        ),
        checked: format!(
            "none early, latest {:.1} ms late; each answer as asked",
            latest.as_secs_f64() * 1e3
        ),
        bytes: 0,
        seconds: start.elapsed().as_secs_f64(),
        requests,
    })
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos())
}

/// Waits for `want` completions in all; hands each to `each`.
fn collect(
    queue: &mut Queue,
    want: usize,
    mut each: impl FnMut(Done) -> io::Result<()>,
) -> io::Result<()> {
    let mut got = 0;
    while got < want {
        let done = queue.turn(1)?;
        got += done.len();
        done.iter().try_for_each(|done| each(*done))?;
    }
    if got > want {
        return Err(differs(format!("{got} completions where {want} were asked for")));
    }
    Ok(())
}

fn expect(done: Done, want: i32, what: &str) -> io::Result<()> {
    if done.res == want {
        return Ok(());
    }
    Err(differs(format!("{what}: result {}, expected {want}", done.res)))
}

/// `count` timers of spread durations; returns how late the latest one was.
fn fire(queue: &mut Queue, count: u32) -> io::Result<Duration> {
    // A step that is coprime to the span visits the durations in scattered order.
    let span = LONGEST_MS - SHORTEST_MS + 1;
    let after = |token: u32| Duration::from_millis(u64::from(SHORTEST_MS + token * 37 % span));
    // Leaked: on an error return timers may still be queued that point to them.
    let specs: &'static [Timespec] =
        (0..count).map(|token| timespec(after(token))).collect::<Vec<_>>().leak();
    let mut started = Vec::with_capacity(count as usize);
    for token in 0..count {
        started.push(Instant::now());
        // SAFETY: the time specification is never freed.
        unsafe { queue.push(opcode::Timeout::new(&specs[token as usize]).build(), token)? };
    }
    let mut seen = vec![false; count as usize];
    let mut latest = Duration::ZERO;
    collect(queue, count as usize, |done| {
        expect(done, -libc::ETIME, "timer")?;
        let waited = started[done.token as usize].elapsed();
        if waited < after(done.token) {
            return Err(differs(format!(
                "timer of {:?} fired after {waited:?}",
                after(done.token)
            )));
        }
        if std::mem::replace(&mut seen[done.token as usize], true) {
            return Err(differs("a timer fired twice"));
        }
        latest = latest.max(waited - after(done.token));
        Ok(())
    })?;
    Ok(latest)
}

/// `count` timers of an hour, each removed by its user data; then one that does not exist.
fn remove_timers(queue: &mut Queue, count: u32) -> io::Result<u32> {
    let hour: &'static Timespec = Box::leak(Box::new(timespec(Duration::from_secs(3600))));
    for token in 0..count {
        // SAFETY: the time specification is never freed.
        unsafe { queue.push(opcode::Timeout::new(hour).build(), token)? };
    }
    queue.submit()?;
    for token in 0..count {
        let target = Queue::user_data(opcode::Timeout::CODE, token);
        // SAFETY: no memory is involved.
        unsafe { queue.push(opcode::TimeoutRemove::new(target).build(), token)? };
    }
    collect(queue, 2 * count as usize, |done| match done.opcode {
        opcode::Timeout::CODE => expect(done, -libc::ECANCELED, "removed timer"),
        _ => expect(done, 0, "timeout remove"),
    })?;
    // SAFETY: no memory is involved.
    unsafe { queue.push(opcode::TimeoutRemove::new(u64::MAX).build(), 0)? };
    collect(queue, 1, |done| expect(done, -libc::ENOENT, "remove of a timer that is not there"))?;
    Ok(count)
}

/// Receives that would wait for ever, taken back one by one, by descriptor, and all at once.
fn cancel_receives(queue: &mut Queue, pairs: u32) -> io::Result<u32> {
    let sockets = (0..pairs).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    // Leaked: on an error return the ring may still receive into them.
    let buffer = vec![0u8; pairs as usize].leak().as_mut_ptr();
    let arm = |queue: &mut Queue| -> io::Result<()> {
        for (token, (ours, _)) in sockets.iter().enumerate() {
            let fd = types::Fd(ours.as_raw_fd());
            let entry = opcode::Recv::new(fd, buffer.wrapping_add(token), 1).build();
            // SAFETY: each receive has a byte of its own, never freed.
            unsafe { queue.push(entry, token as u32)? };
        }
        queue.submit()
    };
    let cancelled = |done: Done, by: &str, want: i32| match done.opcode {
        opcode::Recv::CODE => expect(done, -libc::ECANCELED, "cancelled receive"),
        _ => expect(done, want, by),
    };

    arm(queue)?;
    for token in 0..pairs {
        let target = Queue::user_data(opcode::Recv::CODE, token);
        // SAFETY: no memory is involved.
        unsafe { queue.push(opcode::AsyncCancel::new(target).build(), token)? };
    }
    collect(queue, 2 * pairs as usize, |done| cancelled(done, "cancel by user data", 0))?;

    arm(queue)?;
    for (token, (ours, _)) in sockets.iter().enumerate() {
        let by = CancelBuilder::fd(types::Fd(ours.as_raw_fd())).all();
        // SAFETY: no memory is involved.
        unsafe { queue.push(opcode::AsyncCancel2::new(by).build(), token as u32)? };
    }
    collect(queue, 2 * pairs as usize, |done| cancelled(done, "cancel by descriptor", 1))?;

    arm(queue)?;
    // SAFETY: no memory is involved.
    unsafe { queue.push(opcode::AsyncCancel2::new(CancelBuilder::any()).build(), 0)? };
    let all = pairs as i32;
    collect(queue, 1 + pairs as usize, |done| cancelled(done, "cancel of everything", all))?;
    Ok(3 * pairs)
}

/// A receive with a linked timeout: once nothing comes, once it comes in time.
fn link_timeouts(queue: &mut Queue) -> io::Result<()> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let ours = OwnedFd::from(ours);
    // Leaked: on an error return the ring may still receive into it.
    let buffer: &'static mut [u8] = vec![0u8; 8].leak();
    let into = buffer.as_mut_ptr();
    let mut chain = |limit: Duration, recv: i32, timeout: i32| -> io::Result<()> {
        let limit: &'static Timespec = Box::leak(Box::new(timespec(limit)));
        let receive = opcode::Recv::new(types::Fd(ours.as_raw_fd()), into, 8).build();
        queue.reserve(2)?;
        // SAFETY: buffer and time specification are never freed.
        unsafe {
            queue.push(receive.flags(squeue::Flags::IO_LINK), 0)?;
            queue.push(opcode::LinkTimeout::new(limit).build(), 0)?;
        }
        collect(queue, 2, |done| match done.opcode {
            opcode::Recv::CODE => expect(done, recv, "receive with a linked timeout"),
            _ => expect(done, timeout, "linked timeout"),
        })
    };
    chain(Duration::from_millis(20), -libc::ECANCELED, -libc::ETIME)?;
    theirs.write_all(b"in time!")?;
    chain(Duration::from_secs(3600), 8, -libc::ECANCELED)
}

/// A timeout that ends when a number of other requests has completed.
fn count_completions(queue: &mut Queue) -> io::Result<()> {
    let hour: &'static Timespec = Box::leak(Box::new(timespec(Duration::from_secs(3600))));
    // SAFETY: the time specification is never freed; NOP has no memory.
    unsafe {
        queue.push(opcode::Timeout::new(hour).count(8).build(), 0)?;
        for token in 0..8 {
            queue.push(opcode::Nop::new().build(), token)?;
        }
    }
    collect(queue, 9, |done| {
        checked(done.res, "timeout that counts completions")?;
        expect(done, 0, "timeout that counts completions")
    })
}
