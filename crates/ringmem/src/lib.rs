//! Shared ring memory: layout, SQ consumption, CQ publication.
//!
//! The only place that makes atomics out of memory shared with the program. Contract:
//! - there is never a `&` or `&mut` into it; entries are copied out (SQEs) or in (CQEs) word by word;
//! - every index is masked here, so whatever the program writes into heads, tails or the index array,
//!   no access leaves the region;
//! - the engine's own mapping is separate from the program's: the program may unmap its own at any time.

mod bufring;
mod calls;
mod layout;
mod map;
mod resize;
mod rings;

pub use bufring::{BUF_ENTRY_BYTES, BUF_TAIL_AT, BufEntry, BufRingMem};
pub use layout::{CqeSize, Layout, SqeSize};
pub use map::{Mapping, NoMmap, OFF_CQ_RING, OFF_SQ_RING, OFF_SQES};
pub use rings::Rings;
