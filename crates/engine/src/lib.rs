//! The io_uring engine: setup, enter, register, requests, operations.
//!
//! Files are layered; each may import only from those before it in this list.

mod arm;
mod cancel;
mod complete;
mod cq;
mod ctx;
mod enter;
mod exit;
mod fds;
mod fork;
mod index;
mod issue;
mod notify;
mod ops;
mod optable;
mod procs;
mod punt;
mod reactor;
mod register;
mod registry;
mod req;
mod resources;
mod ringfds;
mod setup;
mod shared;
mod slab;
mod state;
mod submit;
mod sys;
mod taskwork;
mod timers;
pub mod uapi;
mod usercopy;
mod wait;
