//! Where trampolines go: saves what a system call preserves, makes the call in Rust, puts everything back.
//!
//! A system call preserves every register except rax, rcx and r11, vector registers included, and the
//! 128 bytes below the stack pointer. These entries do the same. They return by a jump to rcx, which a
//! system call sets to exactly that address, so no return-address predictor or shadow stack is upset.
//!
//! The engine is ordinary code and calls `memcpy`, which may use any vector register. How much of that
//! state a program can have alive at the site depends on the instructions that its object contains at all
//! ([`Vectors`]): saving the whole of it costs more than everything else here together.
#![allow(unsafe_code)]

use crate::dispatch;
use crate::stack::{self, Call};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The vector registers that the code around a site may keep values in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vectors {
    /// xmm0 to xmm15: no VEX or EVEX instruction in the object.
    Xmm,
    /// ymm0 to ymm15: no EVEX instruction in the object.
    Ymm,
    /// Anything the machine has.
    All,
}

/// How the whole extended state is saved: 0 FXSAVE, 1 XSAVE, 2 XSAVEC. Read by the assembly.
static XSAVE_KIND: AtomicU32 = AtomicU32::new(0);
/// State components to save: SSE, AVX and AVX-512, as far as the system has them on.
static XSAVE_MASK: AtomicU32 = AtomicU32::new(0);
/// Bytes of the save area, a multiple of 64.
static XSAVE_LEN: AtomicU32 = AtomicU32::new(512);
/// Whether the system has AVX on.
static HAS_AVX: AtomicBool = AtomicBool::new(false);

/// SSE, AVX, opmask, upper halves of zmm0-15, zmm16-31. Not x87: the engine does not use it; not PKRU:
/// it is no scratch state; not AMX tiles: nothing here touches them.
const COMPONENTS: u32 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7;

/// Builds a [`Call`] below the red zone, its address in rbx; old values of what else is changed above it.
macro_rules! prologue {
    () => {
        "lea rsp, [rsp - 128]
        pushfq
        push rcx
        push rbx
        push r12
        push 0 // Call.stopped_at
        push 0 // Call.ret
        push r9
        push r8
        push r10
        push rdx
        push rsi
        push rdi
        push rax // Call.nr
        cld
        mov rbx, rsp"
    };
}

/// Undoes [`prologue`] with the result in rax, and goes back to the program.
macro_rules! epilogue {
    () => {
        "lea rsp, [rbx + 8]
        pop rdi
        pop rsi
        pop rdx
        pop r10
        pop r8
        pop r9
        pop rax // Call.ret
        lea rsp, [rsp + 8]
        pop r12
        pop rbx
        pop rcx
        popfq
        lea rsp, [rsp + 128]
        jmp rcx"
    };
}

/// An entry that saves sixteen registers of `$width` bytes one by one. The control bits of MXCSR are
/// left alone by the engine as by all ABI-respecting code; its sticky flags it does not raise.
macro_rules! entry_by_moves {
    ($name:ident, $mov:literal, $reg:literal, $width:literal) => {
        /// In: eax = number, argument registers as for the system call, rcx = address to return to.
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            std::arch::naked_asm!(
                prologue!(),
                concat!("sub rsp, 16*", $width),
                "and rsp, -64",
                ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                concat!($mov, " [rsp + ", $width, "*\\n], ", $reg, "\\n"),
                ".endr",
                "mov rdi, rbx",
                "call {call}",
                ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                concat!($mov, " ", $reg, "\\n, [rsp + ", $width, "*\\n]"),
                ".endr",
                epilogue!(),
                call = sym call,
            )
        }
    };
}
entry_by_moves!(entry_xmm, "movaps", "xmm", "16");
entry_by_moves!(entry_ymm, "vmovaps", "ymm", "32");

/// In: eax = number, argument registers as for the system call, rcx = address to return to.
#[unsafe(naked)]
unsafe extern "C" fn entry_all() {
    std::arch::naked_asm!(
        prologue!(),
        "mov eax, dword ptr [rip + {len}]",
        "sub rsp, rax",
        "and rsp, -64",
        "mov ecx, dword ptr [rip + {kind}]",
        "mov eax, dword ptr [rip + {mask}]",
        "xor edx, edx",
        "test ecx, ecx",
        "jz 2f",
        // The header must hold zeros where the save instructions leave it alone.
        ".irp at, 512,520,528,536,544,552,560,568",
        "mov qword ptr [rsp + \\at], rdx",
        ".endr",
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
        "5:",
        epilogue!(),
        kind = sym XSAVE_KIND,
        mask = sym XSAVE_MASK,
        len = sym XSAVE_LEN,
        call = sym call,
    )
}

/// Address of the entry for a site whose object uses `vectors`.
pub(crate) fn address(vectors: Vectors) -> usize {
    let entry = match vectors {
        Vectors::Xmm => entry_xmm,
        Vectors::Ymm if HAS_AVX.load(Relaxed) => entry_ymm,
        Vectors::Ymm | Vectors::All => entry_all as unsafe extern "C" fn(),
    };
    entry as *const () as usize
}

/// The Rust side of the entries.
unsafe extern "C" fn call(call: *mut Call) {
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
    HAS_AVX.store(mask & (1 << 2) != 0, Relaxed);
    XSAVE_MASK.store(mask, Relaxed);
    XSAVE_LEN.store(len.next_multiple_of(64), Relaxed);
    XSAVE_KIND.store(if xsavec { 2 } else { 1 }, Relaxed);
}
