//! Descriptors of ours in the program's table: numbered high, marked, and out of its way.
//!
//! Every ring descriptor and every private one (memory files, epoll instances, duplicates that requests
//! hold) has a number from [`base`] on, close-on-exec. A table indexed by descriptor says which is which.
#![allow(unsafe_code)]

use crate::{softlimit, sys};
use soloring_abi::Errno;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Not a descriptor of ours.
const FREE: u64 = 0;
/// Ours, and not for the program to touch.
const PRIVATE: u64 = 1;
/// From here on the tag is a ring's id.
pub const FIRST_RING_ID: u64 = 2;
/// The program's, and watched by the ring whose id is in the other bits.
const WATCHED: u64 = 1 << 63;
/// Watched by several rings.
const WATCHED_BY_MANY: u64 = WATCHED | 1 << 62;

struct Table {
    base: i32,
    len: usize,
    tags: *const AtomicU64,
}

// SAFETY: `tags` points to a mapping that is never unmapped and only accessed as atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// The first number of ours under a hard limit of `hard` descriptors: far above any program's where there is
/// room, else the upper part of what there is. A ring takes about five.
fn base_below(hard: usize) -> i32 {
    match hard {
        131_072.. => 65_536,
        4096.. => (hard / 4 * 3) as i32,
        _ => (hard / 2) as i32,
    }
}

/// The base that `soloring run` has told its process tree. Allocates nothing: the first to ask may be the program's
/// allocator, which maps memory or closes a file before it hands out its first byte.
fn inherited_base() -> Option<i32> {
    // SAFETY: a NUL-terminated name. What comes back stays as it is until the program changes its environment,
    // which it must not do beside others that read it.
    let value = unsafe {
        let at = libc::getenv(c"SOLORING_FD_BASE".as_ptr());
        if at.is_null() { None } else { Some(CStr::from_ptr(at)) }
    };
    value?.to_str().ok()?.parse().ok()
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let hard = softlimit::hard().clamp(8, 1 << 20) as usize;
        // The whole process tree shares one base: the filter that is inherited over exec names it.
        let inherited = inherited_base();
        let base =
            inherited.filter(|b| (3..1 << 20).contains(b)).unwrap_or_else(|| base_below(hard));
        let len = hard.max(base as usize + 4096);
        // SAFETY: a fresh anonymous mapping, zeroed, never unmapped: `len` words that are only ever
        // accessed as atomics. Pages are touched only where descriptors of ours are.
        let tags = unsafe {
            sys::sys!(
                mmap,
                0usize,
                len * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1i32,
                0
            )
        }
        .expect("address space for the descriptor table");
        Table { base, len, tags: tags as *const AtomicU64 }
    })
}

/// First descriptor number of ours. Fixed for the life of the process tree.
#[inline]
pub fn base() -> i32 {
    table().base
}

#[inline]
fn tag(fd: i32) -> Option<&'static AtomicU64> {
    let t = table();
    if fd < 0 || fd as usize >= t.len {
        return None;
    }
    // SAFETY: index checked against the length of the mapping, which lives forever.
    Some(unsafe { &*t.tags.add(fd as usize) })
}

/// The id of the ring that `fd` stands for.
#[inline]
pub fn ring_id(fd: i32) -> Option<u64> {
    // Acquire: pairs with the release in `mark_ring`; who sees the id also finds the ring.
    let id = tag(fd)?.load(Ordering::Acquire);
    (FIRST_RING_ID..WATCHED).contains(&id).then_some(id)
}

/// Whether `fd` is ours and hidden from the program.
#[inline]
pub fn is_private(fd: i32) -> bool {
    tag(fd).is_some_and(|t| t.load(Ordering::Relaxed) == PRIVATE)
}

pub fn mark_ring(fd: i32, id: u64) {
    // Release: pairs with the acquire in `ring_id`.
    tag(fd).expect("allocated below the table's length").store(id, Ordering::Release);
}

/// Takes the mark off and says what it was, so that exactly one closer wins.
pub fn unmark(fd: i32) -> bool {
    // Acquire pairs with the release in `mark_ring`: the closer that wins finds the ring. Release pairs with
    // the acquire of who uses the number next: the old ring's closing comes first.
    tag(fd).is_some_and(|t| t.swap(FREE, Ordering::AcqRel) != FREE)
}

/// Which rings watch a descriptor of the program's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watchers {
    None,
    /// The ring with this id.
    One(u64),
    Many,
}

/// The rings that watch `fd`. One load: every close asks.
#[inline]
pub fn watchers(fd: i32) -> Watchers {
    match tag(fd).map_or(FREE, |t| t.load(Ordering::Relaxed)) {
        WATCHED_BY_MANY => Watchers::Many,
        tag if tag & WATCHED != 0 => Watchers::One(tag & !WATCHED),
        _ => Watchers::None,
    }
}

