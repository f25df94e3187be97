//! Many TCP clients on one ring, each checking every byte that the echo server sends back.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{opcode, types};

use crate::echo_server::{self, MESSAGE};
use crate::part::{Part, differs};
use crate::pattern;
use crate::queue::{Done, Kind, Queue, add_counts, checked};

struct Client {
    fd: Option<OwnedFd>,
    /// Message out, then message in: `MESSAGE` bytes each.
    buffer: *mut u8,
    len: usize,
    sent: usize,
    received: usize,
    round: u32,
    /// Everything was echoed; only the end of the stream may still come.
    ending: bool,
}

/// Runs `connections` clients at once, `round_trips` messages of 1 to 4096 bytes each.
pub fn run(connections: u32, round_trips: u32) -> io::Result<Part> {
    let start = Instant::now();
    let server = echo_server::start(connections)?;
    let mut queue = Queue::new(256, Kind::Deferred)?;
    let address = Box::leak(Box::new(echo_server::sockaddr(server.address)));
    let bytes = drive(&mut queue, address, connections, round_trips)?;
    let served = server.join()?;
    let seconds = start.elapsed().as_secs_f64();
    if served.bytes != bytes {
        return Err(differs(format!("server echoed {} bytes, clients sent {bytes}", served.bytes)));
    }
    let mut requests = queue.finished().clone();
    add_counts(&mut requests, &served.finished);
    let accept = if served.multishot { "one multishot accept" } else { "one accept each" };
    Ok(Part {
        name: "TCP echo".into(),
        work: format!(
            "{connections} connections, {} messages of 1 to {MESSAGE} bytes, {accept}",
            connections * round_trips
        ),
        checked: format!("{bytes} bytes, each one compared"),
        bytes: 2 * bytes,
        seconds,
        requests,
    })
}

/// The pattern's seed for one message; also decides its length.
fn seed(client: u32, round: u32) -> u64 {
    (u64::from(client) << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn drive(
    queue: &mut Queue,
    address: &'static libc::sockaddr_in,
    connections: u32,
    round_trips: u32,
) -> io::Result<u64> {
    // Leaked: after an error return the ring may still be receiving into them.
    let buffers = vec![0u8; connections as usize * 2 * MESSAGE].leak().as_mut_ptr();
    let mut clients: Vec<Client> = (0..connections as usize)
        .map(|index| Client {
            fd: None,
            buffer: buffers.wrapping_add(index * 2 * MESSAGE),
            len: 0,
            sent: 0,
            received: 0,
            round: 0,
            ending: false,
        })
        .collect();
    for token in 0..connections {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is involved.
        unsafe { queue.push(opcode::Socket::new(libc::AF_INET, kind, 0).build(), token)? };
    }
    let mut bytes = 0;
    let mut ready = Vec::new();
    while queue.in_flight() > 0 {
        ready.clear();
        ready.extend_from_slice(queue.turn(1)?);
        for done in &ready {
            let client = &mut clients[done.token as usize];
            bytes += client.step(queue, *done, address, round_trips)?;
        }
    }
    if clients.iter().any(|client| client.fd.is_some() || client.round != round_trips) {
        return Err(differs("a client ended early"));
    }
    Ok(bytes)
}

impl Client {
    fn fd(&self) -> types::Fd {
        types::Fd(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Takes one completion of this client; returns how many echoed bytes it finished checking.
    fn step(
        &mut self,
        queue: &mut Queue,
        done: Done,
        address: &'static libc::sockaddr_in,
        round_trips: u32,
    ) -> io::Result<u64> {
        let token = done.token;
        match done.opcode {
            opcode::Socket::CODE => {
                // SAFETY: the completion hands over a fresh descriptor.
                self.fd = Some(unsafe { OwnedFd::from_raw_fd(checked(done.res, "socket")?) });
                let len = size_of_val(address) as libc::socklen_t;
                let entry =
                    opcode::Connect::new(self.fd(), (&raw const *address).cast(), len).build();
                // SAFETY: the address is never freed.
                unsafe { queue.push(entry, token)? };
            }
            opcode::Connect::CODE => {
                checked(done.res, "connect")?;
                self.start_round(queue, token)?;
            }
            opcode::Send::CODE => {
                self.sent += checked(done.res, "client send")? as usize;
                if self.sent < self.len {
                    self.push_send(queue, token)?;
                }
                return self.end_round(queue, token, round_trips);
            }
            opcode::Recv::CODE if self.ending => {
                if checked(done.res, "client recv")? != 0 {
                    return Err(differs("the server sent more than it was sent"));
                }
                if let Some(fd) = self.fd.take() {
                    let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
                    // SAFETY: no memory is involved; the descriptor was given up for this.
                    unsafe { queue.push(entry, token)? };
                }
            }
            opcode::Recv::CODE => {
                let got = checked(done.res, "client recv")? as usize;
                if got == 0 {
                    return Err(differs("the server closed a connection early"));
                }
                self.received += got;
                if self.received < self.len {
                    self.push_recv(queue, token)?;
                }
                return self.end_round(queue, token, round_trips);
            }
            opcode::Shutdown::CODE => {
                checked(done.res, "shutdown")?;
                self.ending = true;
                self.received = 0;
                self.push_recv(queue, token)?;
            }
            opcode::Close::CODE => drop(checked(done.res, "close")?),
            other => return Err(differs(format!("completion of opcode {other} in a client"))),
        }
        Ok(0)
    }

    fn start_round(&mut self, queue: &mut Queue, token: u32) -> io::Result<()> {
        let seed = seed(token, self.round);
        self.len = 1 + (seed >> 40) as usize % MESSAGE;
        self.sent = 0;
        self.received = 0;
        // SAFETY: the first half of the client's own buffer, with no request in flight on it.
        let out = unsafe { std::slice::from_raw_parts_mut(self.buffer, self.len) };
        pattern::fill(seed, out);
        self.push_send(queue, token)?;
        self.push_recv(queue, token)
    }

    /// When all was sent and has come back: compares, and starts the next message or the end.
    fn end_round(&mut self, queue: &mut Queue, token: u32, round_trips: u32) -> io::Result<u64> {
        if self.sent < self.len || self.received < self.len {
            return Ok(0);
        }
        // SAFETY: the second half of the client's own buffer, with no request in flight on it.
        let got = unsafe { std::slice::from_raw_parts(self.buffer.add(MESSAGE), self.len) };
        pattern::check(seed(token, self.round), got, "echo")?;
        self.round += 1;
        if self.round < round_trips {
            self.start_round(queue, token)?;
        } else {
            let entry = opcode::Shutdown::new(self.fd(), libc::SHUT_WR).build();
            // SAFETY: no memory is involved.
            unsafe { queue.push(entry, token)? };
        }
        Ok(got.len() as u64)
    }

    fn push_send(&self, queue: &mut Queue, token: u32) -> io::Result<()> {
        let from = self.buffer.wrapping_add(self.sent);
        let entry = opcode::Send::new(self.fd(), from, (self.len - self.sent) as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the buffer is never freed; its first half changes only between messages.
        unsafe { queue.push(entry, token) }
    }

    fn push_recv(&self, queue: &mut Queue, token: u32) -> io::Result<()> {
        let into = self.buffer.wrapping_add(MESSAGE + self.received);
        let want = if self.ending { 1 } else { self.len - self.received };
        let entry = opcode::Recv::new(self.fd(), into, want as u32).build();
        // SAFETY: the buffer is never freed; its second half belongs to this receive until it is done.
        unsafe { queue.push(entry, token) }
    }
}
