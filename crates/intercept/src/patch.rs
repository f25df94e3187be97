//! Rewriting of call sites: finds `mov $426, %eax; ...; syscall` in loaded code and turns the `mov` into a jump.
//!
//! Only the five bytes of the `mov` are overwritten. Everything after it stays in place, the `syscall`
//! included, so code that jumps there from elsewhere still works and is stopped by the filter. A site is
//! left alone unless its function decodes cleanly from the start that its unwind information names, up to
//! exactly the `mov`, and only plain register moves lie between the `mov` and the `syscall`.
#![allow(unsafe_code)]

use crate::entry::{self, Vectors};
use crate::trampoline::{Arenas, protect};
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, Register,
};
use libc::{c_int, c_void};
use std::cell::UnsafeCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Longest stretch from the `mov` to the `syscall`, in bytes: it is copied into the trampoline.
const BETWEEN_MAX: usize = 64;
/// Longest function that is decoded from its start.
const FUNCTION_MAX: usize = 1 << 20;

/// Numbers whose sites are rewritten: the ring calls, and `rt_sigprocmask`, because the C library blocks
/// all signals inside itself (in `posix_spawn`'s child, in its helper threads), where a stop would be death.
const NUMBERS: [u32; 4] = [425, 426, 427, MASK_CALL];
const MASK_CALL: u32 = libc::SYS_rt_sigprocmask as u32;
/// Longest text that is read through for the vector instructions in it.
const TEXT_MAX: usize = 32 << 20;

/// Ring call sites rewritten in this process.
static PATCHED: AtomicU32 = AtomicU32::new(0);
/// Whether sites may be rewritten at all: [`scan`] has run and nobody switched it off.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Number of ring call sites rewritten so far.
pub fn patched_sites() -> u32 {
    PATCHED.load(Relaxed)
}

/// The arenas, behind a lock that is only ever tried: a handler must not wait for it.
struct Shared {
    locked: AtomicBool,
    arenas: UnsafeCell<Arenas>,
}
// SAFETY: the arenas are only reached between winning `locked` and releasing it.
unsafe impl Sync for Shared {}
static SHARED: Shared =
    Shared { locked: AtomicBool::new(false), arenas: UnsafeCell::new(Arenas::new()) };

fn with_arenas(work: impl FnOnce(&mut Arenas)) -> bool {
    // Acquire pairs with the Release below: the arenas as the last holder left them.
    if SHARED.locked.swap(true, Ordering::Acquire) {
        return false;
    }
    // SAFETY: the swap made this thread the only holder.
    work(unsafe { &mut *SHARED.arenas.get() });
    // Release pairs with the Acquire above.
    SHARED.locked.store(false, Ordering::Release);
    true
}

/// A rewritable site.
#[derive(Debug, PartialEq, Eq)]
struct Site {
    /// Address of the `mov`.
    at: usize,
    nr: u32,
    /// Bytes of the `mov`: five, or seven in its sign-extending form.
    mov_len: usize,
    /// Address of the `syscall`.
    syscall: usize,
}

/// Scans every loaded object and rewrites what it can. Call before other threads run; harmless later.
pub(crate) fn scan() {
    entry::init();
    let single = single_threaded();
    with_arenas(|arenas| {
        let mut context = (arenas, single);
        // SAFETY: the callback matches the context's type and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(visit_object), (&raw mut context).cast()) };
    });
    ENABLED.store(true, Relaxed);
}

unsafe extern "C" fn visit_object(
    info: *mut libc::dl_phdr_info,
    _len: usize,
    context: *mut c_void,
) -> c_int {
    // SAFETY: `scan` passes exactly this type, exclusively, for the walk's duration.
    let (arenas, single) = unsafe { &mut *context.cast::<(&mut Arenas, bool)>() };
    // SAFETY: the loader passes a complete record with its program headers.
    let (base, headers) = unsafe {
        (
            (*info).dlpi_addr as usize,
            std::slice::from_raw_parts((*info).dlpi_phdr, (*info).dlpi_phnum.into()),
        )
    };
    let text = headers.iter().filter(|h| {
        h.p_type == libc::PT_LOAD
            && h.p_flags & (libc::PF_X | libc::PF_R) == libc::PF_X | libc::PF_R
    });
    let own = scan as *const () as usize;
    let mut vectors = None;
    for header in text {
        let start = base + header.p_vaddr as usize;
        let len = header.p_memsz as usize;
        if (start..start + len).contains(&own) {
            return 0; // our own calls are marked, not caught
        }
        // SAFETY: a loaded, readable segment; the loader keeps it while it iterates.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
        let prot = prot_of(header.p_flags);
        for nr in NUMBERS {
            let imm = nr.to_le_bytes();
            let needle = [0xb8, imm[0], imm[1], imm[2], imm[3]];
            let wide = [0xc7, 0xc0, imm[0], imm[1], imm[2], imm[3]];
            let short = memchr::memmem::find_iter(bytes, &needle).map(|at| start + at);
            let long = memchr::memmem::find_iter(bytes, &wide).map(|at| start + at.wrapping_sub(1));
            for at in short.chain(long) {
                if let Some(site) = examine(at, start, start + len) {
                    let vectors = match nr {
                        MASK_CALL => Vectors::All,
                        _ => *vectors.get_or_insert_with(|| vectors_in(bytes)),
                    };
                    rewrite(&site, vectors, prot, *single, arenas);
                }
            }
        }
    }
    0
}

