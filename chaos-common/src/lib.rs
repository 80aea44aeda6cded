//! What the kernel program and the agent must agree on, and every decision about a packet.
//!
//! `chaos-common` decides, `chaos-ebpf` acts, `chaos-agent` commands. The same code runs in the
//! kernel and on the host, therefore this crate has rules of its own:
//!
//! - `no_std`, no I/O, no clock, no randomness except through [`env::Env`];
//! - no float, no `u128`, no signed 64-bit division, no index that can panic, no arithmetic that
//!   can overflow unnoticed: the eBPF linker or the kernel's verifier refuses them;
//! - a zeroed value of any type here means "off": array maps always return an element.
//!
//! Feature `user` adds what only the host needs: human units, the rule compiler, `aya::Pod`.
#![cfg_attr(not(any(feature = "user", test)), no_std)]
#![deny(clippy::float_arithmetic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod abi;
#[cfg(feature = "user")]
pub mod compile;
pub mod connect;
pub mod dist;
pub mod dns;
pub mod env;
pub mod fault;
pub mod gate;
#[cfg(feature = "user")]
pub mod host;
pub mod job;
pub mod judge;
mod life;
pub mod lookup;
mod mask;
pub mod packet;
pub mod passed;
#[cfg(feature = "user")]
pub mod profile;
pub mod protect;
pub mod sample;
pub mod segment;
#[cfg(feature = "user")]
pub mod units;
pub mod verdict;
pub mod wish;
pub mod world;
