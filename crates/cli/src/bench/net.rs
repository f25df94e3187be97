//! TCP echo on loopback between two threads with a ring each: 64 bytes there and back, each one checked.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

use soloring_abi::{Opcode, Sqe, sqe_flags};

use super::ring::{Ring, checked};
use super::work::{Clock, Sample};
use crate::backend::Backend;

const MESSAGE: usize = 64;
/// Ring requests of one round trip, both ends: a send and a receive each.
const REQUESTS: u64 = 4;

/// `count` connected pairs: the client's ends and the server's.
fn pairs(count: u32) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..count {
        near.push(TcpStream::connect(address)?);
        far.push(listener.accept()?.0);
    }
    for stream in near.iter().chain(&far) {
        stream.set_nodelay(true)?;
    }
    Ok((near, far))
}

fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the echo thread panicked")))
}

fn wrong_echo() -> io::Error {
    io::Error::other("an echoed message differs from what was sent")
}

/// One connection's two messages: out, then in.
#[repr(C, align(64))]
struct Messages([[u8; MESSAGE]; 2]);

/// Leaked, as after an error return a ring may still be receiving into them; a worker lives briefly.
fn messages(count: usize) -> &'static [*mut Messages] {
    let list =
        (0..count).map(|_| std::ptr::from_mut(Box::leak(Box::new(Messages([[0; MESSAGE]; 2])))));
    list.collect::<Vec<_>>().leak()
}

/// One end of all connections on a ring.
struct End<'a, B: Backend> {
    ring: Ring<B>,
    streams: &'a [TcpStream],
    messages: &'static [*mut Messages],
}

impl<'a, B: Backend> End<'a, B> {
    fn new(backend: B, flags: u32, streams: &'a [TcpStream]) -> io::Result<Self> {
        let entries = (streams.len() as u32 * 2).max(8).next_power_of_two();
        let ring = Ring::new(backend, entries, flags)?;
        Ok(End { ring, streams, messages: messages(streams.len()) })
    }

    /// The message of connection `index` that goes out (0) or comes in (1).
    fn message(&self, index: usize, way: usize) -> *mut [u8; MESSAGE] {
        self.messages[index].cast::<[u8; MESSAGE]>().wrapping_add(way)
    }

    fn push(&mut self, index: usize, opcode: Opcode) {
        let send = opcode == Opcode::Send;
        let sqe = Sqe {
            opcode: opcode as u8,
            // Only a send that fails is of interest: the answer says that it has arrived.
            flags: if send { sqe_flags::CQE_SKIP_SUCCESS } else { 0 },
            fd: self.streams[index].as_raw_fd(),
            addr: self.message(index, usize::from(!send)) as u64,
            len: MESSAGE as u32,
            op_flags: if send { libc::MSG_NOSIGNAL } else { libc::MSG_WAITALL } as u32,
            user_data: index as u64 | u64::from(send) << 32,
            ..Sqe::default()
        };
        // SAFETY: the ring has two entries a connection, and each has one send and one receive in
        // flight, on halves of a message pair that is never freed. A message is written to again only
        // after the answer to it has come, so the send has completed.
        unsafe { self.ring.push(sqe) };
    }

    /// Waits for completions and gives the connections that received a whole message.
    ///
    /// # Errors
    /// A request failed; `Ok(None)` says that the other end has closed.
    fn turn(&mut self, received: &mut Vec<usize>) -> io::Result<Option<()>> {
        received.clear();
        self.ring.enter(1)?;
        let mut failed = 0;
        let mut closed = false;
        self.ring.reap(|cqe| match cqe.res {
            64 if cqe.user_data >> 32 == 0 => received.push(cqe.user_data as usize),
            0 => closed = true,
            res => failed = if res < 0 { res } else { -libc::EIO },
        });
        checked(failed as isize, "send or receive")?;
        Ok((!closed).then_some(()))
    }
}

fn serve<B: Backend>(backend: B, flags: u32, streams: &[TcpStream]) -> io::Result<()> {
    let mut end = End::new(backend, flags, streams)?;
    for index in 0..streams.len() {
        end.push(index, Opcode::Recv);
    }
    let mut received = Vec::new();
    while end.turn(&mut received)?.is_some() {
        for &index in &received {
            // SAFETY: the receive has completed; the last send has too, as its answer came after it.
            unsafe { end.message(index, 0).write(end.message(index, 1).read()) };
            end.push(index, Opcode::Send);
            end.push(index, Opcode::Recv);
        }
    }
    Ok(())
}

