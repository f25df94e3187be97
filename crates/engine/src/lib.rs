//! soloring: engine.
