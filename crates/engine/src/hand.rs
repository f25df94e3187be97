//! A hand: a thread that makes system calls for others, one at a time, with the credentials it was made with.
//!
//! Credentials belong to threads on Linux, and a new thread has those of the one that makes it. But setuid(2) and the
//! like, as the C library has them, change every thread that it knows of. A hand is made by clone(2) itself: the C
//! library does not know it, and it keeps what it has whatever the program does later.
//!
//! For that it must do without the C library. It runs the loop below and nothing else: assembly that uses no stack
//! and no thread-local memory (its thread pointer is that of whoever made it). All its signals are blocked but the one
//! that interrupts workers, whose handler does nothing; its stack is there for that alone.
//!
//! Whoever holds a [`Hand`] has it to himself: writes the call down, sets the word to CALL, wakes the thread, and sleeps
//! until the word is DONE. Hands are made in the same way by hands, so that they have the same credentials.
#![allow(unsafe_code)]

use crate::sys::{check, sys};
use soloring_abi::Errno;
use soloring_abi::cookie::MMAP_FLAGS_COOKIE;
use std::cell::Cell;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use syscalls::Sysno;

const IDLE: u32 = 0;
/// One call is to be made.
const CALL: u32 = 1;
/// As [`CALL`]; the call is a clone(2), and who returns from it with 0 is another hand.
const CLONE: u32 = 2;
/// The call has been made.
const DONE: u32 = 3;
/// The hand is to end, and its memory with it.
const QUIT: u32 = 4;

/// Bytes: a page that nobody may touch, the stack, and at its upper end the block. A signal's frame takes up to 12 KiB.
const PAGE: usize = 4096;
const SIZE: usize = 12 * PAGE;

const THREAD_FLAGS: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

const WAIT: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// What a hand and its holder share. The hand's stack begins below it.
#[repr(C, align(64))]
struct Block {
    /// Where the block is: at the stack pointer of a new hand.
    this: Cell<usize>,
    word: AtomicU32,
    /// The call. The holder writes while the word is IDLE or DONE, the hand reads while it is CALL or CLONE.
    nr: Cell<usize>,
    args: [Cell<usize>; 6],
    /// The hand's, until the word is DONE.
    ret: Cell<usize>,
    /// The mapping that everything of the hand lies in.
    base: Cell<usize>,
    /// A signal mask in which all are blocked.
    all: Cell<u64>,
}

/// A hand that nobody else holds. Dropping it ends the thread.
pub struct Hand {
    block: NonNull<Block>,
    tid: i32,
    /// The one signal that it has open; 0: none.
    signo: i32,
}

// SAFETY: the block is reached through the hand alone, and by the thread behind it, in turns that the word decides.
unsafe impl Send for Hand {}

/// The life of a hand. At its start the stack pointer is the address of its block.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn live() {
    std::arch::naked_asm!(
        "2:",
        "mov rbx, [rsp]",
        // Loads and stores of this machine acquire and release: partners of those of the word in `command`.
        "3:",
        "mov eax, dword ptr [rbx + {word}]",
        "cmp eax, {CALL}",
        "je 4f",
        "cmp eax, {CLONE}",
        "je 4f",
        "cmp eax, {QUIT}",
        "je 6f",
        "mov edx, eax",
        "mov eax, {futex}",
        "lea rdi, [rbx + {word}]",
        "mov esi, {WAIT}",
        "xor r10d, r10d",
        "syscall",
        "jmp 3b",
        "4:",
        "mov r12d, eax",
        "mov rax, [rbx + {nr}]",
        "mov rdi, [rbx + {args}]",
        "mov rsi, [rbx + {args} + 8]",
        "mov rdx, [rbx + {args} + 16]",
        "mov r10, [rbx + {args} + 24]",
        "mov r8, [rbx + {args} + 32]",
        "mov r9, [rbx + {args} + 40]",
        "syscall",
        "cmp r12d, {CLONE}",
        "jne 5f",
        "test rax, rax",
        // The new one: its block is its own.
        "jz 2b",
        "5:",
        "mov [rbx + {ret}], rax",
        "mov dword ptr [rbx + {word}], {DONE}",
        "mov eax, {futex}",
        "lea rdi, [rbx + {word}]",
        "mov esi, {WAKE}",
        "mov edx, 1",
        "syscall",
        "jmp 3b",
        // The end: no signal any more, and then no stack.
        "6:",
        "mov eax, {rt_sigprocmask}",
        "mov edi, {SETMASK}",
        "lea rsi, [rbx + {all}]",
        "xor edx, edx",
        "mov r10d, 8",
        "syscall",
        "mov rdi, [rbx + {base}]",
        "mov esi, {SIZE}",
        "mov eax, {munmap}",
        "syscall",
        "xor edi, edi",
        "mov eax, {exit}",
        "syscall",
        "ud2",
        word = const offset_of!(Block, word),
        nr = const offset_of!(Block, nr),
        args = const offset_of!(Block, args),
        ret = const offset_of!(Block, ret),
        base = const offset_of!(Block, base),
        all = const offset_of!(Block, all),
        CALL = const CALL,
        CLONE = const CLONE,
        DONE = const DONE,
        QUIT = const QUIT,
        WAIT = const WAIT,
        WAKE = const WAKE,
        SIZE = const SIZE,
        SETMASK = const libc::SIG_SETMASK,
        futex = const Sysno::futex as usize,
        rt_sigprocmask = const Sysno::rt_sigprocmask as usize,
        munmap = const Sysno::munmap as usize,
        exit = const Sysno::exit as usize,
    )
}