/// Every connection has one message on its way at any time; an operation is one round trip.
pub fn ring<B: Backend>(backend: B, flags: u32, connections: u32, ms: u64) -> io::Result<Sample> {
    let (near, far) = pairs(connections)?;
    backend.promise_to_announce_closes();
    let server = thread::spawn(move || {
        let outcome = serve(backend, flags, &far);
        far.iter().for_each(|stream| backend.announce_close(stream.as_raw_fd()));
        outcome
    });
    let outcome = drive(backend, flags, &near, ms);
    for stream in &near {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        backend.announce_close(stream.as_raw_fd());
    }
    join(server).and(outcome)
}

fn drive<B: Backend>(backend: B, flags: u32, near: &[TcpStream], ms: u64) -> io::Result<Sample> {
    let mut end = End::new(backend, flags, near)?;
    let mut number = 0u64;
    let mut say = |end: &mut End<B>, index: usize| {
        number += 1;
        let mut message = [index as u8; MESSAGE];
        message[..8].copy_from_slice(&number.to_ne_bytes());
        // SAFETY: no request of this connection is in flight.
        unsafe { end.message(index, 0).write(message) };
        end.push(index, Opcode::Send);
        end.push(index, Opcode::Recv);
    };
    for index in 0..near.len() {
        say(&mut end, index);
    }
    let mut received = Vec::new();
    let mut turn = || -> io::Result<u64> {
        end.turn(&mut received)?.ok_or(ErrorKind::UnexpectedEof)?;
        for &index in &received {
            // SAFETY: both requests of this connection have completed.
            let (sent, got) =
                unsafe { (end.message(index, 0).read(), end.message(index, 1).read()) };
            if sent != got {
                return Err(wrong_echo());
            }
            say(&mut end, index);
        }
        Ok(received.len() as u64)
    };
    let clock = Clock::warm_up(ms, 64, &mut turn)?;
    clock.run(REQUESTS, turn)
}

/// The same by plain calls: blocking for one connection, epoll for more.
pub fn plain(connections: u32, ms: u64) -> io::Result<Sample> {
    let (near, far) = pairs(connections)?;
    let server = thread::spawn(move || {
        let epoll = Epoll::new(&far)?;
        let mut message = [0; MESSAGE];
        let mut ready = Vec::new();
        loop {
            epoll.wait(&mut ready)?;
            for &index in &ready {
                let mut stream = &far[index];
                match stream.read_exact(&mut message) {
                    Ok(()) => stream.write_all(&message)?,
                    Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
        }
    });
    let outcome = drive_plain(&near, ms);
    for stream in &near {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    join(server).and(outcome)
}

fn drive_plain(near: &[TcpStream], ms: u64) -> io::Result<Sample> {
    let epoll = Epoll::new(near)?;
    let mut sent = vec![[0u8; MESSAGE]; near.len()];
    let mut number = 0u64;
    let mut say = |sent: &mut Vec<[u8; MESSAGE]>, index: usize| {
        number += 1;
        sent[index] = [index as u8; MESSAGE];
        sent[index][..8].copy_from_slice(&number.to_ne_bytes());
        (&near[index]).write_all(&sent[index])
    };
    for index in 0..near.len() {
        say(&mut sent, index)?;
    }
    let mut ready = Vec::new();
    let mut turn = || -> io::Result<u64> {
        epoll.wait(&mut ready)?;
        for &index in &ready {
            let mut got = [0; MESSAGE];
            (&near[index]).read_exact(&mut got)?;
            if got != sent[index] {
                return Err(wrong_echo());
            }
            say(&mut sent, index)?;
        }
        Ok(ready.len() as u64)
    };
    let clock = Clock::warm_up(ms, 64, &mut turn)?;
    clock.run(0, turn)
}

/// Level-triggered readiness of many sockets; for one socket nothing, as its read blocks itself.
struct Epoll {
    fd: Option<std::os::fd::OwnedFd>,
}

impl Epoll {
    fn new(streams: &[TcpStream]) -> io::Result<Epoll> {
        use std::os::fd::FromRawFd;
        if streams.len() == 1 {
            return Ok(Epoll { fd: None });
        }
        // SAFETY: takes numbers only; a fresh descriptor on success.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize, "epoll")?;
        // SAFETY: nobody else knows the descriptor.
        let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) };
        for (index, stream) in streams.iter().enumerate() {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
            // SAFETY: the event is a local that the call copies.
            let res = unsafe {
                libc::epoll_ctl(fd.as_raw_fd(), libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event)
            };
            if res != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Epoll { fd: Some(fd) })
    }

    fn wait(&self, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        let Some(fd) = &self.fd else {
            ready.push(0);
            return Ok(());
        };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: room for as many events as the count says.
        let count = unsafe {
            libc::epoll_wait(fd.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, -1)
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        ready.extend(events[..count as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}
