//! Finding cgroup v2 and its directories.
