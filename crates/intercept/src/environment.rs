//! What a program must find in its environment to load us, put back where a program left it out.
//!
//! The filter survives `exec`; without the shared object nobody would handle its stops. So whatever
//! environment a program hands to `exec`, ours is added: the preload and every `SOLORING_*` variable.
#![allow(unsafe_code)]

use crate::raw;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use syscalls::Sysno;

/// Path of our shared object; set by `soloring run`.
pub const PRELOAD_PATH: &str = "SOLORING_PRELOAD";
/// First descriptor number of ours, decimal, the same in the whole process tree. Read by the engine.
pub const FD_BASE: &str = "SOLORING_FD_BASE";
/// Set by `soloring run --stats`, to its process id: every process that had a ring, and this one in any
/// case, prints a line of counts on standard error as it ends.
pub const STATS: &str = "SOLORING_STATS";
/// Names a file to which every process appends one line of JSON as it ends.
pub const STATS_FILE: &str = "SOLORING_STATS_FILE";
/// Set to anything: the program closes descriptors by system calls of its own, so requests that wait hold
/// their file by a duplicate.
pub const HOLD_FILES: &str = "SOLORING_HOLD_FILES";
/// Path of the `soloring` command, which starts programs that cannot load us (`__static`).
pub const COMMAND_PATH: &str = "SOLORING_EXE";
/// Subcommand of `soloring`: the program's path, then its argument vector.
pub const STATIC_SUBCOMMAND: &CStr = c"__static";
const PREFIX: &[u8] = b"SOLORING_";
const LD_PRELOAD: &[u8] = b"LD_PRELOAD=";
const KEPT_MAX: usize = 32;
/// Longest environment that is looked through, in entries: bounds the walk over a program's pointers.
const ENTRIES_MAX: usize = 1 << 20;

/// `NAME=value` strings to hand on, and our path; leaked, so that any thread may read them at any time.
static KEPT: [AtomicPtr<c_char>; KEPT_MAX] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; KEPT_MAX];
static KEPT_LEN: AtomicUsize = AtomicUsize::new(0);
static PATH: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());
static COMMAND: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Records this process's own variables. Once, at load.
pub fn record() {
    let mut len = 0;
    for (name, value) in std::env::vars_os() {
        if !name.as_bytes().starts_with(PREFIX) || len == KEPT_MAX {
            continue;
        }
        let Some(entry) = entry(&name, &value) else { continue };
        KEPT[len].store(entry.into_raw(), Ordering::Relaxed);
        len += 1;
        let place = match name.as_bytes() {
            n if n == PRELOAD_PATH.as_bytes() => &PATH,
            n if n == COMMAND_PATH.as_bytes() => &COMMAND,
            _ => continue,
        };
        if let Ok(path) = CString::new(value.as_bytes()) {
            place.store(path.into_raw(), Ordering::Relaxed);
        }
    }
    // Release pairs with the Acquire in `kept`: the entries before their number.
    KEPT_LEN.store(len, Ordering::Release);
}

fn entry(name: &OsStr, value: &OsStr) -> Option<CString> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
}

fn kept() -> impl Iterator<Item = &'static CStr> {
    // Acquire pairs with the Release in `record`.
    let len = KEPT_LEN.load(Ordering::Acquire);
    // SAFETY: `record` stored leaked C strings in the first `len` places.
    KEPT[..len].iter().map(|p| unsafe { CStr::from_ptr(p.load(Ordering::Relaxed)) })
}

fn stored(place: &AtomicPtr<c_char>) -> Option<&'static CStr> {
    let path = place.load(Ordering::Relaxed);
    // SAFETY: stored once by `record`, leaked.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) })
}

/// The `soloring` command that started this process tree, where there is one.
pub fn command() -> Option<&'static CStr> {
    stored(&COMMAND)
}

/// Zeroed pages to build a vector in, not from the allocator: a child of `vfork` may need them.
pub struct Pages {
    at: usize,
    len: usize,
}

impl Pages {
    const NONE: Pages = Pages { at: 0, len: 0 };

