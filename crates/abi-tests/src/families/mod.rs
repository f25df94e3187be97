//! The cases, one file per family.

use crate::case::Family;

pub mod cancel;
pub mod enter;
pub mod links;
pub mod memory;
pub mod poll;
pub mod queues;
pub mod rw;
pub mod setup;
pub mod timeout;

/// All families, in the order they are run.
pub const FAMILIES: &[Family] = &[
    setup::FAMILY,
    memory::FAMILY,
    enter::FAMILY,
    queues::FAMILY,
    links::FAMILY,
    rw::FAMILY,
    poll::FAMILY,
    timeout::FAMILY,
    cancel::FAMILY,
];
