//! What the larger operations keep of their SQE: the boxed parts of `AsyncData`.

use std::ffi::CString;

/// SETXATTR and its relatives.
#[derive(Debug)]
pub struct XattrData {
    /// Empty for the operations on a descriptor.
    pub path: CString,
    pub name: CString,
    /// Only of the setting ones.
    pub value: Vec<u8>,
}