/// Notes that ring `id` watches the program's `fd`. Relaxed: a program that closes a descriptor which
/// another thread is about to use orders the two itself.
pub fn mark_watched(fd: i32, id: u64) {
    let Some(tag) = tag(fd) else { return };
    let _ = tag.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| match t {
        FREE => Some(WATCHED | id),
        t if t & WATCHED != 0 && t != WATCHED | id => Some(WATCHED_BY_MANY),
        _ => None,
    });
}

/// Takes ring `id`'s mark off. A descriptor of several rings stays marked until it is closed.
pub fn unmark_watched(fd: i32, id: u64) {
    unmark_if(fd, WATCHED | id);
}

/// As `fd` is closed: no ring watches it any more.
pub fn unmark_watched_by_many(fd: i32) {
    unmark_if(fd, WATCHED_BY_MANY);
}

fn unmark_if(fd: i32, mark: u64) {
    if let Some(tag) = tag(fd) {
        let _ = tag.compare_exchange(mark, FREE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether a ring may have no other number than one of our range.
static ONLY_HIGH: AtomicBool = AtomicBool::new(false);

/// See `uapi::only_high_numbers`.
pub fn only_high_numbers() {
    ONLY_HIGH.store(true, Ordering::Relaxed);
}

/// A duplicate in our range or, with that full or out of reach, anywhere.
fn dup_anywhere(fd: i32) -> Result<i32, Errno> {
    dup_high(fd).or_else(|errno| match errno {
        Errno::EMFILE => sys::dup_from(fd, 3),
        _ => Err(errno),
    })
}

/// A duplicate in our range.
fn dup_high(fd: i32) -> Result<i32, Errno> {
    let high = dup_from(fd, base())?;
    if (high as usize) < table().len {
        return Ok(high);
    }
    sys::close(high);
    Err(Errno::EMFILE)
}

/// A duplicate numbered from `min` on, which is in our range, whatever the program's soft limit is.
///
/// # Errors
/// EBADF; EMFILE.
pub fn dup_from(fd: i32, min: i32) -> Result<i32, Errno> {
    let dup = || sys::dup_from(fd, min);
    let made = if softlimit::below(base()) { Err(Errno::EINVAL) } else { dup() };
    match made {
        Err(Errno::EINVAL | Errno::EMFILE) => {
            softlimit::lifted(base(), dup).map_err(|errno| match errno {
                Errno::EBADF => errno,
                _ => Errno::EMFILE,
            })
        }
        made => made,
    }
}

/// The soft RLIMIT_NOFILE that the program has, in descriptors.
pub fn soft_limit() -> u64 {
    softlimit::own(base())
}

/// A private duplicate of the program's `fd`.
///
/// # Errors
/// EBADF; EMFILE.
pub fn dup_private(fd: i32) -> Result<i32, Errno> {
    let high = dup_anywhere(fd)?;
    if let Some(t) = tag(high) {
        t.store(PRIVATE, Ordering::Relaxed);
    }
    Ok(high)
}

/// Moves a descriptor that the engine just made out of the program's way. `low` is closed in any case.
///
/// # Errors
/// EMFILE.
pub fn make_private(low: i32) -> Result<i32, Errno> {
    let high = dup_private(low);
    sys::close(low);
    high
}

/// As [`make_private`], for a descriptor that becomes a ring's: not marked yet. Where its calls are caught by its
/// number, it has one in our range.
///
/// # Errors
/// EMFILE.
pub fn make_high(low: i32) -> Result<i32, Errno> {
    let only_high = ONLY_HIGH.load(Ordering::Relaxed);
    let high = if only_high { dup_high(low) } else { dup_anywhere(low) };
    sys::close(low);
    high
}

/// Closes a private descriptor.
pub fn close_private(fd: i32) {
    if fd >= 0 {
        unmark(fd);
        sys::close(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_descriptors_are_high_and_marked() {
        let fd = make_private(sys::eventfd().unwrap()).unwrap();
        assert!(fd >= base() && is_private(fd) && ring_id(fd).is_none());
        close_private(fd);
        assert!(!is_private(fd));
        assert_eq!(dup_private(-1), Err(Errno::EBADF));
    }

    #[test]
    fn a_small_hard_limit_leaves_room_on_both_sides() {
        assert_eq!(base_below(1 << 20), 65_536);
        assert_eq!(base_below(20_000), 15_000);
        for hard in [8, 16, 64, 256, 1024, 4095] {
            let base = base_below(hard) as usize;
            assert!(base > 3 && hard - base >= hard / 2, "{hard}: {base}");
        }
    }
}
