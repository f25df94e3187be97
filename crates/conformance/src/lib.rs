//! soloring: conformance.
