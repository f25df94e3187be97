//! soloring: iowq.
