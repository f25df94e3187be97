//! The submitter's path, instruction by instruction: no locked instruction, no allocation, no system call but the
//! operation's own.
//!
//! A child enters a ring between two breakpoints; its parent lets it go one instruction at a time and decodes each.
#![allow(unsafe_code)]
#![cfg(target_arch = "x86_64")]

mod common;

use common::Ring;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use soloring_abi::{Opcode, Sqe, raw};
use soloring_engine::uapi;
use std::arch::asm;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::IntoRawFd;
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering;

const CASE: &str = "SOLORING_FAST_PATH_CASE";
const OWNER: u32 = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
const BATCH: u32 = 8;
/// The child's status where tracing is refused.
const REFUSED: i32 = 3;
/// Far above what a batch takes in a build without optimisation.
const STEPS_MAX: u32 = 2_000_000;

/// What was met between the breakpoints.
#[derive(Default, Debug)]
struct Met {
    steps: u32,
    locked: BTreeMap<u64, String>,
    allocations: u32,
    /// By number.
    calls: BTreeMap<i64, u32>,
}

/// Takes all completions; returns how many said `res`.
fn reap(ring: &Ring, res: i32) -> u32 {
    // Acquire: pairs with the engine's release store of the tail.
    let tail = ring.word(ring.p.cq_off.tail).load(Ordering::Acquire);
    let head = ring.word(ring.p.cq_off.head).load(Ordering::Relaxed);
    let mut good = 0;
    for at in head..tail {
        let slot = at & (ring.p.cq_entries - 1);
        let offset = ring.p.cq_off.cqes + slot * 16 + 8;
        good += u32::from(ring.word(offset).load(Ordering::Relaxed) as i32 == res);
    }
    // Release: pairs with the engine's acquire load of the head.
    ring.word(ring.p.cq_off.head).store(tail, Ordering::Release);
    good
}

/// What each entry of a batch is, and its result. What it names stays, and is on the heap, as with most programs.
fn entry(name: &str) -> (Sqe, i32) {
    let file = || {
        let path = std::env::current_exe().unwrap();
        let fd = std::fs::File::open(path).unwrap().into_raw_fd();
        Sqe { opcode: Opcode::Read as u8, fd, ..Sqe::default() }
    };
    let buffer = Box::leak(Box::new([0u8; 64])).as_mut_ptr();
    let vectors =
        Box::leak(Box::new([(); 4].map(|()| libc::iovec { iov_base: buffer.cast(), iov_len: 16 })));
    // SAFETY: an empty header is a value.
    let header: &mut libc::msghdr = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
    (header.msg_iov, header.msg_iovlen) = (vectors.as_mut_ptr(), 4);
    let message = |opcode: Opcode| {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        // Far more than the batches take.
        (0..8 * BATCH).for_each(|_| assert_eq!(sender.send(&[1; 64]).unwrap(), 64));
        let sends = matches!(opcode, Opcode::Send | Opcode::Sendmsg);
        let fd = [receiver.into_raw_fd(), sender.into_raw_fd()][usize::from(sends)];
        Sqe { opcode: opcode as u8, fd, ..Sqe::default() }
    };
    let plain = |sqe| (Sqe { addr: buffer as u64, len: 64, ..sqe }, 64);
    let of_header = |sqe| (Sqe { addr: &raw const *header as u64, len: 1, ..sqe }, 64);
    match name {
        "reads" => plain(file()),
        "vectored reads" => {
            let (addr, opcode) = (vectors.as_ptr() as u64, Opcode::Readv as u8);
            (Sqe { opcode, addr, len: 4, ..file() }, 64)
        }
        "sends" => plain(message(Opcode::Send)),
        "receives" => plain(message(Opcode::Recv)),
        "messages sent" => of_header(message(Opcode::Sendmsg)),
        "messages received" => of_header(message(Opcode::Recvmsg)),
        _ => (Sqe { opcode: Opcode::Nop as u8, fd: -1, ..Sqe::default() }, 0),
    }
}

