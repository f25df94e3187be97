//! The seccomp filter: which system calls of the process tree stop for us, and how it is installed.
//!
//! One static program per process tree; it never changes after installation and children keep it over
//! `exec`. It costs the calls that it does not name nothing (the kernel caches "always allowed" per call
//! number) and those that it names about 20 ns when it lets them through. It stops (`SECCOMP_RET_TRAP`,
//! SIGSYS with [`MAGIC`]):
//!
//! - `io_uring_setup`, `io_uring_enter`, `io_uring_register`: always;
//! - `close`, `dup`, `dup2`, `dup3`, `fcntl`, `epoll_ctl`, `close_range`, `mmap`: when a descriptor
//!   argument is at or above the base and the call is not marked as ours (`soloring_abi::cookie`);
//! - `rt_sigaction(SIGSYS, new, old)`: would take our handler away. Without `old` it is answered 0 and
//!   ignored, not stopped: that is the call which `posix_spawn`'s child makes with all signals blocked,
//!   where a stop would be death.
//!
//! 32-bit (`int 0x80`) and x32 callers cannot be served and get ENOSYS for the three io_uring calls.
//! `execve` is not stopped: static programs in the tree have no handler and must be able to execute others.
#![allow(unsafe_code)]

use crate::raw;
use soloring_abi::cookie::{COOKIE, MMAP_FLAGS_COOKIE, PROBE_COOKIE};
use std::io;
use syscalls::Sysno;

/// `SECCOMP_RET_DATA` of our stops, delivered in `siginfo.si_errno`.
pub const MAGIC: u16 = 0x5052;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;
/// Errno by which the filter answers the probe: installed with this base, installed with another.
const PROBE_SAME: u32 = 3901;
const PROBE_OTHER: u32 = 3902;

/// What a process finds when it asks for the filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installed {
    No,
    SameBase,
    OtherBase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    Allow,
    Trap,
    TrapUnlessMarked,
    Answer(u32),
    /// Forward by this many instructions.
    Skip(u8),
}

/// Assembles classic BPF with forward jumps to a few shared endings.
struct Program {
    code: Vec<libc::sock_filter>,
    fixups: Vec<(usize, To, To)>,
}

const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const OFF_NR: u32 = 0;
const OFF_ARCH: u32 = 4;

const fn low(arg: u32) -> u32 {
    16 + 8 * arg
}
const fn high(arg: u32) -> u32 {
    low(arg) + 4
}

impl Program {
    fn ins(&mut self, code: u16, k: u32) {
        self.code.push(libc::sock_filter { code, jt: 0, jf: 0, k });
    }
    fn jump(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.fixups.push((self.code.len(), yes, no));
        self.ins(code, k);
    }
    /// Body that runs only for call number `nr`; must not fall through its end.
    fn on(&mut self, nr: Sysno, body: impl FnOnce(&mut Program)) {
        let at = self.code.len();
        self.ins(JEQ, nr.id() as u32);
        body(self);
        self.code[at].jf = u8::try_from(self.code.len() - at - 1).expect("block fits a jump");
    }
    /// Branches on whether argument `arg`, as an `int`, is a descriptor at or above the base.
    fn fd_at_base(&mut self, arg: u32, base: u32, yes: To, no: To) {
        self.ins(LD, low(arg));
        let negative = if no == To::Next { To::Skip(1) } else { no };
        self.jump(JGE, 0x8000_0000, negative, To::Next);
        self.jump(JGE, base, yes, no);
    }
    fn word64(&mut self, arg: u32, value: u64, no: To) {
        self.ins(LD, low(arg));
        self.jump(JEQ, value as u32, To::Next, no);
        self.ins(LD, high(arg));
        self.jump(JEQ, (value >> 32) as u32, To::Next, no);
    }
    fn always(&mut self, to: To) {
        self.jump(JEQ, 0, to, to);
    }

