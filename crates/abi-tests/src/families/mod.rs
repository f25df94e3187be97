//! The cases, one file per family.

use crate::case::Family;

pub mod enter;
pub mod memory;
pub mod queues;
pub mod rw;
pub mod setup;

/// All families, in the order they are run.
pub const FAMILIES: &[Family] =
    &[setup::FAMILY, memory::FAMILY, enter::FAMILY, queues::FAMILY, rw::FAMILY];
