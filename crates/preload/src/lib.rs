//! soloring: preload.
