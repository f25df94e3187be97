//! Ordinary system calls for the cases: descriptors as plain numbers, errors as results.
//!
//! Nothing here is closed by itself: a case is a process of its own and ends with it.
#![allow(unsafe_code)]

use crate::res::Res;
use soloring_engine::uapi;
use std::ffi::{CString, c_void};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// `-1` and errno to `-errno`.
fn result(value: i64) -> Res {
    if value >= 0 {
        return Res(value);
    }
    Res(-(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as i64))
}

/// A C path.
pub fn c(path: impl AsRef<Path>) -> CString {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("no NUL in a path")
}

/// (read end, write end)
pub fn pipe() -> (i32, i32) {
    pipe2(0)
}

pub fn pipe2(flags: i32) -> (i32, i32) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) }, 0);
    (fds[0], fds[1])
}

pub fn socketpair(kind: i32) -> (i32, i32) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
    (fds[0], fds[1])
}

pub fn eventfd(initial: u32, flags: i32) -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::eventfd(initial, flags) };
    assert!(fd >= 0);
    fd
}

/// The eventfd's count, 0 when not signalled (the eventfd must be non-blocking).
pub fn eventfd_count(fd: i32) -> u64 {
    let mut count = [0u8; 8];
    if read(fd, &mut count) == Res(8) { u64::from_ne_bytes(count) } else { 0 }
}

/// Set once, before the case that it is for.
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// From now on the engine is told of every close and of every replacement before it happens.
pub fn announce_closes() {
    uapi::set_close_notified(true);
    ANNOUNCED.store(true, Ordering::Relaxed);
}

/// Before `fd` is closed or replaced.
pub fn announce(fd: i32) {
    if ANNOUNCED.load(Ordering::Relaxed) {
        uapi::note_close(fd);
    }
}

/// As [`close`], but breaks the promise to announce it.
pub fn close_silently(fd: i32) -> Res {
    // SAFETY: touches no memory.
    result(unsafe { libc::close(fd) } as i64)
}

pub fn close(fd: i32) -> Res {
    announce(fd);
    // SAFETY: touches no memory.
    result(unsafe { libc::close(fd) } as i64)
}

pub fn dup(fd: i32) -> i32 {
    // SAFETY: touches no memory.
    let new = unsafe { libc::dup(fd) };
    assert!(new >= 0);
    new
}

pub fn dup2(fd: i32, to: i32) -> Res {
    announce(to);
    // SAFETY: touches no memory.
    result(unsafe { libc::dup2(fd, to) } as i64)
}

pub fn read(fd: i32, buf: &mut [u8]) -> Res {
    // SAFETY: the slice is writable for its length.
    result(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) } as i64)
}

pub fn write(fd: i32, buf: &[u8]) -> Res {
    // SAFETY: the slice is readable for its length.
    result(unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) } as i64)
}

pub fn pread(fd: i32, buf: &mut [u8], off: i64) -> Res {
    // SAFETY: the slice is writable for its length.
    result(unsafe { libc::pread(fd, buf.as_mut_ptr().cast(), buf.len(), off) } as i64)
}

pub fn seek(fd: i32, off: i64, whence: i32) -> Res {
    // SAFETY: touches no memory.
    result(unsafe { libc::lseek(fd, off, whence) })
}

pub fn fcntl(fd: i32, command: i32, arg: i32) -> Res {
    // SAFETY: only commands with a number as argument are used.
    result(unsafe { libc::fcntl(fd, command, arg) } as i64)
}

pub fn set_nonblocking(fd: i32) {
    let flags = fcntl(fd, libc::F_GETFL, 0).0 as i32;
    assert!(!fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK).is_err());
}

pub fn is_open(fd: i32) -> bool {
    !fcntl(fd, libc::F_GETFD, 0).is_err()
}

/// A descriptor number that is not open and will not be given out soon.
pub fn unused_fd() -> i32 {
    let fd = 9999;
    assert!(!is_open(fd));
    fd
}

