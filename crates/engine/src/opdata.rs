//! What the larger operations keep of their SQE: the boxed parts of `AsyncData`.

use crate::fds;
use crate::resources::FixedFile;
use std::ffi::CString;
use std::sync::Arc;

/// A private descriptor, closed with its owner.
#[derive(Debug)]
pub struct Own(pub i32);

impl Drop for Own {
    fn drop(&mut self) {
        fds::close_private(self.0);
    }
}

/// The file that SPLICE and TEE read from.
#[derive(Debug)]
pub enum Input {
    Own(Own),
    Fixed(Arc<FixedFile>),
}

impl Input {
    pub fn fd(&self) -> i32 {
        match self {
            Input::Own(own) => own.0,
            Input::Fixed(file) => file.fd,
        }
    }
}

/// SETXATTR and its relatives.
#[derive(Debug)]
pub struct XattrData {
    /// Empty for the operations on a descriptor.
    pub path: CString,
    pub name: CString,
    /// Only of the setting ones.
    pub value: Vec<u8>,
}
