//! Namespaces, netlink, targets, flows and probes against the running kernel.
//!
//! One binary, because linking five would cost more than running them. Tests that need root say so and pass
//! when it is missing; everything they make lies in namespaces and cgroups of their own, which they remove.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod doctor;
mod flows;
mod line;
mod net;
mod netns;
mod support;
mod targets;
