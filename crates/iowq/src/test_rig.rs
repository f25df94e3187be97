//! What the tests share: works made of closures, and blocking calls made as the engine makes them.
#![allow(unsafe_code)]

use crate::{Class, Config, Interrupt, Ticket, Work, Wq};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
// SeqCst: each access of a word pairs with all others of the test's words, which are to have one order.
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use syscalls::{Errno, Sysno, syscall};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Ran,
    Interrupted,
    Cancelled,
    Failed(i32),
}

/// A work made of a closure, which reports how it ended.
struct Job<F> {
    body: F,
    ends: Sender<(u32, End)>,
    id: u32,
}

impl<F: FnOnce(&Interrupt) -> End + Send> Work for Job<F> {
    fn run(self: Box<Self>, interrupt: &Interrupt) {
        let end = (self.body)(interrupt);
        let _ = self.ends.send((self.id, end));
    }
    fn cancelled(self: Box<Self>) {
        let _ = self.ends.send((self.id, End::Cancelled));
    }
    fn failed(self: Box<Self>, errno: i32) {
        let _ = self.ends.send((self.id, End::Failed(errno)));
    }
}

pub(crate) struct Rig {
    pub(crate) wq: Arc<Wq>,
    ends: Sender<(u32, End)>,
    got: Receiver<(u32, End)>,
    ids: AtomicU32,
}

impl Rig {
    pub(crate) fn new(limit: [u32; 2], idle: Duration) -> Self {
        let (ends, got) = channel();
        let wq = Wq::new(Config { limit, idle_timeout: idle });
        Self { wq, ends, got, ids: AtomicU32::new(0) }
    }

    pub(crate) fn queue(
        &self,
        class: Class,
        hash: Option<u64>,
        body: impl FnOnce(&Interrupt) -> End + Send + 'static,
    ) -> (u32, Ticket) {
        let id = self.ids.fetch_add(1, SeqCst);
        let work = Box::new(Job { body, ends: self.ends.clone(), id });
        (id, self.wq.queue(work, class, hash))
    }

    /// A work of the unbounded class that is running and blocks until the descriptor is closed.
    pub(crate) fn blocked(&self) -> (u32, Ticket, OwnedFd) {
        let (read_end, write_end) = pipe();
        let runs = Arc::new(AtomicU32::new(0));
        let inner = Arc::clone(&runs);
        let (id, ticket) = self.queue(Class::Unbounded, None, move |interrupt| {
            inner.store(1, SeqCst);
            blocking_read(&read_end, interrupt)
        });
        until("it runs", || runs.load(SeqCst) == 1);
        (id, ticket, write_end)
    }

    pub(crate) fn next(&self) -> (u32, End) {
        self.got.recv_timeout(PATIENCE).expect("a work ended in time")
    }
}

pub(crate) fn rig() -> Rig {
    Rig::new([4, 64], Duration::from_secs(5))
}

pub(crate) fn until(what: &str, mut f: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !f() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: the array is live and takes two descriptors, which are then owned once each.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// A blocking read as the engine makes it: -EINTR counts only when a cancel has hit.
pub(crate) fn blocking_read(fd: &OwnedFd, interrupt: &Interrupt) -> End {
    loop {
        let mut byte = 0u8;
        // SAFETY: one byte is live for the call.
        match unsafe { syscall!(Sysno::read, fd.as_raw_fd(), &raw mut byte, 1) } {
            Ok(_) => return End::Ran,
            Err(Errno::EINTR) if interrupt.cancelled() => return End::Interrupted,
            Err(Errno::EINTR) => {}
            Err(e) => panic!("read: {e}"),
        }
    }
}

/// Runs `body` in a forked child and fails if it panics, dies or takes too long.
pub(crate) fn in_child(body: impl FnOnce()) {
    // SAFETY: glibc keeps its own locks usable in the child; the child ends in _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: the alarm's default action ends a child that hangs.
        unsafe { libc::alarm(PATIENCE.as_secs() as u32) };
        // No panic hook of our own: another test's thread may have held the hook's lock at the
        // fork.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if let Err(payload) = &ended {
            let text = payload.downcast_ref::<String>().map_or("a panic", String::as_str);
            // The test harness would keep what is printed. SAFETY: the text is live for the call.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: leaves without the parent's exit handlers.
        unsafe { libc::_exit(i32::from(ended.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is live for the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "wait status {status:#x} of the child");
}

/// From now on these system calls answer `errno` in this process.
pub(crate) fn deny(calls: &[Sysno], errno: u16) {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // A = the call's number.
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (i, call) in calls.iter().enumerate() {
        let to_end = (calls.len() - i) as u8;
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32, to_end, 0));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let refuse = libc::SECCOMP_RET_ERRNO | u32::from(errno);
    program.push(op(libc::BPF_RET | libc::BPF_K, refuse, 0, 0));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is live for the call; TSYNC puts it on workers that exist already, too.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let set = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(libc::syscall(libc::SYS_seccomp, set, flags, &raw const filter), 0);
    }
}