    /// Appends the endings and resolves every jump to them.
    fn finish(mut self) -> Vec<libc::sock_filter> {
        let allow = self.code.len();
        self.ins(RET, libc::SECCOMP_RET_ALLOW);
        let marked = self.code.len();
        self.ins(LD, low(5));
        self.jump(JEQ, COOKIE as u32, To::Next, To::Trap);
        self.ins(LD, high(5));
        self.jump(JEQ, (COOKIE >> 32) as u32, To::Allow, To::Trap);
        // A jump only goes forward: the marked ending needs its own way to "allow".
        let trap = self.code.len();
        self.ins(RET, libc::SECCOMP_RET_TRAP | u32::from(MAGIC));
        let allow_again = self.code.len();
        self.ins(RET, libc::SECCOMP_RET_ALLOW);
        let mut answers: Vec<(u32, usize)> = Vec::new();
        let fixups = std::mem::take(&mut self.fixups);
        for &(_, yes, no) in &fixups {
            for to in [yes, no] {
                if let To::Answer(errno) = to
                    && !answers.iter().any(|a| a.0 == errno)
                {
                    answers.push((errno, self.code.len()));
                    self.ins(RET, libc::SECCOMP_RET_ERRNO | errno);
                }
            }
        }
        let resolve = |at: usize, to: To| -> u8 {
            let target = match to {
                To::Next => at + 1,
                To::Skip(n) => at + 1 + usize::from(n),
                To::Allow if at < allow => allow,
                To::Allow => allow_again,
                To::Trap => trap,
                To::TrapUnlessMarked => marked,
                To::Answer(errno) => {
                    answers.iter().find(|a| a.0 == errno).expect("collected above").1
                }
            };
            u8::try_from(target - at - 1).expect("the filter is short enough for 8-bit jumps")
        };
        for (at, yes, no) in fixups {
            self.code[at].jt = resolve(at, yes);
            self.code[at].jf = resolve(at, no);
        }
        self.code
    }
}

const RING_CALLS: [Sysno; 3] =
    [Sysno::io_uring_setup, Sysno::io_uring_enter, Sysno::io_uring_register];

/// The interception filter for descriptors at or above `fd_base`.
pub fn program(fd_base: i32) -> Vec<libc::sock_filter> {
    let base = fd_base as u32;
    let enosys = To::Answer(libc::ENOSYS as u32);
    let mut p = Program { code: Vec::with_capacity(128), fixups: Vec::new() };
    let [first, _, last] = RING_CALLS.map(|nr| nr.id() as u32);

    p.ins(LD, OFF_ARCH);
    p.jump(JEQ, AUDIT_ARCH_X86_64, To::Skip(3), To::Next);
    p.ins(LD, OFF_NR); // i386 has the same three numbers
    p.jump(JGE, last + 1, To::Allow, To::Next);
    p.jump(JGE, first, enosys, To::Allow);
    p.ins(LD, OFF_NR);
    p.jump(JGE, X32_BIT, To::Next, To::Skip(2));
    p.jump(JGE, X32_BIT + last + 1, To::Allow, To::Next);
    p.jump(JGE, X32_BIT + first, enosys, To::Allow);

    p.on(Sysno::close, |p| {
        p.ins(LD, low(0));
        p.jump(JEQ, u32::MAX, To::Skip(2), To::Next);
        p.jump(JGE, 0x8000_0000, To::Allow, To::Next);
        p.jump(JGE, base, To::TrapUnlessMarked, To::Allow);
        p.word64(5, PROBE_COOKIE, To::Allow);
        p.ins(LD, low(1));
        p.jump(JEQ, base, To::Answer(PROBE_SAME), To::Answer(PROBE_OTHER));
    });
    p.on(Sysno::mmap, |p| {
        p.fd_at_base(4, base, To::Next, To::Allow);
        p.ins(LD, high(3));
        p.jump(JEQ, (MMAP_FLAGS_COOKIE >> 32) as u32, To::Allow, To::Trap);
    });
    for nr in [Sysno::dup, Sysno::fcntl] {
        p.on(nr, |p| p.fd_at_base(0, base, To::TrapUnlessMarked, To::Allow));
    }
    for nr in [Sysno::dup2, Sysno::dup3] {
        p.on(nr, |p| {
            p.fd_at_base(0, base, To::TrapUnlessMarked, To::Next);
            p.fd_at_base(1, base, To::TrapUnlessMarked, To::Allow);
        });
    }
    p.on(Sysno::epoll_ctl, |p| {
        p.fd_at_base(0, base, To::TrapUnlessMarked, To::Next);
        p.fd_at_base(2, base, To::TrapUnlessMarked, To::Allow);
    });
    p.on(Sysno::close_range, |p| {
        p.ins(LD, low(1));
        p.jump(JGE, base, To::TrapUnlessMarked, To::Allow);
    });
    p.on(Sysno::rt_sigaction, |p| {
        p.ins(LD, low(0));
        p.jump(JEQ, libc::SIGSYS as u32, To::Next, To::Allow);
        p.ins(LD, low(1)); // no new action: a question, harmless
        p.jump(JEQ, 0, To::Next, To::Skip(2));
        p.ins(LD, high(1));
        p.jump(JEQ, 0, To::Allow, To::Next);
        p.ins(LD, low(2)); // someone who asks for the old action is answered by the handler
        p.jump(JEQ, 0, To::Next, To::TrapUnlessMarked);
        p.ins(LD, high(2));
        p.jump(JEQ, 0, To::Next, To::TrapUnlessMarked);
        p.word64(5, COOKIE, To::Answer(0));
        p.always(To::Allow);
    });
    for nr in RING_CALLS {
        p.on(nr, |p| p.always(To::Trap));
    }
    p.always(To::Allow);
    p.finish()
}