fn prot_of(flags: u32) -> i32 {
    let bit = |flag, prot| if flags & flag != 0 { prot } else { 0 };
    bit(libc::PF_R, libc::PROT_READ)
        | bit(libc::PF_W, libc::PROT_WRITE)
        | bit(libc::PF_X, libc::PROT_EXEC)
}

#[repr(C)]
struct DwarfEhBases {
    text: usize,
    data: usize,
    function: usize,
}
unsafe extern "C" {
    /// libgcc: the unwind entry that covers `pc`, and where its function starts.
    fn _Unwind_Find_FDE(pc: *const c_void, bases: *mut DwarfEhBases) -> *const c_void;
}

/// Start of the function around `at`, by its unwind information.
fn function_start(at: usize) -> Option<usize> {
    let mut bases = DwarfEhBases { text: 0, data: 0, function: 0 };
    // SAFETY: looks the address up in the loader's tables; it need not be mapped.
    let found = unsafe { _Unwind_Find_FDE(at as *const c_void, &mut bases) };
    (!found.is_null() && bases.function <= at && at - bases.function <= FUNCTION_MAX)
        .then_some(bases.function)
}

/// Decides whether the `mov` at `at`, inside the text `low..high`, is a site that can be rewritten.
fn examine(at: usize, low: usize, high: usize) -> Option<Site> {
    if at < low {
        return None;
    }
    // The cheap question first: a number as common as 14 stands in front of few system calls.
    // SAFETY: from `at` to the end of the text segment that the caller names.
    follow(unsafe { std::slice::from_raw_parts(at as *const u8, high - at) }, at)?;
    let function = function_start(at).filter(|f| *f >= low)?;
    // SAFETY: both ends lie in the mapped text segment that the caller names.
    let bytes = unsafe { std::slice::from_raw_parts(function as *const u8, high - function) };
    examine_bytes(bytes, function, at)
}

/// As [`examine`], on bytes that start with the function at address `function`.
fn examine_bytes(bytes: &[u8], function: usize, at: usize) -> Option<Site> {
    let site = follow(bytes.get(at - function..)?, at)?;
    let mut decoder = Decoder::with_ip(64, bytes, function as u64, DecoderOptions::NONE);
    let mut ins = Instruction::default();
    while (decoder.ip() as usize) < at {
        decoder.decode_out(&mut ins);
        if ins.is_invalid() {
            return None;
        }
    }
    (decoder.ip() as usize == at).then_some(site)
}

/// Reads the `mov` at `at`, where `bytes` start, and what follows it up to the `syscall`.
fn follow(bytes: &[u8], at: usize) -> Option<Site> {
    let mut decoder = Decoder::with_ip(64, bytes, at as u64, DecoderOptions::NONE);
    let mut ins = Instruction::default();
    decoder.decode_out(&mut ins);
    if !matches!(ins.code(), Code::Mov_r32_imm32 | Code::Mov_rm64_imm32)
        || !matches!(ins.op0_register(), Register::EAX | Register::RAX)
        || !NUMBERS.contains(&ins.immediate32())
    {
        return None;
    }
    let (nr, mov_len) = (ins.immediate32(), ins.len());
    loop {
        let here = decoder.ip() as usize;
        if here - at > BETWEEN_MAX || !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut ins);
        if ins.code() == Code::Syscall {
            return Some(Site { at, nr, mov_len, syscall: here });
        }
        if !copyable(&ins) {
            return None;
        }
    }
}

/// Which vector registers the code in `text` can use. A compiler may keep a value in one of them over a
/// system call, and over calls of functions in the same object whose registers it knows, but not over
/// others: the calling convention preserves none. A misread byte can only make the answer larger.
fn vectors_in(text: &[u8]) -> Vectors {
    if text.len() > TEXT_MAX {
        return Vectors::All;
    }
    let mut vectors = Vectors::Xmm;
    for ins in Decoder::new(64, text, DecoderOptions::NONE) {
        match ins.code().encoding() {
            EncodingKind::Legacy => {}
            EncodingKind::VEX => vectors = Vectors::Ymm,
            _ => return Vectors::All,
        }
    }
    vectors
}

