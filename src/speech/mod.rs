//! Text and files to frames: providers behind one small trait, and the library of ready prompts.
//!
//! The way of a prompt: [`library`] is asked for a sound and gives a prompt at once; behind it a document's text
//! becomes a [`script`], a provider ([`builtin`], [`openai`], [`espeak`]) or a decoder ([`file`]) makes PCM of
//! it, and [`frames`] makes that into Opus. Knows nothing of calls; what it fetches comes through
//! [`library::FileFetch`].

pub mod builtin;
pub mod config;
mod file;
mod frames;
pub mod helper;
pub mod language;
mod markup;
pub mod provider;
mod resample;
mod say_as;
pub mod script;
mod voices;
mod wav;
