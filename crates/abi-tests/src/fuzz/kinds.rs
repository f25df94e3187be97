//! Descriptors of the rarer kinds.
#![allow(unsafe_code)]

use crate::sys;

fn opened(fd: i64) -> i32 {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    fd as i32
}

/// This process.
fn pidfd() -> i32 {
    // SAFETY: touches no memory.
    opened(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })
}

/// Told of nothing.
fn inotify() -> i32 {
    // SAFETY: touches no memory.
    opened(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } as i64)
}

/// A signal that nobody sends.
fn signalfd() -> i32 {
    let mask = sys::sigset(&[libc::SIGUSR2]);
    // SAFETY: reads one set of signals.
    opened(unsafe { libc::signalfd(-1, &mask, libc::SFD_CLOEXEC) } as i64)
}

/// Fired once, long ago.
fn fired_timer() -> i32 {
    let fd = sys::timerfd();
    let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = libc::itimerspec { it_interval: never, it_value: soon };
    // SAFETY: reads one itimerspec.
    assert_eq!(unsafe { libc::timerfd_settime(fd, 0, &spec, std::ptr::null_mut()) }, 0);
    fd
}

/// A memory file that can neither be written nor change its size.
fn sealed() -> i32 {
    // SAFETY: a constant name; touches no memory.
    let fd = unsafe { libc::memfd_create(c"sealed".as_ptr(), libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0);
    sys::write(fd, b"sealed contents");
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    assert!(!sys::fcntl(fd, libc::F_ADD_SEALS, seals).is_err());
    fd
}

fn socket(family: i32, kind: i32) -> i32 {
    // SAFETY: touches no memory.
    opened(unsafe { libc::socket(family, kind, 0) } as i64)
}

/// Page faults of nobody; not where that is forbidden.
fn userfaultfd() -> Option<i32> {
    const USER_MODE_ONLY: i32 = 1;
    // SAFETY: touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
    (fd >= 0).then_some(fd as i32)
}

/// An epoll instance with something in it that is ready.
fn ready_epoll() -> i32 {
    let (epoll, full) = (sys::epoll(), sys::eventfd(3, 0));
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 5 };
    // SAFETY: reads one event.
    assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, full, &mut event) }, 0);
    epoll
}

/// One of each, with names; what this system has not is left out.
pub fn all() -> Vec<(&'static str, i32)> {
    let (no_writer, writer) = sys::pipe();
    sys::close(writer);
    let (reader, no_reader) = sys::pipe();
    sys::close(reader);
    let (no_peer, peer) = sys::socketpair(libc::SOCK_STREAM);
    sys::close(peer);
    let (shut, _shut_peer) = sys::socketpair(libc::SOCK_STREAM);
    sys::shut(shut, libc::SHUT_RDWR);
    let (packets, packet_peer) = sys::socketpair(libc::SOCK_SEQPACKET);
    sys::write(packet_peer, b"a packet");
    let (tcp, tcp_peer) = sys::tcp_pair();
    sys::write(tcp_peer, b"some data through TCP");
    let (stream, full_stream) = sys::socketpair(libc::SOCK_STREAM);
    sys::fill(full_stream);
    let mut all = vec![
        ("pidfd", pidfd()),
        ("inotify", inotify()),
        ("signalfd", signalfd()),
        ("fired timer", fired_timer()),
        ("sealed", sealed()),
        ("ready epoll", ready_epoll()),
        ("pty", sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY)),
        ("pipe without writer", no_writer),
        ("pipe without reader", no_reader),
        ("stream without peer", no_peer),
        ("shut stream", shut),
        ("packets", packets),
        ("tcp", tcp),
        ("tcp peer", tcp_peer),
        ("full stream", full_stream),
        ("unread stream", stream),
        ("udp", socket(libc::AF_INET, libc::SOCK_DGRAM)),
        ("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW)),
        ("unix", socket(libc::AF_UNIX, libc::SOCK_DGRAM)),
    ];
    all.extend(userfaultfd().map(|fd| ("userfaultfd", fd)));
    for (name, path) in
        [("proc file", "/proc/sys/kernel/ostype"), ("sys file", "/sys/kernel/fscaps")]
    {
        if std::path::Path::new(path).exists() {
            all.push((name, sys::open(path, libc::O_RDONLY)));
        }
    }
    all
}