/// clone(2) by the calling thread; the new one is a hand whose block is at `block`.
///
/// # Safety
/// `block` is a block at the upper end of a stack that nobody uses.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_here(block: usize) -> usize {
    let ret;
    // SAFETY: as the caller promises; only the new thread, which has a stack of its own, goes to `live`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jz {live}",
            live = sym live,
            inlateout("rax") Sysno::clone as usize => ret,
            in("rdi") THREAD_FLAGS as usize,
            in("rsi") block,
            in("rdx") 0usize,
            in("r10") 0usize,
            in("r8") 0usize,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    ret
}

/// Hands are x86-64 alone.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_here(_: usize) -> usize {
    -(libc::ENOSYS as isize) as usize
}

fn mask_but(signo: i32) -> u64 {
    if signo == 0 { u64::MAX } else { !(1 << (signo - 1)) }
}

/// Sets the calling thread's signal mask and returns the former one.
fn set_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    let (new, former) = (&raw const mask, &raw mut old);
    // SAFETY: reads and writes one mask each on our stack.
    let _ = unsafe { sys!(rt_sigprocmask, libc::SIG_SETMASK, new, former, size_of::<u64>()) };
    old
}

/// Memory for a hand: the address of its block.
fn memory() -> Result<NonNull<Block>, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
    let flags = flags as u64 | MMAP_FLAGS_COOKIE;
    // SAFETY: new memory, wherever there is room.
    let base = unsafe { sys!(mmap, 0usize, SIZE, prot, flags, -1i32, 0) }?;
    // SAFETY: our own new memory. Without the guard page it would work as well.
    let _ = unsafe { sys!(mprotect, base, PAGE, libc::PROT_NONE) };
    let at = base + SIZE - size_of::<Block>();
    let block = NonNull::new(at as *mut Block).ok_or(Errno::ENOMEM)?;
    // SAFETY: in the new memory, which is zeroed and aligned to pages; a block of zeroes is one.
    let fields = unsafe { block.as_ref() };
    fields.this.set(at);
    fields.base.set(base);
    fields.all.set(u64::MAX);
    Ok(block)
}

impl Hand {
    /// A hand with the calling thread's credentials.
    ///
    /// # Errors
    /// As clone(2) and mmap(2): EAGAIN, ENOMEM, EPERM in a sandbox.
    pub fn of_this_thread() -> Result<Hand, Errno> {
        let signo = soloring_iowq::interrupt_signal().unwrap_or(0);
        let block = memory()?;
        // The new thread begins with this one's mask.
        let mask = set_mask(mask_but(signo));
        // SAFETY: the block was made for this.
        let made = check(unsafe { clone_here(block.as_ptr() as usize) });
        set_mask(mask);
        Hand::made(block, made, signo)
    }

    /// Another hand, with the credentials of this one.
    ///
    /// # Errors
    /// As [`Hand::of_this_thread`].
    pub fn another(&mut self) -> Result<Hand, Errno> {
        let block = memory()?;
        let args = [THREAD_FLAGS as usize, block.as_ptr() as usize];
        // SAFETY: the block was made for the new hand, which goes its own way in `live`.
        let made = unsafe { self.command(CLONE, Sysno::clone, &args, false) };
        Hand::made(block, check(made), self.signo)
    }

    fn made(block: NonNull<Block>, made: Result<usize, Errno>, signo: i32) -> Result<Hand, Errno> {
        match made {
            Ok(tid) => Ok(Hand { block, tid: tid as i32, signo }),
            Err(e) => {
                // SAFETY: of the memory that no thread came to use.
                let _ = unsafe { sys!(munmap, block.as_ref().base.get(), SIZE) };
                Err(e)
            }
        }
    }

    /// Makes one system call; up to six arguments, missing ones are 0. Returns what the kernel does.
    ///
    /// A signal to the calling thread interrupts the call if `interruptible`; else nothing does.
    ///
    /// # Safety
    /// As for the system call itself, whose memory has to stay until it returns.
    pub unsafe fn call(&mut self, nr: Sysno, args: &[usize], interruptible: bool) -> usize {
        if interruptible {
            self.open(soloring_iowq::interrupt_signal_in_use());
        }
        // SAFETY: as the caller promises.
        unsafe { self.command(CALL, nr, args, interruptible) }
    }

