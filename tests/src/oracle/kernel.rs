//! The kernel's side.
