//! The rules of the house, as functions over the tree. Each returns what breaks it, one line apiece.
//!
//! `tests/tidy.rs` applies them to this repository. Every rule here has a test of its own that shows it
//! failing: a rule that cannot fail is worse than none.

pub mod cycles;
pub mod docs;
pub mod imports;
pub mod layers;
pub mod modules;
pub mod text;
pub mod tokens;
pub mod tree;
