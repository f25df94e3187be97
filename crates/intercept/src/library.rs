//! The C library's `syscall()` in a process without our shared object: its entry leads to us for ring calls.
//!
//! Clients of the `io-uring` crate and many others make their ring calls through this one function, whose
//! number is an argument: not a site that could be rewritten, and a stop costs two microseconds. Where the
//! function starts with the register moves that glibc has there, its first instructions move to a
//! trampoline that looks at the number. In the shared object `syscall` is interposed instead.
#![allow(unsafe_code)]

use crate::patch::{single_threaded, with_arenas};
use crate::trampoline::redirect;
use crate::{dispatch, raw};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

/// Bytes of a near jump.
const JUMP_LEN: usize = 5;
/// Bytes of the function that are looked at: it is longer than that in every C library.
const LOOKED_AT: usize = 16;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Points `syscall()` at us, if it is what we know and this process has one thread: another could stand
/// between the instructions that are replaced.
pub(crate) fn redirect_syscall() {
    let function = libc::syscall as *const () as usize;
    if !single_threaded() {
        return;
    }
    // SAFETY: the text of a function longer than that.
    let bytes = unsafe { std::slice::from_raw_parts(function as *const u8, LOOKED_AT) };
    // C libraries built for indirect branch tracking have a landing mark first, which stays.
    let mark = if bytes.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
    let (function, bytes) = (function + mark, &bytes[mark..]);
    let Some(len) = displaced_len(bytes, function as u64) else { return };
    with_arenas(|arenas| {
        let ring_call = ring_call as *const () as usize;
        let Some(target) = arenas.add_function(&bytes[..len], function + len, ring_call) else {
            return;
        };
        // SAFETY: a function is entered at its start only, and there is no other thread.
        unsafe { redirect(function, target, libc::PROT_READ | libc::PROT_EXEC, true) };
    });
}

/// Length of the whole instructions that a jump at the start would cover, when all of them are moves
/// between registers; `None` otherwise, also when the function was redirected before.
fn displaced_len(bytes: &[u8], at: u64) -> Option<usize> {
    let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
    let mut len = 0;
    while len < JUMP_LEN {
        let ins = decoder.decode();
        let register = |i| ins.op_kind(i) == OpKind::Register;
        if ins.mnemonic() != Mnemonic::Mov || !register(0) || !register(1) {
            return None;
        }
        len += ins.len();
    }
    Some(len)
}

/// What the trampoline calls for numbers 425 to 427: `syscall()` itself, as far as the program can tell.
unsafe extern "C" fn ring_call(
    nr: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // SAFETY: the program's own arguments; called on a thread of the C library's.
    unsafe { raw::to_errno(dispatch::ring_call(nr, [a, b, c, d, e, f])) }
}

#[cfg(test)]
mod tests {
    use super::{ENDBR64, LOOKED_AT, displaced_len};

    #[test]
    fn only_register_moves_are_displaced() {
        let glibc = [0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6];
        assert_eq!(displaced_len(&glibc, 0x1000), Some(6));
        let jump = [0xe9, 0, 0, 0, 0, 0x90, 0x90];
        assert_eq!(displaced_len(&jump, 0x1000), None, "redirected before");
        let memory = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0x90];
        assert_eq!(displaced_len(&memory, 0x1000), None);
    }

    #[test]
    fn the_c_library_here_is_known() {
        let function = libc::syscall as *const () as usize;
        // SAFETY: the text of a function longer than that.
        let bytes = unsafe { std::slice::from_raw_parts(function as *const u8, LOOKED_AT) };
        let bytes = bytes.strip_prefix(&ENDBR64).unwrap_or(bytes);
        assert_eq!(displaced_len(bytes, function as u64), Some(6), "{bytes:x?}");
    }
}
