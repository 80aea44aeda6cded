//! What `chaos-common` promises, without a kernel: layouts, lookup, parser, statistics, life.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod bench;
mod bursts;
#[expect(unreachable_pub, reason = "a library for the fuzz targets")]
#[path = "../fuzz/src/checks.rs"]
mod checks;
mod connect;
mod corpus;
mod dist;
mod dns;
mod gate;
mod grammar;
mod inert;
mod late;
mod layout;
mod life;
mod limits;
mod lookup;
mod loopback;
mod parse;
mod passed;
mod profile;
mod rate;
mod sample;
mod shares;
mod statistics;
mod support;
mod threads;
mod units;
mod wire;
