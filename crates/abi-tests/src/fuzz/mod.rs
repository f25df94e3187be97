//! Differential fuzzing: the same bad input to the kernel's ring and to ours, and what each says.
//!
//! Every part makes its input from a seed and its own things only, so that a seed tells the same story twice
//! and on both sides: [`entries`] (submission entries of all kinds, in chains;
//! run by [`runs`]), [`calls`] (setup and enter),
//! [`registers`], [`words`] (garbage in the words that a ring shares).

pub mod calls;
pub mod entries;
pub mod excused;
pub mod kinds;
pub mod meddle;
pub mod mismatch;
pub mod numbers;
pub mod pages;
pub mod registers;
pub mod runs;
pub mod words;
pub mod world;

use crate::backend::Abi;
use mismatch::Mismatch;

/// A part of the fuzzer: for a seed, what the kernel says beside what we say where it is not the same.
pub type Part = fn(&Abi, u64) -> Vec<Mismatch>;

/// The parts by name.
pub const PARTS: &[(&str, Part)] = &[
    ("entries", runs::mismatches),
    ("setup", calls::setup_mismatches),
    ("enter", calls::enter_mismatches),
    ("register", registers::mismatches),
    ("words", words::mismatches),
];
