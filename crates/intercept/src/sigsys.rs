//! The SIGSYS handler: carries out the system call that the filter stopped and returns its result.
#![allow(unsafe_code)]

use crate::sigaction::{self, KernelAction, SIGSYS_BIT};
use crate::{dispatch, filter, patch, raw, stack};
use libc::{c_int, c_void, ucontext_t};
use syscalls::Sysno;

const SYS_SECCOMP: i32 = 1;
const SA_RESTORER: u64 = 0x0400_0000;

// The return from a signal handler. The exact encoding matters: unwinders and debuggers know a signal
// frame by these bytes.
std::arch::global_asm!(
    ".pushsection .text.soloring_restorer,\"ax\",@progbits",
    ".p2align 4",
    "nop",
    ".globl soloring_restorer",
    ".hidden soloring_restorer",
    ".type soloring_restorer,@function",
    "soloring_restorer:",
    ".byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00", // mov $__NR_rt_sigreturn, %rax
    "syscall",
    ".size soloring_restorer, . - soloring_restorer",
    ".popsection",
);
unsafe extern "C" {
    fn soloring_restorer();
}

/// The head of `siginfo_t` as a seccomp stop fills it.
#[repr(C)]
struct Stop {
    signo: i32,
    /// `SECCOMP_RET_DATA` of the filter that stopped the call.
    data: i32,
    code: i32,
    _pad: i32,
    call_addr: usize,
    syscall: i32,
    arch: u32,
}

/// Makes our handler the action of SIGSYS and unblocks the signal on the calling thread.
///
/// The program's own action, if it has one already, is kept for signals that are not ours.
pub(crate) fn install() -> isize {
    let mut before = KernelAction::default();
    let args = [libc::SIGSYS as usize, 0, &raw mut before as usize, 8, 0];
    // SAFETY: only asks; the kernel writes one kernel sigaction.
    let ret = unsafe { raw::marked(Sysno::rt_sigaction, args) };
    if ret < 0 {
        return ret;
    }
    let handler = on_sigsys as *const () as usize;
    if before.handler == handler {
        return 0;
    }
    sigaction::set_program_action(before);
    // No SA_ONSTACK: a handler that blocks for long on the program's alternate stack would share it
    // with every other handler of the program. SA_NODEFER and an empty mask: while we wait in
    // io_uring_enter, the program's signals and nested stops must come through as in the kernel.
    let action = KernelAction {
        handler,
        flags: (libc::SA_SIGINFO | libc::SA_NODEFER) as u64 | SA_RESTORER,
        restorer: soloring_restorer as *const () as usize,
        mask: 0,
    };
    let ret = sigaction::set_real(&action);
    sigaction::change_mask(libc::SIG_UNBLOCK, SIGSYS_BIT);
    ret
}

unsafe extern "C" fn on_sigsys(sig: c_int, info: *mut Stop, context: *mut c_void) {
    // SAFETY: errno's address is valid for the life of the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the interrupted code must find errno as it was.
    let saved = unsafe { *errno };
    // SAFETY: the kernel passes a complete siginfo to an SA_SIGINFO handler.
    let ours = unsafe { (*info).code == SYS_SECCOMP && (*info).data == i32::from(filter::MAGIC) };
    if ours {
        // SAFETY: the kernel passes the interrupted context, writable for the handler's duration.
        unsafe { carry_out(info, context.cast()) };
    } else {
        // SAFETY: the same arguments, as the kernel passed them.
        unsafe { forward(sig, info, context) };
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

unsafe fn carry_out(info: *mut Stop, context: *mut ucontext_t) {
    // SAFETY: the caller passes the kernel's context of the stopped call.
    let regs = unsafe { &mut (*context).uc_mcontext.gregs };
    let reg = |r: c_int| regs[r as usize] as usize;
    let mut call = stack::Call {
        // SAFETY: the caller passes the kernel's siginfo.
        nr: unsafe { (*info).syscall } as usize,
        args: [
            reg(libc::REG_RDI),
            reg(libc::REG_RSI),
            reg(libc::REG_RDX),
            reg(libc::REG_R10),
            reg(libc::REG_R8),
            reg(libc::REG_R9),
        ],
        ret: 0,
        stopped_at: reg(libc::REG_RIP),
    };
    // SAFETY: registers of the program's own system call.
    unsafe { stack::run(&mut call, work) };
    regs[libc::REG_RAX as usize] = call.ret as i64;
}

/// The call, and then a try to spare its site the next stop.
unsafe extern "C" fn work(call: *mut stack::Call) {
    // SAFETY: `stack::run` passes the live call from `carry_out`.
    unsafe {
        dispatch::work(call);
        if dispatch::catches((*call).nr) {
            patch::after_stop((*call).stopped_at);
        }
    }
}

/// A SIGSYS that is not ours: what the program asked for, or the default, which is death.
unsafe fn forward(sig: c_int, info: *mut Stop, context: *mut c_void) {
    let action = sigaction::program_action();
    // SAFETY: the caller passes the kernel's siginfo.
    let forced = unsafe { (*info).code == SYS_SECCOMP };
    match action.handler {
        libc::SIG_IGN if !forced => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            sigaction::set_real(&KernelAction {
                handler: libc::SIG_DFL,
                flags: SA_RESTORER,
                restorer: soloring_restorer as *const () as usize,
                mask: 0,
            });
            // SAFETY: sends this thread the signal whose action is now the default; does not return.
            unsafe {
                let tid = raw::any(Sysno::gettid.id() as usize, [0; 6]) as usize;
                let args = [raw::getpid() as usize, tid, sig as usize, 0, 0, 0];
                raw::any(Sysno::tgkill.id() as usize, args);
            }
        }
        handler => {
            if action.flags & libc::SA_RESETHAND as u32 as u64 != 0 {
                sigaction::set_program_action(KernelAction::default());
            }
            let before = sigaction::change_mask(libc::SIG_BLOCK, action.mask & !SIGSYS_BIT);
            // SAFETY: the program installed this address as a handler of this signature, and both
            // signatures may be called with three arguments.
            unsafe {
                let handler: unsafe extern "C" fn(c_int, *mut Stop, *mut c_void) =
                    std::mem::transmute(handler);
                handler(sig, info, context);
            }
            sigaction::change_mask(libc::SIG_SETMASK, before);
        }
    }
}
