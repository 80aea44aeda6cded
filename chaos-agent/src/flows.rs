//! Who talks to whom now.
