//! Any bytes as the body of a fault. Names of hosts in it are looked up: run it without a network.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chaos_agent::fuzz_body(bytes));
