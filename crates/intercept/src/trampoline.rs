//! What a rewritten call site jumps to: code near the site, and the common entry that saves everything.
//!
//! A system call preserves every register except rax, rcx and r11, vector registers included, and the
//! 128 bytes below the stack pointer. The common entry does the same: it steps over the red zone, saves
//! the argument registers, the flags and the extended state (the engine is ordinary code and calls
//! `memcpy`), and returns by a jump, so the shadow of the call stack stays balanced.
#![allow(unsafe_code)]

use crate::stack::{self, Call};
use crate::{dispatch, raw};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use syscalls::Sysno;

/// How the extended state is saved: 0 FXSAVE, 1 XSAVE, 2 XSAVEC. Read by the assembly.
static XSAVE_KIND: AtomicU32 = AtomicU32::new(0);
/// State components to save: SSE, AVX and AVX-512, as far as the system has them on.
static XSAVE_MASK: AtomicU32 = AtomicU32::new(0);
/// Bytes of the save area, a multiple of 64.
static XSAVE_LEN: AtomicU32 = AtomicU32::new(512);

/// SSE, AVX, opmask, upper halves of zmm0-15, zmm16-31. Not x87: the engine does not use it; not PKRU:
/// it is no scratch state; not AMX tiles: nothing here touches them.
const COMPONENTS: u32 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7;

/// In: eax = number, argument registers as for the system call, rcx = address to return to.
#[unsafe(naked)]
unsafe extern "C" fn patched_entry() {
    std::arch::naked_asm!(
    "lea rsp, [rsp - 128]",
    "pushfq",
    "push rcx",
    "push rbx",
    "push r12",
    "push 0", // Call.stopped_at
    "push 0", // Call.ret
    "push r9",
    "push r8",
    "push r10",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rax", // Call.nr
    "cld",
    "mov rbx, rsp", // the Call
    "mov eax, dword ptr [rip + {len}]",
    "sub rsp, rax",
    "and rsp, -64",
    "mov ecx, dword ptr [rip + {kind}]",
    "mov eax, dword ptr [rip + {mask}]",
    "xor edx, edx",
    "test ecx, ecx",
    "jz 2f",
    // The header must hold zeros where the save instructions leave it alone.
    "mov qword ptr [rsp + 512], rdx",
    "mov qword ptr [rsp + 520], rdx",
    "mov qword ptr [rsp + 528], rdx",
    "mov qword ptr [rsp + 536], rdx",
    "mov qword ptr [rsp + 544], rdx",
    "mov qword ptr [rsp + 552], rdx",
    "mov qword ptr [rsp + 560], rdx",
    "mov qword ptr [rsp + 568], rdx",
    "cmp ecx, 2",
    "jne 1f",
    "xsavec [rsp]",
    "jmp 3f",
    "1: xsave [rsp]",
    "jmp 3f",
    "2: fxsave64 [rsp]",
    "3: mov rdi, rbx",
    "call {call}",
    "mov eax, dword ptr [rip + {mask}]",
    "xor edx, edx",
    "cmp dword ptr [rip + {kind}], 0",
    "je 4f",
    "xrstor [rsp]",
    "jmp 5f",
    "4: fxrstor64 [rsp]",
    "5: mov rsp, rbx",
    "add rsp, 8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop r10",
    "pop r8",
    "pop r9",
    "pop rax", // Call.ret
    "lea rsp, [rsp + 8]",
    "pop r12",
    "pop rbx",
    "pop rcx",
    "popfq",
    "lea rsp, [rsp + 128]",
    "jmp rcx",
    kind = sym XSAVE_KIND,
    mask = sym XSAVE_MASK,
    len = sym XSAVE_LEN,
    call = sym patched_call,
    )
}

