//! The whole binary over HTTP and UDP, as the world meets it. What a test needs that a machine may lack
//! (Chromium, aiortc) is skipped with a printed reason where it is absent.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod agents;
mod agents_write;
mod answer;
mod cli;
mod conference;
mod console;
mod console_flows;
mod console_look;
mod control;
mod copies;
mod crash;
mod dial;
mod doctor;
mod doors;
mod erasure;
mod faults;
mod first_call;
mod interop;
mod leaks;
mod load;
mod messages;
mod metrics;
mod mpc;
mod notifications;
mod numbers;
mod ops;
#[cfg(feature = "otel")]
mod otel;
mod outbound;
mod overload;
mod permissions;
mod phone;
mod recognise;
mod record;
mod reload;
mod requests;
mod rest;
mod routing;
mod sdk;
mod sound;
mod speech;
mod strangers;
mod stream;
mod support;
mod trace;
mod transcripts;
mod walk;
mod web;
