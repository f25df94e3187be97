//! Raw system calls as the engine makes them: no libc wrapper, no errno, -errno as [`Errno`].
//!
//! The engine runs inside other people's processes, sometimes inside a SIGSYS handler: it must not
//! touch the program's `errno` and must not be caught by its own interception.
#![allow(unsafe_code)]

use soloring_abi::{Errno, cookie::COOKIE};
use syscalls::{Sysno, raw_syscall};

/// Turns the register value of a system call into a result.
#[inline(always)]
pub fn check(ret: usize) -> Result<usize, Errno> {
    let value = ret as isize;
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(ret) }
}

/// `-errno` or the value, as a completion's `res`.
#[inline(always)]
pub fn as_res(result: Result<usize, Errno>) -> i32 {
    match result {
        Ok(v) => v as i32,
        Err(e) => e.neg(),
    }
}

/// One raw system call: `sys!(read, fd, buf, len)` is `Result<usize, Errno>`.
///
/// The caller's SAFETY comment has to say why the call cannot harm our own memory.
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {
        $crate::sys::check(syscalls::raw_syscall!(syscalls::Sysno::$name $(, $arg)*))
    };
}
pub(crate) use sys;

/// close(2) of a descriptor that the engine owns.
pub fn close(fd: i32) {
    // SAFETY: closing a descriptor touches no memory; the engine owns the number.
    let _ = unsafe { raw_syscall!(Sysno::close, fd, 0, 0, 0, 0, COOKIE) };
}

/// Duplicates `fd` to the lowest free number from `min` on, close-on-exec.
///
/// # Errors
/// EBADF; EINVAL when `min` is over RLIMIT_NOFILE; EMFILE.
pub fn dup_from(fd: i32, min: i32) -> Result<i32, Errno> {
    // SAFETY: fcntl(F_DUPFD_CLOEXEC) touches no memory.
    check(unsafe { raw_syscall!(Sysno::fcntl, fd, libc::F_DUPFD_CLOEXEC, min, 0, 0, COOKIE) })
        .map(|v| v as i32)
}

/// fcntl(2) with an integer argument.
pub fn fcntl(fd: i32, cmd: i32, arg: usize) -> Result<usize, Errno> {
    // SAFETY: only used with commands whose argument is an integer (F_GETFL, F_SETFL, F_GETFD, F_SETFD).
    check(unsafe { raw_syscall!(Sysno::fcntl, fd, cmd, arg, 0, 0, COOKIE) })
}

/// Whether `fd` is a file that system calls work on: open, and not a mere place in the tree (O_PATH).
pub fn is_open(fd: i32) -> bool {
    fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_PATH as usize == 0)
}

/// epoll_ctl(2) on an epoll instance of the engine's.
pub fn epoll_ctl(epfd: i32, op: i32, fd: i32, events: u32, data: u64) -> Result<(), Errno> {
    let event = libc::epoll_event { events, u64: data };
    // SAFETY: the event is on our stack and only read.
    check(unsafe { raw_syscall!(Sysno::epoll_ctl, epfd, op, fd, &raw const event, 0, COOKIE) })
        .map(drop)
}

/// An epoll instance, close-on-exec.
pub fn epoll_create() -> Result<i32, Errno> {
    // SAFETY: no memory involved.
    check(unsafe { raw_syscall!(Sysno::epoll_create1, libc::EPOLL_CLOEXEC) }).map(|v| v as i32)
}

/// An eventfd, close-on-exec and non-blocking.
pub fn eventfd() -> Result<i32, Errno> {
    // SAFETY: no memory involved.
    check(unsafe { raw_syscall!(Sysno::eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
        .map(|v| v as i32)
}

/// Adds 1 to an eventfd.
pub fn eventfd_signal(fd: i32) {
    let one = 1u64;
    // SAFETY: reads 8 bytes of our stack. EAGAIN (counter full) means it is signalled already.
    let _ = unsafe { raw_syscall!(Sysno::write, fd, &raw const one, 8) };
}

/// Empties an eventfd or timerfd that is non-blocking.
pub fn eventfd_drain(fd: i32) {
    let mut value = 0u64;
    // SAFETY: writes 8 bytes to our stack.
    let _ = unsafe { raw_syscall!(Sysno::read, fd, &raw mut value, 8) };
}

/// Readiness of one descriptor right now, without waiting. POLLNVAL for a descriptor that is not open.
pub fn poll_now(fd: i32, events: i16) -> i16 {
    let mut p = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd on our stack; timeout 0.
    match check(unsafe { raw_syscall!(Sysno::poll, &raw mut p, 1, 0) }) {
        Ok(_) => p.revents,
        Err(_) => 0,
    }
}

/// The most that one call transfers.
pub const MAX_RW_COUNT: u64 = 0x7fff_f000;

/// What kind of file a descriptor names, as far as the engine needs it.
#[derive(Clone, Copy, Debug)]
pub struct FileKind {
    pub mode: u32,
    pub dev: u64,
    pub ino: u64,
    /// The device that a special file stands for.
    pub rdev: u64,
}

impl FileKind {
    /// Regular file or block device: reads and writes block on storage, are retried when short, and
    /// are served by bounded workers.
    pub fn is_storage(self) -> bool {
        matches!(self.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK)
    }

    pub fn is_socket(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFSOCK
    }

    /// `/dev/null`, by whatever name.
    pub fn is_null_device(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == libc::makedev(1, 3)
    }

    /// Stands for the file, as long as it exists.
    pub fn key(self) -> u64 {
        self.ino ^ self.dev.rotate_left(32)
    }

    pub fn is_regular(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// fstat(2), reduced to what the engine needs.
pub fn file_kind(fd: i32) -> Result<FileKind, Errno> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: writes one `struct stat` on our stack.
    check(unsafe { raw_syscall!(Sysno::fstat, fd, st.as_mut_ptr()) })?;
    // SAFETY: zeroed before, filled by the kernel: all fields are integers.
    let st = unsafe { st.assume_init() };
    Ok(FileKind { mode: st.st_mode, dev: st.st_dev, ino: st.st_ino, rdev: st.st_rdev })
}

/// Whether two descriptors name the same open file description.
///
/// kcmp(2) where the sandbox allows it; else the inode and the access mode have to do, which confuse
/// descriptions of the same file that were opened twice.
pub fn same_file(a: i32, b: i32) -> bool {
    const KCMP_FILE: i32 = 0;
    let pid = std::process::id();
    // SAFETY: kcmp compares two descriptors of this process and touches no memory.
    match unsafe { sys!(kcmp, pid, pid, KCMP_FILE, a, b) } {
        Ok(order) => order == 0,
        Err(Errno::EBADF) => false,
        Err(_) => {
            let same_inode = match (file_kind(a), file_kind(b)) {
                (Ok(a), Ok(b)) => (a.dev, a.ino) == (b.dev, b.ino),
                _ => false,
            };
            same_inode && fcntl(a, libc::F_GETFL, 0) == fcntl(b, libc::F_GETFL, 0)
        }
    }
}

/// Sleeps, a signal handler apart.
pub fn sleep_ms(ms: u32) {
    let limit = [ms as u64 / 1000, ms as u64 % 1000 * 1_000_000];
    // SAFETY: reads one timespec on our stack.
    let _ = unsafe { raw_syscall!(Sysno::nanosleep, limit.as_ptr(), 0usize) };
}

/// Now on `clock`, in nanoseconds. Served by the vDSO.
pub fn now_ns(clock: i32) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec on our stack; the clocks used here always exist, so errno stays.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    (ts.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(ts.tv_nsec as u64)
}
