#![no_main]
#![allow(dead_code, reason = "the other formats' targets")]

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::recogniser(bytes));
