//! Tests that need a kernel, and the harness they share: packets, namespaces, measurements,
//! snapshots of the machine, and the `chaos` command under test.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

pub mod api;
pub mod bench;
pub mod chaos;
pub mod dns;
pub mod foreign;
pub mod lab;
pub mod measure;
pub mod metrics;
pub mod monitoring;
pub mod oracle;
pub mod packet;
pub mod progrun;
pub mod redis;
pub mod skip;
pub mod snapshot;
