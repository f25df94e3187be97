//! The io_uring engine: setup, enter, register, requests, operations.
//!
//! Files are layered; each may import only from those before it in this list.

mod sys;
mod usercopy;
mod fds;
mod resources;
mod req;
mod timers;
mod slab;
mod index;
mod cq;
mod shared;
mod state;
mod complete;
mod notify;
mod cancel;
mod ops;
mod optable;
mod arm;
mod punt;
mod issue;
mod submit;
mod taskwork;
mod ctx;
mod registry;
mod reactor;
mod wait;
mod exit;
mod enter;
mod register;
mod ringfds;
mod setup;
pub mod uapi;
