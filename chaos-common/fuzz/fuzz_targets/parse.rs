//! The parser on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chaos_common_fuzz::parse(bytes));