/// The child's part: `name` says on what kind of ring what is done.
fn child(name: &str) {
    let ring = Ring::new(
        BATCH,
        match name {
            "without an owner" => 0,
            "enabled later" => OWNER | raw::IORING_SETUP_R_DISABLED,
            _ => OWNER,
        },
    );
    if name == "enabled later" {
        let op = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
        // SAFETY: the call takes no argument.
        assert_eq!(unsafe { uapi::io_uring_register(ring.fd, op, null_mut(), 0) }, 0);
    }
    let (sqe, res) = entry(name);
    let (mut fd, mut flags) = (ring.fd, raw::IORING_ENTER_GETEVENTS);
    if name == "a registered ring" {
        let mut update = [u64::from(u32::MAX), u64::from(fd)];
        let op = raw::io_uring_register_op::IORING_REGISTER_RING_FDS as u32;
        let at = update.as_mut_ptr().cast();
        // SAFETY: one `struct io_uring_rsrc_update`: slot -1, reserved, descriptor.
        assert_eq!(unsafe { uapi::io_uring_register(fd, op, at, 1) }, 1);
        (fd, flags) = (update[0] as u32, flags | raw::IORING_ENTER_REGISTERED_RING);
    }
    // SAFETY: what the entries name stays.
    let enter = || unsafe { uapi::io_uring_enter(fd, BATCH, BATCH, flags, null(), 0) };
    // What is made at first use is made: caches, slots, answers of the kernel.
    for _ in 0..3 {
        (0..BATCH).for_each(|_| ring.push(sqe));
        assert_eq!(enter(), BATCH as isize);
        assert_eq!(reap(&ring, res), BATCH);
    }
    (0..BATCH).for_each(|_| ring.push(sqe));
    // SAFETY: the parent traces this process and waits for the breakpoint. It reads the address in rax.
    unsafe { asm!("int3", in("rax") libc::malloc as *const () as u64) };
    let done = enter();
    // SAFETY: as above.
    unsafe { asm!("int3") };
    assert_eq!(done, BATCH as isize);
    assert_eq!(reap(&ring, res), BATCH);
}

/// One traced process.
struct Traced(libc::pid_t);

impl Traced {
    fn request(&self, what: libc::c_uint, data: usize) {
        // SAFETY: takes numbers; `data` is a signal number or 0.
        let done = unsafe { libc::ptrace(what, self.0, null_mut::<u8>(), data) };
        assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
    }

    /// Waits for the next stop and returns its signal.
    ///
    /// # Errors
    /// The wait status of a child that has ended.
    fn stopped(&self) -> Result<i32, i32> {
        let mut status = 0;
        // SAFETY: writes one local.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        if libc::WIFSTOPPED(status) { Ok(libc::WSTOPSIG(status)) } else { Err(status) }
    }

    /// Lets it run to its next breakpoint.
    fn run_to_breakpoint(&self) {
        self.request(libc::PTRACE_CONT, 0);
        loop {
            match self.stopped().expect("the child ended before its breakpoint") {
                libc::SIGTRAP => return,
                other => self.request(libc::PTRACE_CONT, other as usize),
            }
        }
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: the structure is plain numbers, and the kernel fills it.
        unsafe {
            let mut regs: libc::user_regs_struct = std::mem::zeroed();
            let at = (&raw mut regs).cast::<u8>();
            assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, self.0, null_mut::<u8>(), at), 0);
            regs
        }
    }

    fn instruction(&self, at: u64) -> Instruction {
        let mut bytes = [0u8; 15];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 15 };
        let remote = libc::iovec { iov_base: at as *mut _, iov_len: 15 };
        // SAFETY: the local side is 15 bytes of ours; the kernel checks the other.
        let read =
            unsafe { libc::process_vm_readv(self.0, &raw const local, 1, &raw const remote, 1, 0) };
        assert!(read > 0, "reading the child's code: {}", std::io::Error::last_os_error());
        Decoder::with_ip(64, &bytes[..read as usize], at, DecoderOptions::NONE).decode()
    }
}

/// An exchange with memory is locked without saying so.
fn is_locked(instruction: &Instruction) -> bool {
    let with_memory =
        instruction.op0_kind() == OpKind::Memory || instruction.op1_kind() == OpKind::Memory;
    instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg && with_memory
}

