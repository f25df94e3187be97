//! What the fuzzer finds: one difference between the two sides.

/// What came of one batch, in words that can be compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Per entry, its completions; and what else is compared.
    pub parts: Vec<(String, String)>,
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// What is the same for all differences of a kind.
    pub kind: String,
    /// The input, in words.
    pub input: String,
    /// Why it is none that anybody has to look at: the name of the exception.
    pub excuse: Option<&'static str>,
}

impl Mismatch {
    pub fn new(kind: String, input: String) -> Mismatch {
        Mismatch { kind, input, excuse: None }
    }
}
