//! What one part of the work did, and the error of a part whose result differs.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

/// What one part of the work did. Printed as one JSON object a line by the demo program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// What was done, in words.
    pub work: String,
    /// What was compared and found equal, in words.
    pub checked: String,
    /// Payload bytes that passed through the ring, both directions.
    pub bytes: u64,
    pub seconds: f64,
    /// Finished requests by operation code. A multishot request counts once.
    pub requests: BTreeMap<u8, u64>,
}

impl Part {
    /// Finished requests of all operation codes.
    pub fn total_requests(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// An error that says which comparison failed.
pub(crate) fn differs(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}
