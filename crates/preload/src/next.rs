//! The C library's own definition behind a symbol of ours.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// One interposed symbol: the next definition, looked up at first use.
pub(crate) struct Next {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, at: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Address of the next definition, null when the C library has none (an older one).
    #[inline]
    pub(crate) fn get(&self) -> *mut c_void {
        let at = self.at.load(Relaxed);
        if at.is_null() { self.look_up() } else { at }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: a NUL-terminated name; the loader's own lock is not held by code that calls us.
        let at = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(at, Relaxed);
        at
    }
}

/// The next definition of `$name` as a function, `None` when there is none.
macro_rules! next {
    ($name:literal as fn($($ty:ty),* $(,)?) -> $ret:ty) => {{
        static NEXT: $crate::next::Next = $crate::next::Next::new($name);
        let at = NEXT.get();
        // SAFETY: the C library's function of this name has this signature; null becomes `None`.
        unsafe {
            std::mem::transmute::<*mut std::ffi::c_void, Option<unsafe extern "C" fn($($ty),*) -> $ret>>(at)
        }
    }};
}
pub(crate) use next;

/// Answers -1 with ENOSYS: the C library here does not have the function.
pub(crate) fn missing() -> i32 {
    // SAFETY: errno's address is valid for the life of the thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}
