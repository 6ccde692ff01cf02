//! The application's URLs: fetch a document, send a callback, sign both. Goes out through `egress` only.
//!
//! `params` puts parameters on the wire, `sign` signs them, `fragment` reads a URL's own settings, `ask` makes
//! the attempts; `fetch` waits for a document within one deadline, `notify` sends what nobody waits for, by the
//! times of `schedule`. Parses no document and knows no call's state.

mod ask;
mod dice;
mod fetch;
mod fragment;
mod hops;
mod notify;
mod params;
mod schedule;
mod settings;
mod sign;
#[cfg(test)]
mod tests;

pub use dice::Dice;
pub use fetch::{DocumentBody, FetchJob, Fetcher, Validity, charset};
pub use fragment::{RetryOn, Settings};
pub use hops::{Hop, Hops, Sent, Watch};
pub use notify::{AT_ONCE_PER_HOST, Delivery, NoticeJob, NoticeOutcome, Notifier};
pub use schedule::{GIVE_UP_AFTER, next_pause, retry_after};
pub use settings::AnswerSettings;
pub use sign::{EVENT_SIGNATURE, SigningKeys, sign, sign_event};