pub fn open(path: &str, flags: i32) -> i32 {
    // SAFETY: a C string, alive for the call.
    let fd = unsafe { libc::open(c(path).as_ptr(), flags, 0o600) };
    assert!(fd >= 0, "open {path}: {}", std::io::Error::last_os_error());
    fd
}

pub fn mkfifo(path: &Path) {
    // SAFETY: a C string, alive for the call.
    assert_eq!(unsafe { libc::mkfifo(c(path).as_ptr(), 0o600) }, 0);
}

/// An unlinked temporary file with these contents, at position 0.
pub fn file_with(contents: &[u8]) -> i32 {
    let fd = tempfile::tempfile().expect("a temporary file").into_raw_fd();
    assert_eq!(write(fd, contents), Res(contents.len() as i64));
    seek(fd, 0, libc::SEEK_SET);
    fd
}

pub fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Fills a pipe's or socket's buffer; returns the bytes that went in.
pub fn fill(fd: i32) -> usize {
    let flags = fcntl(fd, libc::F_GETFL, 0).0 as i32;
    set_nonblocking(fd);
    let block = [b'x'; 4096];
    let mut total = 0;
    for size in [4096, 1] {
        while let Res(n @ 1..) = write(fd, &block[..size]) {
            total += n as usize;
        }
    }
    fcntl(fd, libc::F_SETFL, flags);
    total
}

/// Two connected TCP sockets on loopback.
pub fn tcp_pair() -> (i32, i32) {
    let (listener, addr) = tcp_listener();
    let client = std::net::TcpStream::connect(addr).expect("connect on loopback");
    let accepted = accept(listener);
    close(listener);
    (client.into_raw_fd(), accepted)
}

pub fn accept(listener: i32) -> i32 {
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()) };
    assert!(fd >= 0);
    fd
}

/// A listening TCP socket on a free loopback port.
pub fn tcp_listener() -> (i32, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind on loopback");
    let addr = listener.local_addr().expect("a bound socket's address");
    (listener.into_raw_fd(), addr)
}

/// Connects and returns the client's descriptor.
pub fn tcp_connect(addr: std::net::SocketAddr) -> i32 {
    std::net::TcpStream::connect(addr).expect("connect on loopback").into_raw_fd()
}

pub fn tcp_socket() -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0);
    fd
}

/// `127.0.0.1:port` as the system calls take it.
pub fn loopback(port: u16) -> libc::sockaddr_in {
    // SAFETY: plain numbers.
    let mut addr: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    addr.sin_family = libc::AF_INET as u16;
    addr.sin_port = port.to_be();
    addr.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    addr
}

/// The local port of a bound socket.
pub fn local_port(fd: i32) -> u16 {
    let mut addr = loopback(0);
    let mut len = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: `addr` has room for `len` bytes.
    let ret = unsafe { libc::getsockname(fd, std::ptr::from_mut(&mut addr).cast(), &mut len) };
    assert_eq!(ret, 0);
    u16::from_be(addr.sin_port)
}

/// Sets an integer socket option.
pub fn setsockopt(fd: i32, level: i32, name: i32, value: i32) {
    let value: *const i32 = &value;
    // SAFETY: the value is four bytes and alive for the call.
    assert_eq!(unsafe { libc::setsockopt(fd, level, name, value.cast(), 4) }, 0);
}

pub fn iovec(buf: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() }
}

/// A zeroed message header for this vector.
pub fn msghdr(iov: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a header of null pointers and zero lengths is an empty message.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = iov.len();
    msg
}

pub fn zeroed_statx() -> libc::statx {
    // SAFETY: plain numbers.
    unsafe { std::mem::zeroed() }
}

pub fn open_how(flags: u64, mode: u64, resolve: u64) -> libc::open_how {
    // SAFETY: plain numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    (how.flags, how.mode, how.resolve) = (flags, mode, resolve);
    how
}