/// The filter that container engines put on: the three calls answer EPERM.
pub fn deny_program() -> Vec<libc::sock_filter> {
    let [first, _, last] = RING_CALLS.map(|nr| nr.id() as u32);
    let mut p = Program { code: Vec::new(), fixups: Vec::new() };
    p.ins(LD, OFF_NR);
    p.jump(JGE, last + 1, To::Allow, To::Next);
    p.jump(JGE, first, To::Answer(libc::EPERM as u32), To::Allow);
    p.finish()
}

/// Asks the kernel whether this process runs under our filter. Stops nothing, changes nothing.
pub fn installed(fd_base: i32) -> Installed {
    let close = Sysno::close.id() as usize;
    // SAFETY: descriptor -1 is never open; without the filter this is a plain EBADF.
    let ret =
        unsafe { raw::any(close, [usize::MAX, fd_base as usize, 0, 0, 0, PROBE_COOKIE as usize]) };
    match -ret as u32 {
        PROBE_SAME => Installed::SameBase,
        PROBE_OTHER => Installed::OtherBase,
        _ => Installed::No,
    }
}

/// Puts `code` on every thread of this process, for good; sets `no_new_privs`.
///
/// # Errors
/// The kernel's: EINVAL where seccomp filters are missing, ENOMEM, EACCES; `WouldBlock` when a
/// thread could not be brought under the filter.
pub fn install(code: &[libc::sock_filter]) -> io::Result<()> {
    // SAFETY: plain arguments; the flag is one-way and only narrows what this process may do.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let prog = libc::sock_fprog {
        len: u16::try_from(code.len()).expect("filters are short"),
        filter: code.as_ptr().cast_mut(),
    };
    let args = [
        libc::SECCOMP_SET_MODE_FILTER as usize,
        libc::SECCOMP_FILTER_FLAG_TSYNC as usize,
        &raw const prog as usize,
        0,
        0,
        0,
    ];
    // SAFETY: `prog` and the code behind it live across the call, which only reads them.
    match unsafe { raw::any(Sysno::seccomp.id() as usize, args) } {
        0 => Ok(()),
        tid if tid > 0 => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("thread {tid} cannot take the filter"),
        )),
        err => Err(io::Error::from_raw_os_error(-err as i32)),
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
