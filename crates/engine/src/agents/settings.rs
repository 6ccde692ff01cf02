//! `[model]`: the operator's language model.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota};
use url::Url;

use model::{AuthId, Clock, Secret};
use store::{RequestCount, RequestTarget, Store};

const DAY: Duration = Duration::from_secs(86_400);

/// `[model]`: an OpenAI-compatible server of the operator. Insights use it, and agents that name
/// no endpoint of their own.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// The base URL; requests go to `chat/completions` below it.
    pub url: Url,
    pub api_key: Option<Secret>,
    /// The name of the model on that server.
    pub name: String,
    /// Other models on that server that agents may use. The operator pays for them.
    pub allowed: Vec<String>,
    /// Requests of a main account and its subaccounts in any 24 hours.
    pub requests_per_day: NonZeroU32,
}

/// The operator's model and the remaining requests of each account. All nodes count them in the
/// store. A node also counts its own in memory, because it may take several before they are stored.
pub(super) struct SharedModel {
    pub(super) settings: ModelSettings,
    used: DefaultKeyedRateLimiter<AuthId>,
    store: Store,
    clock: Clock,
}

impl SharedModel {
    pub(super) fn new(settings: ModelSettings, store: Store, clock: Clock) -> Self {
        let per_day = settings.requests_per_day;
        let quota = Quota::with_period(DAY / per_day.get())
            .unwrap_or(Quota::per_second(per_day))
            .allow_burst(per_day);
        Self { settings, used: DefaultKeyedRateLimiter::keyed(quota), store, clock }
    }

    /// Returns the model for an agent: the one it names, or the default. `None` if agents may not
    /// use the named one.
    pub(super) fn choose<'a>(&'a self, named: Option<&'a str>) -> Option<&'a str> {
        let Some(named) = named else { return Some(&self.settings.name) };
        self.names().find(|known| *known == named)
    }

    /// The models that agents may use, the default first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let more = self.settings.allowed.iter().map(String::as_str);
        std::iter::once(self.settings.name.as_str()).chain(more)
    }

    /// Takes one of the main account's requests. Returns `false` if none is left. While the store
    /// can't be read, only the requests of this process count.
    pub(super) async fn take_request(&self, main_account: &AuthId) -> bool {
        if self.used.check_key(main_account).is_err() {
            return false;
        }
        let (store, now) = (self.store.clone(), self.clock.wall());
        let (target, kind) = (RequestTarget::Model, main_account.to_string());
        let used = store.request_counts().since(target, &kind, now.minus(DAY)).await;
        let is_left = match used {
            Ok(used) => used < u64::from(self.settings.requests_per_day.get()),
            Err(error) => {
                tracing::warn!(%error, "requests to the node's model not read");
                true
            }
        };
        if is_left {
            let count =
                RequestCount { target, kind, outcome: String::new(), failed: false, requests: 1 };
            // The request does not wait for a slow store.
            tokio::spawn(async move {
                if let Err(error) = store.request_counts().add(now, vec![count]).await {
                    tracing::warn!(%error, "request to the node's model not stored");
                }
            });
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Health, Timestamp};

    #[tokio::test]
    async fn agents_use_listed_models_and_each_account_has_its_own_budget() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let settings = ModelSettings {
            url: Url::parse("http://127.0.0.1/v1").unwrap(),
            api_key: None,
            name: "small".to_owned(),
            allowed: vec!["large".to_owned()],
            requests_per_day: NonZeroU32::new(2).unwrap(),
        };
        let clock = Clock::stepped(Timestamp::from_secs(1_000_000));
        let new = || SharedModel::new(settings.clone(), store.clone(), clock.clone());
        let model = new();
        for (named, chosen) in [
            (None, Some("small")),
            (Some("small"), Some("small")),
            (Some("large"), Some("large")),
            (Some("huge"), None),
        ] {
            assert_eq!(model.choose(named), chosen);
        }
        let (one, two): (AuthId, AuthId) = ("MA1".into(), "MA2".into());
        for (account, is_taken) in [(&one, true), (&one, true), (&one, false), (&two, true)] {
            assert_eq!(model.take_request(account).await, is_taken);
        }
        // Another node, or this one after a restart.
        let counts = store.request_counts();
        while counts.since(RequestTarget::Model, "MA1", Timestamp::default()).await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!new().take_request(&one).await);
        clock.step(DAY + Duration::from_secs(61));
        assert!(new().take_request(&one).await);
        store.close().await;
    }
}
