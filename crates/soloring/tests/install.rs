//! `soloring::install()` in an ordinary program: the kernel's ring is denied, and real work is done all the same.
//!
//! The work is the demo's client, which is written against the `io-uring` crate and checks all its results.
#![allow(unsafe_code)]

use io_uring::{IoUring, opcode};
use soloring_demo_client::{Options, run};
use soloring_intercept::filter;
use std::os::fd::AsRawFd;

fn main() {
    // What a container engine's profile does: the three calls answer EPERM.
    filter::install(&filter::deny_program()).expect("seccomp");
    let refused = IoUring::new(8).map(drop).expect_err("the kernel's ring is denied");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert_eq!(soloring::op_count(), 0);

    soloring::install().expect("install");

    let mut ring = IoUring::new(8).expect("a ring of ours");
    assert!(soloring::raw::is_ring_fd(ring.as_raw_fd()));
    // SAFETY: a NOP refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build().user_data(9)).unwrap() };
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
    assert_eq!(ring.completion().next().map(|c| (c.user_data(), c.result())), Some((9, 0)));
    drop(ring);

    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: dir.path().to_path_buf(),
        copy_bytes: (2 << 20) + 4321,
        connections: 10,
        round_trips: 10,
        timers: 20,
    };
    let mut requests = 0;
    let mut parts = Vec::new();
    run(&options, |part| {
        requests += part.total_requests();
        parts.push(part.name);
        Ok(())
    })
    .expect("the client's own checks");
    assert_eq!(parts, ["file copy", "TCP echo", "timers"]);
    // The client counts a multishot request once, and so do we.
    assert!(soloring::op_count() >= requests, "{} of {requests}", soloring::op_count());
    let stats = soloring::lock_stats().expect("there were rings");
    assert!(stats.acquisitions() > 0, "{stats:?}");

    // Our own interface goes on beside it.
    let mut ring = soloring::Ring::new(4).unwrap();
    // SAFETY: a NOP refers to no memory.
    unsafe { ring.push(soloring::entry::nop().user_data(3)).unwrap() };
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completions().map(|c| c.user_data).collect::<Vec<_>>(), [3]);
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; {requests} requests");
}
