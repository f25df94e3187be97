//! The code near a rewritten call site that it jumps to, and the pages that hold it.
#![allow(unsafe_code)]

use crate::entry::{self, Vectors};
use crate::raw;
use std::sync::atomic::{AtomicU64, Ordering};
use syscalls::Sysno;

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
    pub(crate) fn add(
        &mut self,
        nr: u32,
        between: &[u8],
        back: usize,
        vectors: Vectors,
    ) -> Option<usize> {
        let mut code = Code::new();
        code.put(&[0xb8]); // mov $nr, %eax
        code.put(&nr.to_le_bytes());
        code.put(between);
        code.put(&[0x48, 0xb9]); // movabs $back, %rcx
        code.put(&back.to_le_bytes());
        code.jump(entry::address(vectors));
        self.place(&code, back)
    }

    /// Writes a trampoline for the entry of the C library's `syscall()`, which takes the number as its
    /// first argument: ring calls go to `ring_call`, a function of the same signature, others through
    /// `displaced`, the instructions that stood at the entry, to `back`, where it goes on.
    pub(crate) fn add_function(
        &mut self,
        displaced: &[u8],
        back: usize,
        ring_call: usize,
    ) -> Option<usize> {
        let mut code = Code::new();
        code.put(&[0x48, 0x8d, 0x87]); // lea -425(%rdi), %rax
        code.put(&(-425i32).to_le_bytes());
        code.put(&[0x48, 0x83, 0xf8, 2]); // cmp $2, %rax
        code.put(&[0x77, Code::JUMP_LEN]); // ja: over the jump
        code.jump(ring_call);
        code.put(displaced);
        code.jump(back);
        self.place(&code, back)
    }

    /// Copies finished code into a page within reach of `near`.
    fn place(&mut self, code: &Code, near: usize) -> Option<usize> {
        let page = self.page_near(near, code.len)?;
        let at = page.at + page.used;
        page.used = (page.used + code.len).next_multiple_of(16);
        let start = page.at;
        if !protect(start, PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) {
            return None;
        }
        // SAFETY: the page is ours and writable now; the bytes from `used` on belong to no trampoline.
        unsafe { std::ptr::copy_nonoverlapping(code.bytes.as_ptr(), at as *mut u8, code.len) };
        protect(start, PAGE, libc::PROT_READ | libc::PROT_EXEC);
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

/// Machine code under construction.
struct Code {
    bytes: [u8; 128],
    len: usize,
}

impl Code {
    /// Bytes of [`Code::jump`].
    const JUMP_LEN: u8 = 14;

    fn new() -> Code {
        Code { bytes: [0; 128], len: 0 }
    }
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
    /// A jump to anywhere, which changes no register.
    fn jump(&mut self, target: usize) {
        self.put(&[0xff, 0x25, 0, 0, 0, 0]); // jmp *0(%rip)
        self.put(&target.to_le_bytes());
    }
}

/// Overwrites the five bytes at `at` with a jump to `target`, within reach; false where the system or
/// other threads forbid it. `prot` is the protection of the text there, `single` whether this process
/// certainly has one thread: with more, only one aligned word can change without a torn instruction.
///
/// # Safety
/// The bytes are text that may be replaced: nobody jumps between them.
pub(crate) unsafe fn redirect(at: usize, target: usize, prot: i32, single: bool) -> bool {
    let (word, shift) = (at & !7, at & 7);
    let in_word = shift + 5 <= 8;
    if !(single || in_word) || !protect(at, 5, prot | libc::PROT_WRITE) {
        return false;
    }
    let distance = (target as i64 - (at as i64 + 5)) as i32;
    let mut jump = [0xe9, 0, 0, 0, 0];
    jump[1..].copy_from_slice(&distance.to_le_bytes());
    if in_word {
        let word = word as *mut u64;
        // SAFETY: the word lies in the page made writable; one store replaces the instruction.
        unsafe {
            let mut bytes = word.read_volatile().to_le_bytes();
            bytes[shift..shift + 5].copy_from_slice(&jump);
            // Release orders the trampoline's bytes before the jump to them; a processor that fetches
            // the jump fetches them coherently.
            AtomicU64::from_ptr(word).store(u64::from_le_bytes(bytes), Ordering::Release);
        }
    } else {
        // SAFETY: writable, and no other thread to see five bytes half-done.
        unsafe { std::ptr::copy_nonoverlapping(jump.as_ptr(), at as *mut u8, 5) };
    }
    protect(at, 5, prot);
    true
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
