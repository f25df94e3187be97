//! The Rust interface to a ring of ours: what each call promises.
#![allow(unsafe_code)]

use soloring::raw::Timespec;
use soloring::{Full, LockMode, Opcode, Ring, entry};
use std::io::{ErrorKind, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A ring of each kind that programs use.
fn rings(entries: u32) -> Vec<Ring> {
    vec![
        Ring::new(entries).unwrap(),
        Ring::builder().single_issuer().defer_taskrun().build(entries).unwrap(),
        Ring::builder().coop_taskrun().submit_all().cq_entries(4 * entries).build(entries).unwrap(),
    ]
}

/// Pushes an entry whose memory outlives the test's use of the ring: every test waits for what it pushed.
fn push(ring: &mut Ring, entry: entry::Entry) {
    // SAFETY: as the line above says.
    unsafe { ring.push(entry).unwrap() };
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer.into())
}

#[test]
fn queue_fills_and_empties() {
    for mut ring in rings(4) {
        for round in 0..5u64 {
            for i in 0..4 {
                push(&mut ring, entry::nop().user_data(round * 4 + i));
            }
            assert_eq!((ring.space(), ring.queued()), (0, 4));
            // SAFETY: refused, and a NOP refers to no memory.
            assert_eq!(unsafe { ring.push(entry::nop()) }, Err(Full));
            assert_eq!(ring.submit().unwrap(), 4);
            assert_eq!((ring.space(), ring.queued()), (4, 0));
            let done: Vec<u64> = ring.completions().map(|c| c.user_data).collect();
            assert_eq!(done, (round * 4..round * 4 + 4).collect::<Vec<_>>());
        }
        assert_eq!(ring.submit().unwrap(), 0);
    }
}

#[test]
fn completions_not_taken_stay() {
    let mut ring = Ring::new(8).unwrap();
    for i in 0..3 {
        push(&mut ring, entry::nop().user_data(i));
    }
    ring.submit_and_wait(3).unwrap();
    let mut completions = ring.completions();
    assert_eq!(completions.len(), 3);
    assert_eq!(completions.next().unwrap().user_data, 0);
    drop(completions);
    assert_eq!(ring.completions().map(|c| c.user_data).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ring.completions().next(), None);
}

#[test]
fn more_completions_than_room_come_in_order() {
    let mut ring = Ring::builder().cq_entries(4).build(4).unwrap();
    for i in 0..12u64 {
        push(&mut ring, entry::nop().user_data(i));
        ring.submit().unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 12 {
        let before = seen.len();
        seen.extend(ring.completions().map(|c| c.user_data));
        assert!(seen.len() > before, "lost after {seen:?}");
        ring.get_events().unwrap();
    }
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
}

#[test]
fn file_through_fixed_file_and_fixed_buffer() {
    for mut ring in rings(8) {
        let mut file = tempfile::tempfile().unwrap();
        ring.register_files(&[-1, file.as_raw_fd()]).unwrap();
        let mut buffer = vec![0u8; 8192];
        buffer[..4096].fill(0xa5);
        let at = buffer.as_mut_ptr();
        // SAFETY: `buffer` lives, untouched by others, until it is unregistered below.
        unsafe { ring.register_buffers(&[IoSliceMut::new(&mut buffer)]).unwrap() };
        let write = entry::write_fixed(1, at, 4096, 0, 0).fixed_file().user_data(1).link();
        let sync = entry::fsync(1, true).fixed_file().user_data(2).link();
        let second = at.wrapping_add(4096);
        let read = entry::read_fixed(1, second, 4096, 0, 0).fixed_file().user_data(3);
        for one in [write, sync, read] {
            push(&mut ring, one);
        }
        ring.submit_and_wait(3).unwrap();
        let done: Vec<_> = ring.completions().map(|c| (c.user_data, c.result().unwrap())).collect();
        assert_eq!(done, [(1, 4096), (2, 0), (3, 4096)]);
        ring.unregister_buffers().unwrap();
        ring.unregister_files().unwrap();
        assert_eq!(ring.unregister_files().unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert!(buffer.iter().all(|b| *b == 0xa5));
        let mut text = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut text).unwrap();
        assert_eq!(text, vec![0xa5; 4096]);
    }
}

#[test]
fn waiting_ends_by_time_and_by_data() {
    for mut ring in rings(4) {
        let (from, to) = pipe();
        let mut buf = [0u8; 8];
        push(&mut ring, entry::read(from.as_raw_fd(), buf.as_mut_ptr(), 8, u64::MAX).user_data(1));
        assert_eq!(ring.submit().unwrap(), 1);
        let begun = Instant::now();
        let late = ring.wait_timeout(1, Duration::from_millis(20)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        std::fs::File::from(to).write_all(b"hello").unwrap();
        assert_eq!(ring.wait_timeout(1, Duration::from_secs(30)).unwrap(), 0);
        let done = ring.completions().next().unwrap();
        assert_eq!((done.user_data, done.result().unwrap(), done.more()), (1, 5, false));
        assert_eq!(&buf[..5], b"hello");
    }
}

#[test]
fn timeouts_links_and_cancellation() {
    for mut ring in rings(8) {
        let (from, _to) = pipe();
        let mut buf = [0u8; 8];
        let short = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let long = Timespec { tv_sec: 1000, tv_nsec: 0 };
        let read = entry::read(from.as_raw_fd(), buf.as_mut_ptr(), 8, u64::MAX);
        push(&mut ring, read.user_data(1).link());
        push(&mut ring, entry::link_timeout(&short).user_data(2));
        push(&mut ring, entry::timeout(&long, 0).user_data(3));
        ring.submit_and_wait(2).unwrap();
        push(&mut ring, entry::cancel(3).user_data(4));
        ring.submit_and_wait(4).unwrap();
        let mut done: Vec<_> = ring.completions().map(|c| (c.user_data, c.res)).collect();
        done.sort_unstable();
        let canceled = -libc::ECANCELED;
        assert_eq!(done, [(1, canceled), (2, -libc::ETIME), (3, canceled), (4, 0)]);
    }
}

#[test]
fn eventfd_and_ring_descriptor_tell_of_completions() {
    let mut ring = Ring::new(4).unwrap();
    // SAFETY: a descriptor that nobody else has.
    let eventfd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) };
    ring.register_eventfd(eventfd.as_raw_fd()).unwrap();
    let busy = ring.register_eventfd(eventfd.as_raw_fd()).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
    let fd = ring.pollable_fd();
    let readable = || {
        soloring::refresh_readiness();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd on our stack.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    };
    assert!(!readable());
    push(&mut ring, entry::nop());
    ring.submit().unwrap();
    assert!(readable());
    let mut count = [0u8; 8];
    std::fs::File::from(eventfd).read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    assert_eq!(ring.completions().count(), 1);
    assert!(!readable());
    ring.unregister_eventfd().unwrap();
}

