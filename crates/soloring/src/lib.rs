//! soloring: soloring.
