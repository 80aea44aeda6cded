//! Holds a set of faults: arms it, keeps it alive, follows targets, takes it down.
