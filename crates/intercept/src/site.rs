//! What counts as a call site that can be rewritten: decoding, without changing anything.
//!
//! A site is `mov $426, %eax; ...; syscall`. It is taken only when its function decodes cleanly from the
//! start that its unwind information names, up to exactly the `mov`, and only plain register moves lie
//! between the `mov` and the `syscall`. Anything else is left to the filter.
#![allow(unsafe_code)]

use crate::entry::Vectors;
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, Register,
};
use libc::c_void;

/// Longest stretch from the `mov` to the `syscall`, in bytes: it is copied into the trampoline.
pub(crate) const BETWEEN_MAX: usize = 64;
/// Longest function that is decoded from its start.
const FUNCTION_MAX: usize = 1 << 20;

/// Numbers whose sites are rewritten: the ring calls, and `rt_sigprocmask`, because the C library blocks
/// all signals inside itself (in `posix_spawn`'s child, in its helper threads), where a stop would be death.
pub(crate) const NUMBERS: [u32; 4] = [425, 426, 427, MASK_CALL];
pub(crate) const MASK_CALL: u32 = libc::SYS_rt_sigprocmask as u32;
/// Longest text that is read through for the vector instructions in it.
const TEXT_MAX: usize = 32 << 20;

/// A rewritable site.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Address of the `mov`.
    pub(crate) at: usize,
    pub(crate) nr: u32,
    /// Bytes of the `mov`: five, or seven in its sign-extending form.
    pub(crate) mov_len: usize,
    /// Address of the `syscall`.
    pub(crate) syscall: usize,
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
pub(crate) fn function_start(at: usize) -> Option<usize> {
    let mut bases = DwarfEhBases { text: 0, data: 0, function: 0 };
    // SAFETY: looks the address up in the loader's tables; it need not be mapped.
    let found = unsafe { _Unwind_Find_FDE(at as *const c_void, &mut bases) };
    (!found.is_null() && bases.function <= at && at - bases.function <= FUNCTION_MAX)
        .then_some(bases.function)
}

/// Calls `found` with the offset of each `mov` of one of our numbers that may belong to a system call, and with the
/// number. One pass, for the rarer of the two instructions: every process that starts pays for all its text.
pub(crate) fn possible_sites(text: &[u8], mut found: impl FnMut(usize, u32)) {
    const SYSCALL: &[u8] = &[0x0f, 0x05];
    let mut looked_at = 0;
    for syscall in memchr::memmem::find_iter(text, SYSCALL) {
        for at in looked_at.max(syscall.saturating_sub(BETWEEN_MAX))..syscall {
            let (mov_len, immediate) = match text[at] {
                0xb8 => (5, at + 1),
                0x48 if text[at + 1..].starts_with(&[0xc7, 0xc0]) => (7, at + 3),
                _ => continue,
            };
            if at + mov_len > syscall {
                continue;
            }
            let bytes: [u8; 4] = text[immediate..immediate + 4].try_into().expect("four bytes");
            let nr = u32::from_le_bytes(bytes);
            if NUMBERS.contains(&nr) {
                found(at, nr);
            }
        }
        looked_at = syscall;
    }
}

/// Decides whether the `mov` at `at`, inside the text `low..high`, is a site that can be rewritten.
pub(crate) fn examine(at: usize, low: usize, high: usize) -> Option<Site> {
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
pub(crate) fn examine_bytes(bytes: &[u8], function: usize, at: usize) -> Option<Site> {
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
pub(crate) fn vectors_in(text: &[u8]) -> Vectors {
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

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
