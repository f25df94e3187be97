//! TCP echo server on loopback: one ring, multishot accept where the ring offers it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use io_uring::{opcode, types};

use crate::part::differs;
use crate::queue::{Kind, Queue, checked};

/// Longest message, in bytes.
pub const MESSAGE: usize = 4096;

/// What the server did, known when it has ended.
#[derive(Debug, Default)]
pub struct Served {
    pub finished: BTreeMap<u8, u64>,
    pub bytes: u64,
    /// Whether one accept request took all connections.
    pub multishot: bool,
}

/// A server that runs in its own thread until it has served its number of connections.
pub struct Server {
    pub address: SocketAddrV4,
    thread: JoinHandle<io::Result<Served>>,
}

struct Connection {
    fd: Option<OwnedFd>,
    buffer: *mut u8,
    len: usize,
    sent: usize,
}

/// Starts the server on a free port; it ends after `connections` connections have come and gone.
pub fn start(connections: u32) -> io::Result<Server> {
    let (tell, told) = mpsc::channel();
    // The ring is made in the thread that uses it, as SINGLE_ISSUER asks.
    let thread = thread::Builder::new().name("echo-server".into()).spawn(move || {
        let mut queue = Queue::new(256, Kind::Deferred)?;
        let listener = listen(&mut queue, connections)?;
        let _ = tell.send(port_of(&listener)?);
        serve(&mut queue, &listener, connections)
    })?;
    match told.recv() {
        Ok(port) => Ok(Server { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), thread }),
        // The thread ended before it had a port: its error says why.
        Err(_) => Err(finish(thread).err().unwrap_or_else(|| differs("the server did not start"))),
    }
}

impl Server {
    /// Waits for the server to end.
    pub fn join(self) -> io::Result<Served> {
        finish(self.thread)
    }
}

fn finish(thread: JoinHandle<io::Result<Served>>) -> io::Result<Served> {
    thread.join().unwrap_or_else(|_| Err(differs("the server thread panicked")))
}

/// A loopback address in the form that the system calls take.
pub fn sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all-zero bytes are a valid `sockaddr_in`.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    raw.sin_family = libc::AF_INET as libc::sa_family_t;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
    raw
}

fn listen(queue: &mut Queue, connections: u32) -> io::Result<OwnedFd> {
    let entry =
        opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).build();
    // SAFETY: no memory is involved; the completion hands over a fresh descriptor.
    let listener = unsafe { OwnedFd::from_raw_fd(queue.one(entry, "socket")?) };
    let fd = types::Fd(listener.as_raw_fd());
    let address = sockaddr(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` lives until the completion has been taken.
    unsafe { queue.one(opcode::Bind::new(fd, (&raw const address).cast(), len).build(), "bind")? };
    // SAFETY: no memory is involved.
    unsafe { queue.one(opcode::Listen::new(fd, connections as i32).build(), "listen")? };
    Ok(listener)
}

fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    let mut address = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: both pointers name locals of the size that `len` says.
    let res = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    if res < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u16::from_be(address.sin_port))
}

fn push_accept(queue: &mut Queue, listener: &OwnedFd, multishot: bool) -> io::Result<()> {
    let fd = types::Fd(listener.as_raw_fd());
    let entry = if multishot {
        opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
    } else {
        opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
    };
    // SAFETY: no memory is involved.
    unsafe { queue.push(entry, 0) }
}

impl Connection {
    fn fd(&self) -> types::Fd {
        types::Fd(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    fn push_recv(&self, queue: &mut Queue, token: u32) -> io::Result<()> {
        let entry = opcode::Recv::new(self.fd(), self.buffer, MESSAGE as u32).build();
        // SAFETY: the buffer is never freed and this connection has no other request in flight.
        unsafe { queue.push(entry, token) }
    }

    fn push_send(&self, queue: &mut Queue, token: u32) -> io::Result<()> {
        let from = self.buffer.wrapping_add(self.sent);
        let entry = opcode::Send::new(self.fd(), from, (self.len - self.sent) as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the buffer is never freed and this connection has no other request in flight.
        unsafe { queue.push(entry, token) }
    }
}

fn serve(queue: &mut Queue, listener: &OwnedFd, connections: u32) -> io::Result<Served> {
    // Leaked: after an error return the ring may still be receiving into them.
    let buffers = vec![0u8; connections as usize * MESSAGE].leak().as_mut_ptr();
    let mut served = Served { multishot: true, ..Served::default() };
    let mut list: Vec<Connection> = Vec::with_capacity(connections as usize);
    let mut closed = 0;
    let mut ready = Vec::new();
    push_accept(queue, listener, true)?;
    while closed < connections || queue.in_flight() > 0 {
        ready.clear();
        ready.extend_from_slice(queue.turn(1)?);
        for done in &ready {
            let token = done.token;
            match done.opcode {
                opcode::Accept::CODE => {
                    let over = list.len() == connections as usize;
                    if over && done.res == -libc::ECANCELED {
                        continue;
                    }
                    if list.is_empty() && done.res == -libc::EINVAL && served.multishot {
                        served.multishot = false;
                        push_accept(queue, listener, false)?;
                        continue;
                    }
                    let fd = checked(done.res, "accept")?;
                    if over {
                        return Err(differs("accepted more connections than were made"));
                    }
                    let connection = Connection {
                        // SAFETY: the completion hands over a fresh descriptor.
                        fd: Some(unsafe { OwnedFd::from_raw_fd(fd) }),
                        buffer: buffers.wrapping_add(list.len() * MESSAGE),
                        len: 0,
                        sent: 0,
                    };
                    connection.push_recv(queue, list.len() as u32)?;
                    list.push(connection);
                    let last = list.len() == connections as usize;
                    if !done.more && !last {
                        push_accept(queue, listener, served.multishot)?;
                    } else if done.more && last {
                        let entry =
                            opcode::AsyncCancel::new(Queue::user_data(opcode::Accept::CODE, 0));
                        // SAFETY: no memory is involved.
                        unsafe { queue.push(entry.build(), 0)? };
                    }
                }
                opcode::AsyncCancel::CODE => drop(checked(done.res, "cancel of the accept")?),
                opcode::Recv::CODE => {
                    let connection = &mut list[token as usize];
                    connection.len = checked(done.res, "server recv")? as usize;
                    connection.sent = 0;
                    served.bytes += connection.len as u64;
                    match (connection.len, connection.fd.take()) {
                        (0, Some(fd)) => {
                            let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
                            // SAFETY: no memory is involved; the descriptor was given up for this.
                            unsafe { queue.push(entry, token)? };
                        }
                        (_, fd) => {
                            connection.fd = fd;
                            connection.push_send(queue, token)?;
                        }
                    }
                }
                opcode::Send::CODE => {
                    let connection = &mut list[token as usize];
                    connection.sent += checked(done.res, "server send")? as usize;
                    if connection.sent < connection.len {
                        connection.push_send(queue, token)?;
                    } else {
                        connection.push_recv(queue, token)?;
                    }
                }
                opcode::Close::CODE => {
                    checked(done.res, "server close")?;
                    closed += 1;
                }
                other => {
                    return Err(differs(format!("completion of opcode {other} in the server")));
                }
            }
        }
    }
    served.finished = queue.finished().clone();
    Ok(served)
}