    /// Follows a change of the reserved signal.
    fn open(&mut self, signo: i32) {
        if signo != self.signo {
            let mask = mask_but(signo);
            let args = [libc::SIG_SETMASK as usize, &raw const mask as usize, 0, size_of::<u64>()];
            // SAFETY: reads the mask on our stack.
            unsafe { self.command(CALL, Sysno::rt_sigprocmask, &args, false) };
            self.signo = signo;
        }
    }

    /// # Safety
    /// As [`Hand::call`].
    unsafe fn command(&mut self, what: u32, nr: Sysno, args: &[usize], nudge: bool) -> usize {
        // SAFETY: it lives as long as the hand does. The cells are ours while the word is neither CALL nor CLONE.
        let block = unsafe { self.block.as_ref() };
        debug_assert!(matches!(block.word.load(Ordering::Relaxed), IDLE | DONE) && args.len() <= 6);
        block.nr.set(nr as usize);
        for (i, cell) in block.args.iter().enumerate() {
            cell.set(args.get(i).copied().unwrap_or(0));
        }
        // Release: pairs with the hand's load of the word, so that it finds the call.
        block.word.store(what, Ordering::Release);
        let word = block.word.as_ptr();
        // SAFETY: the address is a key only.
        let _ = unsafe { sys!(futex, word, WAKE, 1) };
        // Acquire: pairs with the hand's store of DONE, so that the result is there.
        while block.word.load(Ordering::Acquire) != DONE {
            // SAFETY: the word is live; no time limit.
            let woken = unsafe { sys!(futex, word, WAIT, what, 0usize) };
            if nudge && woken == Err(Errno::EINTR) {
                self.nudge();
            }
        }
        block.ret.get()
    }

    /// Interrupts the call that the hand is in, if it is in one. May come too early: the signal that led here is
    /// repeated until its work ends.
    #[cold]
    fn nudge(&self) {
        if self.signo != 0 && soloring_iowq::interrupt_signal() == Some(self.signo) {
            // SAFETY: no memory involved. The thread lives, so the number is its own.
            let _ = unsafe { sys!(tgkill, std::process::id(), self.tid, self.signo) };
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // SAFETY: it lives until the hand reads QUIT.
        let block = unsafe { self.block.as_ref() };
        let word = block.word.as_ptr();
        block.word.store(QUIT, Ordering::Relaxed);
        // SAFETY: the address is a key only; the memory may be gone by now.
        let _ = unsafe { sys!(futex, word, WAKE, 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_calls_and_more_hands_and_goes_away() {
        let mut first = Hand::of_this_thread().expect("a thread");
        let mut second = first.another().expect("a thread");
        let dir = |tid: i32| std::path::PathBuf::from(format!("/proc/self/task/{tid}"));
        for hand in [&mut first, &mut second] {
            // SAFETY: no memory involved.
            let tid = unsafe { hand.call(Sysno::gettid, &[], false) };
            assert_eq!(tid as i32, hand.tid);
            // SAFETY: no memory involved.
            let bad = unsafe { hand.call(Sysno::close, &[usize::MAX], true) };
            assert_eq!(check(bad), Err(Errno::EBADF));
            assert!(dir(hand.tid).exists());
        }
        assert_ne!(first.tid, second.tid);
        let (tids, base) = ([first.tid, second.tid], [first.base(), second.base()]);
        drop((first, second));
        while tids.iter().any(|tid| dir(*tid).exists()) {
            std::thread::yield_now();
        }
        // Perhaps another thread of the test has something else there by now, but no longer unwritable.
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        assert!(!base.iter().any(|b| maps.contains(&format!("{b:x}-{:x} ---p", b + PAGE))));
    }

    #[test]
    fn a_signal_to_the_caller_ends_the_call_if_it_may() {
        let mut hand = Hand::of_this_thread().expect("a thread");
        let signo = soloring_iowq::interrupt_signal().expect("a free signal");
        // SAFETY: no memory involved.
        let caller = unsafe { sys!(gettid) }.expect("never fails");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    // SAFETY: the handler of the reserved signal does nothing.
                    let _ = unsafe { sys!(tgkill, std::process::id(), caller, signo) };
                }
            });
            let nothing = 0usize;
            // SAFETY: no descriptors, and no time limit.
            let ended = unsafe { hand.call(Sysno::poll, &[nothing, 0, usize::MAX], true) };
            done.store(true, Ordering::Relaxed);
            assert_eq!(check(ended), Err(Errno::EINTR));
        });
        // A call that may not be interrupted is not by what is left over.
        let pause = [0u64, 20_000_000];
        // SAFETY: reads one timespec on our stack.
        let slept = unsafe { hand.call(Sysno::nanosleep, &[pause.as_ptr() as usize, 0], false) };
        assert_eq!(check(slept), Ok(0));
    }

    impl Hand {
        fn base(&self) -> usize {
            // SAFETY: the hand lives.
            unsafe { self.block.as_ref() }.base.get()
        }
    }
}
