//! The guard: a process that outlives us only to delete what we made.
