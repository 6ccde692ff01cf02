//! Limits the resources that clients use before they are authenticated: connections, requests, bytes
//! of bodies, WebSockets and failed sign-ins.
//!
//! Clients are counted by network: an IPv4 address or an IPv6 /64. A [`Pool`] has no fixed shares.
//! When it is full, the oldest unauthenticated claim of the network with the most claims is
//! evicted, so that one network can't displace others, and a short request always succeeds.
//! [`RequestRates`] limits the requests that the processors work on.
//! [`Failures`] limits guesses of passwords. [`Offenders`] counts refusals and logs the networks.
//! [`Shares`] limits the shares of each authenticated account or user.

mod failures;
mod offenders;
mod pool;
mod requests;
mod shares;

pub use failures::{Attempt, FailureChanges, Failures, Guess, Origin, Refusal};
pub use offenders::{Offenders, Resource};
pub use pool::{Claim, Pool, RequestClaims, RequestShare};
pub use requests::{RequestRate, RequestRates};
pub use shares::{Share, Shares};