    /// At least `len` bytes, or `None` where there is no memory.
    pub fn new(len: usize) -> Option<Pages> {
        let len = len.next_multiple_of(4096);
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        let map = [0, len, prot, flags, usize::MAX, 0];
        // SAFETY: a new private mapping.
        let at = unsafe { raw::any(Sysno::mmap.id() as usize, map) };
        (at > 0).then_some(Pages { at: at as usize, len })
    }

    /// Start of the pages.
    pub fn as_mut_ptr<T>(&self) -> *mut T {
        self.at as *mut T
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: exactly the mapping that `new` made.
            unsafe { raw::any(Sysno::munmap.id() as usize, [self.at, self.len, 0, 0, 0, 0]) };
        }
    }
}

/// An environment to pass to `exec`: the program's own when it has everything, else a completed copy.
pub struct Environment {
    vector: *const *const c_char,
    /// Freed when `exec` failed, or by the parent of a spawned child.
    _pages: Pages,
}

impl Environment {
    /// The vector for `execve`.
    pub fn as_ptr(&self) -> *const *const c_char {
        self.vector
    }
}

/// Whether `list` (a value of LD_PRELOAD) names `path`.
fn names(list: &[u8], path: &[u8]) -> bool {
    list.split(|b| matches!(b, b':' | b' ')).any(|item| item == path)
}

/// The part of `entry` up to and including `=`.
fn name_of(entry: &[u8]) -> &[u8] {
    let end = entry.iter().position(|b| *b == b'=').map_or(entry.len(), |at| at + 1);
    &entry[..end]
}

/// Completes `vector` (null counts as empty). Allocates by `mmap`, and only when something is missing:
/// in a child of `vfork` that memory stays behind in the parent.
///
/// # Safety
/// `vector` is null or a NULL-terminated array of NUL-terminated strings.
pub unsafe fn complete(vector: *const *const c_char) -> Environment {
    let unchanged = Environment { vector, _pages: Pages::NONE };
    let Some(path) = stored(&PATH) else { return unchanged };
    let at = |i: usize| -> Option<&CStr> {
        if vector.is_null() || i >= ENTRIES_MAX {
            return None;
        }
        // SAFETY: the walk stops at the NULL entry.
        unsafe { (*vector.add(i)).as_ref().map(|p| CStr::from_ptr(p)) }
    };
    let entries = || (0..).map_while(at);
    let len = entries().count();
    let old_preload = entries().find_map(|e| e.to_bytes().strip_prefix(LD_PRELOAD));
    let has_preload = old_preload.is_some_and(|list| names(list, path.to_bytes()));
    let missing = |entry: &&CStr| {
        let name = name_of(entry.to_bytes());
        !entries().any(|e| e.to_bytes().starts_with(name))
    };
    if has_preload && kept().all(|entry| !missing(&entry)) {
        return unchanged;
    }
    let old = old_preload.unwrap_or_default();
    let text_len = LD_PRELOAD.len() + path.to_bytes().len() + 1 + old.len() + 1;
    let vector_len = (len + KEPT_MAX + 2) * size_of::<usize>();
    let Some(pages) = Pages::new(vector_len + text_len) else { return unchanged };
    let map: *mut u8 = pages.as_mut_ptr();
    // SAFETY: the mapping is fresh, writable and long enough for both parts.
    let (new, text) = unsafe {
        (
            std::slice::from_raw_parts_mut(map.cast::<*const c_char>(), len + KEPT_MAX + 2),
            std::slice::from_raw_parts_mut(map.add(vector_len), text_len),
        )
    };
    let mut n = 0;
    let mut push = |entry: *const c_char| {
        new[n] = entry;
        n += 1;
    };
    entries()
        .filter(|e| has_preload || !e.to_bytes().starts_with(LD_PRELOAD))
        .for_each(|e| push(e.as_ptr()));
    kept().filter(missing).for_each(|e| push(e.as_ptr()));
    if !has_preload {
        let separator: &[u8] = if old.is_empty() { b"" } else { b":" };
        let mut filled = 0;
        for part in [LD_PRELOAD, path.to_bytes(), separator, old] {
            text[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        push(text.as_ptr().cast());
    }
    Environment { vector: map.cast(), _pages: pages }
}
