//! Runs a command in a transient cgroup as the invoking user.
