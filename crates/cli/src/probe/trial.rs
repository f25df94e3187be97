//! One trial on one side: a ring made for it, and the answer.
#![allow(unsafe_code)]

use std::mem::zeroed;

use soloring_abi::Params;

use crate::backend::Backend;

/// The answer to one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// Refused with this error number.
    No(i32),
}

impl Answer {
    /// From the result of a raw call: `>= 0` or `-errno`.
    pub fn of(result: isize) -> Answer {
        if result >= 0 { Answer::Yes } else { Answer::No(-result as i32) }
    }
}

/// A ring that closes itself.
pub struct Ring<B: Backend> {
    pub backend: B,
    pub fd: u32,
    pub params: Params,
}

impl<B: Backend> Drop for Ring<B> {
    fn drop(&mut self) {
        self.backend.close(self.fd as i32);
    }
}

impl<B: Backend> Ring<B> {
    /// Makes a ring of 8 entries.
    pub fn open(backend: B, flags: u32) -> Result<Ring<B>, i32> {
        // SAFETY: all-zero bytes are valid parameters.
        let mut params: Params = unsafe { zeroed() };
        params.flags = flags;
        // SAFETY: `params` is a local; none of the callers' flags makes it point anywhere.
        match unsafe { backend.setup(8, &mut params) } {
            fd if fd >= 0 => Ok(Ring { backend, fd: fd as u32, params }),
            error => Err(-error as i32),
        }
    }

    /// A register call with a structure, which the call may change, as its argument.
    pub fn register<T>(&self, opcode: u32, arg: &mut T, nr: u32) -> isize {
        let arg: *mut T = arg;
        // SAFETY: the callers in `register` and `enter` pass what the opcode asks for; the pointers
        // in it are to locals, to leaked pages, or wrong on purpose, which the call has to bear.
        unsafe { self.backend.register(self.fd, opcode, arg.cast(), nr) }
    }

    /// A register call whose count is its argument's size in bytes.
    pub fn register_sized<T>(&self, opcode: u32, arg: &mut T) -> isize {
        self.register(opcode, arg, size_of::<T>() as u32)
    }

    /// A register call without argument.
    pub fn register_nothing(&self, opcode: u32, nr: u32) -> isize {
        // SAFETY: a null argument.
        unsafe { self.backend.register(self.fd, opcode, std::ptr::null_mut(), nr) }
    }
}
