//! HTTP requests to customers: fetching documents and sending callbacks, both signed. All of them
//! use `egress`.
//!
//! `params` encodes parameters, `sign` signs them, `fragment` parses a URL's own settings, and
//! `request` makes the attempts. `fetch` fetches a document within one deadline; `notify` delivers
//! callbacks at the times of `schedule`. This module parses no documents and knows no state of
//! calls.

mod fetch;
mod fragment;
mod hops;
mod notify;
mod params;
mod random;
mod request;
mod schedule;
mod settings;
mod sign;
#[cfg(test)]
mod tests;

pub use fetch::{DocumentBody, FetchJob, Fetcher, Validity, charset};
pub use fragment::{RetryOn, Settings};
pub use hops::{Hop, Hops, Sent, Watch, beginning};
pub use notify::{AT_ONCE_PER_HOST, CallbackJob, CallbackOutcome, Delivery, Notifier};
pub use random::RandomSource;
pub use schedule::{GIVE_UP_AFTER, PAUSE_MAX, next_pause, retry_after};
pub use settings::AnswerSettings;
pub use sign::{EVENT_SIGNATURE, SigningKeys, sign, sign_event};