/// Anonymous private memory, page-aligned, never unmapped.
pub fn map(len: usize, prot: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

pub fn unmap(at: usize, len: usize) -> Res {
    // SAFETY: cases unmap only what they mapped.
    result(unsafe { libc::munmap(at as *mut c_void, len) } as i64)
}

/// A page that nobody may touch: every access through it must be an EFAULT, not a signal.
pub fn forbidden_page() -> u64 {
    map(4096, libc::PROT_NONE) as u64
}

/// A page that can be read only, all zeroes.
pub fn read_only_page() -> u64 {
    map(4096, libc::PROT_READ) as u64
}

/// Writable memory as a slice that lives as long as the process.
pub fn buffer(len: usize) -> &'static mut [u8] {
    let at = map(len, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh mapping of that length, never unmapped, handed out once.
    unsafe { std::slice::from_raw_parts_mut(at, len) }
}

/// Page-aligned memory that holds `contents` and can only be read, never unmapped.
pub fn read_only(contents: &[u8]) -> &'static [u8] {
    let page = buffer(contents.len().next_multiple_of(4096));
    page[..contents.len()].copy_from_slice(contents);
    // SAFETY: the mapping just made, of which only a shared reference is left.
    assert_eq!(unsafe { libc::mprotect(page.as_mut_ptr().cast(), page.len(), libc::PROT_READ) }, 0);
    page
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Catches a signal, without SA_RESTART; [`signals_seen`] counts them.
pub fn catch(signal: i32) {
    // SAFETY: the handler only adds to an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_signal as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

pub fn signals_seen() -> u32 {
    SIGNALS.load(Ordering::Relaxed)
}

/// Blocks or unblocks a signal in this thread.
pub fn block_signal(signal: i32, block: bool) {
    let how = if block { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let set = sigset(&[signal]);
    // SAFETY: the set is the kernel's 8 bytes within libc's larger type.
    unsafe { libc::pthread_sigmask(how, (&raw const set).cast(), std::ptr::null_mut()) };
}

/// A signal set as libc has it; its first eight bytes are the kernel's.
pub fn sigset(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: `sigemptyset` makes it whole before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

/// Writes bytes to an address of memory that a ring reads, too.
pub fn poke(at: usize, bytes: &[u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        // SAFETY: the case owns the memory, which is never freed, and it is large enough.
        unsafe { ((at + i) as *mut u8).write_volatile(*byte) };
    }
}

/// The calling thread's id.
pub fn thread_id() -> i32 {
    // SAFETY: no memory involved.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Returns when a thread of this process sleeps, at two looks in a row; after 10 s in any case.
///
/// For helpers that act on a thread which is about to wait: on a busy machine no fixed time is enough for it to come there.
pub fn until_asleep(thread: i32) {
    let stat = format!("/proc/self/task/{thread}/stat");
    let end = std::time::Instant::now() + Duration::from_secs(10);
    let mut seen = 0;
    while seen < 2 && std::time::Instant::now() < end {
        let text = std::fs::read_to_string(&stat).unwrap_or_default();
        let asleep = text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        seen = if asleep { seen + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends `signal` to the calling thread after `delay`, once it sleeps, from another thread.
pub fn signal_me_after(signal: i32, delay: Duration) -> std::thread::JoinHandle<()> {
    // SAFETY: the calling thread's own id; it outlives the helper in every case (it joins it).
    let me = unsafe { libc::pthread_self() } as usize;
    let id = thread_id();
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        until_asleep(id);
        // SAFETY: see above.
        unsafe { libc::pthread_kill(me as libc::pthread_t, signal) };
    })
}

/// Runs `body` in a forked child and returns its exit status (or 128 + the signal that ended it).
/// The child dies with its parent and after `limit_s` seconds.
pub fn in_child(limit_s: u32, body: impl FnOnce() -> i32) -> i32 {
    wait_child(spawn_child(limit_s, body))
}

pub fn spawn_child(limit_s: u32, body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: cases fork while they are the only thread of their own, apart from the ring's.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(limit_s);
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(status.unwrap_or(101));
        }
    }
    pid
}

/// As [`spawn_child`], but the child outlives its parent, which does not wait for it.
pub fn spawn_orphan(limit_s: u32, body: impl FnOnce() -> i32) {
    spawn_child(limit_s, || {
        // SAFETY: touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
        body()
    });
}

/// The parent's process id.
pub fn parent() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::getppid() }
}

pub fn wait_child(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: a child of ours.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Nanoseconds of a clock.
pub fn clock_ns(clock: i32) -> i64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one timespec.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut ts) }, 0);
    ts.tv_sec * 1_000_000_000 + ts.tv_nsec
}

