//! One word of thread-local memory: the calling thread's token.
//!
//! On x86-64 it is read with two plain instructions in every kind of binary (the initial-exec model).
//! What the compiler makes of `thread_local!` inside a shared object is a call into the dynamic
//! loader, which may allocate at a thread's first use: not on the owner's path, and not in a
//! signal handler of an arbitrary program.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod word {
    use std::arch::{asm, global_asm};

    /// Not visible outside the binary. The crate's name is in it because the models compile this file
    /// as well.
    macro_rules! symbol {
        () => {
            concat!("soloring_thread_token_of_", env!("CARGO_CRATE_NAME"))
        };
    }

    global_asm!(concat!(
        ".pushsection .tbss.",
        symbol!(),
        ",\"awT\",@nobits\n.p2align 3\n.globl ",
        symbol!(),
        "\n.hidden ",
        symbol!(),
        "\n.type ",
        symbol!(),
        ",@object\n.size ",
        symbol!(),
        ", 8\n",
        symbol!(),
        ":\n.zero 8\n.popsection"
    ));

    #[inline(always)]
    pub(crate) fn get() -> u64 {
        let word: u64;
        // SAFETY: reads this thread's copy of the word above, whose offset from the thread pointer the
        // loader has put into the table. Only this thread writes it.
        unsafe {
            asm!(
                concat!("mov {word}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "mov {word}, qword ptr fs:[{word}]",
                word = out(reg) word,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        word
    }

    pub(crate) fn set(word: u64) {
        // SAFETY: as in `get`; the write is this thread's own.
        unsafe {
            asm!(
                concat!("mov {offset}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "mov qword ptr fs:[{offset}], {word}",
                offset = out(reg) _,
                word = in(reg) word,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod word {
    use std::cell::Cell;

    thread_local! {
        /// No destructor: there in every phase of a thread's life.
        static WORD: Cell<u64> = const { Cell::new(0) };
    }

    #[inline(always)]
    pub(crate) fn get() -> u64 {
        WORD.get()
    }

    pub(crate) fn set(word: u64) {
        WORD.set(word);
    }
}

pub(crate) use word::{get, set};
