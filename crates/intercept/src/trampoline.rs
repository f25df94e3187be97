//! The code near a rewritten call site that it jumps to, and the pages that hold it.
#![allow(unsafe_code)]

use crate::entry::{self, Vectors};
use crate::raw;
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
        put(&(entry::address(vectors)).to_le_bytes());
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
