//! Rules and packets from any bytes: tables against the plain scan.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chaos_common_fuzz::lookup(bytes));
