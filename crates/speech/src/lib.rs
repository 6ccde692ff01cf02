//! Text and files to frames, and sound to text: providers behind two small traits, and the library of ready prompts.
//!
//! The way of a prompt: [`library`] is asked for a sound and gives a prompt at once; behind it a document's text
//! becomes a [`script`], a provider ([`builtin`], [`openai`], [`espeak`]) or a decoder (`file`) makes PCM of
//! it, and `frames` makes that into Opus. The way back is [`recognise`]. Knows nothing of calls; what it fetches comes through
//! [`library::FileFetch`].

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
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
mod coming;
pub mod config;
pub mod espeak;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
mod file;
mod frames;
pub mod helper;
pub mod http;
pub mod language;
pub mod library;
mod limiter;
mod looped;
mod markup;
pub mod openai;
#[allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "lengths come from C and are checked"
)]
mod pico;
mod program;
pub mod provider;
pub mod recognise;
mod resample;
mod say_as;
pub mod script;
mod shelf;
mod voices;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
mod wav;
mod writing;

/// A sample; what is over full scale is cut, what is no number is silence.
#[allow(clippy::as_conversions, reason = "`as` does just that")]
fn cut_to_i16(sample: f32) -> i16 {
    sample as i16
}

/// Decodes a file as `<Play>` would: how many frames of 20 ms there are in it, and how that ended. For fuzzing (R25).
#[doc(hidden)]
pub fn decode_file(bytes: &[u8]) -> (usize, Result<(), String>) {
    let (_prompt, writer) = media::prompt::Prompt::new();
    let mut maker = frames::FrameMaker::new(writer);
    let outcome = file::decode(&bytes::Bytes::copy_from_slice(bytes), &mut maker);
    (maker.frames(), outcome.map_err(|e| e.to_string()))
}

/// Says why a test did not run.
#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