/// Runs one case and looks at every instruction of its enter. `None`: tracing is refused here.
#[expect(clippy::zombie_processes, reason = "a child that was refused is waited for by its number")]
fn trace(name: &str) -> Option<Met> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.env(CASE, name).spawn().unwrap();
    let traced = Traced(child.id() as libc::pid_t);
    // The child asks to be traced, then stops itself; refused, it says so by its status.
    if let Err(status) = traced.stopped() {
        assert_eq!(libc::WEXITSTATUS(status), REFUSED);
        return None;
    }
    traced.run_to_breakpoint();
    let malloc = traced.registers().rax;
    let mut met = Met::default();
    loop {
        let regs = traced.registers();
        let instruction = traced.instruction(regs.rip);
        if instruction.code() == Code::Int3 {
            break;
        }
        met.steps += 1;
        assert!(met.steps < STEPS_MAX, "it does not come back: {met:?}");
        met.allocations += u32::from(regs.rip == malloc);
        if is_locked(&instruction) {
            met.locked.insert(regs.rip, instruction.to_string());
        }
        if instruction.code() == Code::Syscall {
            *met.calls.entry(regs.rax as i64).or_default() += 1;
        }
        traced.request(libc::PTRACE_SINGLESTEP, 0);
        assert_eq!(traced.stopped(), Ok(libc::SIGTRAP));
    }
    // Over the second breakpoint, and on to the end.
    traced.run_to_breakpoint();
    traced.request(libc::PTRACE_DETACH, 0);
    assert!(child.wait().unwrap().success(), "the child's own checks");
    Some(met)
}

/// Before `main`, and so on the first thread, which is the one that a tracer follows: the child's part, in a process
/// that was started for it.
extern "C" fn before_main() {
    let Ok(name) = std::env::var(CASE) else { return };
    // SAFETY: no memory involved; the parent continues what stops here.
    unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()) != 0 {
            libc::_exit(REFUSED);
        }
        libc::raise(libc::SIGSTOP);
    }
    let good = std::panic::catch_unwind(|| child(&name)).is_ok();
    std::process::exit(i32::from(!good));
}

#[used]
// SAFETY: the section holds pointers to functions of this signature.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn check(name: &str, calls: &[(i64, u32)]) {
    let Some(met) = trace(name) else {
        eprintln!("skipped: ptrace is refused here");
        return;
    };
    assert!(met.steps > 100, "{name}: nothing was traced: {met:?}");
    assert!(met.locked.is_empty(), "{name}: {met:?}");
    assert_eq!(met.allocations, 0, "{name}: {met:?}");
    assert_eq!(met.calls, calls.iter().copied().collect(), "{name}");
}

#[test]
fn nops() {
    check("nops", &[]);
}

#[test]
fn a_ring_that_was_disabled() {
    check("enabled later", &[]);
}

#[test]
fn a_registered_ring() {
    check("a registered ring", &[]);
}

#[test]
fn reads() {
    check("reads", &[(libc::SYS_preadv2, BATCH)]);
}

/// The second call counts the bytes of the vectors: whether the read was short.
#[test]
fn vectored_reads() {
    check("vectored reads", &[(libc::SYS_preadv2, BATCH), (libc::SYS_writev, BATCH)]);
}

#[test]
fn sends_and_receives() {
    check("sends", &[(libc::SYS_sendto, BATCH)]);
    check("receives", &[(libc::SYS_recvfrom, BATCH)]);
}

/// The second call of a send tells whether there is control data.
#[test]
fn messages() {
    check("messages sent", &[(libc::SYS_sendmsg, BATCH), (libc::SYS_writev, BATCH)]);
    check("messages received", &[(libc::SYS_recvmsg, BATCH)]);
}

/// The check can fail: a ring without an owner takes its mutex.
#[test]
fn without_an_owner_the_lock_is_seen() {
    let Some(met) = trace("without an owner") else {
        eprintln!("skipped: ptrace is refused here");
        return;
    };
    assert!(!met.locked.is_empty(), "{met:?}");
    assert_eq!(met.calls, BTreeMap::new());
}
