//! What the fuzzer finds: one difference between the two sides.

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// What is the same for all differences of a kind.
    pub kind: String,
    /// The input, in words.
    pub input: String,
}
