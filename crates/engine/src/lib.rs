//! The io_uring engine: setup, enter, register, requests, operations.
//!
//! Files are layered; each may import only from those before it in this list.

mod sys;
mod usercopy;
mod childinfo;
mod futexwait;
mod fds;
mod timers;
mod cq;
mod resources;
mod opdata;
mod kbuf;
mod req;
mod index;
mod slab;
mod watch;
mod shared;
mod direct;
mod state;
mod filetable;
mod sqthread;
mod ctx;
mod procs;
mod registry;
mod closes;
mod complete;
mod notify;
mod deliver;
mod arm;
mod cancel;
mod exit;
mod ops;
mod optable;
mod punt;
mod issue;
mod submit;
mod taskwork;
mod reactor;
mod fork;
mod wait;
mod sqpoll;
mod setup;
mod enter;
mod register;
mod ringfds;
mod clone;
pub mod uapi;
