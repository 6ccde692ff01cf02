//! Text to speech, speech to text, and the library of prompts.
//!
//! [`library`] returns a prompt for a sound immediately and fills it in the background: the text of
//! a document becomes a [`script`], a provider ([`builtin`], [`openai`], [`espeak`]) or a decoder
//! (`file`) produces PCM, and `prompt_builder` encodes it as Opus frames. [`recognise`] converts
//! speech to text. The crate is independent of calls. Files are fetched through
//! [`library::FileFetch`].

// Input from outside must not make the process panic. Each exception carries an `allow` with a
// reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]
#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

pub mod builtin;
mod cache;
pub mod catalogue;
pub mod config;
mod confine;
mod disk_cache;
pub mod espeak;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
mod file;
mod file_stream;
pub mod helper;
pub mod http;
mod kokoro;
mod kokoro_provider;
pub mod language;
pub mod library;
mod limiter;
mod loop_join;
mod markup;
pub mod memory;
pub mod model_manager;
pub mod models;
#[allow(unsafe_code, reason = "maps files")]
mod neural;
mod neural_provider;
mod normalise;
pub mod openai;
#[allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "lengths come from C and are checked"
)]
mod pico;
mod prompt_builder;
mod protobuf;
pub mod provider;
pub mod recognise;
mod resample;
mod say_as;
pub mod script;
mod sentences;
mod speech_detector;
mod subprocess;
mod turn;
pub mod turn_estimator;
mod voices;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
mod wav;
mod whisper;
mod writing_system;

/// Converts a sample, clamping values beyond full scale. NaN becomes silence.
#[allow(clippy::as_conversions, reason = "`as` does just that")]
fn clamp_to_i16(sample: f32) -> i16 {
    sample as i16
}

/// Decodes a file as `Play` does and returns the number of 20 ms frames with the outcome. For
/// fuzzing.
#[doc(hidden)]
pub fn decode_file(bytes: &[u8]) -> (usize, Result<(), String>) {
    let (_prompt, writer) = media::prompt::Prompt::new();
    let mut builder = prompt_builder::PromptBuilder::new(writer);
    let outcome = file::decode(&bytes::Bytes::copy_from_slice(bytes), &mut builder);
    (builder.frames(), outcome.map_err(|e| e.to_string()))
}

/// Reports why a test was skipped.
///
/// # Panics
///
/// Panics if `OFFHOOK_TEST_REQUIRE` lists what the test needs.
#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn report_skipped(needed: &str, reason: &str) {
    let required = std::env::var("OFFHOOK_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split_whitespace().any(|name| name == needed), "{needed} is required here");
    eprintln!("skipped: {reason}");
}
