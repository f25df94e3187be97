//! Rings that are closed with requests of every kind in flight, again and again: nothing is left.
//!
//! `SOLORING_CLOSINGS` is how many of them each case makes.

use super::leaks::Holdings;
use crate::backend::Abi;
use crate::res::Res;
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, nop, op, poll_add, poll_multi, timeout};
use crate::sys;
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, Timespec, raw};
use std::sync::atomic::AtomicU32;

const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const DEFER: u32 = SINGLE | raw::IORING_SETUP_DEFER_TASKRUN;
const IN: u32 = libc::POLLIN as u32;

/// Makes so many rings in a build with checks within some seconds.
fn closings() -> u32 {
    std::env::var("SOLORING_CLOSINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(120)
}

/// Resident memory of this process, in bytes.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<i64>().ok()).expect("pages")
        * 4096
}

/// What requests wait for, and never comes.
struct World {
    pipe: (i32, i32),
    sockets: (i32, i32),
    listener: i32,
    file: i32,
    futex: AtomicU32,
    hour: Timespec,
    buffer: &'static mut [u8],
}

impl World {
    fn new() -> World {
        World {
            pipe: sys::pipe(),
            sockets: sys::socketpair(libc::SOCK_STREAM),
            listener: sys::tcp_listener().0,
            file: sys::file_with(&[1; 4096]),
            futex: AtomicU32::new(0),
            hour: sqe::ms(3_600_000),
            buffer: sys::buffer(4096),
        }
    }

    fn requests(&mut self) -> Vec<Sqe> {
        let (r, socket) = (self.pipe.0, self.sockets.0);
        let halves = self.buffer.split_at_mut(2048);
        let futex = op(Opcode::FutexWait, 2, self.futex.as_ptr() as u64, 0, 0)
            .with(|s| s.addr3 = u32::MAX as u64);
        vec![
            poll_add(r, IN),
            poll_multi(r, IN),
            sqe::read(r, halves.0, 0),
            sqe::read(r, halves.1, 0).forced_async(),
            sqe::recv(socket, halves.0, 0),
            sqe::recv(socket, halves.1, 0).forced_async(),
            sqe::accept(self.listener, 0),
            timeout(&self.hour, 0, 0),
            timeout(&self.hour, 1000, 0),
            futex,
            sqe::read(self.file, halves.0, 0).forced_async(),
            poll_add(r, IN).link(),
            sqe::link_timeout(&self.hour, 0),
            sqe::recv(socket, halves.0, 0).link(),
            nop(),
            nop(),
            nop(),
        ]
    }
}

/// Gives the ring files, buffers and an eventfd of its own to hold.
fn furnish(ring: &Ring, world: &World) {
    let files = [world.file, world.pipe.0, -1, -1];
    check_eq!(ring.register(reg::IORING_REGISTER_FILES as u32, files.as_ptr(), 4), Res(0), "files");
    let iov = libc::iovec { iov_base: world.buffer.as_ptr().cast_mut().cast(), iov_len: 4096 };
    check_eq!(ring.register(reg::IORING_REGISTER_BUFFERS as u32, &iov, 1), Res(0), "buffers");
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    check_eq!(ring.register(reg::IORING_REGISTER_EVENTFD as u32, &event, 1), Res(0), "eventfd");
    sys::close(event);
}

/// Rings with `flags`, each closed by `close` with everything in flight.
fn again_and_again(abi: &Abi, flags: u32, close: fn(Ring)) {
    let mut world = World::new();
    let quiet = Abi::unrecorded(abi.backend());
    let mut one = || {
        let mut p = params(flags | raw::IORING_SETUP_CQSIZE);
        (p.cq_entries, p.sq_thread_idle) = (32, 1);
        let mut ring = Ring::build(&quiet, 32, p);
        furnish(&ring, &world);
        let requests = world.requests();
        ring.push_all(&requests);
        let wakeup = raw::IORING_ENTER_SQ_WAKEUP;
        check_eq!(ring.enter(requests.len() as u32, 0, wakeup), Res(requests.len() as i64), "all");
        // Drained, behind what never ends; and more completions than there is room for.
        ring.push_all(&[nop().drain(), nop()]);
        ring.enter(2, 0, wakeup);
        close(ring);
    };
    // What is made once (also the thread that serves rings while nobody is inside), and what the allocator keeps.
    let mut first = Ring::build(&quiet, 4, params(0));
    first.submit_all(&[poll_add(sys::pipe().0, IN)]);
    drop(first);
    (0..20).for_each(|_| one());
    let (holdings, quarter) = (Holdings::new(), closings() / 4);
    let before = holdings.settled();
    (0..quarter).for_each(|_| one());
    holdings.unchanged(&before, "a quarter of them");
    let memory = resident();
    (0..3 * quarter).for_each(|_| one());
    holdings.unchanged(&before, "all of them");
    let grown = resident() - memory;
    // A kibibyte for each ring, and what the allocator of a busy process makes of it.
    check!(grown < (2 << 20) + ((3 * quarter as i64) << 10), "{grown} bytes more");
    check_eq!(sys::write(world.pipe.1, b"x"), Res(1), "and nobody reads");
    check_eq!(sys::read(world.pipe.0, &mut [0; 2]), Res(1));
}

fn closed_by_its_thread(abi: &Abi) {
    again_and_again(abi, 0, |ring| drop(ring));
}
fn closed_by_its_submitter(abi: &Abi) {
    again_and_again(abi, DEFER, |ring| drop(ring));
}
fn closed_with_its_thread(abi: &Abi) {
    again_and_again(abi, raw::IORING_SETUP_SQPOLL, |ring| drop(ring));
}
fn closed_by_another_thread(abi: &Abi) {
    again_and_again(abi, DEFER, |ring| {
        let (fd, backend) = (ring.fd, ring.abi.backend());
        ring.unmap();
        let closer = std::thread::spawn(move || Abi::unrecorded(backend).close(fd));
        check_eq!(closer.join().unwrap(), Res(0), "closed");
    });
}
fn closed_by_its_duplicate(abi: &Abi) {
    again_and_again(abi, SINGLE, |ring| {
        let quiet = Abi::unrecorded(ring.abi.backend());
        let twin = quiet.dup(ring.fd).0 as i32;
        drop(ring);
        check_eq!(quiet.close(twin), Res(0), "the last one");
    });
}

fn closed_while_its_thread_waits(abi: &Abi) {
    again_and_again(abi, DEFER, |mut ring| {
        let (r, w) = sys::pipe();
        ring.submit_all(&[poll_add(r, IN)]);
        let (fd, backend, me) = (ring.fd, ring.abi.backend(), sys::thread_id());
        let closer = std::thread::spawn(move || {
            sys::until_asleep(me);
            let closed = Abi::unrecorded(backend).close(fd);
            sys::write(w, b"x");
            closed
        });
        let one_more = ring.cq_ready() + 1;
        check_eq!(ring.enter(0, one_more, raw::IORING_ENTER_GETEVENTS), Res(0), "the wait");
        check_eq!(closer.join().unwrap(), Res(0), "closed");
        ring.unmap();
        sys::close(r);
        sys::close(w);
    });
}

family!["closing", once;
    closed_by_its_thread,
    closed_by_its_submitter,
    closed_with_its_thread,
    closed_by_another_thread,
    closed_by_its_duplicate,
    closed_while_its_thread_waits,
];
