//! One word of thread-local memory, read with two instructions in every kind of binary.
//!
//! What the compiler makes of `thread_local!` inside a shared object is a call into the dynamic loader, which
//! may allocate at a thread's first use: not on a path that counts instructions, and not in a signal handler of
//! an arbitrary program. On x86-64 the word is therefore declared in assembly, by the initial-exec model.
#![allow(unsafe_code)]

/// Declares a module with `get() -> u64` and `set(u64)` for a word that each thread has its own copy of, 0 at
/// first. There is no destructor: it is there in every phase of a thread's life.
///
/// The module's name must be the only such in the crate.
#[macro_export]
macro_rules! thread_word {
    ($(#[$doc:meta])* $vis:vis mod $name:ident) => {
        #[cfg(target_arch = "x86_64")]
        $(#[$doc])*
        #[allow(unsafe_code)]
        $vis mod $name {
            /// Not visible outside the binary. The crate's name is in it, as one binary may hold many.
            macro_rules! symbol {
                () => {
                    concat!("soloring_", stringify!($name), "_of_", env!("CARGO_CRATE_NAME"))
                };
            }

            std::arch::global_asm!(concat!(
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
                    std::arch::asm!(
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
                    std::arch::asm!(
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
        $(#[$doc])*
        $vis mod $name {
            std::thread_local! {
                static WORD: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
            }

            #[inline(always)]
            pub(crate) fn get() -> u64 {
                WORD.get()
            }

            pub(crate) fn set(word: u64) {
                WORD.set(word);
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::thread_word!(mod word_of_the_test);

    #[test]
    fn each_thread_has_its_own() {
        use word_of_the_test::{get, set};
        assert_eq!(get(), 0);
        set(7);
        std::thread::spawn(|| {
            assert_eq!(get(), 0);
            set(8);
            assert_eq!(get(), 8);
        })
        .join()
        .unwrap();
        assert_eq!(get(), 7);
    }
}
