//! The engine's own stack per thread, and the switch onto it.
//!
//! A system call uses none of the program's stack; ours must not need more than the program can spare.
//! Threads of 16 KiB and signal handlers on small alternate stacks are real, so every caught call moves
//! to a stack of ours (allocated at a thread's first call, committed by the page, freed at thread exit).
//! When that stack is already in use further down (a handler of the program interrupted us), the call
//! stays where it is: below us on the same stack, or on the program's alternate stack.
#![allow(unsafe_code)]

use crate::raw::{self, Args};
use soloring_engine::uapi;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use syscalls::Sysno;

/// One caught call. The trampolines build it on the stack: field order is part of their code.
#[repr(C)]
pub struct Call {
    pub nr: usize,
    pub args: Args,
    pub ret: isize,
    /// Address behind the `syscall` instruction when the filter stopped it there, else 0.
    pub stopped_at: usize,
}

/// Usable bytes of an engine stack: room for the engine and for handlers of the program above it.
const STACK_LEN: usize = 512 << 10;
const GUARD_LEN: usize = 4096;

/// What a thread owns here. Zeroed at thread start; reachable without a call, so also from handlers.
#[repr(C)]
pub(crate) struct Thread {
    low: usize,
    high: usize,
    busy: bool,
    /// Whether the program believes that SIGSYS is blocked on this thread.
    pub(crate) sigsys_blocked: bool,
}
const _: () = assert!(size_of::<Thread>() == 24);

// Thread-local storage by the initial-exec model: Rust's own may call the dynamic loader's allocator at
// first use, which a signal handler must not. `soloring_call_on(arg, function, stack_top)` is an
// ordinary call with an ordinary frame, so unwinders and debuggers cross the switch.
std::arch::global_asm!(
    ".pushsection .tbss.soloring,\"awT\",@nobits",
    ".p2align 3",
    ".globl soloring_thread",
    ".hidden soloring_thread",
    ".type soloring_thread,@object",
    "soloring_thread: .zero 24",
    ".size soloring_thread, 24",
    ".popsection",
    ".pushsection .text.soloring_call_on,\"ax\",@progbits",
    ".p2align 4",
    ".globl soloring_call_on",
    ".hidden soloring_call_on",
    ".type soloring_call_on,@function",
    "soloring_call_on:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rsp, rdx",
    "call rsi",
    "mov rsp, rbp",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size soloring_call_on, . - soloring_call_on",
    ".popsection",
);
unsafe extern "C" {
    fn soloring_call_on(call: *mut Call, work: Work, top: usize);
}

/// This thread's record.
#[inline]
pub(crate) fn thread() -> *mut Thread {
    let at: *mut Thread;
    // SAFETY: reads the thread pointer and a link-time offset; touches no memory of others.
    unsafe {
        std::arch::asm!(
            "mov {at}, qword ptr fs:[0]",
            "add {at}, qword ptr [rip + soloring_thread@GOTTPOFF]",
            at = out(reg) at,
            options(nostack, readonly)
        );
    }
    at
}

#[inline]
fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register.
    unsafe { std::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack)) };
    sp
}

/// What is done with a call once there is room: stores [`Call::ret`].
pub(crate) type Work = unsafe extern "C" fn(*mut Call);

/// Does `work` on `call`, on the engine stack.
///
/// # Safety
/// `call` holds the registers of a system call of the program on this thread, as `work` requires.
pub(crate) unsafe fn run(call: &mut Call, work: Work) {
    // SAFETY: the record belongs to this thread; handlers that interrupt us leave it as they found it.
    let thread = unsafe { &mut *thread() };
    if thread.high == 0 {
        allocate(thread);
    }
    let sp = stack_pointer();
    if thread.busy || (thread.low..=thread.high).contains(&sp) || thread.high == 0 {
        // SAFETY: as the caller promises.
        return unsafe { work(call) };
    }
    thread.busy = true;
    let top = thread.high;
    uapi::set_program_frames(sp);
    // SAFETY: the stack at `top` is mapped, 16-byte aligned and unused: `busy` was clear.
    unsafe { soloring_call_on(call, work, top) };
    uapi::set_program_frames(0);
    // A handler may have left by a long jump, in which case `busy` stays set and later calls of this
    // thread run on its own stack: correct, only less roomy.
    thread.busy = false;
}

/// Key whose destructor frees a thread's stack, plus one; 0 while there is none.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Creates the key, once, before threads exist.
pub(crate) fn init() {
    let mut key = 0;
    if KEY.load(Relaxed) == 0 {
        // SAFETY: `key` is written by the call; the destructor has the required signature.
        if unsafe { libc::pthread_key_create(&mut key, Some(free)) } == 0 {
            KEY.store(key + 1, Relaxed);
        }
    }
}

#[cold]
fn allocate(thread: &mut Thread) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let map = [0, STACK_LEN + GUARD_LEN, prot as usize, flags as usize, usize::MAX, 0];
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let at = unsafe { raw::any(Sysno::mmap.id() as usize, map) };
    if at < 0 {
        return;
    }
    let at = at as usize;
    // SAFETY: the lowest page of the mapping made above.
    unsafe { raw::any(Sysno::mprotect.id() as usize, [at, GUARD_LEN, 0, 0, 0, 0]) };
    thread.low = at;
    thread.high = at + GUARD_LEN + STACK_LEN;
    let key = KEY.load(Relaxed);
    if key != 0 {
        // SAFETY: the key exists; the value is not dereferenced, only returned to `free`.
        unsafe { libc::pthread_setspecific(key - 1, at as *const _) };
    }
}

unsafe extern "C" fn free(at: *mut libc::c_void) {
    let low = at as usize;
    // SAFETY: the record belongs to this thread.
    let thread = unsafe { &mut *thread() };
    // A thread that leaves from inside a handler may still stand on this stack: then it is leaked.
    if thread.low != low || thread.busy || (low..=thread.high).contains(&stack_pointer()) {
        return;
    }
    (thread.low, thread.high) = (0, 0);
    // SAFETY: exactly the mapping that `allocate` made, unused by now.
    unsafe { raw::any(Sysno::munmap.id() as usize, [low, STACK_LEN + GUARD_LEN, 0, 0, 0, 0]) };
}