#[test]
fn a_disabled_ring_belongs_to_who_enables_it() {
    let mut ring = Ring::builder().single_issuer().disabled().build(4).unwrap();
    push(&mut ring, entry::nop());
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBADFD));
    let mut ring = std::thread::spawn(move || {
        ring.enable().unwrap();
        assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
        ring
    })
    .join()
    .unwrap();
    assert_eq!(ring.completions().count(), 1);
    push(&mut ring, entry::nop());
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EEXIST));
}

#[test]
fn probe_and_refusals() {
    let ring = Ring::new(4).unwrap();
    assert!(ring.supports(Opcode::Nop) && ring.supports(Opcode::Read));
    // Needs the network card itself.
    assert!(!ring.supports(Opcode::RecvZc));
    assert_eq!(Ring::new(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    let lone = Ring::builder().defer_taskrun().build(4);
    assert_eq!(lone.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert!(Ring::builder().clamp().build(1 << 20).unwrap().space() == 32768);
}

#[test]
fn dropping_closes_also_with_requests_in_flight() {
    let (from, _to) = pipe();
    let mut buf = [0u8; 8];
    let fd = {
        let mut ring = Ring::new(4).unwrap();
        push(&mut ring, entry::read(from.as_raw_fd(), buf.as_mut_ptr(), 8, u64::MAX));
        let forever = Timespec { tv_sec: 1000, tv_nsec: 0 };
        push(&mut ring, entry::timeout(&forever, 0));
        assert_eq!(ring.submit().unwrap(), 2);
        ring.as_raw_fd()
    };
    assert!(!soloring::raw::is_ring_fd(fd));
    // SAFETY: no argument.
    let entered = unsafe { soloring::raw::enter(fd as u32, 0, 0, 0, std::ptr::null(), 0) };
    assert_eq!(entered, -(libc::EBADF as isize));
    assert_eq!(buf, [0; 8]);
}

#[test]
fn a_polling_thread_submits_also_after_it_slept() {
    let mut ring = Ring::builder().sqpoll(1).build(8).unwrap();
    for round in 0..20 {
        for i in 0..8 {
            push(&mut ring, entry::nop().user_data(i));
        }
        ring.submit().unwrap();
        ring.submit_and_wait(8).unwrap();
        let done: Vec<u64> = ring.completions().map(|c| c.user_data).collect();
        assert_eq!(done, (0..8).collect::<Vec<_>>());
        assert_eq!(ring.queued(), 0);
        if round % 4 == 3 {
            // Long enough for its idle time to pass; either way the next round must work.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let other = Ring::builder().sqpoll(1).attach_wq(ring.as_raw_fd()).build(4);
    assert!(other.is_ok(), "{other:?}");
}

#[test]
fn operations_and_lock_are_counted() {
    let before = soloring::op_count();
    let mut ring = Ring::builder().single_issuer().defer_taskrun().build(4).unwrap();
    for _ in 0..100 {
        push(&mut ring, entry::nop());
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completions().count(), 1);
    }
    assert!(soloring::op_count() >= before + 100);
    assert!(soloring::lock_stats().unwrap().acquisitions() >= 100);
}

#[test]
fn the_lock_of_one_ring_says_who_took_it_and_how() {
    let mut ring = Ring::builder().single_issuer().defer_taskrun().build(4).unwrap();
    for _ in 0..100 {
        push(&mut ring, entry::nop());
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completions().count(), 1);
    }
    let alone = ring.inspect().lock;
    if alone.mode != LockMode::Biased {
        assert!(alone.mode.is_everywhere() && alone.owner_elided == 0, "{alone:?}");
        assert!(alone.owner_taken >= 100, "{alone:?}");
        return;
    }
    assert!(alone.owner_elided >= 100 && alone.revocations == 0, "{alone:?}");
    // The submitter does nothing meanwhile: none of these pays, and the bias goes.
    let fd = ring.as_raw_fd();
    std::thread::spawn(move || (0..200).for_each(|_| drop(soloring::inspect(fd)))).join().unwrap();
    let visited = ring.inspect().lock;
    assert!(visited.foreign >= alone.foreign + 200, "{visited:?}");
    assert_eq!((visited.mode, visited.revocations), (LockMode::GivenUp, 1), "{visited:?}");
    assert!(visited.heavy_fences >= 64, "{visited:?}");
    ring.submit().unwrap();
    let taken = ring.inspect().lock.owner_taken;
    assert!(taken > visited.owner_taken, "{taken} {visited:?}");
}

#[test]
fn a_ring_is_looked_into_from_another_thread() {
    let (reader, writer) = pipe();
    for mut ring in rings(8) {
        let mut byte = [0u8; 2];
        for (i, byte) in byte.iter_mut().enumerate() {
            push(&mut ring, entry::read(reader.as_raw_fd(), byte, 1, 0).user_data(i as u64));
        }
        push(&mut ring, entry::nop());
        ring.submit().unwrap();
        let fd = ring.as_raw_fd();
        let seen = std::thread::spawn(move || soloring::inspect(fd)).join().unwrap().unwrap();
        assert_eq!((seen.sq.entries, seen.sq.head, seen.sq.tail), (8, 3, 3));
        assert_eq!((seen.cq.head, seen.cq.tail, seen.cq.ours), (0, 1, 1));
        let mut waiting: Vec<u64> = seen.requests.iter().map(|r| r.user_data).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, [0, 1], "{seen}");
        assert!(seen.requests.iter().all(|r| r.place == soloring::Place::Armed), "{seen}");
        assert!(seen.to_string().contains("READ user_data 0x1"), "{seen}");
        // SAFETY: two bytes of a local.
        assert_eq!(unsafe { libc::write(writer.as_raw_fd(), [1u8, 2].as_ptr().cast(), 2) }, 2);
        ring.submit_and_wait(3).unwrap();
        assert!(ring.inspect().requests.is_empty());
    }
    assert_eq!(soloring::inspect(0).unwrap_err().raw_os_error(), Some(libc::EBADF));
}

/// In a process of its own, as the promise counts for all of it.
#[test]
fn announced_closes_keep_the_file_of_who_waits() {
    if std::env::var_os("SOLORING_TEST_ANNOUNCED").is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "announced_closes_keep_the_file_of_who_waits"]);
        assert!(again.env("SOLORING_TEST_ANNOUNCED", "1").status().unwrap().success());
        return;
    }
    soloring::announce_closes(true);
    for mut ring in rings(8) {
        let (reader, writer) = pipe();
        let mut byte = 0u8;
        push(&mut ring, entry::read(reader.as_raw_fd(), &raw mut byte, 1, 0).user_data(5));
        ring.submit().unwrap();
        soloring::announce_close(reader.as_raw_fd());
        drop(reader);
        // SAFETY: one byte of a local.
        assert_eq!(unsafe { libc::write(writer.as_raw_fd(), [7u8].as_ptr().cast(), 1) }, 1);
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().next().unwrap();
        assert_eq!((done.user_data, done.res, byte), (5, 1, 7));
    }
}
