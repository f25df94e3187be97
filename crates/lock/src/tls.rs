//! The calling thread's token, in a word of thread-local memory.

soloring_tls::thread_word!(mod token_word);

pub(crate) use token_word::{get, set};
