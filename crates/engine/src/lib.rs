//! The io_uring engine: setup, enter, register, requests, operations.

pub mod uapi;