/// The inode behind a descriptor.
pub fn inode(fd: i32) -> u64 {
    // SAFETY: room for one `stat`.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(fd, &mut stat), 0);
        stat.st_ino
    }
}

/// Keeps a std socket or file open for good and gives its number.
pub fn keep(file: impl AsRawFd) -> i32 {
    let fd = file.as_raw_fd();
    std::mem::forget(file);
    fd
}

/// An address that nothing is mapped at.
pub const BAD: *const u8 = std::ptr::without_provenance(1);

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: a child of the case's own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// A writable page, alive as long as the process, with a page behind it that nobody may touch.
pub fn guarded_page() -> &'static mut [u8] {
    let at = map(8192, libc::PROT_NONE);
    // SAFETY: the first page of a fresh mapping, never unmapped, handed out once.
    unsafe {
        assert_eq!(libc::mprotect(at.cast(), 4096, libc::PROT_READ | libc::PROT_WRITE), 0);
        std::slice::from_raw_parts_mut(at, 4096)
    }
}

/// Descriptors from this number on are none any more. Not to be taken back.
pub fn limit_descriptors(from: u64) {
    let limit = libc::rlimit { rlim_cur: from, rlim_max: from };
    // SAFETY: reads one limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// Address space may grow by this many bytes; `None`: as it likes.
pub fn limit_memory(room: Option<u64>) {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("sizes in pages");
    let pages = pages.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
    // SAFETY: writes and reads one limit.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        limit.rlim_cur = room.map_or(limit.rlim_max, |room| pages * 4096 + room);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
    }
}

/// A file that lives in memory only, of that length.
pub fn memory_file(len: i64) -> i32 {
    // SAFETY: a constant name; touches no memory.
    unsafe {
        let fd = libc::memfd_create(c"abi-tests".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0 && libc::ftruncate(fd, len) == 0);
        fd
    }
}

/// Whether a file's file system has no storage behind it.
pub fn is_in_memory(fd: i32) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    // SAFETY: plain numbers, and room for them.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        assert_eq!(libc::fstatfs(fd, &mut stat), 0);
        stat.f_type
    };
    [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&kind)
}

/// Replaces `len` bytes of the case's own memory at `at`, readable and writable.
pub fn map_over(at: u64, len: usize, flags: i32, fd: i32) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: memory that the case made for this, whose slice it does not use any more.
    let mapped = unsafe { libc::mmap(at as *mut _, len, prot, flags | libc::MAP_FIXED, fd, 0) };
    assert_eq!(mapped as u64, at);
}

/// Major and minor version of the kernel.
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Ends this process with its parent.
pub fn die_with_parent() {
    // SAFETY: touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

pub fn shut(fd: i32, how: i32) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::shutdown(fd, how) }, 0);
}

/// A timer that never fires.
pub fn timerfd() -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) };
    assert!(fd >= 0);
    fd
}

/// An epoll instance that watches nothing.
pub fn epoll() -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::epoll_create1(0) };
    assert!(fd >= 0);
    fd
}

/// Sends SIGALRM to this process again and again; 0 stops it. The signal has to be caught.
pub fn interrupt_every(ms: i64) {
    let step = libc::timeval { tv_sec: 0, tv_usec: ms * 1000 };
    let timer = libc::itimerval { it_interval: step, it_value: step };
    // SAFETY: reads one timer.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }, 0);
}
