//! Rewriting of call sites: turns the `mov` in front of a `syscall` into a jump to a trampoline.
//!
//! Only the five bytes of the `mov` are overwritten. Everything after it stays in place, the `syscall`
//! included, so code that jumps there from elsewhere still works and is stopped by the filter.
#![allow(unsafe_code)]

use crate::entry::{self, Vectors};
use crate::site::{
    BETWEEN_MAX, MASK_CALL, Site, examine, examine_bytes, function_start, possible_sites,
    vectors_in,
};
use crate::trampoline::{Arenas, redirect};
use libc::{c_int, c_void};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Ring call sites rewritten in this process.
static PATCHED: AtomicU32 = AtomicU32::new(0);
/// Whether sites may be rewritten at all: [`scan`] has run and nobody switched it off.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Number of ring call sites rewritten so far.
pub fn patched_sites() -> u32 {
    PATCHED.load(Ordering::Relaxed)
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

pub(crate) fn with_arenas(work: impl FnOnce(&mut Arenas)) -> bool {
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

/// Scans every loaded object and rewrites what it can. Call before other threads run; harmless later.
pub(crate) fn scan() {
    entry::init();
    let single = single_threaded();
    with_arenas(|arenas| {
        let mut context = (arenas, single);
        // SAFETY: the callback matches the context's type and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(visit_object), (&raw mut context).cast()) };
    });
    ENABLED.store(true, Ordering::Relaxed);
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
        possible_sites(bytes, |offset, nr| {
            if let Some(site) = examine(start + offset, start, start + len) {
                let vectors = match nr {
                    MASK_CALL => Vectors::All,
                    _ => *vectors.get_or_insert_with(|| vectors_in(bytes)),
                };
                rewrite(&site, vectors, prot, *single, arenas);
            }
        });
    }
    0
}

fn prot_of(flags: u32) -> i32 {
    let bit = |flag, prot| if flags & flag != 0 { prot } else { 0 };
    bit(libc::PF_R, libc::PROT_READ)
        | bit(libc::PF_W, libc::PROT_WRITE)
        | bit(libc::PF_X, libc::PROT_EXEC)
}

/// Points the site at a trampoline. `prot` is the protection of its segment.
fn rewrite(site: &Site, vectors: Vectors, prot: i32, single: bool, arenas: &mut Arenas) {
    let between = (site.at + site.mov_len)..site.syscall;
    // SAFETY: the bytes were decoded just now, from mapped text.
    let between = unsafe { std::slice::from_raw_parts(between.start as *const u8, between.len()) };
    let Some(target) = arenas.add(site.nr, between, site.syscall + 2, vectors) else { return };
    // SAFETY: the five bytes are one instruction of mapped text, examined just now.
    if unsafe { redirect(site.at, target, prot, single) } && site.nr != MASK_CALL {
        PATCHED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sites that stopped and could not be rewritten, by address: each is examined once.
static SEEN: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Tries to rewrite the site that was just stopped; `after` is the address behind its `syscall`. For
/// code that was loaded after [`scan`]. Allocates nothing.
pub(crate) fn after_stop(after: usize) {
    if !ENABLED.load(Ordering::Relaxed) {
        return;
    }
    let slot = &SEEN[(after >> 1).wrapping_mul(0x9e37_79b9) >> 8 & 255];
    if slot.swap(after, Ordering::Relaxed) == after {
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
        slot.store(0, Ordering::Relaxed); // someone else was patching: try again at the next stop
    }
}

/// Whether this process certainly has one thread only.
pub(crate) fn single_threaded() -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is NUL-terminated, the buffer is written by a call that succeeds.
    unsafe {
        libc::stat(c"/proc/self/task".as_ptr(), stat.as_mut_ptr()) == 0
            && stat.assume_init().st_nlink == 3
    }
}