/// The Rust side of the common entry.
unsafe extern "C" fn patched_call(call: *mut Call) {
    // SAFETY: the address is this thread's own; the program must find errno as it was.
    let (errno, saved) = unsafe {
        let errno = libc::__errno_location();
        (errno, *errno)
    };
    // SAFETY: the entry built the call from the program's registers on this thread's stack. A change
    // of the signal mask needs no room, and comes at the start and end of threads that never see a ring.
    unsafe {
        if dispatch::catches((*call).nr) {
            stack::run(&mut *call, dispatch::work);
        } else {
            dispatch::work(call);
        }
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Chooses how the extended state is saved on this machine. Before the first rewrite.
pub(crate) fn init() {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let features = __cpuid(1);
    let has_xsave = features.ecx & (1 << 27) != 0; // OSXSAVE
    if !has_xsave {
        return;
    }
    let (low, _high): (u32, u32);
    // SAFETY: OSXSAVE is set, so XGETBV exists and XCR0 may be read.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack));
    }
    let mask = low & COMPONENTS;
    // Standard format: each component at its fixed offset; compacted is never longer.
    let mut len = 512 + 64;
    for component in 2..32 {
        if mask & (1 << component) != 0 {
            let c = __cpuid_count(0xd, component);
            len = len.max(c.ebx + c.eax);
        }
    }
    let xsavec = __cpuid_count(0xd, 1).eax & (1 << 1) != 0;
    XSAVE_MASK.store(mask, Relaxed);
    XSAVE_LEN.store(len.next_multiple_of(64), Relaxed);
    XSAVE_KIND.store(if xsavec { 2 } else { 1 }, Relaxed);
}

const PAGE: usize = 4096;
/// Reach of a jump, less a margin for the instruction's own length.
const REACH: usize = (1 << 31) - (1 << 20);

/// Pages of trampolines. Owned by whoever holds the patch lock.
pub(crate) struct Arenas {
    pages: [Page; 64],
    len: usize,
}
#[derive(Clone, Copy)]
struct Page {
    at: usize,
    used: usize,
}

impl Arenas {
    pub(crate) const fn new() -> Arenas {
        Arenas { pages: [Page { at: 0, used: 0 }; 64], len: 0 }
    }

    /// Writes a trampoline for a site and returns its address: the number into eax, `between` as it
    /// stands at the site, the address `back` into rcx, then the common entry.
    pub(crate) fn add(&mut self, nr: u32, between: &[u8], back: usize) -> Option<usize> {
        let mut code = [0u8; 128];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            code[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        };
        put(&[0xb8]); // mov $nr, %eax
        put(&nr.to_le_bytes());
        put(between);
        put(&[0x48, 0xb9]); // movabs $back, %rcx
        put(&back.to_le_bytes());
        put(&[0xff, 0x25, 0, 0, 0, 0]); // jmp *0(%rip)
        put(&(patched_entry as *const () as usize).to_le_bytes());
        let page = self.page_near(back, len)?;
        let at = page.at + page.used;
        page.used = (page.used + len).next_multiple_of(16);
        let at_page = page.at;
        if !protect(at_page, PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) {
            return None;
        }
        // SAFETY: the page is ours and writable now; the bytes from `used` on belong to no trampoline.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, len) };
        protect(at_page, PAGE, libc::PROT_READ | libc::PROT_EXEC);
        Some(at)
    }

    fn page_near(&mut self, site: usize, len: usize) -> Option<&mut Page> {
        let fits = |p: &Page| p.at.abs_diff(site) < REACH && p.used + len <= PAGE;
        let at = match self.pages[..self.len].iter().position(fits) {
            Some(at) => at,
            None => {
                let page = Page { at: map_near(site)?, used: 0 };
                *self.pages.get_mut(self.len)? = page;
                self.len += 1;
                self.len - 1
            }
        };
        Some(&mut self.pages[at])
    }
}

/// A new page within reach of `site`: below it by growing steps, so that the heap above a program's
/// image can grow; failing that, far above.
fn map_near(site: usize) -> Option<usize> {
    let site = site & !(PAGE - 1);
    let below = (0..15)
        .map(|k| site.checked_sub(0x10_0000 << k))
        .chain((1..1800).map(|k| site.checked_sub(k << 20)));
    let low = [0x3f_0000, 0x20_0000, 0x2_0000].map(Some);
    let above = (1024..1900).rev().map(|k| site.checked_add(k << 20));
    below.chain(low).chain(above).flatten().find(|at| at.abs_diff(site) < REACH && map_at(*at))
}

/// Maps one page exactly at `at`; false where something is mapped already.
fn map_at(at: usize) -> bool {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let args = [at, PAGE, prot as usize, flags as usize, usize::MAX, 0];
    // SAFETY: never replaces a mapping; fails where there is one.
    let got = unsafe { raw::any(Sysno::mmap.id() as usize, args) };
    if got > 0 && got as usize != at {
        // SAFETY: a kernel that ignores the flag put the page elsewhere: give it back.
        unsafe { raw::any(Sysno::munmap.id() as usize, [got as usize, PAGE, 0, 0, 0, 0]) };
        return false;
    }
    got > 0
}

/// Changes the protection of whole pages; false where the system refuses.
pub(crate) fn protect(at: usize, len: usize, prot: i32) -> bool {
    let start = at & !(PAGE - 1);
    let len = (at + len).next_multiple_of(PAGE) - start;
    // SAFETY: the caller names pages of a text segment or of an arena; contents are unchanged.
    unsafe { raw::any(Sysno::mprotect.id() as usize, [start, len, prot as usize, 0, 0, 0]) == 0 }
}
