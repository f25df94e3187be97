//! `sigaction`, `signal` and the signal-mask functions: SIGSYS stays ours, the program is told its own.
#![allow(unsafe_code)]

use crate::next::{missing, next};
use libc::{SIGSYS, c_int, sighandler_t, sigset_t};
use soloring_intercept::mask::{self, Stripped};
use soloring_intercept::sigaction::{KernelAction, program_action, set_program_action};

fn errno(value: c_int) {
    // SAFETY: errno's address is valid for the life of the thread.
    unsafe { *libc::__errno_location() = value };
}

/// First word of a C library set: signals 1 to 64, as the kernel has them.
fn first_word(set: &sigset_t) -> u64 {
    // SAFETY: a sigset_t is at least one aligned 64-bit word.
    unsafe { (&raw const *set).cast::<u64>().read() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    sig: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    if sig == SIGSYS {
        // SAFETY: the program's own structures.
        unsafe { program_sigsys(new, old) };
        return 0;
    }
    let Some(real) =
        next!(c"sigaction" as fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int)
    else {
        return missing();
    };
    // SAFETY: the program's own structures; ours is a live copy.
    unsafe {
        match new.as_ref() {
            None => real(sig, new, old),
            Some(action) => {
                let mut copy = *action;
                libc::sigdelset(&mut copy.sa_mask, SIGSYS);
                real(sig, &copy, old)
            }
        }
    }
}

/// # Safety
/// Both are null or valid.
unsafe fn program_sigsys(new: *const libc::sigaction, old: *mut libc::sigaction) {
    // SAFETY: as the caller promises.
    let before = match unsafe { new.as_ref() } {
        None => program_action(),
        Some(action) => set_program_action(KernelAction {
            handler: action.sa_sigaction,
            flags: action.sa_flags as u64,
            restorer: 0,
            mask: first_word(&action.sa_mask),
        }),
    };
    // SAFETY: as the caller promises; all zeros is a valid sigaction.
    unsafe {
        if let Some(old) = old.as_mut() {
            *old = std::mem::zeroed();
            old.sa_sigaction = before.handler;
            old.sa_flags = before.flags as c_int;
            (&raw mut old.sa_mask).cast::<u64>().write(before.mask);
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(
    sig: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: as this function.
    unsafe { sigaction(sig, new, old) }
}

/// `signal` and its variants differ in the flags that they set.
fn set_handler(handler: sighandler_t, flags: c_int) -> sighandler_t {
    let action = KernelAction { handler, flags: flags as u64, restorer: 0, mask: 0 };
    set_program_action(action).handler
}

macro_rules! signal_like {
    ($($name:ident $symbol:literal $flags:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(sig: c_int, handler: sighandler_t) -> sighandler_t {
            if sig == SIGSYS {
                return set_handler(handler, $flags);
            }
            match next!($symbol as fn(c_int, sighandler_t) -> sighandler_t) {
                // SAFETY: as this function.
                Some(real) => unsafe { real(sig, handler) },
                None => {
                    errno(libc::ENOSYS);
                    libc::SIG_ERR
                }
            }
        }
    )*};
}
signal_like! {
    signal c"signal" libc::SA_RESTART;
    bsd_signal c"bsd_signal" libc::SA_RESTART;
    ssignal c"ssignal" libc::SA_RESTART;
    sysv_signal c"sysv_signal" libc::SA_RESETHAND | libc::SA_NODEFER;
    __sysv_signal c"__sysv_signal" libc::SA_RESETHAND | libc::SA_NODEFER;
    sigset c"sigset" 0;
}

/// `sigprocmask` and `pthread_sigmask`: the change without SIGSYS, the answer with it.
///
/// # Safety
/// The sets are null or valid; `real` is the C library's function.
unsafe fn change_mask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
    real: unsafe extern "C" fn(c_int, *const sigset_t, *mut sigset_t) -> c_int,
) -> c_int {
    let before = mask::sigsys_blocked();
    // SAFETY: as the caller promises.
    unsafe {
        let has = set.as_ref().map(|s| mask::names_sigsys(first_word(s)));
        let stripped = Stripped::new(set);
        let ret = real(how, stripped.as_ptr(), old);
        if ret == 0 {
            if let Some(old) = old.as_mut()
                && before
            {
                libc::sigaddset(old, SIGSYS);
            }
            if let Some(has) = has {
                mask::note_change(how, has);
            }
        }
        ret
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    match next!(c"sigprocmask" as fn(c_int, *const sigset_t, *mut sigset_t) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { change_mask(how, set, old, real) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    match next!(c"pthread_sigmask" as fn(c_int, *const sigset_t, *mut sigset_t) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { change_mask(how, set, old, real) },
        None => libc::ENOSYS,
    }
}

/// The old BSD masks are an `int`: signals 1 to 32.
const BSD_BIT: c_int = 1 << (SIGSYS - 1);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigblock(set: c_int) -> c_int {
    match next!(c"sigblock" as fn(c_int) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(set & !BSD_BIT) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigsetmask(set: c_int) -> c_int {
    match next!(c"sigsetmask" as fn(c_int) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(set & !BSD_BIT) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sighold(sig: c_int) -> c_int {
    if sig == SIGSYS {
        mask::note_change(libc::SIG_BLOCK, true);
        return 0;
    }
    match next!(c"sighold" as fn(c_int) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(sig) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawnattr_setsigmask(
    attr: *mut libc::posix_spawnattr_t,
    set: *const sigset_t,
) -> c_int {
    // SAFETY: the program's own set.
    let stripped = unsafe { Stripped::new(set) };
    match next!(
        c"posix_spawnattr_setsigmask" as fn(*mut libc::posix_spawnattr_t, *const sigset_t) -> c_int
    ) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(attr, stripped.as_ptr()) },
        None => libc::ENOSYS,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_attr_setsigmask_np(
    attr: *mut libc::pthread_attr_t,
    set: *const sigset_t,
) -> c_int {
    // SAFETY: the program's own set.
    let stripped = unsafe { Stripped::new(set) };
    match next!(
        c"pthread_attr_setsigmask_np" as fn(*mut libc::pthread_attr_t, *const sigset_t) -> c_int
    ) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(attr, stripped.as_ptr()) },
        None => libc::ENOSYS,
    }
}
