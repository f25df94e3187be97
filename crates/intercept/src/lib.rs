//! soloring: intercept.