/// Whether an instruction means the same at another address, before the `syscall`, with eax set.
fn copyable(ins: &Instruction) -> bool {
    use Mnemonic::{Add, And, Lea, Mov, Movsx, Movsxd, Movzx, Nop, Or, Shl, Shr, Sub, Xor};
    let plain = matches!(
        ins.mnemonic(),
        Mov | Movsx | Movsxd | Movzx | Lea | Xor | And | Or | Add | Sub | Shl | Shr | Nop
    );
    let touches_rax = (0..ins.op_count())
        .any(|i| ins.op_register(i).full_register() == Register::RAX)
        || ins.memory_base().full_register() == Register::RAX
        || ins.memory_index().full_register() == Register::RAX;
    let moves_stack = ins.op_count() > 0 && ins.op_register(0).full_register() == Register::RSP;
    plain
        && ins.flow_control() == FlowControl::Next
        && !ins.is_ip_rel_memory_operand()
        && !touches_rax
        && !moves_stack
}

/// Points the site at a trampoline. `prot` is the protection of its segment.
fn rewrite(site: &Site, vectors: Vectors, prot: i32, single: bool, arenas: &mut Arenas) {
    let word = site.at & !7;
    // With other threads about, only one aligned word can change under them without a torn instruction.
    if !single && site.at + 5 > word + 8 {
        return;
    }
    let between = (site.at + site.mov_len)..site.syscall;
    // SAFETY: the bytes were decoded just now, from mapped text.
    let between = unsafe { std::slice::from_raw_parts(between.start as *const u8, between.len()) };
    let Some(target) = arenas.add(site.nr, between, site.syscall + 2, vectors) else { return };
    let distance = (target as i64 - (site.at as i64 + 5)) as i32;
    let mut jump = [0xe9, 0, 0, 0, 0];
    jump[1..].copy_from_slice(&distance.to_le_bytes());
    if !protect(site.at, 5, prot | libc::PROT_WRITE) {
        return;
    }
    let shift = site.at - word;
    if shift + 5 <= 8 {
        let word = word as *mut u64;
        // SAFETY: the word lies in the page made writable; one store replaces one instruction.
        unsafe {
            let mut bytes = word.read_volatile().to_le_bytes();
            bytes[shift..shift + 5].copy_from_slice(&jump);
            // Release orders the trampoline's bytes before the jump to them.
            AtomicU64::from_ptr(word).store(u64::from_le_bytes(bytes), Ordering::Release);
        }
    } else {
        // SAFETY: writable, five bytes inside the function, and no other thread to see them half-done.
        unsafe { std::ptr::copy_nonoverlapping(jump.as_ptr(), site.at as *mut u8, 5) };
    }
    protect(site.at, 5, prot);
    if site.nr != MASK_CALL {
        PATCHED.fetch_add(1, Relaxed);
    }
}

/// Sites that stopped and could not be rewritten, by address: each is examined once.
static SEEN: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Tries to rewrite the site that was just stopped; `after` is the address behind its `syscall`. For
/// code that was loaded after [`scan`]. Allocates nothing.
pub(crate) fn after_stop(after: usize) {
    if !ENABLED.load(Relaxed) {
        return;
    }
    let slot = &SEEN[(after >> 1).wrapping_mul(0x9e37_79b9) >> 8 & 255];
    if slot.swap(after, Relaxed) == after {
        return;
    }
    let syscall = after - 2;
    let Some(function) = function_start(syscall) else { return };
    // SAFETY: the function contains the instruction that just ran, so its text up to there is mapped.
    let bytes = unsafe { std::slice::from_raw_parts(function as *const u8, after - function) };
    let done = with_arenas(|arenas| {
        let from = (syscall - function).saturating_sub(BETWEEN_MAX);
        for offset in (from..syscall - function).rev() {
            let Some(site) = examine_bytes(bytes, function, function + offset) else { continue };
            if site.syscall == syscall {
                let prot = libc::PROT_READ | libc::PROT_EXEC;
                rewrite(&site, Vectors::All, prot, single_threaded(), arenas);
                return;
            }
        }
    });
    if !done {
        slot.store(0, Relaxed); // someone else was patching: try again at the next stop
    }
}

/// Whether this process certainly has one thread only.
fn single_threaded() -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is NUL-terminated, the buffer is written by a call that succeeds.
    unsafe {
        libc::stat(c"/proc/self/task".as_ptr(), stat.as_mut_ptr()) == 0
            && stat.assume_init().st_nlink == 3
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
